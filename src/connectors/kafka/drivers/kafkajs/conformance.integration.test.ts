import { type TestContext, test } from "node:test";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import type { Context } from "../../../../component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../../../../component/system.ts";
import { codecs } from "../../../../message/batch.ts";
import { testContext } from "../../../../testing/context.ts";
import { kafkaSettings } from "../../options.ts";
import { type DriverFeatures, type DriverUnderTest, scenarios } from "../conformance.ts";
import { kafkaJsDriver } from "./driver.ts";

const features: DriverFeatures = {
  holdsRebalance: kafkaJsDriver.holdsRebalance,
  incremental: false,
  nullHeaders: false,
  headerOrder: false,
  codecs,
};

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
    freshTopic: ({ partitions = 4, maxMessageBytes } = {}) =>
      kafka.createTopic(freshName("conformance"), {
        partitions,
        ...(maxMessageBytes === undefined
          ? {}
          : { settings: { "max.message.bytes": String(maxMessageBytes) } }),
      }),
    freshName,
    async until(what, condition) {
      const deadline = systemClock.now() + 30_000;
      while (!(await condition())) {
        if (systemClock.now() > deadline) throw new Error(`not within 30 s: ${what}`);
        await new Promise<void>((resolve) => systemClock.after(20, resolve));
      }
    },
  };
}

for (const scenario of scenarios) {
  if (scenario.applies?.(features) === false) continue;
  test(`kafkajs: ${scenario.name}`, needs("kafka"), async (t) => scenario.run(await open(t)));
}
