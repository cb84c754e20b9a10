import assert from "node:assert/strict";
import { test } from "node:test";
import kafkajs from "kafkajs";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import { until } from "../../../../../test/brokers/until.ts";
import type { Context } from "../../../../component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../../../../component/system.ts";
import { testContext } from "../../../../testing/context.ts";
import { SourceBed } from "../../../../testing/session-bed.ts";
import { kafkaSettings } from "../../options.ts";
import { openKafkaSource } from "../../source.ts";
import { kafkaJsDriver } from "./driver.ts";

test(
  "kafkajs: of one group with several topics, each is read by the sources that name it, and read whole",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const [a, b, both] = await Promise.all(
      ["a", "b", "both"].map((name) => kafka.createTopic(freshName(name), { partitions: 2 })),
    );
    const group = freshName("group");
    const context: Context = {
      ...testContext(),
      clock: systemClock,
      random: systemRandom,
      work: new PooledWork(),
    };
    const open = async (...topics: string[]) => {
      const bed = new SourceBed(context, { messages: 100, bytes: 1e6, span: 400, chunk: 10 });
      const client = kafkaJsDriver.connect(kafkaSettings({ brokers: kafka.bootstrap }), context);
      const session = await openKafkaSource(
        bed.context,
        client,
        kafka.bootstrap,
        {
          topics,
          group,
          sessionTimeout: "6s",
          rebalanceTimeout: "10s",
          heartbeatInterval: "200ms",
        },
        false,
      );
      t.after(() => session.close(systemClock.now() + 5_000));
      return bed;
    };
    const first = await open(a!, both!);
    const second = await open(b!, both!);
    const lanes = (bed: SourceBed) =>
      bed.intake.lanes
        .filter(({ ended }) => !ended)
        .map(({ origin }) => `${origin.target}/${origin.partition}`);
    await until("both are in the group", () => lanes(first).length === 3 && lanes(second).length === 3);
    const producer = new kafkajs.Kafka({ brokers: kafka.brokers, logLevel: 0 }).producer();
    await producer.connect();
    try {
      for (const topic of [a!, b!, both!]) {
        await producer.send({
          topic,
          messages: [0, 1].map((partition) => ({ partition, value: `${topic}/${partition}` })),
        });
      }
    } finally {
      await producer.disconnect();
    }
    await until("everything is read", () => first.payloads.length + second.payloads.length >= 6);
    assert.deepEqual([...first.payloads].sort(), lanes(first).sort());
    assert.deepEqual([...second.payloads].sort(), lanes(second).sort());
    for (const [bed, topic] of [
      [first, a!],
      [second, b!],
    ] as const) {
      assert.deepEqual(
        lanes(bed).filter((lane) => !lane.startsWith(both!)),
        [`${topic}/0`, `${topic}/1`],
      );
    }
  },
);
