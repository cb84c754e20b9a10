// The orders job as one would write it by hand on kafkajs: the same parse, schema, dedup, key, batch size,
// window and commit interval as topologies/orders.ts, with at-least-once delivery.
import { Ajv } from "ajv";
import kafkajs, { type KafkaMessage } from "kafkajs";
import { LRUCache } from "lru-cache";
import { order } from "../../topologies/orders.schema.ts";

const { Kafka, logLevel } = kafkajs;
const kafka = new Kafka({
  brokers: [process.env.KAFKA_BROKERS ?? "127.0.0.1:9092"],
  logLevel: logLevel.NOTHING,
});
const validate = new Ajv({ ownProperties: true }).compile<{ id: string; customer: string }>(order);
const batchCount = 1_000;

const producer = kafka.producer({ allowAutoTopicCreation: false });
const consumer = kafka.consumer({
  groupId: "orders",
  maxBytesPerPartition: 2 ** 20,
  maxWaitTimeInMs: 500,
});
const seen = new Map<number, LRUCache<string, true>>();

function cacheOf(partition: number): LRUCache<string, true> {
  let cache = seen.get(partition);
  if (cache === undefined) {
    cache = new LRUCache({ max: 25_000 });
    seen.set(partition, cache);
  }
  return cache;
}

await producer.connect();
await consumer.connect();
await consumer.subscribe({ topics: ["orders"], fromBeginning: true });
await consumer.run({
  eachBatchAutoResolve: false,
  autoCommitInterval: 1_000,
  partitionsConsumedConcurrently: 4,
  eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary }) => {
    const cache = cacheOf(batch.partition);
    let pending: { key: string; value: Buffer }[] = [];
    let ids: string[] = [];
    const flush = async (last: KafkaMessage) => {
      if (pending.length > 0) {
        await producer.send({ topic: "orders.accepted", acks: -1, messages: pending });
        for (const id of ids) cache.set(id, true);
        pending = [];
        ids = [];
      }
      resolveOffset(last.offset);
      await commitOffsetsIfNecessary();
      await heartbeat();
    };
    const inBatch = new Set<string>();
    for (const message of batch.messages) {
      const value = message.value!;
      const parsed: unknown = JSON.parse(value.toString());
      if (!validate(parsed)) throw new Error(`order at offset ${message.offset} is not valid`);
      if (!cache.has(parsed.id) && !inBatch.has(parsed.id)) {
        inBatch.add(parsed.id);
        ids.push(parsed.id);
        pending.push({ key: parsed.customer, value });
      }
      if (pending.length >= batchCount) {
        await flush(message);
        inBatch.clear();
      }
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
