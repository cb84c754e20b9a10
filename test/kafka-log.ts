import kafkajs, { type Kafka, type KafkaMessage } from "kafkajs";
import { PooledWork } from "../src/component/system.ts";
import { registerCodecs } from "../src/connectors/kafka/drivers/kafkajs/codecs.ts";
import { until } from "./brokers/until.ts";

// A CommonJS module, whose exports Node does not all find by name.
const { CompressionCodecs, CompressionTypes, Kafka: Client, logLevel } = kafkajs;

// kafkajs reads gzip alone by itself.
registerCodecs(new PooledWork());

/** One record as a topic holds it. */
export interface LogRecord {
  readonly partition: number;
  readonly offset: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: KafkaMessage["headers"];
}

/** A client of the cluster that logs nothing. */
export function quietKafka(bootstrap: string): Kafka {
  return new Client({
    brokers: bootstrap.split(","),
    logLevel: logLevel.NOTHING,
    retry: { retries: 20, initialRetryTime: 100, maxRetryTime: 1_000 },
  });
}

/** Writes values to a topic in order, many at once. */
export async function fill(
  bootstrap: string,
  topic: string,
  messages: Iterable<{ key?: string | null; value: string | Buffer | null; partition?: number }>,
): Promise<number> {
  // A new topic is not everywhere at once: its leaders answer once they know of it.
  await countOf(bootstrap, topic);
  const producer = quietKafka(bootstrap).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  let part: { key?: string | null; value: string | Buffer | null; partition?: number }[] = [];
  let count = 0;
  for (const message of messages) {
    part.push(message);
    count++;
    // All of them may go to one partition, whose broker takes a mebibyte at once.
    if (part.length === 3_000) {
      await producer.send({ topic, acks: -1, messages: part });
      part = [];
    }
  }
  if (part.length > 0) await producer.send({ topic, acks: -1, messages: part });
  await producer.disconnect();
  return count;
}

/** How many records the topic holds (nothing deleted, no transactions). Waits for a broker that is away. */
export async function countOf(bootstrap: string, topic: string): Promise<number> {
  const ask = async () => {
    const admin = quietKafka(bootstrap).admin({ retry: { retries: 2 } });
    try {
      await admin.connect();
      const offsets = await admin.fetchTopicOffsets(topic);
      return { count: offsets.reduce((sum, { high, low }) => sum + Number(high) - Number(low), 0) };
    } finally {
      await admin.disconnect();
    }
  };
  return (await until(`the offsets of ${topic} are known`, ask, 60_000)).count;
}

/** All that a topic holds now, in the order of each partition. */
export async function readTopic(bootstrap: string, topic: string): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  await eachRecord(bootstrap, topic, (partition, { offset, key, value, headers }) => {
    records.push({
      partition,
      offset: Number(offset),
      key: key?.toString() ?? null,
      value: value?.toString() ?? null,
      headers,
    });
  });
  return records;
}

/** Visits all that a topic holds now, in the order of each partition. */
export async function eachRecord(
  bootstrap: string,
  topic: string,
  visit: (partition: number, message: KafkaMessage) => void,
): Promise<void> {
  await countOf(bootstrap, topic);
  const kafka = quietKafka(bootstrap);
  const admin = kafka.admin();
  await admin.connect();
  const left = new Map(
    (await admin.fetchTopicOffsets(topic))
      .filter(({ high, low }) => Number(high) > Number(low))
      .map(({ partition, high }) => [partition, Number(high)]),
  );
  await admin.disconnect();
  if (left.size === 0) return;
  const consumer = kafka.consumer({
    groupId: `reader-${topic}-${process.hrtime.bigint()}`,
    maxWaitTimeInMs: 100,
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error);
    });
    consumer
      .run({
        autoCommit: false,
        eachBatch: async ({ batch }) => {
          for (const message of batch.messages) visit(batch.partition, message);
          if (Number(batch.lastOffset()) + 1 >= (left.get(batch.partition) ?? 0))
            left.delete(batch.partition);
          if (left.size === 0) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
}

/** The sum of a group's committed offsets for a topic; partitions without one count 0. */
export async function committedOf(bootstrap: string, group: string, topic: string): Promise<number> {
  const admin = quietKafka(bootstrap).admin();
  await admin.connect();
  try {
    const topics = await admin.fetchOffsets({ groupId: group, topics: [topic] });
    return topics
      .flatMap(({ partitions }) => partitions)
      .reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
  } finally {
    await admin.disconnect();
  }
}

/** Which codecs a reader needs for a topic. */
export async function codecsOf(bootstrap: string, topic: string): Promise<string[]> {
  const used = new Set<string>();
  const types = [
    ["gzip", CompressionTypes.GZIP],
    ["snappy", CompressionTypes.Snappy],
    ["lz4", CompressionTypes.LZ4],
    ["zstd", CompressionTypes.ZSTD],
  ] as const;
  const before = types.map(([, type]) => CompressionCodecs[type]);
  types.forEach(([codec, type], i) => {
    CompressionCodecs[type] = () => ({
      ...before[i]!(),
      decompress: (bytes: Buffer) => {
        used.add(codec);
        return before[i]!().decompress(bytes);
      },
    });
  });
  try {
    await readTopic(bootstrap, topic);
  } finally {
    types.forEach(([, type], i) => {
      CompressionCodecs[type] = before[i]!;
    });
  }
  return [...used];
}

/**
 * Returns when the broker has a group's books at hand. On a new cluster the first group that is asked for has them made,
 * and until they are loaded its members are told to come again, which they show as trouble.
 */
export async function booksLoaded(bootstrap: string, group: string, topic: string): Promise<void> {
  await until(`the books of ${group} are loaded`, () =>
    committedOf(bootstrap, group, topic).then(() => true),
  );
}
