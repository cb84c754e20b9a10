/** A broker that stops answering while its connections stay open: what it led goes on as soon as the cluster gives it up. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { freshName, needs, ownKafka } from "../../../../../test/brokers/index.ts";
import type { KafkaCluster } from "../../../../../test/brokers/kafka.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { quietKafka } from "../../../../../test/kafka-log.ts";
import { systemClock } from "../../../../component/system.ts";
import type { EncodedBatch, KafkaClient, Producer } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { batchOf, Recorder } from "../conformance.ts";
import { wireDriver } from "./driver.ts";

const partitions = [0, 1, 2];

async function isStored(producer: Producer, batch: EncodedBatch): Promise<boolean> {
  try {
    const [result] = await producer.send([batch]);
    return result !== undefined && result.error === undefined;
  } catch {
    return false;
  }
}

/** A group whose books are with the broker that the client came by first, and asks for whatever any broker knows. */
async function groupKeptByTheFirst(kafka: KafkaCluster, client: KafkaClient, topic: string): Promise<string> {
  // The first group that is asked for makes the topic of the books.
  await until("there are books", () =>
    client.committed(freshName("first"), topic).then(
      () => true,
      () => false,
    ),
  );
  const admin = quietKafka(kafka.bootstrap).admin();
  await admin.connect();
  const { topics } = await admin.fetchTopicMetadata({ topics: ["__consumer_offsets"] });
  await admin.disconnect();
  const { partitions } = topics[0]!;
  for (;;) {
    const group = freshName("group");
    let hash = 0;
    for (const character of group) hash = (Math.imul(31, hash) + character.charCodeAt(0)) | 0;
    const books = partitions.find(
      ({ partitionId }) => partitionId === (hash & 0x7fffffff) % partitions.length,
    );
    if (books!.leader === 1) return group;
  }
}

test("a frozen broker that leads a partition and keeps the group's books holds them up no longer than the cluster", {
  ...needs("own kafka"),
  timeout: 120_000,
}, async (t) => {
  // The cluster misses it after 4 s; an answer may take 30 s.
  const kafka = await ownKafka(t, { brokers: 3, properties: { "min.insync.replicas": "2" } });
  const topic = await kafka.createTopic(freshName("frozen"), { partitions: 3, replication: 3 });
  const client = wireDriver.connect(kafkaSettings({ brokers: kafka.brokers }), realContext());
  t.after(() => client.close(systemClock.now() + 2_000));
  const group = await groupKeptByTheFirst(kafka, client, topic);
  const recorder = new Recorder();
  const subscription = await client.subscribe(
    {
      ...{ group, topics: [topic], maxBytesPerPartition: 2 ** 20, maxWait: 100, metadataAge: 30_000 },
      ...{ sessionTimeout: 10_000, rebalanceTimeout: 20_000, heartbeatInterval: 500 },
    },
    recorder,
  );
  await until("it is assigned", () => recorder.owned.length === 3);
  const producer = await client.producer();
  const acknowledged: string[] = [];
  let over = false;
  // One batch of each partition is out at a time, and sent again as it is until it is acknowledged.
  const writers = partitions.map(async (partition) => {
    for (let n = 0; !over; n++) {
      const value = `${partition}.${n}`;
      const batch = await producer.encode({ topic, partition }, batchOf([{ value }]), 0, 1);
      await until(`${value} is acknowledged`, () => isStored(producer, batch), 60_000);
      acknowledged.push(value);
    }
  });
  await until("all partitions move", () => partitions.every((p) => recorder.values.includes(`${p}.5`)));
  await subscription.commit([{ topic, partition: 0, offset: 1 }]);

  const described = await kafka.javaTool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", [
    ...["--describe", "--state", "--group", group],
  ]);
  const coordinator = Number(/\((?:id: )?(\d)/.exec(described.stdout)?.[1]);
  assert.ok(coordinator >= 1 && coordinator <= 3, described.stdout);
  const assignments = recorder.assignments.length;
  const before = partitions.map((partition) => recorder.next(topic, partition)!);
  const frozenAt = systemClock.now();
  kafka.pause(coordinator - 1);
  await until(
    "every partition moves again",
    () => partitions.every((partition) => recorder.next(topic, partition)! > before[partition]! + 3),
    25_000,
  );
  await until("commits are taken", () =>
    subscription.commit([{ topic, partition: 0, offset: 2 }]).then(
      () => true,
      () => false,
    ),
  );
  t.diagnostic(
    `all went on ${((systemClock.now() - frozenAt) / 1_000).toFixed(1)} s after the broker was frozen`,
  );
  assert.equal(recorder.assignments.length, assignments, "it stays a member");

  kafka.resume(coordinator - 1);
  over = true;
  await Promise.all(writers);
  await until("all are read", () => recorder.received.length >= acknowledged.length);
  for (const partition of partitions) {
    const own = recorder.received.filter((one) => one.partition === partition);
    const written = acknowledged.filter((value) => value.startsWith(`${partition}.`));
    assert.deepEqual(
      own.map(({ value }) => String(value)),
      written,
      "each once, in order",
    );
  }
  assert.deepEqual(recorder.violations, []);
});
