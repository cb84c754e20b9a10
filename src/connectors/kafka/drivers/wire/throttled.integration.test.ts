/** A client that has used up its quota: the broker keeps silent for longer than any answer may take, and nothing fails. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { booksLoaded } from "../../../../../test/kafka-log.ts";
import { systemClock } from "../../../../component/system.ts";
import { kafkaSettings } from "../../options.ts";
import { produce, Recorder } from "../conformance.ts";
import { wireDriver } from "./driver.ts";

const requestTimeout = 400;

test("over its quota a client waits as long as the broker says, and no request runs out of time", {
  ...needs("kafka"),
  timeout: 180_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("throttled"), { partitions: 2 });
  const clientId = freshName("greedy");
  await kafka.javaTool("kafka.admin.ConfigCommand", [
    ...["--alter", "--entity-type", "clients", "--entity-name", clientId],
    // Measured over ten seconds: 560 kB at once are 6 kB/s above the one, and 1 kB/s above the other.
    ...["--add-config", "producer_byte_rate=50000,consumer_byte_rate=55000"],
  ]);
  const settings = kafkaSettings({ brokers: kafka.brokers, clientId, requestTimeout });
  const client = wireDriver.connect(settings, realContext());
  t.after(() => client.close(systemClock.now() + 2_000));
  const producer = await client.producer();
  const large = randomBytes(140_000);
  let longest = 0;
  for (const value of [large, large, "small", "small"]) {
    const start = systemClock.now();
    const results = await Promise.all(
      [0, 1].map((partition) => produce(producer, topic, partition, [{ value }])),
    );
    for (const { error } of results) assert.equal(error, undefined);
    longest = Math.max(longest, systemClock.now() - start);
  }
  assert.ok(longest > 2 * requestTimeout, `the broker never kept silent: ${longest} ms`);
  const recorder = new Recorder();
  const group = freshName("group");
  await booksLoaded(kafka.bootstrap, group, topic);
  recorder.subscription = await client.subscribe(
    {
      ...{
        group,
        topics: [topic],
        maxBytesPerPartition: 150_000,
        maxWait: 100,
        metadataAge: 30_000,
      },
      ...{ sessionTimeout: 6_000, rebalanceTimeout: 10_000, heartbeatInterval: 500 },
    },
    recorder,
  );
  await until("all are read", () => recorder.received.length === 8);
  assert.deepEqual(recorder.troubles, []);
  assert.deepEqual(recorder.violations, []);
});
