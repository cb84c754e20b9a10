/** The program between a real RabbitMQ and a real Kafka: relays through crashes and stops, alarms, queues that go. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type ConfirmChannel, connect } from "amqplib";
import { freshName, needs, ownRabbitmq, sharedKafka, sharedRabbitmq } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { countOf, fill, readTopic } from "../kafka-log.ts";
import { millrace, runMillrace } from "../millrace.ts";
import { topologyFile } from "./embedded-run.ts";

const head = `import { batch, decode, env, kafka, rabbitmq, topology } from "millrace";
`;

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/** A channel of the test's own, closed with it. */
async function hand(t: TestContext, url: string): Promise<ConfirmChannel> {
  const connection = await connect(url);
  connection.on("error", () => {});
  const channel = await connection.createConfirmChannel();
  channel.on("error", () => {});
  t.after(() => connection.close().catch(() => {}));
  return channel;
}

async function publish(channel: ConfirmChannel, queue: string, bodies: readonly string[]): Promise<void> {
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
  await channel.waitForConfirms();
}

/** Everything ready in a queue, in order, with its headers. */
async function take(
  channel: ConfirmChannel,
  queue: string,
): Promise<{ body: string; headers: Record<string, unknown> }[]> {
  const taken: { body: string; headers: Record<string, unknown> }[] = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (message === false) return taken;
    taken.push({ body: message.content.toString(), headers: message.properties.headers ?? {} });
  }
}

interface Through {
  readonly file: string;
  readonly input: string;
  readonly queue: string;
  readonly output: string;
  readonly env: NodeJS.ProcessEnv;
}

const count = 10_000;

/** Kafka → RabbitMQ → Kafka in one topology: both relays at once. Slow enough to be hit in the middle. */
async function through(t: TestContext, url: string): Promise<Through> {
  const kafka = await sharedKafka();
  const name = freshName("through");
  const [input, queue, output] = [`${name}.in`, `${name}.queue`, `${name}.out`];
  for (const topic of [input, output]) await kafka.createTopic(topic, { partitions: 1 });
  await fill(
    kafka.bootstrap,
    input,
    numbers(count).map((n) => ({ key: "k", value: String(n) })),
  );
  const file = topologyFile(
    t,
    `${head}
const cluster = kafka({ brokers: env("KAFKA_BROKERS") });
const hare = rabbitmq({ url: env("AMQP_URL"), queues: { "${queue}": { type: "classic" } } });
export default topology("${name}", (t) => {
  t.from(cluster.source({
    topics: ["${input}"], group: "${name}", credit: 200, chunk: 20, sessionTimeout: "6s", heartbeatInterval: "500ms"
  })).pipe(batch({ count: 20, within: "10ms" })).to(hare.sink({ queue: "${queue}", unconfirmed: 20 }));
  t.from(hare.source({ queue: "${queue}", prefetch: 200, chunk: 20 }))
    .pipe(batch({ count: 20, within: "10ms" }))
    .to(cluster.sink({ topic: "${output}" }));
});
`,
  );
  return { file, input, queue, output, env: { KAFKA_BROKERS: kafka.bootstrap, AMQP_URL: url } };
}

const landed = ({ env, output }: Through) => countOf(env.KAFKA_BROKERS!, output);

/** Waits until some more has come out at the far end, or as much as there is: it may be through while nobody looks. */
async function some(job: Through, more: number): Promise<void> {
  const wanted = Math.min((await landed(job)) + more, count);
  await until("more comes out", async () => (await landed(job)) >= wanted);
}

async function arrived({ env, output }: Through): Promise<number[]> {
  return (await readTopic(env.KAFKA_BROKERS!, output)).map(({ value }) => Number(value));
}

async function finish(t: TestContext, job: Through): Promise<void> {
  const { code, stderr } = await runMillrace(t, ["run", job.file, "--until-idle"], job.env);
  assert.equal(code, 0, stderr);
}

