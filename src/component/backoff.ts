import type { Context } from "./context.ts";

export interface BackoffOptions {
  /** Upper bound of the first wait, ms. */
  readonly initial: number;
  /** Upper bound of any wait, ms. */
  readonly max: number;
}

/**
 * Full-jitter exponential backoff: the n-th wait is a random time between 0 and min(max, initial × 2ⁿ), so
 * that many clients do not come back at the same moment.
 */
export class Backoff {
  readonly #context: Pick<Context, "random" | "clock" | "signal">;
  readonly #options: BackoffOptions;
  #attempts = 0;

  constructor(
    context: Pick<Context, "random" | "clock" | "signal">,
    options: BackoffOptions = { initial: 100, max: 30_000 },
  ) {
    this.#context = context;
    this.#options = options;
  }

  /** Failures since the last success. */
  get attempts(): number {
    return this.#attempts;
  }

  reset(): void {
    this.#attempts = 0;
  }

  /** The next wait in ms; counts an attempt. */
  next(): number {
    const ceiling = Math.min(this.#options.max, this.#options.initial * 2 ** Math.min(this.#attempts, 30));
    this.#attempts++;
    return this.#context.random.next() * ceiling;
  }

  /** Waits before the next attempt. Rejects with the signal's reason when the run is aborted. */
  wait(): Promise<void> {
    return pause(this.#context, this.next());
  }
}

/** Resolves after `delay` ms of the context's clock; rejects with the signal's reason when the run is aborted. */
export function pause(context: Pick<Context, "clock" | "signal">, delay: number): Promise<void> {
  const { clock, signal } = context;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = () => {
      timer.cancel();
      reject(signal.reason);
    };
    const timer = clock.after(delay, () => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
    signal.addEventListener("abort", abort, { once: true });
  });
}
