import { test } from "node:test";
import { needs } from "../../../../../test/brokers/index.ts";
import { driverUnderTest } from "../../../../../test/driver-under-test.ts";
import { codecs } from "../../../../message/batch.ts";
import { type DriverFeatures, scenarios } from "../conformance.ts";
import { wireDriverWith } from "./driver.ts";

// The rebalance time-out leaves room for a drain of more than two session time-outs.
const groupTimes = { sessionTimeout: 3_000, rebalanceTimeout: 30_000, heartbeatInterval: 200 };

for (const protocol of ["incremental", "classic"] as const) {
  const driver = wireDriverWith(protocol);
  const features: DriverFeatures = {
    holdsRebalance: driver.holdsRebalance,
    incremental: protocol === "incremental",
    nullHeaders: true,
    headerOrder: true,
    codecs,
    erasesOutOfRange: false,
  };
  for (const scenario of scenarios) {
    if (scenario.applies?.(features) === false) continue;
    test(`wire, ${protocol}: ${scenario.name}`, needs("kafka"), async (t) =>
      scenario.run(await driverUnderTest(t, driver, { features, groupTimes })),
    );
  }
}
