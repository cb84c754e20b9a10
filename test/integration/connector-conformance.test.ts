/**
 * Our own connectors pass the suite that `millrace/testing` offers to authors of connectors: on the embedded brokers in
 * virtual time, and on a real Kafka, so that the simulation is as strict as the truth.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { kafka, rabbitmq } from "millrace";
import {
  type SinkUnderTest,
  type SourceUnderTest,
  sinkScenarios,
  sourceScenarios,
  testContext,
} from "millrace/testing";
import { PooledWork, systemClock, systemRandom } from "../../src/component/system.ts";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { freshName, needs, ownKafka } from "../brokers/index.ts";
import { kafkaFrames } from "../faults/kafka-frames.ts";
import { Faults, TcpProxy } from "../faults/proxy.ts";
import { committedOf, fill, readTopic } from "../kafka-log.ts";

/** Virtual time, in which any condition that will come true does within a minute. */
function simulated() {
  const context = { ...testContext(), embedded: new RunEmbeddedBrokers() };
  const comesTrue = async (condition: () => boolean | Promise<boolean>) => {
    for (let turn = 0; turn < 600; turn++) {
      if (await condition()) return true;
      await context.clock.run(100);
    }
    return condition();
  };
  return { context, comesTrue };
}

function simulatedKafka() {
  const { context, comesTrue } = simulated();
  const cluster = context.embedded.of(
    "kafka",
    "simulated:9092",
    () => new EmbeddedKafka(context.clock, { partitions: 1 }),
  );
  for (const topic of ["in", "out"]) cluster.feed(topic, []);
  const connection = kafka({ brokers: "simulated:9092" });
  const cut = async () => cluster.faults.cut(200);
  const valuesOf = (topic: string) => [...cluster.contents(topic)].map(({ value }) => String(value));
  const source: SourceUnderTest = {
    context,
    comesTrue,
    source: connection.source({ topics: ["in"], group: "g", sessionTimeout: "6s" }),
    publish: async (values) =>
      cluster.feed(
        "in",
        values.map((value) => ({ value: Buffer.from(value) })),
      ),
    acknowledged: async () => valuesOf("in").slice(0, cluster.group("g").committed("in").get(0) ?? 0),
    cut,
  };
  const sink: SinkUnderTest = {
    context,
    comesTrue,
    sink: connection.sink({ topic: "out" }),
    stored: async () => valuesOf("out"),
    stall: async (stalls) => (stalls ? cluster.faults.stall() : cluster.faults.release()),
    cut,
  };
  return { source, sink };
}

function simulatedRabbitmq() {
  const { context, comesTrue } = simulated();
  const connection = rabbitmq({ url: "amqp://simulated", queues: { in: {}, out: {} } });
  const broker = connection.embedded(context) as EmbeddedRabbitmq;
  for (const queue of ["in", "out"]) broker.feed(queue, []);
  const valuesIn = (queue: string) => [...broker.remaining(queue)].map(String);
  const published: string[] = [];
  const cut = async () => broker.cut("lost");
  const source: SourceUnderTest = {
    context,
    comesTrue,
    source: connection.source({ queue: "in", exclusive: true }),
    publish: async (values) => {
      published.push(...values);
      broker.feed(
        "in",
        values.map((value) => ({ value: Buffer.from(value) })),
      );
    },
    acknowledged: async () => {
      const left = new Set(valuesIn("in"));
      return published.filter((value) => !left.has(value));
    },
    cut,
  };
  const sink: SinkUnderTest = {
    context,
    comesTrue,
    sink: connection.sink({ queue: "out" }),
    stored: async () => valuesIn("out"),
    stall: async (stalls) => broker.setAlarm(stalls ? "memory" : undefined),
    cut,
  };
  return { source, sink };
}

for (const [name, make] of [
  ["embedded Kafka", simulatedKafka],
  ["embedded RabbitMQ", simulatedRabbitmq],
] as const) {
  for (const scenario of sourceScenarios)
    test(`${name}: ${scenario.name}`, () => scenario.run(make().source));
  for (const scenario of sinkScenarios) test(`${name}: ${scenario.name}`, () => scenario.run(make().sink));
}

/** Within which a connector on this machine's brokers does whatever it ever does, ms. */
const patience = 3_000;

async function realKafka(t: TestContext) {
  const cluster = await ownKafka(t, { proxied: true });
  const proxies = await Promise.all(
    cluster.doors.map(({ advertised, listens }) =>
      TcpProxy.start(kafkaFrames, new Faults(), advertised, listens),
    ),
  );
  t.after(() => Promise.all(proxies.map((proxy) => proxy.close())));
  const cut = async () => {
    for (const proxy of proxies) proxy.cutAll();
  };
  const bootstrap = proxies.map(({ port }) => `127.0.0.1:${port}`).join(",");
  const connection = kafka({ brokers: bootstrap, requestTimeout: "10s" });
  const ended = new AbortController();
  t.after(() => ended.abort());
  const { logger, meter, node } = testContext();
  const context = {
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
    signal: ended.signal,
    embedded: undefined,
    logger,
    meter,
    node,
  };
  const comesTrue = async (condition: () => boolean | Promise<boolean>) => {
    for (const over = performance.now() + patience; performance.now() < over; ) {
      if (await condition()) return true;
      await pause(50);
    }
    return condition();
  };
  const under = async () => {
    const [topic, group] = [freshName("conform"), freshName("group")];
    await cluster.createTopic(topic, { partitions: 1 });
    const published: string[] = [];
    const source: SourceUnderTest = {
      context,
      comesTrue,
      source: connection.source({ topics: [topic], group, sessionTimeout: "6s", maxWait: "100ms" }),
      publish: async (values) => {
        published.push(...values);
        await fill(
          cluster.bootstrap,
          topic,
          values.map((value) => ({ value })),
        );
      },
      acknowledged: async () => published.slice(0, await committedOf(cluster.bootstrap, group, topic)),
      cut,
    };
    const sink: SinkUnderTest = {
      context,
      comesTrue,
      sink: connection.sink({ topic }),
      stored: async () => (await readTopic(cluster.bootstrap, topic)).map(({ value }) => String(value)),
      stall: async (stalls) => (stalls ? cluster.pause(0) : cluster.resume(0)),
      cut,
    };
    return { source, sink };
  };
  return under;
}

test("real Kafka, driver wire", needs("own kafka"), async (t) => {
  const under = await realKafka(t);
  for (const scenario of sourceScenarios) {
    await t.test(scenario.name, async () => scenario.run((await under()).source));
  }
  for (const scenario of sinkScenarios) {
    await t.test(scenario.name, async () => scenario.run((await under()).sink));
  }
  assert.ok(sourceScenarios.length + sinkScenarios.length >= 7);
});
