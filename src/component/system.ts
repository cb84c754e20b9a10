import type { Clock, Random, Task, Work } from "./context.ts";

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(delay, run) {
    const timer = setTimeout(run, delay);
    return { cancel: () => clearTimeout(timer) };
  },
  defer: (run) => {
    setImmediate(run);
  },
};

export const systemRandom: Random = { next: () => Math.random() };

/** Offloads at most `limit` tasks at once; the others wait their turn, bounded by the credit of their callers. */
export class PooledWork implements Work {
  readonly #limit: number;
  readonly #queue: (() => void)[] = [];
  #running = 0;

  constructor(limit = 2) {
    this.#limit = limit;
  }

  async run<T>(task: Task<T>): Promise<T> {
    if (this.#running >= this.#limit) await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#running++;
    try {
      return await task.offload();
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
