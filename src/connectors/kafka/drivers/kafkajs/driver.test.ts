import assert from "node:assert/strict";
import { test } from "node:test";
import { testContext } from "../../../../testing/context.ts";
import { DriverError } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { kafkaJsDriver } from "./driver.ts";

test("a client that is closed opens no connection any more", async () => {
  const client = kafkaJsDriver.connect(kafkaSettings({ brokers: "127.0.0.1:1" }), testContext());
  await client.close(0);
  for (const ask of [
    () => client.offsets("t"),
    () => client.committed("g", "t"),
    () => client.describe(["t"]),
  ]) {
    await assert.rejects(ask, (error) => error instanceof DriverError && error.message.includes("closed"));
  }
});
