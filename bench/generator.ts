import type { Input } from "./ends.ts";
import type { Order } from "./orders.ts";

/** Sends one order after another, each as soon as it is due and stamped with the moment at which it was. */
export class Generator {
  readonly start = performance.now();
  readonly #input: Input;
  /** ms between two orders */
  readonly #every: number;
  readonly #orders: Iterator<Order>;
  readonly #outstanding: number;
  #next = 0;
  #pending = new Set<Promise<void>>();
  #failure: unknown;

  /**
   * @param rate orders a second
   * @param outstanding most sends on their way at once. With one, nothing can get ahead of an order, whatever the
   * client has to do in between, and what falls due meanwhile goes together.
   */
  constructor(
    input: Input,
    rate: number,
    orders: Iterator<Order>,
    outstanding: number = Number.POSITIVE_INFINITY,
  ) {
    this.#input = input;
    this.#every = 1_000 / rate;
    this.#orders = orders;
    this.#outstanding = outstanding;
  }

  /** Orders sent so far, or on their way. */
  get count(): number {
    return this.#next;
  }

  tick(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#pending.size >= this.#outstanding) return;
    const now = performance.now();
    const due: Order[] = [];
    for (; this.#due(this.#next) <= now; this.#next++) {
      const { done, value: order } = this.#orders.next();
      if (done === true) break;
      const stamp = Math.round(this.#due(this.#next) * 1_000);
      due.push({ key: order.key, value: order.value.replace(/"ts":\d+/, `"ts":${stamp}`) });
    }
    if (due.length === 0) return;
    const sending: Promise<void> = this.#input
      .send(due)
      .catch((error) => {
        this.#failure = error;
      })
      .finally(() => this.#pending.delete(sending));
    this.#pending.add(sending);
  }

  async end(): Promise<void> {
    await Promise.all(this.#pending);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** How many were due in [from, to). */
  dueIn(from: number, to: number): number {
    let count = 0;
    for (let i = 0; i < this.#next; i++) {
      // As the stamps are rounded.
      const due = Math.round(this.#due(i) * 1_000) / 1_000;
      if (due >= from && due < to) count++;
    }
    return count;
  }

  #due(index: number): number {
    return this.start + index * this.#every;
  }
}

/** When an order was due, by its stamp: ms on the generator's clock. */
export function dueOf(value: Buffer): number {
  return Number(/"ts":(\d+)/.exec(value.toString("latin1"))![1]) / 1_000;
}
