import type { Clock, Timer } from "../component/context.ts";

interface Scheduled {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/**
 * Virtual time. It stands still until a test moves it, deferred work runs only when asked to, and everything
 * happens in one reproducible order: by time, then by the order of scheduling.
 */
export class SimulatedClock implements Clock {
  #now = 0;
  #wall: number;
  #order = 0;
  #scheduled: Scheduled[] = [];

  constructor(wall = Date.UTC(2026, 0, 1)) {
    this.#wall = wall;
  }

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#wall + this.#now;
  }

  /** Moves the wall clock alone, as an administrator or NTP would. */
  jumpWall(by: number): void {
    this.#wall += by;
  }

  after(delay: number, run: () => void): Timer {
    if (!(delay >= 0 && delay <= 2 ** 31 - 1)) throw new RangeError(`a timer cannot wait ${delay} ms`);
    const entry: Scheduled = { at: this.#now + delay, order: this.#order++, run };
    this.#scheduled.push(entry);
    return {
      cancel: () => {
        this.#scheduled = this.#scheduled.filter((other) => other !== entry);
      },
    };
  }

  defer(run: () => void): void {
    this.after(0, run);
  }

  /** Timers and deferred work not yet run. */
  get pending(): number {
    return this.#scheduled.length;
  }

  /** Runs the earliest thing scheduled, moving time to it. Returns false when there is none up to `until`. */
  step(until = Number.POSITIVE_INFINITY): boolean {
    let next: Scheduled | undefined;
    for (const entry of this.#scheduled) {
      if (next === undefined || entry.at < next.at || (entry.at === next.at && entry.order < next.order)) {
        next = entry;
      }
    }
    if (next === undefined || next.at > until) return false;
    const chosen = next;
    this.#scheduled = this.#scheduled.filter((other) => other !== chosen);
    this.#now = Math.max(this.#now, chosen.at);
    chosen.run();
    return true;
  }

  /** Moves time on by `ms`, running what falls due on the way. Promises between are not awaited: see {@link run}. */
  advance(ms: number): void {
    const end = this.#now + ms;
    while (this.step(end));
    this.#now = end;
  }

  /** Moves time on by `ms`, letting every promise settle before and after each thing that falls due. */
  async run(ms: number): Promise<void> {
    const end = this.#now + ms;
    do {
      await settlePromises();
    } while (this.step(end));
    this.#now = end;
    await settlePromises();
  }
}

/** Lets all promise reactions that are ready, and those they make ready, run. */
export function settlePromises(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
