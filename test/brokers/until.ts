import { setTimeout as wait } from "node:timers/promises";

const EVERY_MS = 25;

/**
 * Asks `condition` again and again until it answers something true, and returns that answer.
 * Throws after `within` milliseconds, saying what was waited for; an error thrown by `condition` counts as
 * "not yet" and becomes the cause.
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  within = 60_000,
): Promise<Exclude<T, false | undefined | null | 0 | "">> {
  const deadline = performance.now() + within;
  for (;;) {
    let cause: unknown;
    try {
      const answer = await condition();
      if (answer) return answer as Exclude<T, false | undefined | null | 0 | "">;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${within} ms in vain until ${what}`, { cause });
    }
    await wait(EVERY_MS);
  }
}
