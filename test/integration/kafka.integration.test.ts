/** What a real Kafka and its other clients do to a topology: codecs, sizes, topics that go and come, members that die. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import type { Admin } from "kafkajs";
import { freshName, needs, ownKafka, sharedKafka } from "../brokers/index.ts";
import type { Kafka } from "../brokers/kafka.ts";
import { freePort } from "../brokers/port.ts";
import { until } from "../brokers/until.ts";
import { codecsOf, countOf, fill, type LogRecord, quietKafka, readTopic } from "../kafka-log.ts";
import { type Millrace, millrace, runMillrace } from "../millrace.ts";
import { topologyFile } from "./embedded-run.ts";

const names = ["gzip", "snappy", "lz4", "zstd"] as const;

type Driver = "wire" | "kafkajs";

const head = (
  driver: Driver,
) => `import { batch, compress, decode, dedup, env, kafka, key, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), requestTimeout: "10s", driver: "${driver}" });
`;

/** What must hold by the default driver and by the other one alike. */
function onEachDriver(
  name: string,
  options: { readonly skip?: string | false; readonly timeout?: number },
  run: (t: TestContext, driver: Driver) => Promise<void>,
): void {
  test(name, options, (t) => run(t, "wire"));
  test(`${name} (driver kafkajs)`, options, (t) => run(t, "kafkajs"));
}

/** in → out with these steps, as a member that is missed after 6 s. */
function flow(t: TestContext, driver: Driver, name: string, steps = "", source = ""): string {
  return topologyFile(
    t,
    `${head(driver)}
export default topology("${name}", (t) => {
  t.from(cluster.source({
    topics: ["${name}.in"], group: "${name}", sessionTimeout: "6s", heartbeatInterval: "500ms", ${source}
  }))
    .pipe(${steps})
    .to(cluster.sink({ topic: "${name}.out" }));
  t.deadLetters(cluster.sink({ topic: "${name}.dead" }));
});
`,
  );
}

async function topics(kafka: Kafka, name: string, partitions = 1): Promise<void> {
  for (const end of ["in", "out", "dead"]) await kafka.createTopic(`${name}.${end}`, { partitions });
}

async function administer<T>(kafka: Kafka, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = quietKafka(kafka.bootstrap).admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

/** Sets a topic's size limit; undefined gives it back the broker's, 1 MiB. */
function limit(kafka: Kafka, topic: string, bytes: number | undefined): Promise<unknown> {
  const configEntries = bytes === undefined ? [] : [{ name: "max.message.bytes", value: String(bytes) }];
  return administer(kafka, (admin) =>
    admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] }),
  );
}

/** Numbers in the order in which they first appear. */
function firsts(records: readonly LogRecord[]): number[] {
  return [...new Set(records.map(({ value }) => (JSON.parse(value!) as { n: number }).n))];
}

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);

const message = (n: number) => ({ key: `k${n % 7}`, value: JSON.stringify({ n }), partition: 0 });

onEachDriver(
  "a broker that is not there is waited for: readiness says why, and SIGTERM ends the wait",
  {},
  async (t, driver) => {
    const file = flow(t, driver, freshName("away"));
    const port = await freePort();
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], {
      KAFKA_BROKERS: `127.0.0.1:${port}`,
    });
    const url = await runner.http();
    await until("it has tried more than once", () => runner.stderr.split(`127.0.0.1:${port}`).length > 2);
    const ready = await fetch(`${url}/readyz`);
    assert.equal(ready.status, 503);
    const why = await ready.text();
    assert.equal((await fetch(`${url}/livez`)).status, 200);
    const before = performance.now();
    const { code, stdout, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
    assert.ok(performance.now() - before < 25_000);
    assert.doesNotMatch(stdout, /≠/);
    assert.match(why, new RegExp(`127\\.0\\.0\\.1:${port}`), "readiness names what is waited for");
  },
);

