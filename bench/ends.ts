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
  /** Messages in it now: cheap, asked for again and again. */
  count(): Promise<number>;
  /** Reads all that is in it now. */
  read(visit: (key: string | null, value: Buffer) => void): Promise<void>;
  /** Reads as messages come; returns how to end that. */
  listen(visit: (value: Buffer) => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

/**
 * Throws unless the output is what the job makes of the orders: each once, by its customer's key, and those of a
 * customer in order. A copy that a retry makes would be at-least-once too, but no run here has a reason for one.
 *
 * @param keyed the output's messages have the customer for a key; a queue has no keys
 */
export async function checkOutput(output: Output, expected: number, keyed: boolean): Promise<void> {
  const seen = new Uint8Array(expected);
  const last = new Map<string, number>();
  let [count, twice, disordered, misplaced, foreign] = [0, 0, 0, 0, 0];
  await output.read((key, value) => {
    const { id, customer, seq } = JSON.parse(value.toString()) as {
      id: string;
      customer: string;
      seq: number;
    };
    const number = Number(id.slice(4));
    count++;
    if (!(number < expected)) foreign++;
    else if (seen[number] === 1) twice++;
    else {
      seen[number] = 1;
      if (seq <= (last.get(customer) ?? -1)) disordered++;
      last.set(customer, seq);
    }
    if (keyed && key !== customer) misplaced++;
  });
  const missing = seen.reduce((sum, one) => sum + 1 - one, 0);
  if (missing + twice + disordered + misplaced + foreign > 0) {
    throw new Error(
      `the output is wrong: ${count} messages for ${expected} orders, ${missing} missing, ${twice} twice, ${disordered} out of order, ${misplaced} with another key, ${foreign} unknown`,
    );
  }
}
