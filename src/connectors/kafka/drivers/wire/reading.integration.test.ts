/** What a real broker's log may hold, beside what the conformance suite writes: transactions, times, sizes, new partitions. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import type { Transaction } from "kafkajs";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { quietKafka } from "../../../../../test/kafka-log.ts";
import type { Context } from "../../../../component/context.ts";
import { systemClock } from "../../../../component/system.ts";
import { seededRandom } from "../../../../testing/context.ts";
import type { KafkaClient } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { produce, Recorder } from "../conformance.ts";
import { wireDriver, wireDriverWith } from "./driver.ts";

const options = {
  maxBytesPerPartition: 2 ** 20,
  maxWait: 100,
  metadataAge: 30_000,
  sessionTimeout: 6_000,
  rebalanceTimeout: 30_000,
  heartbeatInterval: 200,
};

async function connect(t: TestContext, driver = wireDriver, context = realContext()): Promise<KafkaClient> {
  const { brokers } = await sharedKafka();
  const client = driver.connect(kafkaSettings({ brokers }), context);
  t.after(() => client.close(systemClock.now() + 5_000));
  return client;
}

async function read(
  client: KafkaClient,
  topic: string,
  more: Partial<typeof options> = {},
): Promise<Recorder> {
  const recorder = new Recorder();
  const group = freshName("group");
  recorder.subscription = await client.subscribe({ ...options, ...more, group, topics: [topic] }, recorder);
  return recorder;
}

test("transactions that overlap: only what is committed is seen, in order, and nothing beyond one that is open", {
  ...needs("kafka"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("transactions"), { partitions: 1 });
  const client = await connect(t);
  const plain = await client.producer();
  const recorder = await read(client, topic);
  const producers = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const producer = quietKafka(kafka.bootstrap).producer({
        transactionalId: freshName("writer"),
        idempotent: true,
        maxInFlightRequests: 1,
      });
      await producer.connect();
      t.after(() => producer.disconnect());
      return producer;
    }),
  );
  const random = seededRandom(11);
  const open = producers.map(() => ({
    transaction: undefined as Transaction | undefined,
    written: [] as { offset: number; value: string }[],
  }));
  const visible: { offset: number; value: string }[] = [];
  let number = 0;
  const end = async (one: (typeof open)[number], commits: boolean) => {
    if (commits) {
      await one.transaction!.commit();
      visible.push(...one.written);
    } else await one.transaction!.abort();
    one.transaction = undefined;
    one.written = [];
  };
  for (let step = 0; step < 60; step++) {
    const pick = Math.floor(random.next() * 4);
    const values = Array.from({ length: 1 + Math.floor(random.next() * 3) }, () => `m${number++}`);
    if (pick === 3) {
      const { offset } = await produce(plain, topic, 0, values);
      visible.push(...values.map((value, i) => ({ offset: offset! + i, value })));
      continue;
    }
    const one = open[pick]!;
    one.transaction ??= await producers[pick]!.transaction();
    const [answer] = await one.transaction.send({ topic, messages: values.map((value) => ({ value })) });
    one.written.push(...values.map((value, i) => ({ offset: Number(answer!.baseOffset) + i, value })));
    if (random.next() < 0.4) await end(one, random.next() < 0.5);
  }
  const [first, ...others] = open.filter(({ transaction }) => transaction !== undefined);
  for (const one of others) await end(one, true);
  // One is left open: what comes behind its first message waits for it, its own and that of others.
  assert.ok(first !== undefined, "the seed leaves one open");
  const stable = first.written[0]!.offset;
  const committed = () => visible.toSorted((a, b) => a.offset - b.offset);
  const before = committed().filter(({ offset }) => offset < stable);
  await until("all before the open one is read", () => recorder.received.length >= before.length);
  await produce(plain, topic, 0, ["behind"]).then(({ offset }) => {
    visible.push({ offset: offset!, value: "behind" });
  });
  assert.ok(committed().length > before.length);
  // Each fetch until then came back empty after 100 ms: several of them show nothing more.
  const waited = systemClock.now() + 500;
  await until("several fetches have come back", () => systemClock.now() > waited);
  assert.equal(recorder.received.length, before.length);
  await end(first, true);
  await until("the rest is read", () => recorder.received.length >= committed().length);
  assert.deepEqual(
    recorder.received.map(({ position, value }) => ({ offset: position, value: String(value) })),
    committed(),
  );
  assert.deepEqual(recorder.violations, []);
});

test("what Java's transactional producer commits is read, all of it and nothing else", {
  ...needs("kafka"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("java"), { partitions: 3 });
  await kafka.java("org.apache.kafka.tools.ProducerPerformance", [
    ...["--topic", topic, "--num-records", "3000", "--record-size", "100", "--throughput", "-1"],
    ...["--transactional-id", topic, "--transaction-duration-ms", "5"],
    ...[
      "--producer-props",
      `bootstrap.servers=${kafka.bootstrap}`,
      "batch.size=2000",
      "compression.type=lz4",
    ],
  ]);
  const recorder = await read(await connect(t), topic);
  await until("all are read", () => recorder.received.length >= 3_000);
  const client = await connect(t);
  for (const { partition, latest } of await client.offsets(topic)) {
    await until("the markers at the end are passed over", () => recorder.next(topic, partition) === latest);
  }
  assert.equal(recorder.received.length, 3_000);
  assert.deepEqual(recorder.violations, []);
});

test("where a topic keeps the time of appending, that is a message's time", {
  ...needs("kafka"),
  timeout: 180_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("appended"), {
    partitions: 1,
    settings: { "message.timestamp.type": "LogAppendTime" },
  });
  const client = await connect(t);
  const producer = await client.producer();
  const earliest = systemClock.wall();
  for (const codec of ["none", "zstd"] as const) {
    const old = { value: codec, timestamp: 1_234_567_890_123 };
    assert.equal((await produce(producer, topic, 0, [old, old], codec)).error, undefined);
  }
  const recorder = await read(client, topic);
  await until("all are read", () => recorder.received.length === 4);
  for (const { timestamp } of recorder.received) {
    assert.ok(timestamp >= earliest && timestamp <= systemClock.wall(), String(timestamp));
  }
});

test("batches larger than a fetch, beside partitions of which only a part fits in", {
  ...needs("kafka"),
  timeout: 180_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("large"), { partitions: 3 });
  const client = await connect(t);
  const producer = await client.producer();
  const noise = randomBytes(300_000).toString("base64");
  const sizes = [20, 400_000, 90_000, 1, 250_000, 30_000];
  for (const [round, size] of sizes.entries()) {
    for (const partition of [0, 1, 2]) {
      const value = `${partition}.${round} ${noise.slice(0, partition === 2 ? 50 : size)}`;
      assert.equal((await produce(producer, topic, partition, [value, value])).error, undefined);
    }
  }
  const recorder = await read(client, topic, { maxBytesPerPartition: 1_000 });
  const total = 3 * 2 * sizes.length;
  await until("all are read", () => recorder.received.length >= total);
  for (const partition of [0, 1, 2]) {
    const own = recorder.received.filter((one) => one.partition === partition);
    assert.deepEqual(
      own.map(({ position }) => position),
      Array.from({ length: 2 * sizes.length }, (_, i) => i),
    );
    for (const [i, { value }] of own.entries()) {
      const size = partition === 2 ? 50 : sizes[i >> 1]!;
      assert.equal(value!.toString(), `${partition}.${i >> 1} ${noise.slice(0, size)}`);
    }
  }
  assert.deepEqual(recorder.violations, []);
});

/** The same, in which what is looked at every half minute or minute is looked at all the time. */
function impatient(context: Context): Context {
  const { clock } = context;
  return {
    ...context,
    clock: {
      now: () => clock.now(),
      wall: () => clock.wall(),
      defer: (run) => clock.defer(run),
      after: (delay, run) => clock.after(delay >= 30_000 && delay <= 60_000 ? 250 : delay, run),
    },
  };
}