test("every codec written by us is read by kcat and the Java console consumer", {
  ...needs("kafka", "kcat"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const name = freshName("ours");
  await kafka.createTopic(`${name}.in`, { partitions: 1 });
  await kafka.createTopic(`${name}.dead`);
  for (const codec of names) await kafka.createTopic(`${name}.${codec}`, { partitions: 1 });
  const values = numbers(400).map((n) => JSON.stringify({ n, text: "größer ✓ ".repeat(1 + (n % 50)) }));
  values.push(
    JSON.stringify({ n: 400, text: "x".repeat(200_000) }),
    JSON.stringify({ n: 401, text: randomBytes(30_000).toString("hex") }),
  );
  await fill(
    kafka.bootstrap,
    `${name}.in`,
    values.map((value) => ({ key: "k", value })),
  );
  const file = topologyFile(
    t,
    `${head("wire")}
export default topology("${name}", (t) => {
  const all = t.from(cluster.source({ topics: ["${name}.in"], group: "${name}" }));
  for (const codec of ${JSON.stringify(names)})
    all.pipe(batch({ count: 100, within: "100ms" }), compress(codec)).to(cluster.sink({ topic: \`${name}.\${codec}\` }));
});
`,
  );
  const env = { KAFKA_BROKERS: kafka.bootstrap };
  const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], env);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 402 = delivered 402\n$/);
  for (const codec of names) {
    await t.test(`kcat reads ${codec}`, async () => {
      const read = await kafka.kcat(["-C", "-t", `${name}.${codec}`, "-e", "-q", "-o", "beginning"]);
      assert.deepEqual(read.stdout.trimEnd().split("\n"), values);
    });
    await t.test(`the batches are in ${codec}`, async () => {
      assert.deepEqual(await codecsOf(kafka.bootstrap, `${name}.${codec}`), [codec]);
    });
  }
  const read = await kafka.javaTool("org.apache.kafka.tools.consumer.ConsoleConsumer", [
    ...["--include", `${name}\\.(${names.join("|")})`, "--from-beginning", "--timeout-ms", "20000"],
    ...["--max-messages", String(values.length * names.length)],
  ]);
  const lines = read.stdout.trimEnd().split("\n");
  assert.deepEqual(lines.sort(), names.flatMap(() => values).sort(), "the Java console consumer");
});

onEachDriver(
  "a topic that takes small messages only: the large ones alone are dead-lettered, in order and whole",
  needs("kafka"),
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("small");
    await topics(kafka, name);
    await limit(kafka, `${name}.out`, 20_000);
    const large = new Map(
      [13, 14, 200, 399].map((n) => [n, JSON.stringify({ n, pad: randomBytes(15_000).toString("hex") })]),
    );
    const values = numbers(400).map(
      (n) => large.get(n) ?? JSON.stringify({ n, pad: randomBytes(200).toString("hex") }),
    );
    await fill(
      kafka.bootstrap,
      `${name}.in`,
      values.map((value) => ({ key: "k", value })),
    );
    const file = flow(t, driver, name, 'decode("json"), batch({ count: 100, within: "100ms" })');
    const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], {
      KAFKA_BROKERS: kafka.bootstrap,
    });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted 400 = delivered 396 \+ deadLettered 4\n$/);
    const out = await readTopic(kafka.bootstrap, `${name}.out`);
    assert.deepEqual(
      out.map(({ value }) => value),
      values.filter((_, n) => !large.has(n)),
    );
    const dead = await readTopic(kafka.bootstrap, `${name}.dead`);
    assert.deepEqual(
      dead.map(({ value }) => value),
      [...large.values()],
    );
    for (const { headers } of dead)
      assert.equal(String(headers?.["millrace-error-code"]), "record-too-large");
  },
);