test("Kafka → RabbitMQ → Kafka, killed with -9 three times: everything arrives", {
  ...needs("kafka", "rabbitmq"),
  timeout: 180_000,
}, async (t) => {
  const job = await through(t, (await sharedRabbitmq()).url);
  for (let kills = 0; kills < 3; kills++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await some(job, 1_000);
    assert.equal((await runner.kill()).code, "SIGKILL");
  }
  await finish(t, job);
  const out = await arrived(job);
  assert.deepEqual(
    [...new Set(out)].sort((a, b) => a - b),
    numbers(count),
  );
  const channel = await hand(t, job.env.AMQP_URL!);
  assert.equal((await channel.deleteQueue(job.queue)).messageCount, 0);
  // A crash replays what a prefetch and a span hold, and what a second's commit interval let through.
  t.diagnostic(`${out.length - count} duplicates`);
  assert.ok(out.length - count <= 3 * 5_000);
});

test("Kafka → RabbitMQ → Kafka, stopped with SIGTERM three times: everything arrives once, in order", {
  ...needs("kafka", "rabbitmq"),
  timeout: 180_000,
}, async (t) => {
  const job = await through(t, (await sharedRabbitmq()).url);
  for (let stops = 0; stops < 3; stops++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await some(job, 1_000);
    const { code, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
  }
  await finish(t, job);
  assert.deepEqual(await arrived(job), numbers(count));
  const channel = await hand(t, job.env.AMQP_URL!);
  assert.equal((await channel.deleteQueue(job.queue)).messageCount, 0);
});

test("a RabbitMQ that is restarted, killed, and out of memory under it", {
  ...needs("kafka", "own rabbitmq"),
  timeout: 240_000,
}, async (t) => {
  const more = 1_000;
  const rabbitmq = await ownRabbitmq(t);
  const job = await through(t, rabbitmq.url);
  const runner = millrace(t, ["run", job.file, "--http", "127.0.0.1:0"], job.env);
  const ready = async () => {
    const response = await fetch(`${await runner.http()}/readyz`);
    return { ok: response.status === 200, why: await response.text() };
  };
  for (const how of ["restart", "kill"] as const) {
    await some(job, 500);
    if (how === "kill") await rabbitmq.kill();
    else await rabbitmq.shutDown();
    await until("readiness tells", async () => !(await ready()).ok);
    await rabbitmq.restart();
    await until("it is ready again", async () => (await ready()).ok, 60_000);
  }
  await rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1MB");
  // The broker tells of its alarm only to those who publish, and all of the input may have been relayed by now.
  await fill(
    job.env.KAFKA_BROKERS!,
    job.input,
    numbers(more).map((n) => ({ key: "k", value: String(count + n) })),
  );
  await until("readiness tells of the alarm", async () => /alarm|blocked/.test((await ready()).why));
  assert.equal(runner.over, false);
  const { deadLettered, inFlight } = (await runner.status()).conservation;
  assert.equal(deadLettered, 0);
  assert.ok(inFlight <= 400, `${inFlight} in flight`);
  await rabbitmq.ctl("set_vm_memory_high_watermark", "0.6");
  await until("all has come out", async () => new Set(await arrived(job)).size === count + more, 90_000);
  const { code, stderr } = await runner.stop();
  assert.equal(code, 0, stderr);
  const out = await arrived(job);
  t.diagnostic(`${out.length - count - more} duplicates`);
  assert.deepEqual(
    [...new Set(out)].sort((a, b) => a - b),
    numbers(count + more),
  );
});

test("an alarm that does not end: SIGTERM gives up after --drain with 1, and what was not confirmed stays", {
  ...needs("own rabbitmq"),
  timeout: 120_000,
}, async (t) => {
  const rabbitmq = await ownRabbitmq(t);
  const name = freshName("alarm");
  const file = topologyFile(
    t,
    `${head}
const hare = rabbitmq({ url: env("AMQP_URL"), queues: { "${name}.in": {}, "${name}.out": {} } });
export default topology("${name}", (t) => {
  t.from(hare.source({ queue: "${name}.in", prefetch: 100 })).to(hare.sink({ queue: "${name}.out" }));
});
`,
  );
  const channel = await hand(t, rabbitmq.url);
  await channel.assertQueue(`${name}.in`);
  await publish(channel, `${name}.in`, numbers(1_000).map(String));
  await rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1MB");
  const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0", "--drain", "2s"], {
    AMQP_URL: rabbitmq.url,
  });
  await until("it holds what it may", async () => (await runner.status()).conservation.inFlight === 100);
  await until("readiness tells", async () => (await fetch(`${await runner.http()}/readyz`)).status === 503);
  const { code, stdout } = await runner.stop();
  assert.equal(code, 1);
  assert.doesNotMatch(stdout, /≠/);
  await rabbitmq.ctl("set_vm_memory_high_watermark", "0.6");
  const done = await runMillrace(t, ["run", file, "--until-idle"], { AMQP_URL: rabbitmq.url });
  assert.equal(done.code, 0, done.stderr);
  const bodies = (await take(channel, `${name}.out`)).map(({ body }) => Number(body));
  assert.deepEqual(
    [...new Set(bodies)].sort((a, b) => a - b),
    numbers(1_000),
  );
});

