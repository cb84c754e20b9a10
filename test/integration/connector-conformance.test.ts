/**
 * Our own connectors pass the suite that `millrace/testing` offers to authors of connectors: on the embedded brokers in
 * virtual time, on files and databases, and on a real Kafka and a real RabbitMQ, so that the simulation is as strict
 * as the truth.
 */
import assert from "node:assert/strict";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { connect } from "amqplib";
import { file, kafka, rabbitmq, sql } from "millrace";
import {
  type ConformanceScenario,
  type SinkUnderTest,
  type SourceUnderTest,
  sinkScenarios,
  sourceScenarios,
  testContext,
} from "millrace/testing";
import pg from "pg";
import { PooledWork, systemClock, systemRandom } from "../../src/component/system.ts";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { openDatabase } from "../../src/connectors/sql/drivers/sqlite/open.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { freshName, needs, ownKafka, sharedPostgres, sharedRabbitmq } from "../brokers/index.ts";
import type { KafkaCluster } from "../brokers/kafka.ts";
import type { Rabbitmq } from "../brokers/rabbitmq.ts";
import { until } from "../brokers/until.ts";
import { AmqpAcknowledged } from "../faults/amqp-acknowledged.ts";
import { amqpFrames } from "../faults/amqp-frames.ts";
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

/** Both sides of a connector; each call makes targets of its own. */
interface Pair {
  source(): Promise<SourceUnderTest>;
  sink(): Promise<SinkUnderTest>;
}

/** Holds a connector to every scenario. Returns what it was exempt from, each with the reason. */
async function conforms(t: TestContext, pair: Pair): Promise<string[]> {
  const exempt: string[] = [];
  const hold = <Bed>(scenarios: readonly ConformanceScenario<Bed>[], make: () => Promise<Bed>) =>
    scenarios.map(({ name, exemption, run }) => async () => {
      await t.test(name, async () => {
        const bed = await make();
        const reason = exemption(bed);
        if (reason === undefined) await run(bed);
        else exempt.push(`${name}: ${reason}`);
      });
    });
  const all = [...hold(sourceScenarios, pair.source), ...hold(sinkScenarios, pair.sink)];
  assert.ok(all.length >= 7);
  for (const one of all) await one();
  return exempt;
}

const pairOf = (make: () => { source: SourceUnderTest; sink: SinkUnderTest }): Pair => ({
  source: async () => make().source,
  sink: async () => make().sink,
});

test("embedded Kafka", async (t) => assert.deepEqual(await conforms(t, pairOf(simulatedKafka)), []));
test("embedded RabbitMQ", async (t) => assert.deepEqual(await conforms(t, pairOf(simulatedRabbitmq)), []));

/** The machine's own time. What a connector does at all it does long before a minute is over, on a busy machine too. */
function realTime(t: TestContext) {
  const ended = new AbortController();
  t.after(() => ended.abort());
  return {
    context: {
      ...testContext(),
      clock: systemClock,
      random: systemRandom,
      work: new PooledWork(),
      signal: ended.signal,
    },
    comesTrue: (condition: () => boolean | Promise<boolean>) =>
      until("it comes true", condition, 60_000).then(
        () => true,
        () => false,
      ),
    // The simulation waits a minute of its own; here it is a matter of what a real broker does by itself.
    aWhile: () => pause(300),
  };
}

async function realKafka(t: TestContext, cluster: KafkaCluster, driver: "wire" | "kafkajs"): Promise<Pair> {
  const proxies = await Promise.all(
    cluster.doors.map(({ advertised, listens }) =>
      TcpProxy.start(kafkaFrames, new Faults(), advertised, listens),
    ),
  );
  t.after(() => Promise.all(proxies.map((proxy) => proxy.close())));
  const time = realTime(t);
  const cut = async () => {
    for (const proxy of proxies) proxy.cutAll();
  };
  const stall = async (stalls: boolean) => {
    for (const proxy of proxies) proxy.hold(stalls);
  };
  const brokers = proxies.map(({ port }) => `127.0.0.1:${port}`).join(",");
  const connection = kafka({ brokers, driver, requestTimeout: "10s" });
  const freshTopic = () => cluster.createTopic(freshName("conform"), { partitions: 1 });
  return {
    async source() {
      const topic = await freshTopic();
      const group = freshName("group");
      const published: string[] = [];
      return {
        ...time,
        source: connection.source({ topics: [topic], group, sessionTimeout: "6s", maxWait: "100ms" }),
        async publish(values) {
          published.push(...values);
          const messages = values.map((value) => ({ value }));
          await fill(cluster.bootstrap, topic, messages);
        },
        acknowledged: async () => published.slice(0, await committedOf(cluster.bootstrap, group, topic)),
        cut,
      };
    },
    async sink() {
      const topic = await freshTopic();
      return {
        ...time,
        sink: connection.sink({ topic }),
        stored: async () => (await readTopic(cluster.bootstrap, topic)).map(({ value }) => String(value)),
        stall,
        cut,
      };
    },
  };
}

