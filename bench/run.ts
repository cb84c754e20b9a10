// npm run bench -- [orders|embedded|record-batch-encode|record-batch-decode] [--pairs 5] [--messages 400000]
//   [--driver kafkajs|wire] [--save]
//
// Runs a job and its peer in turn, in processes of their own, and reports the ratio pair by pair: absolute
// figures drift with the machine, ratios of one run hold. Results go to bench/results/<job>.json with --save.
import { spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import kafkajs, { type Admin } from "kafkajs";
import { startKafka } from "../test/brokers/kafka.ts";
import { orders } from "./orders.ts";

const { Kafka, logLevel } = kafkajs;

/** One process run to its end. */
interface Sample {
  /** Messages a second. */
  readonly throughput: number;
  /** Processor time per message in µs; only where the whole process is the job. */
  readonly cpuMicros?: number;
  readonly peakMiB: number;
}

interface Job {
  readonly name: string;
  readonly peer: string;
  readonly messages: number;
  readonly goal: number;
  run(which: "ours" | "peer"): Promise<Sample>;
  close(): Promise<void>;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pairs: { type: "string", default: "5" },
    messages: { type: "string" },
    driver: { type: "string", default: "kafkajs" },
    save: { type: "boolean", default: false },
  },
});
const pairs = Number(values.pairs);
const messages = values.messages === undefined ? undefined : Number(values.messages);
if (!(pairs >= 1) || (messages !== undefined && !(messages >= 1_000))) {
  console.error(
    "usage: npm run bench -- [job…] [--pairs 5] [--messages 400000] [--driver kafkajs|wire] [--save]",
  );
  process.exit(2);
}
const jobs: Readonly<Record<string, () => Promise<Job>>> = {
  orders: () => ordersJob(messages ?? 400_000, values.driver),
  embedded: () => embeddedJob(messages ?? 200_000),
  "record-batch-encode": () => recordBatchJob("encode", 5, messages ?? 100_000),
  "record-batch-decode": () => recordBatchJob("decode", 1, messages ?? 100_000),
};
for (const name of positionals.length > 0 ? positionals : Object.keys(jobs)) {
  const make = jobs[name];
  if (make === undefined) {
    console.error(`no job "${name}"; there are: ${Object.keys(jobs).join(", ")}`);
    process.exit(2);
  }
  const job = await make();
  try {
    await compare(job);
  } finally {
    await job.close();
  }
}

async function compare(job: Job): Promise<void> {
  const ours: Sample[] = [];
  const peer: Sample[] = [];
  console.log(`${job.name}: ours against ${job.peer}, ${job.messages} messages, ${pairs} pairs in turn`);
  for (let pair = 0; pair < pairs; pair++) {
    // Who goes first alternates, so that neither always meets the warmer machine.
    for (const which of pair % 2 === 0 ? (["ours", "peer"] as const) : (["peer", "ours"] as const)) {
      const sample = await job.run(which);
      (which === "ours" ? ours : peer).push(sample);
    }
    const [mine, theirs] = [ours.at(-1)!, peer.at(-1)!];
    console.log(
      `  pair ${pair + 1}: ${kilo(mine.throughput)} against ${kilo(theirs.throughput)} k/s, ratio ${(mine.throughput / theirs.throughput).toFixed(2)}`,
    );
  }
  const result = {
    job: job.name,
    peer: job.peer,
    messages: job.messages,
    pairs,
    machine: { cpus: cpus().length, model: cpus()[0]?.model ?? "unknown", node: process.version },
    ratio: spread(ours.map(({ throughput }, i) => throughput / peer[i]!.throughput)),
    ours: figures(ours),
    [job.peer]: figures(peer),
  };
  const table = [
    `| ${job.name}, ${job.messages} messages | k msg/s (min – median – max) | CPU µs/msg | peak MiB |`,
    "| --- | --- | --- | --- |",
    row("ours", ours),
    row(job.peer, peer),
    "",
    `ratio of throughput, pair by pair: ${result.ratio.min} – ${result.ratio.median} – ${result.ratio.max} (goal: at least ${job.goal})`,
  ].join("\n");
  console.log(`\n${table}\n`);
  if (values.save) {
    await mkdir(new URL("results/", import.meta.url), { recursive: true });
    await writeFile(
      new URL(`results/${job.name}.json`, import.meta.url),
      `${JSON.stringify(result, null, 2)}\n`,
    );
    await writeFile(new URL(`results/${job.name}.md`, import.meta.url), `${table}\n`);
  }
}

/** A copy of the orders topology with this Kafka driver; `remove` throws it away. */
async function ordersTopology(driver: string) {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const original = new URL("../topologies/", import.meta.url);
  const text = await readFile(new URL("orders.ts", original), "utf8");
  await writeFile(join(folder, "orders.ts"), text.replace("kafka({", `kafka({ driver: "${driver}",`));
  await copyFile(new URL("orders.schema.ts", original), join(folder, "orders.schema.ts"));
  return { file: join(folder, "orders.ts"), remove: () => rm(folder, { recursive: true }) };
}