onEachDriver(
  "times that the topic refuses, and its dead letters' would too: those messages alone are dead-lettered",
  { ...needs("kafka"), timeout: 60_000 },
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("times");
    const tolerant = {
      "message.timestamp.after.max.ms": String(2n ** 63n - 1n),
      "message.timestamp.before.max.ms": String(2n ** 63n - 1n),
    };
    const strict = {
      "message.timestamp.after.max.ms": "3600000",
      "message.timestamp.before.max.ms": "3600000",
    };
    await kafka.createTopic(`${name}.in`, { partitions: 1, settings: tolerant });
    for (const topic of ["out", "dead"])
      await kafka.createTopic(`${name}.${topic}`, { partitions: 1, settings: strict });
    const now = Date.now();
    const day = 86_400_000;
    const times = [now, now + 3_650 * day, now, now - 10 * day, now, 0, now];
    const producer = quietKafka(kafka.bootstrap).producer();
    await producer.connect();
    const messages = times.map((time, n) => ({ value: String(n), timestamp: String(time) }));
    await producer.send({ topic: `${name}.in`, messages });
    await producer.disconnect();
    const { code, stdout, stderr } = await runMillrace(
      t,
      ["run", flow(t, driver, name, "batch({ count: 7 })"), "--until-idle"],
      { KAFKA_BROKERS: kafka.bootstrap },
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted 7 = delivered 4 \+ deadLettered 3\n$/);
    const out = await readTopic(kafka.bootstrap, `${name}.out`);
    assert.deepEqual(
      out.map(({ value }) => value),
      ["0", "2", "4", "6"],
    );
    const dead = await readTopic(kafka.bootstrap, `${name}.dead`);
    assert.deepEqual(
      dead.map(({ value, headers }) => [value, String(headers?.["millrace-error-timestamp"])]),
      [1, 3, 5].map((n) => [String(n), String(times[n])]),
    );
  },
);

/** Delivers `n` numbers each time it is called, and tells the next one. */
function feeder(kafka: Kafka, topic: string): (count: number) => Promise<number> {
  let next = 0;
  return async (count) => {
    await fill(kafka.bootstrap, topic, numbers(count, next).map(message));
    next += count;
    return next;
  };
}

async function delivered(runner: Millrace): Promise<number> {
  return (await runner.status()).conservation.delivered;
}

onEachDriver(
  "a sink whose topic refuses everything for a while: it holds, says so, and loses nothing",
  {
    ...needs("kafka"),
    timeout: 120_000,
  },
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("refusing");
    await topics(kafka, name);
    const feed = feeder(kafka, `${name}.in`);
    await feed(500);
    const file = flow(
      t,
      driver,
      name,
      'decode("json"), dedup({ id: "/n" }), batch({ count: 50, within: "20ms" })',
    );
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], { KAFKA_BROKERS: kafka.bootstrap });
    await until("it delivers", async () => (await delivered(runner)) === 500);
    await limit(kafka, `${name}.out`, 1);
    await feed(500);
    const url = await runner.http();
    await until("readiness tells that the sink is sick", async () => {
      const response = await fetch(`${url}/readyz`);
      return response.status === 503 && (await response.text()).includes(`${name}.out`);
    });
    const held = await runner.status();
    assert.equal(held.conservation.deadLettered, 0, "no message is blamed for the topic's refusal");
    assert.equal(held.conservation.delivered, 500);
    assert.equal(held.conservation.inFlight, 500);
    await limit(kafka, `${name}.out`, undefined);
    const total = await feed(500);
    await until("all is delivered", async () => (await delivered(runner)) === total);
    await until("it is ready again", async () => (await fetch(`${url}/readyz`)).status === 200);
    assert.equal((await runner.stop()).code, 0);
    assert.deepEqual(await countOf(kafka.bootstrap, `${name}.dead`), 0);
    const out = await readTopic(kafka.bootstrap, `${name}.out`);
    assert.deepEqual(
      out.map(({ value }) => (JSON.parse(value!) as { n: number }).n),
      numbers(total),
      "in order, once",
    );
  },
);

onEachDriver(
  "a topic that refuses everything from the start is no reason to dead-letter anything",
  {
    ...needs("kafka"),
    timeout: 120_000,
  },
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("absurd");
    await topics(kafka, name);
    await limit(kafka, `${name}.out`, 1);
    await feeder(kafka, `${name}.in`)(300);
    const file = flow(t, driver, name, 'decode("json"), batch({ count: 50, within: "20ms" })');
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0", "--until-idle"], {
      KAFKA_BROKERS: kafka.bootstrap,
    });
    const url = await runner.http();
    await until("it holds what it read", async () => (await runner.status()).conservation.inFlight === 300);
    await until("readiness tells", async () => {
      const response = await fetch(`${url}/readyz`);
      return response.status === 503 && (await response.text()).includes(`${name}.out`);
    });
    assert.equal((await runner.status()).conservation.deadLettered, 0);
    await limit(kafka, `${name}.out`, undefined);
    const { code, stdout, stderr } = await runner.ended;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted 300 = delivered 300\n$/);
    assert.deepEqual(firsts(await readTopic(kafka.bootstrap, `${name}.out`)), numbers(300));
  },
);