test("real Kafka", needs("own kafka"), async (t) => {
  const cluster = await ownKafka(t, { proxied: true });
  for (const driver of ["wire", "kafkajs"] as const) {
    await t.test(`driver ${driver}`, async (t) =>
      assert.deepEqual(await conforms(t, await realKafka(t, cluster, driver)), []),
    );
  }
});

/** A proxy before the broker cuts its connections, and hears what is acknowledged. */
async function realRabbitmq(t: TestContext, broker: Rabbitmq, type: "classic" | "quorum"): Promise<Pair> {
  const told = new AmqpAcknowledged();
  const through = new URL(broker.url);
  const port = Number(through.port || 5672);
  const proxy = await TcpProxy.start(amqpFrames, new Faults(), 0, port, told.listens);
  t.after(() => proxy.close());
  through.host = `127.0.0.1:${proxy.port}`;
  const model = await connect(broker.url);
  const direct = await model.createConfirmChannel();
  const queues: string[] = [];
  t.after(async () => {
    for (const queue of queues) await direct.deleteQueue(queue);
    await model.close();
  });
  const time = realTime(t);
  const cut = async () => proxy.cutAll();
  const targetOf = () => {
    const queue = freshName("conform");
    queues.push(queue);
    const connection = rabbitmq({
      url: through.href,
      queues: { [queue]: { type } },
    });
    return { queue, connection };
  };
  return {
    async source() {
      const { queue, connection } = targetOf();
      const before = told.values.length;
      return {
        ...time,
        // A quorum queue without dead letters is refused unless one says that it may drop.
        source: connection.source({ queue, exclusive: true, acceptDrops: true }),
        async publish(values) {
          for (const value of values) direct.sendToQueue(queue, Buffer.from(value));
          await direct.waitForConfirms();
        },
        acknowledged: async () => told.values.slice(before),
        cut,
      };
    },
    async sink() {
      const { queue, connection } = targetOf();
      return {
        ...time,
        sink: connection.sink({ queue }),
        async stored() {
          const channel = await model.createChannel();
          const values: string[] = [];
          for (let one = await channel.get(queue); one; one = await channel.get(queue)) {
            values.push(String(one.content));
          }
          // Gives all of it back.
          await channel.close();
          return values;
        },
        stall: async (stalls) => proxy.hold(stalls),
        cut,
      };
    },
  };
}

test("real RabbitMQ", needs("rabbitmq"), async (t) => {
  const broker = await sharedRabbitmq();
  for (const type of ["classic", "quorum"] as const) {
    await t.test(`${type} queue`, async (t) =>
      assert.deepEqual(await conforms(t, await realRabbitmq(t, broker, type)), []),
    );
  }
});

const lostBySource = sourceScenarios[2]!.name;
const [storedFirst, , lostBySink] = sinkScenarios.map(({ name }) => name);
const neverHeldUp = "a file has no connection to lose, and nobody else can hold up its writer";
const noConnection = "a database in a file has no connection to lose";

function freshFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "millrace-conformance-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function files(t: TestContext): Pair {
  const time = realTime(t);
  const root = freshFolder(t);
  const connection = file({ root });
  return {
    async source() {
      const path = `${freshName("in")}.txt`;
      writeFileSync(join(root, path), "");
      const checkpoint = `${path}.checkpoint`;
      return {
        ...time,
        source: connection.source({ path, checkpoint, follow: true }),
        publish: async (values) =>
          appendFileSync(join(root, path), values.map((value) => `${value}\n`).join("")),
        async acknowledged() {
          if (!existsSync(join(root, checkpoint))) return [];
          const { position } = JSON.parse(readFileSync(join(root, checkpoint), "utf8"));
          return linesOf(readFileSync(join(root, path)).subarray(0, position));
        },
        cut: { impossible: neverHeldUp },
      };
    },
    async sink() {
      const path = `${freshName("out")}.txt`;
      return {
        ...time,
        sink: connection.sink({ path }),
        stored: async () => linesOf(readFileSync(join(root, path))),
        stall: { impossible: neverHeldUp },
        cut: { impossible: neverHeldUp },
      };
    },
  };
}

