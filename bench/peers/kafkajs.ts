// The orders job as one would write it by hand on kafkajs: the same parse, schema, dedup, key, batch size and commit
// interval as the topology, with at-least-once delivery. Each partition's batch is written before the next is taken.
import kafkajs, { type KafkaMessage } from "kafkajs";
import type { LRUCache } from "lru-cache";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const { Kafka, logLevel } = kafkajs;
const kafka = new Kafka({ brokers: [told("KAFKA_BROKERS")], logLevel: logLevel.NOTHING });
const output = told("BENCH_OUTPUT");
const batchCount = 1_000;

const producer = kafka.producer({ allowAutoTopicCreation: false });
const consumer = kafka.consumer({
  groupId: told("BENCH_GROUP"),
  maxBytesPerPartition: 2 ** 20,
  maxWaitTimeInMs: 500,
});
const seen = new Map<number, LRUCache<string, true>>();

function cacheOf(partition: number): LRUCache<string, true> {
  let cache = seen.get(partition);
  if (cache === undefined) {
    cache = recentIds(25_000);
    seen.set(partition, cache);
  }
  return cache;
}

await producer.connect();
await consumer.connect();
await consumer.subscribe({ topics: [told("BENCH_INPUT")], fromBeginning: true });
await consumer.run({
  eachBatchAutoResolve: false,
  autoCommitInterval: 1_000,
  partitionsConsumedConcurrently: 4,
  eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary }) => {
    const cache = cacheOf(batch.partition);
    let pending: { key: string; value: Buffer }[] = [];
    // Remembered only once they are written.
    const ids = new Set<string>();
    const flush = async (last: KafkaMessage) => {
      if (pending.length > 0) {
        await producer.send({ topic: output, acks: -1, messages: pending });
        for (const id of ids) cache.set(id, true);
        pending = [];
        ids.clear();
      }
      resolveOffset(last.offset);
      await commitOffsetsIfNecessary();
      await heartbeat();
    };
    for (const message of batch.messages) {
      const value = message.value!;
      const { id, customer } = checkedOrder(value);
      if (!cache.has(id) && !ids.has(id)) {
        ids.add(id);
        pending.push({ key: customer, value });
      }
      if (pending.length >= batchCount) await flush(message);
    }
    const last = batch.messages.at(-1);
    if (last !== undefined) await flush(last);
  },
});

process.on("SIGTERM", async () => {
  await consumer.disconnect();
  await producer.disconnect();
  process.exit(0);
});
