import { test } from "node:test";
import { codecs } from "../../../../message/batch.ts";
import { settlePromises } from "../../../../testing/clock.ts";
import { testContext } from "../../../../testing/context.ts";
import type { KafkaClient } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { type DriverFeatures, type DriverUnderTest, scenarios } from "../conformance.ts";
import type { RebalanceManner } from "./group.ts";
import { EmbeddedKafka, embeddedDriver } from "./index.ts";

const manners = ["eager", "held", "incremental"] as const;

function featuresOf(manner: RebalanceManner): DriverFeatures {
  return {
    holdsRebalance: manner !== "eager",
    incremental: manner === "incremental",
    nullHeaders: true,
    headerOrder: true,
    codecs,
    erasesOutOfRange: manner === "eager",
  };
}

/** Virtual time moves on by itself whenever nothing else is to be done, until the scenario is over. */
async function inVirtualTime(manner: RebalanceManner, run: (bed: DriverUnderTest) => Promise<void>) {
  const context = testContext();
  const cluster = new EmbeddedKafka(context.clock);
  const driver = embeddedDriver(cluster, { rebalance: manner });
  const clients: KafkaClient[] = [];
  let names = 0;
  const bed: DriverUnderTest = {
    context,
    features: featuresOf(manner),
    groupTimes: { sessionTimeout: 6_000, rebalanceTimeout: 60_000, heartbeatInterval: 300 },
    connect() {
      const client = driver.connect(kafkaSettings({ brokers: "embedded:9092" }), context);
      clients.push(client);
      return client;
    },
    async freshTopic({ partitions = 4, maxMessageBytes } = {}) {
      const topic = `topic-${++names}`;
      cluster.create([{ topic, partitions, ...(maxMessageBytes === undefined ? {} : { maxMessageBytes }) }]);
      return topic;
    },
    freshName: (prefix) => `${prefix}-${++names}`,
    async deleteRecords(topic, partition, offset) {
      cluster.faults.deleteRecords(topic, partition, offset);
    },
    async growPartitions(topic, partitions) {
      cluster.faults.growPartitions(topic, partitions);
    },
    async abortTransaction(topic, partition) {
      cluster.faults.gap(topic, partition, 2);
    },
    async until(what, condition) {
      const deadline = context.clock.now() + 120_000;
      while (!(await condition())) {
        if (context.clock.now() > deadline) throw new Error(`not within two minutes: ${what}`);
        await settlePromises();
      }
    },
  };
  let over = false;
  const done = run(bed).finally(() => {
    over = true;
  });
  done.catch(() => {});
  while (!over) {
    await settlePromises();
    context.clock.step();
  }
  await done;
}

for (const manner of manners) {
  for (const scenario of scenarios) {
    if (scenario.applies?.(featuresOf(manner)) === false) continue;
    test(`embedded, ${manner}: ${scenario.name}`, () => inVirtualTime(manner, scenario.run));
  }
}
