import { type TestContext, test } from "node:test";
import kafkajs from "kafkajs";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import type { Context } from "../../../../component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../../../../component/system.ts";
import { codecs } from "../../../../message/batch.ts";
import { testContext } from "../../../../testing/context.ts";
import { kafkaSettings } from "../../options.ts";
import { type DriverFeatures, type DriverUnderTest, scenarios } from "../conformance.ts";
import { kafkaJsDriver } from "./driver.ts";

const { Kafka, logLevel } = kafkajs;

const features: DriverFeatures = {
  holdsRebalance: kafkaJsDriver.holdsRebalance,
  incremental: false,
  nullHeaders: false,
  headerOrder: false,
  codecs,
  erasesOutOfRange: true,
};

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = systemClock.now() + 30_000;
  while (!(await condition())) {
    if (systemClock.now() > deadline) throw new Error(`not within 30 s: ${what}`);
    await new Promise<void>((resolve) => systemClock.after(20, resolve));
  }
}

async function open(t: TestContext): Promise<DriverUnderTest> {
  const kafka = await sharedKafka();
  const simulated = testContext();
  const context: Context = {
    ...simulated,
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
  };
  return {
    context,
    features,
    groupTimes: { sessionTimeout: 6_000, rebalanceTimeout: 10_000, heartbeatInterval: 200 },
    connect() {
      const client = kafkaJsDriver.connect(kafkaSettings({ brokers: kafka.bootstrap }), context);
      t.after(() => client.close(systemClock.now() + 5_000));
      return client;
    },
    async freshTopic({ partitions = 4, maxMessageBytes } = {}) {
      const topic = await kafka.createTopic(freshName("conformance"), {
        partitions,
        ...(maxMessageBytes === undefined
          ? {}
          : { settings: { "max.message.bytes": String(maxMessageBytes) } }),
      });
      // The metadata may name a leader that does not know of it yet, and would refuse the first messages.
      const client = kafkaJsDriver.connect(kafkaSettings({ brokers: kafka.bootstrap }), context);
      const led = () =>
        client.offsets(topic).then(
          (offsets) => offsets.length === partitions,
          () => false,
        );
      await until("the leaders of the topic serve it", led);
      await client.close(systemClock.now() + 5_000);
      return topic;
    },
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

for (const scenario of scenarios) {
  if (scenario.applies?.(features) === false) continue;
  test(`kafkajs: ${scenario.name}`, needs("kafka"), async (t) => scenario.run(await open(t)));
}
