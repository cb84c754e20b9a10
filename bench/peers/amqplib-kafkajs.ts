// The orders job from a queue to a topic as one would write it by hand on amqplib and kafkajs: messages are gathered,
// at most 1,000 or for 50 ms, and written while the next are gathered; once a batch is written, all of it is
// acknowledged with one frame.
import { type ConsumeMessage, connect } from "amqplib";
import kafkajs from "kafkajs";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const { Kafka, logLevel } = kafkajs;
const input = told("BENCH_INPUT");
const topic = told("BENCH_OUTPUT");
const batchCount = 1_000;
const within = 50;

const model = await connect(told("AMQP_URL"));
const channel = await model.createChannel();
const producer = new Kafka({
  brokers: told("KAFKA_BROKERS").split(","),
  logLevel: logLevel.NOTHING,
}).producer({ allowAutoTopicCreation: false });
await producer.connect();

const seen = recentIds();
let gathered: { key: string; value: Buffer }[] = [];
let ids = new Set<string>();
let leaving = new Set<string>();
let last: ConsumeMessage | undefined;
let writing: Promise<void> | undefined;
let window: NodeJS.Timeout | undefined;

function flush(): void {
  clearTimeout(window);
  window = undefined;
  // What comes meanwhile goes with the next batch; the prefetch bounds it.
  if (writing !== undefined || last === undefined) return;
  const [messages, upTo] = [gathered, last];
  gathered = [];
  leaving = ids;
  ids = new Set();
  last = undefined;
  const sent = messages.length > 0 ? producer.send({ topic, acks: -1, messages }) : Promise.resolve();
  writing = sent
    .then(() => {
      for (const id of leaving) seen.set(id, true);
      leaving = new Set();
      channel.ack(upTo, true);
      writing = undefined;
      if (gathered.length >= batchCount) flush();
      else if (last !== undefined) window ??= setTimeout(flush, within);
    })
    .catch(fail);
}

await channel.prefetch(3 * batchCount);
const { consumerTag } = await channel.consume(input, (message) => {
  if (message === null) fail(new Error("the queue is gone"));
  const { id, customer } = checkedOrder(message.content);
  last = message;
  if (!seen.has(id) && !leaving.has(id) && !ids.has(id)) {
    ids.add(id);
    gathered.push({ key: customer, value: message.content });
  }
  if (gathered.length >= batchCount) flush();
  else window ??= setTimeout(flush, within);
});

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

process.on("SIGTERM", async () => {
  await channel.cancel(consumerTag);
  while (last !== undefined || writing !== undefined) {
    flush();
    await writing;
  }
  // Answered once every acknowledgement before it was taken.
  await channel.checkQueue(input);
  await channel.close();
  await model.close();
  await producer.disconnect();
  process.exit(0);
});
