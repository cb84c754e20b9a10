import assert from "node:assert/strict";
import { test } from "node:test";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import { systemClock } from "../../../../component/system.ts";
import { testContext } from "../../../../testing/context.ts";
import { DriverError } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { kafkaJsDriver } from "./driver.ts";

test(
  "kafkajs: a topic that the cluster cannot make is refused for good, with the reason",
  needs("kafka"),
  async (t) => {
    const { bootstrap } = await sharedKafka();
    const client = kafkaJsDriver.connect(kafkaSettings({ brokers: bootstrap }), {
      ...testContext(),
      clock: systemClock,
    });
    t.after(() => client.close(systemClock.now() + 5_000));
    const refusal = async (topic: string, partitions: number, replicationFactor: number) => {
      const error = await client.create([{ topic, partitions, replicationFactor }]).then(
        () => assert.fail("it was created"),
        (error: unknown) => error,
      );
      assert.ok(error instanceof DriverError);
      assert.equal(error.code, "refused", error.message);
      return error.message;
    };
    const topic = freshName("refused");
    assert.match(
      await refusal(topic, 1, 1_000),
      new RegExp(`"${topic}" with .*1000 replicas: Replication-factor`),
    );
    assert.match(await refusal("b b", 1, 1), /"b b".*invalid topic/);
  },
);
