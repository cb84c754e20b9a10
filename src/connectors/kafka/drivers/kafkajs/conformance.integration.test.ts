import { test } from "node:test";
import { needs } from "../../../../../test/brokers/index.ts";
import { driverUnderTest } from "../../../../../test/driver-under-test.ts";
import { codecs } from "../../../../message/batch.ts";
import { type DriverFeatures, scenarios } from "../conformance.ts";
import { kafkaJsDriver } from "./driver.ts";

const features: DriverFeatures = {
  holdsRebalance: kafkaJsDriver.holdsRebalance,
  incremental: false,
  nullHeaders: false,
  headerOrder: false,
  codecs,
  erasesOutOfRange: true,
};

const groupTimes = { sessionTimeout: 6_000, rebalanceTimeout: 10_000, heartbeatInterval: 200 };

for (const scenario of scenarios) {
  if (scenario.applies?.(features) === false) continue;
  test(`kafkajs: ${scenario.name}`, needs("kafka"), async (t) =>
    scenario.run(await driverUnderTest(t, kafkaJsDriver, { features, groupTimes })),
  );
}