onEachDriver(
  "dead letters that cannot be written: good messages go on, bad ones wait and are not acknowledged",
  {
    ...needs("kafka"),
    timeout: 120_000,
  },
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("nodead");
    await topics(kafka, name);
    await limit(kafka, `${name}.dead`, 1);
    await fill(
      kafka.bootstrap,
      `${name}.in`,
      numbers(200).map((n) => (n % 50 === 7 ? { key: "k", value: `{"n":${n}` } : message(n))),
    );
    const file = flow(t, driver, name, 'decode("json"), batch({ count: 50, within: "20ms" })');
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0", "--until-idle"], {
      KAFKA_BROKERS: kafka.bootstrap,
    });
    const url = await runner.http();
    await until("the good ones are delivered", async () => (await delivered(runner)) === 196);
    await until("readiness tells", async () => (await fetch(`${url}/readyz`)).status === 503);
    const { inFlight, deadLettered } = (await runner.status()).conservation;
    assert.deepEqual({ inFlight, deadLettered }, { inFlight: 4, deadLettered: 0 });
    await limit(kafka, `${name}.dead`, undefined);
    const { code, stdout, stderr } = await runner.ended;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted 200 = delivered 196 \+ deadLettered 4\n$/);
    const dead = await readTopic(kafka.bootstrap, `${name}.dead`);
    assert.deepEqual(
      dead.map(({ value }) => value),
      [7, 57, 107, 157].map((n) => `{"n":${n}`),
      "whole, not stubs",
    );
  },
);

async function recreate(kafka: Kafka, topic: string): Promise<void> {
  await administer(kafka, (admin) => admin.deleteTopics({ topics: [topic] }));
  await until(
    `${topic} is gone`,
    async () => !(await administer(kafka, (admin) => admin.listTopics())).includes(topic),
  );
}

for (const more of [50, 1_000]) {
  onEachDriver(
    `the source's topic is deleted and made anew with ${more} messages, after 300 were read: all of them are read`,
    {
      ...needs("kafka"),
      timeout: 180_000,
    },
    async (t, driver) => {
      const kafka = await sharedKafka();
      const name = freshName("anew");
      await topics(kafka, name);
      const feed = feeder(kafka, `${name}.in`);
      await feed(300);
      const file = flow(t, driver, name, 'decode("json")');
      const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], { KAFKA_BROKERS: kafka.bootstrap });
      await until("it delivers", async () => (await delivered(runner)) === 300);
      await recreate(kafka, `${name}.in`);
      await until(
        "it says that its topic is gone",
        async () => (await fetch(`${await runner.http()}/readyz`)).status === 503,
        60_000,
      );
      assert.equal(runner.over, false);
      await kafka.createTopic(`${name}.in`, { partitions: 1 });
      await feed(more);
      await until("the new ones are delivered", async () => (await delivered(runner)) >= 300 + more, 90_000);
      assert.equal((await runner.stop()).code, 0);
      assert.deepEqual(firsts(await readTopic(kafka.bootstrap, `${name}.out`)), numbers(300 + more));
    },
  );
}

onEachDriver(
  "the sink's topic is deleted and made anew: it waits meanwhile, and what was not acknowledged arrives",
  {
    ...needs("kafka"),
    timeout: 180_000,
  },
  async (t, driver) => {
    const kafka = await sharedKafka();
    const name = freshName("sinkless");
    await topics(kafka, name);
    const feed = feeder(kafka, `${name}.in`);
    await feed(300);
    const file = flow(t, driver, name, 'decode("json")');
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], { KAFKA_BROKERS: kafka.bootstrap });
    await until("it delivers", async () => (await delivered(runner)) === 300);
    await recreate(kafka, `${name}.out`);
    await feed(300);
    const url = await runner.http();
    await until(
      "readiness tells that the topic is gone",
      async () => {
        const response = await fetch(`${url}/readyz`);
        return response.status === 503 && (await response.text()).includes(`${name}.out`);
      },
      60_000,
    );
    const { delivered: before, deadLettered } = (await runner.status()).conservation;
    assert.deepEqual({ before, deadLettered }, { before: 300, deadLettered: 0 });
    await kafka.createTopic(`${name}.out`, { partitions: 1 });
    await until("the rest is delivered", async () => (await delivered(runner)) === 600, 90_000);
    assert.equal((await runner.stop()).code, 0);
    assert.deepEqual(firsts(await readTopic(kafka.bootstrap, `${name}.out`)), numbers(300, 300));
  },
);

