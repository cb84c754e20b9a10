// The orders job as one would write it by hand on @platformatic/kafka. Messages are gathered from its stream, at most
// 1,000 or for 50 ms, and written while the next are gathered; a batch waits for the one before it, so that order
// holds. Offsets are committed once a second, of what has been written.
import {
  type CompressionAlgorithmValue,
  Consumer,
  compatibilityPartitioner,
  type Message,
  Producer,
} from "@platformatic/kafka";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const brokers = told("KAFKA_BROKERS").split(",");
const topic = told("BENCH_INPUT");
const output = told("BENCH_OUTPUT");
const compression = (process.env.BENCH_CODEC ?? "none") as CompressionAlgorithmValue;
const batchCount = 1_000;
const within = 50;
const commitEvery = 1_000;

const producer = new Producer({ clientId: "bench", bootstrapBrokers: brokers, autocreateTopics: false });
const consumer = new Consumer({
  clientId: "bench",
  groupId: told("BENCH_GROUP"),
  bootstrapBrokers: brokers,
  autocommit: false,
  maxWaitTime: 500,
  maxBytes: 8 * 2 ** 20,
  highWaterMark: 4_096,
});

const seen = recentIds();
const offsets = new Map<number, Message>();
const committed = new Map<number, bigint>();

interface Gathered {
  readonly messages: { topic: string; key: Buffer; value: Buffer }[];
  readonly ids: Set<string>;
  readonly last: Map<number, Message>;
}

const nothing = (): Gathered => ({ messages: [], ids: new Set(), last: new Map() });

let gathered = nothing();
/** Ids on their way out: remembered only once they are written. */
let leaving = new Set<string>();
let writing: Promise<void> | undefined;

async function write({ messages, ids, last }: Gathered): Promise<void> {
  if (messages.length > 0) {
    await producer.send({ messages, acks: -1, compression, partitioner: compatibilityPartitioner });
  }
  for (const id of ids) seen.set(id, true);
  for (const [partition, message] of last) offsets.set(partition, message);
  writing = undefined;
}

/** Hands over what is gathered once the batch before has been written. */
async function flush(): Promise<void> {
  while (writing !== undefined) await writing;
  if (gathered.last.size === 0) return;
  const batch = gathered;
  gathered = nothing();
  leaving = batch.ids;
  writing = write(batch);
  writing.catch(fail);
}

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

async function commit(): Promise<void> {
  const fresh = [...offsets.values()].filter(({ partition, offset }) => committed.get(partition) !== offset);
  if (fresh.length === 0) return;
  await consumer.commit({
    // The position to go on from, not the last one done.
    offsets: fresh.map(({ partition, offset }) => ({
      topic,
      partition,
      offset: offset + 1n,
      leaderEpoch: 0,
    })),
  });
  for (const { partition, offset } of fresh) committed.set(partition, offset);
}

const stream = await consumer.consume({ topics: [topic], mode: "committed", fallbackMode: "earliest" });
const commits = setInterval(() => commit().catch(fail), commitEvery);
let window: NodeJS.Timeout | undefined;

process.on("SIGTERM", async () => {
  clearInterval(commits);
  clearTimeout(window);
  await flush();
  await writing;
  await commit();
  await stream.close();
  await consumer.close(true);
  await producer.close(true);
  process.exit(0);
});

for await (const message of stream) {
  const { value } = message;
  const { id, customer } = checkedOrder(value);
  gathered.last.set(message.partition, message);
  if (!seen.has(id) && !leaving.has(id) && !gathered.ids.has(id)) {
    gathered.ids.add(id);
    gathered.messages.push({ topic: output, key: Buffer.from(customer), value });
  }
  if (gathered.messages.length >= batchCount) {
    clearTimeout(window);
    window = undefined;
    await flush();
  } else {
    window ??= setTimeout(() => {
      window = undefined;
      flush().catch(fail);
    }, within);
  }
}
