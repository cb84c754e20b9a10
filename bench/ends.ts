import type { Order } from "./orders.ts";

/** Where a job reads: a topic or a queue. */
export interface Input {
  /** Makes it ready for one run: every order in it, or nothing. Returns what the job is told by its environment. */
  prepare(what: "full" | "empty"): Promise<Readonly<Record<string, string>>>;
  /** Messages that are not acknowledged, once the job has ended. */
  unacknowledged(): Promise<number>;
  /** Adds orders to an input that was prepared empty. */
  send(orders: readonly Order[]): Promise<void>;
  close(): Promise<void>;
}

/** Where a job writes. */
export interface Output {
  /** Makes it empty for one run. Returns what the job is told by its environment. */
  prepare(): Promise<Readonly<Record<string, string>>>;
  /** Messages written to it: cheap, asked for again and again. */
  count(): Promise<number>;
  /** Reads all that is in it now. */
  read(visit: (key: string | null, value: Buffer) => void): Promise<void>;
  /** Reads as messages come; returns how to end that. */
  listen(visit: (key: string | null, value: Buffer) => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

/**
 * Looks at an output message by message: is it what the job makes of the orders, each once, by its customer's key, and
 * those of a customer in order? A copy that a retry makes would be at-least-once too, but no run here has a reason
 * for one.
 */
export class OutputCheck {
  /** Messages seen so far. */
  count = 0;
  readonly #seen: Uint8Array;
  readonly #keyed: boolean;
  readonly #last = new Map<string, number>();
  #twice = 0;
  #disordered = 0;
  #misplaced = 0;
  #foreign = 0;

  /**
   * @param expected different orders
   * @param keyed the output's messages have the customer for a key; a queue has no keys
   */
  constructor(expected: number, keyed: boolean) {
    this.#seen = new Uint8Array(expected);
    this.#keyed = keyed;
  }

  see(key: string | null, value: Buffer): void {
    const { id, customer, seq } = JSON.parse(value.toString()) as {
      id: string;
      customer: string;
      seq: number;
    };
    const number = Number(id.slice(4));
    this.count++;
    if (!(number < this.#seen.length)) this.#foreign++;
    else if (this.#seen[number] === 1) this.#twice++;
    else {
      this.#seen[number] = 1;
      if (seq <= (this.#last.get(customer) ?? -1)) this.#disordered++;
      this.#last.set(customer, seq);
    }
    if (this.#keyed && key !== customer) this.#misplaced++;
  }

  /** Throws, with what is wrong, unless what was seen is the whole output and right; `parts` orders may be there twice. */
  assertRight(parts = 0): void {
    const missing = this.#seen.reduce((sum, one) => sum + 1 - one, 0);
    const [twice, disordered, misplaced, foreign] = [
      this.#twice,
      this.#disordered,
      this.#misplaced,
      this.#foreign,
    ];
    if (missing + Math.max(0, twice - parts) + disordered + misplaced + foreign > 0) {
      throw new Error(
        `the output is wrong: ${this.count} messages for ${this.#seen.length} orders, ${missing} missing, ${twice} twice, ${disordered} out of order, ${misplaced} with another key, ${foreign} unknown`,
      );
    }
  }
}

/** Throws unless all that is in the output now passes an {@link OutputCheck}. */
export async function checkOutput(
  output: Output,
  expected: number,
  keyed: boolean,
  parts?: number,
): Promise<void> {
  const check = new OutputCheck(expected, keyed);
  await output.read((key, value) => check.see(key, value));
  check.assertRight(parts);
}
