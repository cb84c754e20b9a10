import { setTimeout as wait } from "node:timers/promises";
import type { Contestant } from "./contestants.ts";
import { checkOutput, type Input, type Output } from "./ends.ts";
import { type Order, orders } from "./orders.ts";
import { MeasuredProcess } from "./process.ts";
import { type Latency, type Point, percentiles, type Sample, sampleOf } from "./sample.ts";

/** Between two looks at the output, ms. */
const lookEvery = 50;
/** Longest that nothing may be added to the output, ms. */
const stuckAfter = 60_000;

/** A job's input and output on real brokers, with a way to run a contestant between them. */
export class Pipeline {
  readonly #input: Input;
  readonly #output: Output;
  /** Different orders. */
  readonly #expected: number;
  /** Messages in the input for each of them. */
  readonly #inputs: number;
  readonly #keyed: boolean;

  /** @param keyed the job gives its output the customer for a key */
  constructor(input: Input, output: Output, expected: number, inputs: number, keyed: boolean) {
    this.#input = input;
    this.#output = output;
    this.#expected = expected;
    this.#inputs = inputs;
    this.#keyed = keyed;
  }

  /** Runs it over the whole input. Its time counts only if what it wrote and acknowledged is right. */
  async throughput(contestant: Contestant): Promise<Sample> {
    const command = await contestant.command();
    const env = { ...(await this.#input.prepare("full")), ...(await this.#output.prepare()) };
    const start = performance.now();
    const process = new MeasuredProcess({ ...command, env: { ...command.env, ...env } });
    try {
      const points: Point[] = [];
      let grewAt = start;
      for (let count = 0; count < this.#expected; ) {
        await wait(lookEvery);
        process.assertRuns();
        const now = await this.#output.count();
        const at = performance.now();
        if (now > count) grewAt = at;
        count = now;
        points.push({ at, count, cpu: process.cpu() });
        if (at - grewAt > stuckAfter)
          throw new Error(`${contestant.name} stands still at ${count} of ${this.#expected}`);
      }
      const { peakMiB } = process;
      await process.stop();
      await checkOutput(this.#output, this.#expected, this.#keyed);
      const unacknowledged = contestant.promisesLess === true ? 0 : await this.#input.unacknowledged();
      if (unacknowledged > 0) {
        throw new Error(
          `${contestant.name} ${process.end}, and left ${unacknowledged} messages unacknowledged`,
        );
      }
      return sampleOf(start, points, this.#inputs, peakMiB);
    } finally {
      await process.stop();
    }
  }

  /**
   * Sends orders at a fixed rate, each stamped with the moment it was *due*: a generator that is held up makes the
   * messages late, and their lateness is counted (no coordinated omission). One reader of the output takes the time.
   *
   * @param warmUp after the first message has come through, ms
   * @param during ms
   */
  async latency(
    contestant: Contestant | undefined,
    { rate, warmUp, during }: { readonly rate: number; readonly warmUp: number; readonly during: number },
  ): Promise<Latency> {
    const env = { ...(await this.#input.prepare("empty")), ...(await this.#output.prepare()) };
    const command = await contestant?.command();
    let firstAt: number | undefined;
    let [from, to] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    const latencies: number[] = [];
    const stop = await this.#output.listen((value) => {
      const now = performance.now();
      firstAt ??= now;
      const due = Number(/"ts":(\d+)/.exec(value.toString("latin1"))![1]) / 1_000;
      if (due >= from && due < to) latencies.push(now - due);
    });
    const process =
      command === undefined
        ? undefined
        : new MeasuredProcess({ ...command, env: { ...command.env, ...env } });
    try {
      const generator = new Generator(this.#input, rate);
      while (performance.now() < to) {
        generator.tick();
        await wait(1);
        process?.assertRuns();
        if (firstAt !== undefined && from === Number.POSITIVE_INFINITY) {
          from = firstAt + warmUp;
          to = from + during;
        }
        if (firstAt === undefined && performance.now() - generator.start > stuckAfter)
          throw new Error(`${contestant?.name} lets nothing through`);
      }
      await generator.end();
      const expected = generator.dueIn(from, to);
      for (const until = performance.now() + stuckAfter; latencies.length < expected; await wait(10)) {
        if (performance.now() > until)
          throw new Error(`${expected - latencies.length} of ${expected} messages never came through`);
      }
      if (latencies.length > expected)
        throw new Error(`${latencies.length - expected} of ${expected} messages came twice`);
      return percentiles(rate, Float64Array.from(latencies));
    } finally {
      await process?.stop();
      await stop();
    }
  }

  async close(): Promise<void> {
    await this.#input.close();
    await this.#output.close();
  }
}

/** Sends one order after another, each as soon as it is due. */
class Generator {
  readonly start = performance.now();
  readonly #input: Input;
  /** ms between two orders */
  readonly #every: number;
  readonly #orders = orders(Number.POSITIVE_INFINITY);
  #next = 0;
  #pending = new Set<Promise<void>>();
  #failure: unknown;

  constructor(input: Input, rate: number) {
    this.#input = input;
    this.#every = 1_000 / rate;
  }

  tick(): void {
    if (this.#failure !== undefined) throw this.#failure;
    const now = performance.now();
    const due: Order[] = [];
    for (; this.#due(this.#next) <= now; this.#next++) {
      const { key, value } = this.#orders.next().value as Order;
      const stamp = Math.round(this.#due(this.#next) * 1_000);
      due.push({ key, value: value.replace(/"ts":\d+/, `"ts":${stamp}`) });
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