/** Orders from topic to topic on a real broker, against the same job written by hand on kafkajs. */
async function ordersJob(count: number, driver: string): Promise<Job> {
  const topology = await ordersTopology(driver);
  const owned = process.env.KAFKA_BROKERS === undefined ? await startKafka() : undefined;
  const brokers = owned?.bootstrap ?? process.env.KAFKA_BROKERS!;
  const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await recreate(admin, ["orders", "orders.dead"]);
  const producer = kafka.producer();
  await producer.connect();
  let part: { key: string; value: string }[] = [];
  for (const order of orders(count)) {
    part.push(order);
    if (part.length === 5_000) {
      await producer.send({ topic: "orders", messages: part });
      part = [];
    }
  }
  if (part.length > 0) await producer.send({ topic: "orders", messages: part });
  await producer.disconnect();
  return {
    name: driver === "kafkajs" ? "orders" : `orders-${driver}`,
    peer: "hand-written kafkajs",
    messages: count,
    goal: 0.95,
    async run(which) {
      await recreate(admin, ["orders.accepted"]);
      await admin.deleteGroups(["orders"]).catch(() => {});
      const command =
        which === "ours"
          ? ["bin/millrace.js", "run", topology.file]
          : ["--conditions=millrace:source", "bench/peers/orders-kafkajs.ts"];
      return watchTopic(admin, "orders.accepted", count, command, { ...process.env, KAFKA_BROKERS: brokers });
    },
    async close() {
      await admin.disconnect();
      await owned?.stop();
      await topology.remove();
    },
  };
}

/** Starts a process and times the growth of its output topic, from its first messages to the last. */
async function watchTopic(
  admin: Admin,
  topic: string,
  expected: number,
  command: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Sample> {
  const child = spawn(process.execPath, command, { env, stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  let exited = false;
  ended.then(() => {
    exited = true;
  });
  let first: { at: number; count: number; cpu: number } | undefined;
  for (;;) {
    const offsets = await admin.fetchTopicOffsets(topic);
    const at = performance.now();
    const count = offsets.reduce((sum, { offset }) => sum + Number(offset), 0);
    if (first === undefined && count > 0) first = { at, count, cpu: await cpuMicros(child.pid!) };
    if (count >= expected && first !== undefined) {
      const cpu = await cpuMicros(child.pid!);
      const peakMiB = await peak(child.pid!);
      child.kill("SIGTERM");
      await ended;
      return {
        throughput: (count - first.count) / ((at - first.at) / 1_000),
        cpuMicros: (cpu - first.cpu) / (count - first.count),
        peakMiB,
      };
    }
    if (exited) throw new Error(`${command.join(" ")} ended early, after ${count} of ${expected} messages`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The orders pipeline on the embedded broker, against a plain loop with the same parse, schema and dedup. */
async function embeddedJob(count: number): Promise<Job> {
  return {
    name: "embedded",
    peer: "plain loop",
    messages: count,
    goal: 0.7,
    run: (which) => sampleOf(["bench/embedded.ts", which === "ours" ? "pipeline" : "loop", String(count)]),
    async close() {},
  };
}

/** Record batches encoded or decoded, uncompressed, against kafkajs' own code. */
async function recordBatchJob(what: "encode" | "decode", goal: number, count: number): Promise<Job> {
  return {
    name: `record-batch-${what}`,
    peer: "kafkajs",
    messages: count,
    goal,
    run: (which) =>
      sampleOf(["bench/record-batch.ts", what, which === "ours" ? "ours" : "kafkajs", String(count)]),
    async close() {},
  };
}

/** Runs a script to its end and takes the sample it prints. */
async function sampleOf(command: readonly string[]): Promise<Sample> {
  const child = spawn(process.execPath, ["--conditions=millrace:source", ...command], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const code = await new Promise((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}`);
  return JSON.parse(output) as Sample;
}

async function recreate(admin: Admin, topics: readonly string[]): Promise<void> {
  const existing = await admin.listTopics();
  const old = topics.filter((topic) => existing.includes(topic));
  if (old.length > 0) await admin.deleteTopics({ topics: old });
  for (const topic of topics) {
    // The name of a deleted topic is free a moment later.
    for (let attempt = 0; ; attempt++) {
      try {
        await admin.createTopics({
          waitForLeaders: true,
          topics: [{ topic, numPartitions: 4, replicationFactor: 1 }],
        });
        break;
      } catch (error) {
        if (attempt > 50) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }
}

/** Processor time of a process so far, from the kernel's books (in ticks of 10 ms). */
async function cpuMicros(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * 10_000;
}

async function peak(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/VmHWM:\s+(\d+) kB/.exec(text)?.[1] ?? 0) / 1_024;
}

function spread(numbers: readonly number[]): { min: number; median: number; max: number } {
  const sorted = [...numbers].sort((a, b) => a - b);
  const round = (value: number | undefined) => Math.round((value ?? 0) * 100) / 100;
  return { min: round(sorted[0]), median: round(sorted[sorted.length >> 1]), max: round(sorted.at(-1)) };
}

function figures(samples: readonly Sample[]) {
  const cpu = samples.flatMap(({ cpuMicros: micros }) => (micros === undefined ? [] : [micros]));
  return {
    throughput: spread(samples.map(({ throughput }) => throughput)),
    ...(cpu.length > 0 ? { cpuMicros: spread(cpu) } : {}),
    peakMiB: spread(samples.map(({ peakMiB }) => peakMiB)),
  };
}

function row(name: string, samples: readonly Sample[]): string {
  const { throughput, cpuMicros: cpu, peakMiB } = figures(samples);
  return `| ${name} | ${kilo(throughput.min)} – ${kilo(throughput.median)} – ${kilo(throughput.max)} | ${cpu?.median ?? ""} | ${Math.round(peakMiB.median)} |`;
}

function kilo(value: number): string {
  return (value / 1_000).toFixed(1);
}
