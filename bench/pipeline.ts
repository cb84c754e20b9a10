import { setTimeout as wait } from "node:timers/promises";
import type { Contestant } from "./contestants.ts";
import { checkOutput, type Input, type Output } from "./ends.ts";
import { dueOf, Generator } from "./generator.ts";
import { orders } from "./orders.ts";
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
      await checkOutput(this.#output, this.#expected, this.#keyed, contestant.parts);
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
    const stop = await this.#output.listen((_key, value) => {
      const now = performance.now();
      firstAt ??= now;
      const due = dueOf(value);
      if (due >= from && due < to) latencies.push(now - due);
    });
    const process =
      command === undefined
        ? undefined
        : new MeasuredProcess({ ...command, env: { ...command.env, ...env } });
    try {
      const generator = new Generator(this.#input, rate, orders(Number.POSITIVE_INFINITY));
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
