import type { Context, Random } from "../component/context.ts";
import { SimulatedClock } from "./clock.ts";

/** A small, fast generator (mulberry32) for reproducible chance: the same seed gives the same numbers. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    },
  };
}

export interface TestContext extends Context {
  readonly clock: SimulatedClock;
  readonly counted: Map<string, number>;
  readonly logged: string[];
  abort(reason?: unknown): void;
}

/** A context under virtual time, with work done at once, chance from `seed`, and log lines kept. */
export function testContext(seed = 1, overrides: Partial<Context> = {}): TestContext {
  const controller = new AbortController();
  const counted = new Map<string, number>();
  const logged: string[] = [];
  const log = (level: string) => (fields: object, text: string) => {
    logged.push(`${level} ${text} ${JSON.stringify(fields)}`);
  };
  return {
    random: seededRandom(seed),
    work: { run: async (task) => task.run() },
    signal: controller.signal,
    logger: { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") },
    meter: { count: (name, by = 1) => counted.set(name, (counted.get(name) ?? 0) + by) },
    embedded: undefined,
    node: "test",
    ...overrides,
    clock: new SimulatedClock(),
    counted,
    logged,
    abort: (reason) => controller.abort(reason ?? new Error("aborted")),
  };
}
