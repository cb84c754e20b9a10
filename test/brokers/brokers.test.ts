import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { connect } from "amqplib";
import { freshName, needs, ownKafka, ownRabbitmq, sharedKafka, sharedRabbitmq } from "./index.ts";
import type { Kafka } from "./kafka.ts";

const producer = "org.apache.kafka.tools.ConsoleProducer";
const consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";

function consumeAll(kafka: Kafka, topic: string): Promise<string> {
  return kafka.kcat(["-C", "-t", topic, "-e", "-q", "-f", "%p %k=%s\n"]).then(({ stdout }) => stdout);
}

test(
  "the shared Kafka carries a message from the Java producer to kcat",
  needs("kafka", "kcat"),
  async () => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("greetings"), { partitions: 1 });
    await kafka.javaTool(producer, ["--topic", topic, "--property", "parse.key=true"], {
      stdin: "salve\tmundus\n",
    });
    assert.equal(await consumeAll(kafka, topic), "0 salve=mundus\n");
  },
);

test(
  "the shared Kafka carries a message from kcat to the Java consumer",
  needs("kafka", "kcat"),
  async () => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("greetings"));
    await kafka.kcat(["-P", "-t", topic, "-z", "zstd"], { stdin: "grüß Gott\n" });
    const args = ["--topic", topic, "--from-beginning", "--max-messages", "1"];
    assert.equal((await kafka.javaTool(consumer, args)).stdout, "grüß Gott\n");
  },
);

test("Kafka creates no topic by itself", needs("kafka", "kcat"), async () => {
  const kafka = await sharedKafka();
  const topic = freshName("absent");
  const atOnce = ["-X", "topic.metadata.propagation.max.ms=0"];
  await assert.rejects(kafka.kcat(["-P", "-t", topic, ...atOnce], { stdin: "lost\n" }), /Unknown topic/);
});

test("the shared RabbitMQ carries a message", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const connection = await connect(url);
  t.after(() => connection.close());
  const channel = await connection.createConfirmChannel();
  const queue = freshName("greetings");
  await channel.assertQueue(queue, { autoDelete: true, durable: false });
  channel.sendToQueue(queue, Buffer.from("salve"));
  await channel.waitForConfirms();
  const message = await channel.get(queue, { noAck: true });
  assert.equal(message !== false && message.content.toString(), "salve");
});

test(
  "a Kafka of one's own keeps its data and address over kill -9 and restart",
  needs("own kafka", "kcat"),
  async (t) => {
    const kafka = await ownKafka(t);
    const address = kafka.bootstrap;
    const topic = await kafka.createTopic("kept", { partitions: 1 });
    await kafka.kcat(["-P", "-t", topic, "-X", "acks=all"], { stdin: "one\n" });
    await kafka.kill();
    await assert.rejects(kafka.kcat(["-L", "-m", "1"]));
    await kafka.restart();
    assert.equal(kafka.bootstrap, address);
    await kafka.kcat(["-P", "-t", topic, "-X", "acks=all"], { stdin: "two\n" });
    await kafka.restart();
    assert.equal(await consumeAll(kafka, topic), "0 =one\n0 =two\n");
  },
);

test("three Kafka brokers go on without one of them", needs("own kafka", "kcat"), async (t) => {
  const kafka = await ownKafka(t, { brokers: 3, properties: { "message.max.bytes": "2000000" } });
  const topic = await kafka.createTopic("kept", { partitions: 3, replication: 3 });
  await kafka.kill(0);
  const lines = Array.from({ length: 30 }, (_, index) => `line ${index}\n`);
  await kafka.kcat(["-P", "-t", topic, "-X", "acks=all"], { stdin: lines.join("") });
  await kafka.restart(0);
  const found = (await consumeAll(kafka, topic)).match(/line \d+\n/g) ?? [];
  assert.deepEqual(found.toSorted(), lines.toSorted());
});

test("a frozen Kafka answers again after it is resumed", needs("own kafka", "kcat"), async (t) => {
  const kafka = await ownKafka(t);
  kafka.pause();
  await assert.rejects(kafka.kcat(["-L", "-m", "1"]));
  kafka.resume();
  assert.match((await kafka.kcat(["-L", "-m", "20"])).stdout, /1 brokers/);
});

test(
  "a RabbitMQ of one's own keeps its queues over kill -9 and restart",
  needs("own rabbitmq"),
  async (t) => {
    const rabbitmq = await ownRabbitmq(t);
    const first = await connect(rabbitmq.url);
    first.on("error", () => {});
    const channel = await first.createConfirmChannel();
    await channel.assertQueue("kept", { durable: true });
    channel.sendToQueue("kept", Buffer.from("salve"), { persistent: true });
    await channel.waitForConfirms();
    await rabbitmq.settleNames();
    await rabbitmq.kill();
    await assert.rejects(connect(rabbitmq.url), /ECONNREFUSED/);
    await rabbitmq.restart();
    await rabbitmq.restart();
    const { stdout } = await rabbitmq.ctl("list_queues", "-q", "--no-table-headers", "name", "messages");
    assert.equal(stdout, "kept\t1\n");
  },
);

test("a RabbitMQ of one's own shows its alarms", needs("own rabbitmq"), async (t) => {
  const rabbitmq = await ownRabbitmq(t);
  const connection = await connect(rabbitmq.url);
  connection.on("error", () => {});
  const blocked = new Promise((resolve) => connection.once("blocked", resolve));
  const unblocked = new Promise((resolve) => connection.once("unblocked", resolve));
  await rabbitmq.ctl("set_vm_memory_high_watermark", "0.00000001");
  const channel = await connection.createChannel();
  channel.publish("", "nowhere", Buffer.from("one too many"));
  await blocked;
  await rabbitmq.ctl("set_vm_memory_high_watermark", "0.4");
  await unblocked;
  await connection.close();
});

test("two brokers live side by side, and nothing is left of them", needs("own rabbitmq"), async (t) => {
  const pair = await Promise.all([ownRabbitmq(t), ownRabbitmq(t)]);
  await Promise.all(pair.map((broker) => broker.ctl("add_vhost", "other")));
  const homes = pair.map((broker) => broker.folder);
  assert.deepEqual(homes.map(existsSync), [true, true]);
  await Promise.all(pair.map((broker) => broker.stop()));
  assert.deepEqual(homes.map(existsSync), [false, false]);
});
