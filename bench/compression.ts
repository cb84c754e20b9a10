// From which size on compressing and restoring a record batch is better left to the thread pool: what the event loop is
// busy for, done at once and offloaded, and the processor time of the whole process. Orders of about 230 bytes; the
// least of many rounds, so that other load on the machine matters little.
//
// node bench/compression.ts [codec…]
import { type Compression, compressTask, decompressTask } from "../src/component/codec.ts";
import type { Task } from "../src/component/context.ts";
import { PooledWork } from "../src/component/system.ts";
import { codecs } from "../src/message/batch.ts";
import { orders } from "./orders.ts";

interface Cost {
  /** µs for which nothing else could run. */
  readonly loop: number;
  /** µs of processor time, all threads. */
  readonly cpu: number;
}

const kibibytes = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const rounds = 30;
const text = Buffer.from([...orders(3_000)].map(({ value }) => value).join("\n"));
const work = new PooledWork();

/** So many tasks of one kind, one after the other, as a sink with one batch under way has them. */
async function measure(task: () => Task<Buffer>, offload: boolean, count: number): Promise<Cost> {
  let loop = Number.POSITIVE_INFINITY;
  let cpu = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    const before = performance.eventLoopUtilization();
    const used = process.cpuUsage();
    for (let i = 0; i < count; i++) {
      if (offload) await work.run(task());
      else {
        task().run();
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
    loop = Math.min(loop, (1_000 * performance.eventLoopUtilization(before).active) / count);
    const { user, system } = process.cpuUsage(used);
    cpu = Math.min(cpu, (user + system) / count);
  }
  return { loop, cpu };
}

const chosen = process.argv.slice(2);
const rows = [
  "| codec | KiB | compress: loop at once → offloaded (CPU), µs | restore |",
  "| --- | --- | --- | --- |",
];
for (const codec of codecs) {
  if (codec === "none" || (chosen.length > 0 && !chosen.includes(codec))) continue;
  for (const size of kibibytes) {
    const input = text.subarray(0, size * 1_024);
    const packed = compressTask(codec, input, { snappy: "xerial" }).run();
    const count = Math.max(4, Math.round(128 / size));
    const cells: string[] = [];
    for (const task of tasks(codec, input, packed)) {
      const at = await measure(task, false, count);
      const off = await measure(task, true, count);
      cells.push(
        `${at.loop.toFixed(0)} → ${off.loop.toFixed(0)} (${at.cpu.toFixed(0)} → ${off.cpu.toFixed(0)})`,
      );
    }
    rows.push(`| ${codec} | ${size} | ${cells.join(" | ")} |`);
    console.log(rows.at(-1));
  }
}
console.log(`\n${rows.join("\n")}`);

function tasks(codec: Compression, input: Buffer, packed: Buffer): (() => Task<Buffer>)[] {
  return [
    () => compressTask(codec, input, { snappy: "xerial" }),
    () => decompressTask(codec, packed, { maxBytes: 2 ** 28 }),
  ];
}