for (const protocol of ["incremental", "classic"] as const) {
  test(`partitions that a topic gets later are read from their beginning, those it had go on (${protocol})`, {
    ...needs("kafka"),
    timeout: 180_000,
  }, async (t) => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("growing"), { partitions: 1 });
    const driver = wireDriverWith(protocol);
    const recorder = await read(await connect(t, driver, impatient(realContext())), topic);
    await until("it is assigned", () => recorder.owned.length === 1);
    const client = await connect(t);
    const producer = await client.producer();
    await produce(producer, topic, 0, ["a"]);
    await until("it reads", () => recorder.received.length === 1);
    const admin = quietKafka(kafka.bootstrap).admin();
    await admin.connect();
    t.after(() => admin.disconnect());
    await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
    // Another client, that knows nothing of the topic's past.
    const late = await (await connect(t)).producer();
    for (const partition of [2, 1]) {
      await until("the new partition takes messages", async () => {
        const { error } = await produce(late, topic, partition, [`first of ${partition}`]);
        return error === undefined;
      });
    }
    // This one knew the topic with one partition.
    await until("the old producer knows it", async () => {
      const { error } = await produce(producer, topic, 1, ["second of 1"]);
      return error === undefined;
    });
    await until("all are read", () => recorder.values.includes("second of 1") && recorder.owned.length === 3);
    await until("all are read", () => recorder.values.includes("first of 2"));
    const of1 = recorder.received.filter(({ partition }) => partition === 1);
    assert.deepEqual(
      of1.map(({ value }) => String(value)),
      ["first of 1", "second of 1"],
    );
    assert.deepEqual(recorder.violations, []);
  });
}
