import { setTimeout as wait } from "node:timers/promises";
import { ours } from "./contestants.ts";
import { OutputCheck } from "./ends.ts";
import { dueOf, Generator } from "./generator.ts";
import { latencyRate, repeat } from "./jobs.ts";
import { KafkaInput, KafkaOutput, KafkaSide, type Retained } from "./kafka-ends.ts";
import { orders } from "./orders.ts";
import { MeasuredProcess } from "./process.ts";
import { machine, rounded, save } from "./report.ts";
import { percentiles } from "./sample.ts";

/** Of a partition: together some 200 s of either topic, and the run fails if ours or the reader falls behind that. */
const retained: Retained = { "retention.bytes": String(2 ** 26), "segment.bytes": String(2 ** 24) };
const partitions = 4;
/** Compiled code, and dedup's memory full: its 100,000 ids have come after 21 s, from when on it forgets. ms */
const warmUp = 60_000;
const windowCount = 6;
/** Between two looks at the process, ms. */
const lookEvery = 100;
/** Longest that nothing may be added to the output, ms. */
const stuckAfter = 60_000;
/** What the last window may cost, in the first one's cost. */
const atMost = 1.1;

/** One part of the run. */
interface Window {
  /** Read by the job. */
  readonly messages: number;
  /** µs a message, of the job's process. */
  readonly cpu: number;
  /** The highest seen. */
  readonly peakMiB: number;
  readonly p50: number;
  readonly p99: number;
  /**
   * µs a message, of the process that sends and reads: the same work throughout, so what changes here is the machine.
   */
  readonly control: number;
}

const columns = {
  messages: "messages",
  cpu: "CPU µs/msg",
  peakMiB: "peak MiB",
  p50: "p50 ms",
  p99: "p99",
  control: "CPU µs/msg of sender and reader",
} as const satisfies Record<keyof Window, string>;

const fields = Object.keys(columns) as (keyof Window)[];

/** The job of `orders` at a fixed rate for a long time, in windows: does a message cost more at the end? */
export const endurance = {
  name: "endurance",

  /** @param minutes after the warm-up */
  async run(minutes: number, keep: boolean): Promise<void> {
    const length = (minutes * 60_000) / windowCount;
    const title = `endurance: ${latencyRate.toLocaleString("en")} messages a second for ${minutes} minutes, after one of warm-up`;
    console.log(title);
    const windows = await measured(length);
    const [first, last] = [windows[0]!, windows.at(-1)!];
    const ratios = Object.fromEntries(
      fields.map((field) => [field, rounded(last[field] / first[field])]),
    ) as Record<keyof Window, number>;
    const row = (name: string, values: Window) =>
      `| ${[name, ...fields.map((field) => values[field])].join(" | ")} |`;
    const table = [
      title,
      "",
      `| ${["minutes", ...fields.map((field) => columns[field])].join(" | ")} |`,
      `| ${["---", ...fields.map(() => "---")].join(" | ")} |`,
      ...windows.map((window, i) =>
        row(`${rounded((i * length) / 60_000)} – ${rounded(((i + 1) * length) / 60_000)}`, window),
      ),
      row("last window to the first", ratios),
      "",
      `- ${ratios.cpu <= atMost ? "reached" : "MISSED"}: CPU a message at most ${atMost} of the first window's, in the last ${ratios.cpu}`,
    ].join("\n");
    console.log(`\n${table}\n`);
    if (keep) {
      await save(
        "endurance",
        { job: "endurance", rate: latencyRate, minutes, machine, windows, ratios },
        table,
      );
    }
  },
};

/** @param length of a window, ms */
async function measured(length: number): Promise<Window[]> {
  const side = await KafkaSide.open();
  const input = new KafkaInput(side, () => [], partitions, retained);
  const output = new KafkaOutput(side, partitions, retained);
  try {
    return await measuredBetween(input, output, length);
  } finally {
    await input.close();
    await output.close();
    await side.close();
  }
}

async function measuredBetween(input: KafkaInput, output: KafkaOutput, length: number): Promise<Window[]> {
  const seconds = (warmUp + windowCount * length) / 1_000;
  const expected = Math.floor((latencyRate * seconds * repeat) / (repeat + 1));
  const env = { ...(await input.prepare("empty")), ...(await output.prepare()) };
  const check = new OutputCheck(expected, true);
  let from = Number.POSITIVE_INFINITY;
  const latencies: number[][] = Array.from({ length: windowCount }, () => []);
  const stopReading = await output.listen((key, value) => {
    const now = performance.now();
    check.see(key, value);
    const due = dueOf(value);
    if (due >= from) latencies[Math.floor((due - from) / length)]?.push(now - due);
  });
  const command = await ours("orders.ts").command();
  const process = new MeasuredProcess({ ...command, env: { ...command.env, ...env } });
  try {
    // One at a time, so that the order of the input can be told from the output's.
    const generator = new Generator(input, latencyRate, orders(expected, undefined, repeat), 1);
    from = generator.start + warmUp;
    const books = () => ({ cpu: process.cpu(), control: ownCpu(), messages: generator.count });
    const costs: Omit<Window, "p50" | "p99">[] = [];
    let before: ReturnType<typeof books> | undefined;
    let [peakMiB, look, grewAt, count] = [0, 0, generator.start, 0];
    while (costs.length < windowCount) {
      generator.tick();
      await wait(1);
      const now = performance.now();
      if (now < look) continue;
      look = now + lookEvery;
      process.assertRuns();
      peakMiB = Math.max(peakMiB, process.residentMiB());
      if (check.count > count) [grewAt, count] = [now, check.count];
      if (now - grewAt > stuckAfter) throw new Error(`the output stands still at ${count} of ${expected}`);
      if (now < from + (before === undefined ? 0 : costs.length + 1) * length) continue;
      const after = books();
      if (before !== undefined) {
        const messages = after.messages - before.messages;
        const cpu = rounded((after.cpu - before.cpu) / messages);
        const control = rounded((after.control - before.control) / messages);
        costs.push({ messages, cpu, peakMiB: rounded(peakMiB), control });
        console.log(
          `  window ${costs.length}: ${messages} messages, ${cpu} µs each, ${rounded(peakMiB)} MiB`,
        );
      }
      before = after;
      peakMiB = 0;
    }
    // The last few fall due with the end of the last window.
    for (; check.count < expected; await wait(1)) {
      generator.tick();
      process.assertRuns();
      if (check.count > count) [grewAt, count] = [performance.now(), check.count];
      if (performance.now() - grewAt > stuckAfter)
        throw new Error(`the output stands still at ${count} of ${expected}`);
    }
    await generator.end();
    await process.stop();
    check.assertRight();
    const written = await output.count();
    const unacknowledged = await input.unacknowledged();
    if (written !== expected || unacknowledged > 0) {
      throw new Error(
        `${written} messages were written for ${expected} orders, the process ${process.end}, and left ${unacknowledged} unacknowledged`,
      );
    }
    return costs.map((cost, i) => {
      const { p50, p99 } = percentiles(latencyRate, Float64Array.from(latencies[i]!));
      return { ...cost, p50: rounded(p50), p99: rounded(p99) };
    });
  } finally {
    await process.stop();
    await stopReading();
  }
}

function ownCpu(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}
