// The orders job as a plain loop on the connector's own driver "wire", without topology, operators or runtime: what
// the framework costs is the distance to it.
import type { LRUCache } from "lru-cache";
import type { Producer, TopicPartition } from "../../src/connectors/kafka/driver.ts";
import { wireDriver } from "../../src/connectors/kafka/drivers/wire/driver.ts";
import { kafkaSettings } from "../../src/connectors/kafka/options.ts";
import { murmur2Partition } from "../../src/connectors/kafka/partitioner.ts";
import { Batch, type Codec } from "../../src/message/batch.ts";
import { Chunk } from "../../src/message/chunk.ts";
import { KeyWriter } from "../../src/message/key-column.ts";
import { Lane } from "../../src/message/lane.ts";
import type { Records } from "../../src/message/records.ts";
import { benchContext } from "../context.ts";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const input = told("BENCH_INPUT");
const output = told("BENCH_OUTPUT");
const codec = (process.env.BENCH_CODEC ?? "none") as Codec;
const batchCount = 1_000;
/** Most messages that wait to be looked at, beside those that are being written. */
const waitingLimit = 5_000;
const commitEvery = 1_000;

const context = benchContext();
const client = wireDriver.connect(kafkaSettings({ brokers: told("KAFKA_BROKERS") }), context);
const producer: Producer = await client.producer();
const { partitions } = (await client.describe([output])).get(output)!;
const targets = Array.from({ length: partitions }, (_, partition) => ({
  name: `${output}/${partition}`,
  topic: output,
  partition,
}));

interface Fetched {
  readonly from: TopicPartition;
  readonly records: Records;
  readonly next: number;
}

const waiting: Fetched[] = [];
let waitingCount = 0;
let owned: readonly TopicPartition[] = [];
let paused = false;
const seen = new Map<number, LRUCache<string, true>>();
const positions = new Map<number, number>();
const committed = new Map<number, number>();
let writing: Promise<void> = Promise.resolve();
/** Ids on their way out: remembered only once they are written. */
let leaving = new Set<string>();
let working: Promise<void> | undefined;
let stopped = false;
const ledger = { taken() {}, settled() {}, branched() {} };

const subscription = await client.subscribe(
  {
    group: told("BENCH_GROUP"),
    topics: [input],
    sessionTimeout: 30_000,
    rebalanceTimeout: 60_000,
    heartbeatInterval: 3_000,
    maxBytesPerPartition: 2 ** 20,
    maxWait: 500,
    metadataAge: 30_000,
  },
  {
    assigned(all) {
      owned = all;
    },
    async revoking() {},
    records(from, records, next) {
      waiting.push({ from, records, next });
      waitingCount += records.length;
      if (waitingCount > waitingLimit && !paused) {
        paused = true;
        subscription.pause(owned);
      }
      working ??= work().catch(fail);
    },
    passed() {},
    outOfRange() {},
    trouble(error, fatal) {
      if (fatal) fail(error);
    },
  },
);

async function work(): Promise<void> {
  for (let one = waiting.shift(); one !== undefined && !stopped; one = waiting.shift()) {
    waitingCount -= one.records.length;
    if (paused && waitingCount <= waitingLimit / 2) {
      paused = false;
      subscription.resume(owned);
    }
    await take(one);
  }
  working = undefined;
}

async function take({ from, records, next }: Fetched): Promise<void> {
  let cache = seen.get(from.partition);
  if (cache === undefined) {
    cache = recentIds(25_000);
    seen.set(from.partition, cache);
  }
  const lane = new Lane({
    origin: { source: "bench", ...from, target: from.topic },
    epoch: 1,
    ack: "cumulative",
    ledger,
  });
  const chunk = new Chunk(lane, lane, lane.take(records, 0, records.length), records.length, records, 0);
  const keys = new KeyWriter(records.length);
  const ids = new Set<string>();
  const batches = new Map<number, Batch>();
  for (let i = 0; i < records.length; i++) {
    const value = records.value(i)!;
    const { id, customer } = checkedOrder(value);
    if (cache.has(id) || leaving.has(id) || ids.has(id)) continue;
    ids.add(id);
    const key = Buffer.from(customer);
    keys.write(i, key);
    const partition = murmur2Partition(key, partitions);
    let batch = batches.get(partition);
    if (batch === undefined) {
      batch = new Batch(targets[partition]!, 0);
      batch.codec = codec;
      batches.set(partition, batch);
    }
    batch.add(chunk, i, key.length + value.length);
  }
  chunk.keys = keys.finish();
  const before = writing;
  const encoded = await Promise.all(
    [...batches].map(([partition, batch]) => {
      const parts = [];
      for (let start = 0; start < batch.length; start += batchCount) {
        const end = Math.min(batch.length, start + batchCount);
        parts.push(producer.encode(targets[partition]!, batch, start, end));
      }
      return Promise.all(parts);
    }),
  );
  // The batches of one fetch are written while the next is looked at, and after those of the one before.
  await before;
  leaving = ids;
  writing = (async () => {
    for (let round = 0; encoded.some((parts) => parts.length > round); round++) {
      const sent = encoded.flatMap((parts) => parts[round] ?? []);
      const results = await producer.send(sent);
      const failed = results.find(({ error }) => error !== undefined);
      if (failed !== undefined || results.length < sent.length)
        throw failed?.error ?? new Error("unanswered");
    }
    for (const id of ids) cache.set(id, true);
    positions.set(from.partition, next);
  })();
  writing.catch(fail);
}

async function commit(): Promise<void> {
  const fresh = [...positions].filter(([partition, offset]) => committed.get(partition) !== offset);
  if (fresh.length === 0) return;
  await subscription.commit(fresh.map(([partition, offset]) => ({ topic: input, partition, offset })));
  for (const [partition, offset] of fresh) committed.set(partition, offset);
}

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

const commits = setInterval(() => commit().catch(fail), commitEvery);

process.on("SIGTERM", async () => {
  stopped = true;
  clearInterval(commits);
  await working;
  await writing;
  await commit();
  const deadline = context.clock.now() + 5_000;
  await subscription.close(deadline);
  await client.close(deadline);
  process.exit(0);
});