test(
  "what is declared is made at the start, and one that exists otherwise exits 78 and says how",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const name = freshName("declared");
    const declare = (maxLength: number) => `${head}
const hare = rabbitmq({
  url: env("AMQP_URL"),
  queues: { "${name}.in": {}, "${name}.out": { maxLength: ${maxLength}, overflow: "reject-publish" } },
  exchanges: { "${name}.x": { type: "topic" } },
  bindings: [{ queue: "${name}.out", exchange: "${name}.x", key: "a.*" }],
});
export default topology("${name}", (t) => {
  t.from(hare.source({ queue: "${name}.in" })).to(hare.sink({ exchange: "${name}.x", key: "a.b" }));
});
`;
    const env = { AMQP_URL: url };
    const first = await runMillrace(t, ["run", topologyFile(t, declare(100)), "--until-idle"], env);
    assert.equal(first.code, 0, first.stderr);
    const channel = await hand(t, url);
    channel.publish(`${name}.x`, "a.b", Buffer.from("bound"));
    await channel.waitForConfirms();
    assert.deepEqual(
      (await take(channel, `${name}.out`)).map(({ body }) => body),
      ["bound"],
    );
    const second = await runMillrace(t, ["run", topologyFile(t, declare(200)), "--until-idle"], env);
    assert.equal(second.code, 78, second.stderr);
    assert.match(second.stderr, new RegExp(`${name}\\.out`));
    assert.match(second.stderr, /max-length|maxLength/);
  },
);

test(
  "messages that no queue takes are dead letters, their neighbours go on",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const name = freshName("unroutable");
    const file = topologyFile(
      t,
      `${head}
const hare = rabbitmq({
  url: env("AMQP_URL"),
  queues: { "${name}.in": {}, "${name}.out": {}, "${name}.dead": {} },
  exchanges: { "${name}.x": { type: "direct" } },
  bindings: [{ queue: "${name}.out", exchange: "${name}.x", key: "even" }],
});
export default topology("${name}", (t) => {
  t.from(hare.source({ queue: "${name}.in" }))
    .pipe(decode("json"))
    .to(hare.sink({ exchange: "${name}.x", key: (message) => (message.value.n % 10 === 3 ? "nobody" : "even") }));
  t.deadLetters(hare.sink({ queue: "${name}.dead" }));
});
`,
    );
    const channel = await hand(t, url);
    await channel.assertQueue(`${name}.in`);
    const bodies = numbers(500).map((n) => JSON.stringify({ n }));
    await publish(channel, `${name}.in`, bodies);
    const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], { AMQP_URL: url });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted 500 = delivered 450 \+ deadLettered 50\n$/);
    assert.deepEqual(
      (await take(channel, `${name}.out`)).map(({ body }) => body),
      bodies.filter((_, n) => n % 10 !== 3),
    );
    const dead = await take(channel, `${name}.dead`);
    assert.deepEqual(dead.map(({ body }) => body).sort(), bodies.filter((_, n) => n % 10 === 3).sort());
    for (const { headers } of dead) assert.equal(String(headers["millrace-error-code"]), "unroutable");
  },
);

