import type { TestContext } from "node:test";
import kafkajs from "kafkajs";
import type { Context } from "../src/component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../src/component/system.ts";
import type { KafkaDriver } from "../src/connectors/kafka/driver.ts";
import type { DriverUnderTest } from "../src/connectors/kafka/drivers/conformance.ts";
import { kafkaSettings } from "../src/connectors/kafka/options.ts";
import { testContext } from "../src/testing/context.ts";
import { freshName, sharedKafka } from "./brokers/index.ts";

const { Kafka, logLevel } = kafkajs;

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = systemClock.now() + 30_000;
  while (!(await condition())) {
    if (systemClock.now() > deadline) throw new Error(`not within 30 s: ${what}`);
    await new Promise<void>((resolve) => systemClock.after(20, resolve));
  }
}

/** A context of the machine's own clock and chance; what is logged and counted is kept. */
export function realContext(): Context {
  return { ...testContext(), clock: systemClock, random: systemRandom, work: new PooledWork() };
}

/** A Kafka driver on the Kafka that all tests share, for the conformance suite. */
export async function driverUnderTest(
  t: TestContext,
  driver: KafkaDriver,
  about: Pick<DriverUnderTest, "features" | "groupTimes">,
): Promise<DriverUnderTest> {
  const kafka = await sharedKafka();
  const context = realContext();
  return {
    ...about,
    context,
    connect() {
      const client = driver.connect(kafkaSettings({ brokers: kafka.bootstrap }), context);
      t.after(() => client.close(systemClock.now() + 5_000));
      return client;
    },
    freshTopic: ({ partitions = 4, maxMessageBytes } = {}) =>
      kafka.createTopic(freshName("conformance"), {
        partitions,
        ...(maxMessageBytes === undefined
          ? {}
          : { settings: { "max.message.bytes": String(maxMessageBytes) } }),
      }),
    freshName,
    async deleteRecords(topic, partition, offset) {
      const admin = new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING }).admin();
      await admin.connect();
      try {
        await admin.fetchTopicMetadata({ topics: [topic] });
        await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] });
      } finally {
        await admin.disconnect();
      }
    },
    async growPartitions(topic, partitions) {
      const admin = new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING }).admin();
      await admin.connect();
      try {
        await admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] });
      } finally {
        await admin.disconnect();
      }
    },
    async abortTransaction(topic, partition) {
      const client = new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING });
      const producer = client.producer({
        transactionalId: freshName("conformance"),
        idempotent: true,
        maxInFlightRequests: 1,
      });
      const admin = client.admin();
      const end = async () =>
        Number((await admin.fetchTopicOffsets(topic)).find((entry) => entry.partition === partition)?.high);
      await Promise.all([producer.connect(), admin.connect()]);
      try {
        const before = await end();
        const transaction = await producer.transaction();
        await transaction.send({ topic, messages: [{ partition, value: "aborted" }] });
        await transaction.abort();
        // The broker answers before it has written the marker. Where aborted transactions overlap, kafkajs shows
        // messages of the second one.
        await until("the abort marker is written", async () => (await end()) === before + 2);
      } finally {
        await Promise.all([producer.disconnect(), admin.disconnect()]);
      }
    },
    until,
  };
}