test("two runners of one group share the partitions; one is killed, and nothing is lost", {
  ...needs("kafka"),
  timeout: 180_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const name = freshName("pair");
  await topics(kafka, name, 4);
  const count = 40_000;
  const put = (from: number, to: number) =>
    fill(
      kafka.bootstrap,
      `${name}.in`,
      numbers(to - from, from).map((n) => ({
        key: `k${n % 100}`,
        value: JSON.stringify({ n }),
        partition: n % 4,
      })),
    );
  await put(0, count / 4);
  const file = flow(
    t,
    "wire",
    name,
    'decode("json"), batch({ count: 20, within: "20ms" })',
    'credit: 200, chunk: 20, commitInterval: "200ms"',
  );
  const env = { KAFKA_BROKERS: kafka.bootstrap };
  const [a, b] = [0, 1].map(() => millrace(t, ["run", file, "--http", "127.0.0.1:0"], env)) as [
    Millrace,
    Millrace,
  ];
  const lanes = async (runner: Millrace) =>
    (await runner.status()).sources[0]!.lanes.map((lane) => lane.name);
  await until(
    "each has two of the partitions",
    async () => {
      const both = [await lanes(a), await lanes(b)];
      return both.every((own) => own.length === 2) && new Set(both.flat()).size === 4;
    },
    60_000,
  );
  const [had, others] = [await delivered(a), await delivered(b)];
  await put(count / 4, count);
  await until(
    "both deliver",
    async () => (await delivered(a)) > had + 200 && (await delivered(b)) > others + 200,
  );
  await a.kill();
  const landed = async () =>
    new Set((await readTopic(kafka.bootstrap, `${name}.out`)).map(({ value }) => value)).size;
  await until("the other has all partitions", async () => (await lanes(b)).length === 4, 60_000);
  await until(
    "all has arrived",
    async () => (await countOf(kafka.bootstrap, `${name}.out`)) >= count && (await landed()) === count,
    90_000,
  );
  assert.equal((await b.stop()).code, 0);
  const records = await readTopic(kafka.bootstrap, `${name}.out`);
  const duplicates = records.length - count;
  t.diagnostic(`${duplicates} duplicates`);
  // Each of the two that were read by the dead one: its span and what the commit interval lets through.
  assert.ok(duplicates <= 10_000, `${duplicates} duplicates`);
  const next = new Map<string, number>();
  for (const { key, value } of records) {
    const { n } = JSON.parse(value!) as { n: number };
    const highest = next.get(key!) ?? Number(key!.slice(1)) - 100;
    assert.ok(n <= highest + 100, `${key}: ${n} follows ${highest}`);
    next.set(key!, Math.max(highest, n));
  }
});

onEachDriver(
  "seed 001.5: SASL: the right password works, the wrong one ends the run with 78, and neither is told",
  {
    ...needs("own kafka"),
    timeout: 120_000,
  },
  async (t, driver) => {
    const kafka = await ownKafka(t, { sasl: { username: "etl", password: "cAnArY-right" } });
    const name = freshName("sasl");
    await topics(kafka, name);
    await fill(kafka.bootstrap, `${name}.in`, numbers(20).map(message));
    for (const [password, expected] of [
      ["cAnArY-wrong", 78],
      ["cAnArY-right", 0],
    ] as const) {
      const file = topologyFile(
        t,
        `import { kafka, secret, topology } from "millrace";
const cluster = kafka({
  brokers: "${kafka.securedBootstrap}",
  driver: "${driver}",
  sasl: { mechanism: "plain", username: "etl", password: secret("${password}") },
});
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}" })).to(cluster.sink({ topic: "${name}.out" }));
});
`,
      );
      const before = performance.now();
      const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"]);
      assert.equal(code, expected, stderr);
      assert.ok(performance.now() - before < 60_000);
      assert.doesNotMatch(`${stdout}${stderr}`, /cAnArY/);
      assert.equal(await countOf(kafka.bootstrap, `${name}.out`), expected === 0 ? 20 : 0);
    }
  },
);