test("a queue that is deleted under its consumer is no crash: readiness tells, and it goes on when it is there again", {
  ...needs("rabbitmq"),
  timeout: 120_000,
}, async (t) => {
  const { url } = await sharedRabbitmq();
  const name = freshName("gone");
  const channel = await hand(t, url);
  for (const end of ["in", "out"]) await channel.assertQueue(`${name}.${end}`);
  const file = topologyFile(
    t,
    `${head}
const hare = rabbitmq({ url: env("AMQP_URL") });
export default topology("${name}", (t) => {
  t.from(hare.source({ queue: "${name}.in" })).to(hare.sink({ queue: "${name}.out" }));
});
`,
  );
  const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], { AMQP_URL: url });
  const delivered = async () => (await runner.status()).conservation.delivered;
  await publish(channel, `${name}.in`, ["1", "2"]);
  await until("it delivers", async () => (await delivered()) === 2);
  await channel.deleteQueue(`${name}.in`);
  await until("readiness names the queue", async () => {
    const response = await fetch(`${await runner.http()}/readyz`);
    return response.status === 503 && (await response.text()).includes(`${name}.in`);
  });
  assert.equal(runner.over, false);
  await channel.assertQueue(`${name}.in`);
  await publish(channel, `${name}.in`, ["3"]);
  await until("it delivers again", async () => (await delivered()) === 3, 60_000);
  // The same for the queue it writes to: what nobody takes is unroutable, and without dead letters that ends the run.
  const { code, stderr } = await runner.stop();
  assert.equal(code, 0, stderr);
  assert.deepEqual(
    (await take(channel, `${name}.out`)).map(({ body }) => body),
    ["1", "2", "3"],
  );
});

test("a vhost that does not exist, and a user without rights, exit 78 after a few tries", {
  ...needs("own rabbitmq"),
  timeout: 120_000,
}, async (t) => {
  const rabbitmq = await ownRabbitmq(t);
  await rabbitmq.ctl("add_user", "limited", "cAnArY-pw");
  const name = freshName("refused");
  const file = topologyFile(
    t,
    `${head}
const hare = rabbitmq({ url: env("AMQP_URL"), queues: { "${name}.in": {}, "${name}.out": {} } });
export default topology("${name}", (t) => {
  t.from(hare.source({ queue: "${name}.in" })).to(hare.sink({ queue: "${name}.out" }));
});
`,
  );
  const { port } = new URL(rabbitmq.url);
  for (const [url, words] of [
    [`amqp://guest:guest@127.0.0.1:${port}/nowhere`, /nowhere/],
    [`amqp://limited:cAnArY-pw@127.0.0.1:${port}/%2f`, /refuse/i],
    [`amqp://guest:cAnArY-pw@127.0.0.1:${port}/%2f`, /refuse/i],
  ] as const) {
    const before = performance.now();
    const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], { AMQP_URL: url });
    assert.equal(code, 78, stderr);
    assert.match(stderr, words);
    assert.ok(performance.now() - before < 60_000);
    assert.doesNotMatch(`${stdout}${stderr}`, /cAnArY|guest:guest/);
  }
  // It may log in now, and may touch nothing.
  await rabbitmq.ctl("set_permissions", "-p", "/", "limited", "^$", "^$", "^$");
  const env = { AMQP_URL: `amqp://limited:cAnArY-pw@127.0.0.1:${port}/%2f` };
  const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], env);
  assert.equal(code, 78, stderr);
  assert.match(stderr, new RegExp(name));
  assert.doesNotMatch(`${stdout}${stderr}`, /cAnArY/);
});
