import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { secret } from "../../component/secret.ts";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { testContext } from "../../testing/context.ts";
import type { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import {
  type RabbitmqOptions,
  type RabbitmqSinkOptions,
  type RabbitmqSourceOptions,
  rabbitmq,
} from "./index.ts";
import { readRabbitmqOptions } from "./options.ts";

const url = "amqp://127.0.0.1";
const problemsOf = (options: unknown) =>
  rabbitmq(options as RabbitmqOptions).problems!.map(({ code, message }) => `${code}: ${message}`);

test("an address is read as AMQP has it, and shown without its secrets", () => {
  const read = (given: string) => readRabbitmqOptions({ url: given }).broker!;
  for (const [given, address, vhost, username, password] of [
    ["amqp://127.0.0.1", "127.0.0.1:5672/%2f", "/", "guest", "guest"],
    ["amqp://127.0.0.1:5673/%2F", "127.0.0.1:5673/%2f", "/", "guest", "guest"],
    ["amqp://host/", "host:5672/%2f", "/", "guest", "guest"],
    ["amqps://u:p%40ss@host/shop", "host:5671/shop", "shop", "u", "p@ss"],
    ["amqp://u@host/a%20b", "host:5672/a%20b", "a b", "u", ""],
    ["amqp://u:p@[::1]:5/x", "[::1]:5/x", "x", "u", "p"],
  ] as const) {
    const broker = read(given);
    assert.deepEqual(
      [broker.address, broker.vhost, broker.username, broker.password],
      [address, vhost, username, password],
      given,
    );
  }
  assert.equal(read("amqp://[::1]").host, "::1");
  assert.deepEqual(read("amqps://host").tls, {});
  assert.equal(read("amqp://host").tls, undefined);
});

test("a secret address is never printed", () => {
  const given = secret("amqp://user:canary@host/vhost");
  const broker = rabbitmq({ url: given });
  assert.equal(broker.address, "host:5672/vhost");
  const shown = [inspect(broker, { depth: 9, showHidden: true }), JSON.stringify(broker)].join();
  assert.doesNotMatch(shown, /canary/);
});

test("mistakes of an address are told without showing it", () => {
  for (const given of [
    "amqp//user:canary@host",
    "http://user:canary@host",
    "amqp://user:canary@host/a/b",
    "amqp://user:canary@host/%2f?heartbeat=5",
    "amqp://user:canary%zz@host",
    "user:canary@host",
    "amqp://",
  ]) {
    const problems = problemsOf({ url: given });
    assert.equal(problems.length, 1, given);
    assert.match(problems[0]!, /^option-invalid: rabbitmq: "url"/, given);
    assert.doesNotMatch(problems[0]!, /canary/);
  }
  assert.deepEqual(problemsOf({}), ['option-missing: rabbitmq needs the option "url"']);
});

test("every mistake of a connection is reported at once", () => {
  const problems = problemsOf({
    url,
    exchanges: { "amq.mine": { type: "topic" } },
    queues: {
      jobs: { type: "quorum", durable: false, maxPriority: 3 },
      plain: { deliveryLimit: 4 },
    },
    bindings: [{ queue: "jobz", exchange: "amq.topic", key: "#" }],
  });
  assert.equal(problems.length, 5, problems.join("\n"));
  assert.match(
    problems.join("\n"),
    /exchange "amq\.mine"[\s\S]*always durable[\s\S]*no maxPriority[\s\S]*deliveryLimit[\s\S]*"jobz"/,
  );
  assert.deepEqual(problemsOf({ url, queuez: {} }), ['option-unknown: rabbitmq has no option "queuez"']);
  assert.deepEqual(problemsOf({ url, queues: { jobs: { kind: "quorum" } } }), [
    'option-unknown: rabbitmq has no option "queues.jobs.kind"',
  ]);
  assert.equal(problemsOf({ url, tls: {} }).length, 1);
  assert.equal(problemsOf({ url: "amqps://host", tls: { cert: "a.pem" } }).length, 1);
  assert.equal(problemsOf({ url: "amqps://host", auth: "external" }).length, 1);
  assert.deepEqual(problemsOf({ url: "amqps://host", auth: "external", tls: { cert: "a", key: "b" } }), []);
  assert.equal(problemsOf({ url, heartbeat: "soon" }).length, 1);
});

test("sources and sinks say what is wrong with their options", () => {
  const broker = rabbitmq({
    url,
    queues: {
      q: { type: "quorum" },
      kept: { type: "quorum", deadLetterExchange: "dead" },
      endless: { type: "quorum", deliveryLimit: -1 },
      plain: {},
      single: { singleActive: true },
    },
  });
  const source = (options: object) =>
    broker.source(options as RabbitmqSourceOptions).problems.map(({ code }) => code);
  assert.deepEqual(source({ queue: "plain" }), []);
  assert.deepEqual(source({ queue: "q" }), ["topology-unsafe"]);
  assert.deepEqual(source({ queue: "q", acceptDrops: true }), []);
  assert.deepEqual(source({ queue: "kept" }), []);
  assert.deepEqual(source({ queue: "endless" }), []);
  assert.deepEqual(source({ queue: "plain", singleActive: true }), ["option-invalid"]);
  assert.deepEqual(source({ queue: "elsewhere", singleActive: true }), []);
  assert.deepEqual(source({ queue: "plain", prefetch: 0 }), ["option-invalid"]);
  assert.deepEqual(source({ queue: "plain", prefetch: 70_000 }), ["option-invalid"]);
  assert.deepEqual(source({ queue: "plain", prefech: 10 }), ["option-unknown"]);
  assert.deepEqual(source({}), ["option-missing"]);

  const sink = (options: object) =>
    broker.sink(options as RabbitmqSinkOptions).problems.map(({ code }) => code);
  assert.deepEqual(sink({ queue: "plain" }), []);
  assert.deepEqual(sink({ exchange: "x", key: "k" }), []);
  assert.deepEqual(sink({ exchange: "x", key: () => "k" }), []);
  assert.deepEqual(sink({}), ["option-missing"]);
  assert.deepEqual(sink({ queue: "plain", key: "k" }), ["option-invalid"]);
  assert.deepEqual(sink({ queue: "plain", exchange: "x" }), ["option-invalid"]);
  assert.deepEqual(sink({ exchange: "x", key: 7 }), ["option-invalid"]);
  assert.deepEqual(sink({ exchange: "x", key: "k".repeat(256) }), ["option-invalid"]);
});

test("order is claimed only where one consumer gets everything", () => {
  const broker = rabbitmq({ url, queues: { plain: {}, single: { singleActive: true } } });
  const order = (options: RabbitmqSourceOptions) => broker.source(options).capabilities.order;
  assert.equal(order({ queue: "plain" }), "none");
  assert.equal(order({ queue: "single" }), "lane");
  assert.equal(order({ queue: "plain", exclusive: true }), "lane");
  assert.equal(order({ queue: "elsewhere", singleActive: true }), "lane");
});

test("the prefetch is the credit", () => {
  const broker = rabbitmq({ url });
  assert.deepEqual(broker.source({ queue: "q" }).credit, {
    messages: 1_000,
    bytes: 16 * 2 ** 20,
    span: 4_000,
    chunk: 500,
  });
  assert.equal(broker.source({ queue: "q", prefetch: 30, span: 50 }).credit.span, 50);
});

test("an embedded broker has what is declared before anything is fed, and the rest on demand", async () => {
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  const options: RabbitmqOptions = {
    url,
    exchanges: { work: { type: "topic", alternateExchange: "amq.fanout" } },
    queues: { jobs: { type: "quorum", deadLetterExchange: "", deliveryLimit: 3 } },
    bindings: [{ queue: "jobs", exchange: "work", key: "a.#" }],
  };
  const connection = rabbitmq(options);
  const broker = connection.embedded(context)!;
  assert.equal(connection.embedded(context), broker);
  broker.feed("jobs", [{ value: Buffer.from("1") }]);
  broker.feed("extra", [{ value: null, key: Buffer.from("k"), headers: [["h", 1]], timestamp: 5_000 }]);
  assert.deepEqual(broker.targets(), ["extra", "jobs"]);
  assert.deepEqual(
    [...broker.contents("extra")],
    [
      {
        partition: 0,
        position: 0,
        key: Buffer.from("k"),
        value: null,
        headers: [["h", 1]],
        timestamp: 5_000,
      },
    ],
  );
  const verifying = connection.verify(context, [
    { kind: "queue", name: "jobs", role: "source", at: "x.ts:1" },
    { kind: "queue", name: "missing", role: "sink", at: "x.ts:2" },
    { kind: "exchange", name: "nowhere", role: "sink", at: "x.ts:3" },
    { kind: "exchange", name: "work", role: "sink", at: "x.ts:4" },
  ]);
  await context.clock.run(50);
  assert.deepEqual(
    (await verifying).map(({ requirement, problem }) => [requirement.at, problem]),
    [
      ["x.ts:2", 'queue "missing" does not exist on 127.0.0.1:5672/%2f'],
      ["x.ts:3", 'exchange "nowhere" does not exist on 127.0.0.1:5672/%2f'],
    ],
  );
  const creating = connection.create(context, [
    { kind: "queue", name: "missing", role: "sink", at: "x.ts:2" },
    { kind: "queue", name: "jobs", role: "source", at: "x.ts:1" },
    { kind: "exchange", name: "nowhere", role: "sink", at: "x.ts:3" },
  ]);
  await context.clock.run(50);
  assert.deepEqual(
    (await creating).map(({ name }) => name),
    ["missing", "nowhere"],
  );
  assert.deepEqual(broker.targets(), ["extra", "jobs", "missing"]);
  assert.equal(context.clock.pending, 0);
  assert.equal((broker as EmbeddedRabbitmq).connections.size, 0);
});

test("verifying tells how a queue differs from its declaration, and that a broker is away", async () => {
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  rabbitmq({ url, queues: { jobs: { durable: true } } }).embedded(context);
  const other = rabbitmq({ url, queues: { jobs: { durable: false } } });
  const requirement = { kind: "queue", name: "jobs", role: "source", at: "x.ts:1" } as const;
  const verifying = other.verify(context, [requirement]);
  await context.clock.run(50);
  const [unmet] = await verifying;
  assert.match(unmet!.problem, /queue "jobs".*"durable" is declared as false and is true on the broker/);
  assert.equal(unmet!.code, "target-mismatch");
  (other.embedded(context) as EmbeddedRabbitmq).stop();
  const again = other.verify(context, [requirement]);
  again.catch(() => {});
  await context.clock.run(50);
  await assert.rejects(again, { code: "connection-lost" });
});