const linesOf = (bytes: Buffer) => String(bytes).split("\n").slice(0, -1);

test("files", async (t) => {
  assert.deepEqual(await conforms(t, files(t)), [
    `${lostBySource}: ${neverHeldUp}`,
    `${storedFirst}: ${neverHeldUp}`,
    `${lostBySink}: ${neverHeldUp}`,
  ]);
});

/** A database, and what its own clients cannot do to it. */
interface Database {
  readonly url: string;
  query(text: string): Promise<readonly Record<string, unknown>[]>;
  /** Holds up whoever writes the table, or lets them go on. */
  hold(table: string, holds: boolean): Promise<void>;
  readonly cut: SourceUnderTest["cut"];
}

function database(t: TestContext, { url, query, hold, cut }: Database): Pair {
  const time = realTime(t);
  const fresh = (prefix: string) => freshName(prefix).replace("-", "_");
  return {
    async source() {
      const table = fresh("outbox");
      const connection = sql({ url });
      const source = connection.source({ table, poll: "20ms" });
      await connection.create(time.context, [{ kind: "table", name: table, role: "source", at: "test" }]);
      const published: string[] = [];
      return {
        ...time,
        source,
        async publish(values) {
          published.push(...values);
          const hex = (value: string) => Buffer.from(value).toString("hex");
          const literal = (value: string) =>
            url.startsWith("sqlite:") ? `x'${hex(value)}'` : `decode('${hex(value)}', 'hex')`;
          await query(
            `INSERT INTO ${table} (value) VALUES ${values.map((value) => `(${literal(value)})`).join()}`,
          );
        },
        async acknowledged() {
          const rows = await query(`SELECT value FROM ${table}`);
          const left = new Set(rows.map(({ value }) => Buffer.from(value as Uint8Array).toString()));
          return published.filter((value) => !left.has(value));
        },
        cut,
      };
    },
    async sink() {
      const table = fresh("target");
      const connection = sql({
        url,
        tables: {
          [table]: {
            postgres: `CREATE TABLE ${table} (id bigint GENERATED ALWAYS AS IDENTITY, body text)`,
            sqlite: `CREATE TABLE ${table} (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)`,
          },
        },
      });
      await connection.create(time.context, [{ kind: "table", name: table, role: "sink", at: "test" }]);
      return {
        ...time,
        sink: connection.sink({ table, columns: { body: "value" }, maxBackoff: "100ms" }),
        stored: async () =>
          (await query(`SELECT body FROM ${table} ORDER BY id`)).map(({ body }) => String(body)),
        stall: (stalls) => hold(table, stalls),
        cut,
      };
    },
  };
}

test("SQLite file", async (t) => {
  const path = join(freshFolder(t), "app.db");
  const reader = openDatabase(path);
  const holder = openDatabase(path);
  t.after(() => {
    reader.close();
    holder.close();
  });
  const exempt = await conforms(
    t,
    database(t, {
      url: `sqlite:${path}`,
      query: async (text) => reader.prepare(text).all(),
      hold: async (_, holds) => holder.exec(holds ? "BEGIN IMMEDIATE" : "ROLLBACK"),
      cut: { impossible: noConnection },
    }),
  );
  assert.deepEqual(exempt, [`${lostBySource}: ${noConnection}`, `${lostBySink}: ${noConnection}`]);
});

test("PostgreSQL", needs("postgres"), async (t) => {
  const url = await (await sharedPostgres()).freshDatabase(t);
  const client = async () => {
    const one = new pg.Client(url);
    one.on("error", () => {});
    await one.connect();
    t.after(() => one.end());
    return one;
  };
  const [reader, holder] = [await client(), await client()];
  const ours = await Promise.all(
    [reader, holder].map(async (one) => (await one.query("SELECT pg_backend_pid() AS pid")).rows[0].pid),
  );
  const pair = database(t, {
    url,
    query: async (text) => (await reader.query(text)).rows,
    async hold(table, holds) {
      await holder.query(holds ? `BEGIN; LOCK TABLE ${table} IN SHARE MODE` : "ROLLBACK");
    },
    async cut() {
      await reader.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid NOT IN (${ours})`,
      );
    },
  });
  assert.deepEqual(await conforms(t, pair), []);
});
