/**
 * Members of other clients in one group with ours, as when one replaces the other instance by instance: partitions
 * are shared, every message is read, and what one has committed the next goes on from.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import type { Kafka } from "../../../../../test/brokers/kafka.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { systemClock } from "../../../../component/system.ts";
import type { KafkaDriver } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { produce, Recorder } from "../conformance.ts";
import { kafkaJsDriver } from "../kafkajs/driver.ts";
import { wireDriver, wireDriverWith } from "./driver.ts";

const partitions = [0, 1, 2, 3];

/** One of the members, whatever client it is of. */
interface Member {
  /** Everything it has read so far. */
  readonly values: readonly string[];
  /** How many partitions it has; undefined where it does not say. */
  readonly owned: number | undefined;
  leave(): Promise<void>;
}

type Join = (t: TestContext, kafka: Kafka, group: string, topic: string) => Promise<Member>;

function ours(driver: KafkaDriver): Join {
  return async (t, kafka, group, topic) => {
    const client = driver.connect(kafkaSettings({ brokers: kafka.brokers }), realContext());
    t.after(() => client.close(systemClock.now() + 5_000));
    const recorder = new Recorder();
    const subscription = await client.subscribe(
      {
        ...{ group, topics: [topic], maxBytesPerPartition: 2 ** 20, maxWait: 100, metadataAge: 30_000 },
        ...{ sessionTimeout: 6_000, rebalanceTimeout: 20_000, heartbeatInterval: 200 },
      },
      recorder,
    );
    recorder.onRecords = ({ partition }) => {
      const offset = recorder.next(topic, partition);
      if (offset !== undefined) subscription.commit([{ topic, partition, offset }]).catch(() => {});
    };
    return {
      get values() {
        return recorder.values;
      },
      get owned() {
        return recorder.owned.length;
      },
      async leave() {
        assert.deepEqual(recorder.violations, []);
        await subscription.close(systemClock.now() + 5_000);
      },
    };
  };
}

function java(...properties: readonly string[]): Join {
  return async (t, kafka, group, topic) => {
    const settings = ["auto.offset.reset=earliest", "auto.commit.interval.ms=100"];
    const [program, args] = await kafka.javaCommand("org.apache.kafka.tools.consumer.ConsoleConsumer", [
      ...["--bootstrap-server", kafka.bootstrap, "--topic", topic, "--group", group],
      ...[...settings, ...properties].flatMap((one) => ["--consumer-property", one]),
    ]);
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    t.after(() => child.kill("SIGKILL"));
    let read = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      read += text;
    });
    return {
      get values() {
        return read.split("\n").slice(0, -1);
      },
      owned: undefined,
      async leave() {
        child.kill("SIGTERM");
        await once(child, "close");
      },
    };
  };
}

const javaClassic = ["group.protocol=classic", "heartbeat.interval.ms=200"];

const groups: readonly { readonly name: string; readonly first: Join; readonly second: Join }[] = [
  { name: "kafkajs, then wire", first: ours(kafkaJsDriver), second: ours(wireDriver) },
  { name: "wire, then kafkajs", first: ours(wireDriver), second: ours(kafkaJsDriver) },
  {
    name: "kafkajs, then wire by the classic protocol",
    first: ours(kafkaJsDriver),
    second: ours(wireDriverWith("classic")),
  },
  {
    name: "wire by the classic protocol, then kafkajs",
    first: ours(wireDriverWith("classic")),
    second: ours(kafkaJsDriver),
  },
  {
    name: "wire, then Java's consumer by the newer protocol",
    first: ours(wireDriver),
    second: java("group.protocol=consumer"),
  },
  {
    name: "wire, then Java's consumer by the classic protocol",
    first: ours(wireDriver),
    second: java(...javaClassic),
  },
  {
    name: "wire by the classic protocol, then Java's consumer with its default assignors",
    first: ours(wireDriverWith("classic")),
    second: java(...javaClassic),
  },
  {
    name: "wire by the classic protocol, then Java's consumer that assigns in turn",
    first: ours(wireDriverWith("classic")),
    second: java(
      ...javaClassic,
      "partition.assignment.strategy=org.apache.kafka.clients.consumer.RoundRobinAssignor",
    ),
  },
];

for (const { name, first, second } of groups) {
  test(`one group: ${name}`, { ...needs("kafka"), timeout: 180_000 }, async (t) => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("mixed"), { partitions: partitions.length });
    const group = freshName("group");
    const writer = wireDriver.connect(kafkaSettings({ brokers: kafka.brokers }), realContext());
    t.after(() => writer.close(systemClock.now() + 5_000));
    const producer = await writer.producer();
    const sent: string[] = [];
    const write = async (round: string) => {
      for (const partition of partitions) {
        await produce(producer, topic, partition, [`${round}.${partition}`]);
        sent.push(`${round}.${partition}`);
      }
    };
    const members: Member[] = [];
    const read = () => new Set(members.flatMap(({ values }) => values));
    const all = (when: string) =>
      until(`all are read ${when}`, () => sent.every((value) => read().has(value)));

    const one = await first(t, kafka, group, topic);
    members.push(one);
    await until("the first has all", () => one.owned === 4);
    await write("alone");
    await all("by the first");

    const two = await second(t, kafka, group, topic);
    members.push(two);
    await until("they share", () => one.owned === 2 && (two.owned ?? 2) === 2);
    // A member that does not say what it has is seen by what it reads.
    let round = 0;
    await until("both read", async () => {
      await write(`shared ${round++}`);
      await all("by both");
      return two.values.some((value) => value.startsWith("shared"));
    });

    await one.leave();
    await write("handed over");
    await all("by the second");
    const last = partitions.map((partition) => `handed over.${partition}`);
    assert.deepEqual(two.values.filter((value) => last.includes(value)).sort(), last);

    const back = await first(t, kafka, group, topic);
    members.push(back);
    await until("they share again", () => back.owned === 2);
    await two.leave();
    await until("the first has all again", () => back.owned === 4);
    await write("back");
    await all("at the end");
    await back.leave();
  });
}
