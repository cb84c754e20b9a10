/**
 * A consumer that a real broker's answers no longer reach, on a connection that stays open: the runner names it,
 * in `/readyz`, `/status`, metrics and log, reads on over another connection, and nothing is lost.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { freshName, needs, ownKafka, sharedRabbitmq } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { fill, readTopic } from "../kafka-log.ts";
import { freshFolder, type Millrace, millrace } from "../millrace.ts";
import { amqpFrames } from "./amqp-frames.ts";
import { kafkaFrames } from "./kafka-frames.ts";
import { Faults, TcpProxy } from "./proxy.ts";

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i));

function started(t: TestContext, text: string, env: NodeJS.ProcessEnv): Millrace {
  const file = join(freshFolder(t), "dead.ts");
  writeFileSync(file, text);
  return millrace(t, ["run", file, "--http", "127.0.0.1:0"], env);
}

async function delivers(runner: Millrace, count: number): Promise<void> {
  await until(`${count} are delivered`, async () => (await runner.status()).conservation.delivered >= count);
}

/** It is named while it lasts, and once in the log; afterwards all is well. */
async function namesIt(t: TestContext, runner: Millrace, lane: string): Promise<void> {
  const http = await runner.http();
  const began = performance.now();
  // On a busy machine it may be over before anybody looks; the log then has it all the same.
  const stall = await until(
    "it is named",
    async () => (await runner.status()).sources[0]!.stall ?? runner.stderr.includes("it moves again"),
  );
  if (stall !== true) {
    assert.equal(stall.awaiting, "source");
    assert.deepEqual(
      stall.lanes.map(({ name }) => name),
      [lane],
    );
  }
  const readyz = await fetch(`${http}/readyz`);
  const metrics = await (await fetch(`${http}/metrics`)).text();
  // It may be over by now: then it was all said before.
  if ((await runner.status()).sources[0]!.stall !== undefined) {
    assert.equal(readyz.status, 503);
    assert.match(await readyz.text(), new RegExp(`gives nothing of ${lane}`));
    assert.match(metrics, /millrace_source_stalled\{[^}]*awaiting="source"\} 1/);
  }
  await runner.logged("it moves again");
  t.diagnostic(`named and read on after ${Math.round(performance.now() - began)} ms`);
  await until("it is ready", async () => (await fetch(`${http}/readyz`)).status === 200);
  assert.deepEqual(
    [...runner.stderr.matchAll(/gives nothing of (\S+?)[,;:]? /g)].map(([, name]) => name),
    [lane],
  );
  assert.equal((await runner.status()).counters.stalls_total, 1);
}

test("Kafka, whose fetches are answered into nowhere", {
  ...needs("own kafka"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await ownKafka(t, { proxied: true });
  const faults = new Faults();
  const [{ advertised, listens }] = kafka.doors as [(typeof kafka.doors)[0]];
  const proxy = await TcpProxy.start(kafkaFrames, faults, advertised, listens);
  t.after(() => proxy.close());
  await kafka.createTopic("in", { partitions: 1 });
  await kafka.createTopic("out", { partitions: 1 });
  const runner = started(
    t,
    `import { env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), driver: "wire", requestTimeout: "5m" });
export default topology("dead", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "dead", stallTimeout: "2s", maxWait: "100ms" }))
    .to(cluster.sink({ topic: "out" }));
});
`,
    { KAFKA_BROKERS: `127.0.0.1:${proxy.port}` },
  );
  await fill(
    kafka.bootstrap,
    "in",
    numbers(0, 100).map((value) => ({ value })),
  );
  await delivers(runner, 100);
  await faults.inject({ direction: "reply", kind: "Fetch", action: "black hole" });
  await fill(
    kafka.bootstrap,
    "in",
    numbers(100, 200).map((value) => ({ value })),
  );
  await namesIt(t, runner, "in/0");
  await delivers(runner, 200);
  assert.equal((await runner.stop()).code, 0);
  assert.deepEqual(
    (await readTopic(kafka.bootstrap, "out")).map(({ value }) => value),
    numbers(0, 200),
  );
});

test("RabbitMQ, whose deliveries vanish with all else that it says on that connection", {
  ...needs("rabbitmq"),
  timeout: 120_000,
}, async (t) => {
  const { url } = await sharedRabbitmq();
  const through = new URL(url);
  const faults = new Faults();
  const proxy = await TcpProxy.start(amqpFrames, faults, 0, Number(through.port || 5672));
  t.after(() => proxy.close());
  through.hostname = "127.0.0.1";
  through.port = String(proxy.port);
  const [input, output] = [freshName("dead-in"), freshName("dead-out")];
  const connection = await connect(url);
  const channel = await connection.createConfirmChannel();
  for (const queue of [input, output]) await channel.assertQueue(queue, { durable: true });
  t.after(async () => {
    for (const queue of [input, output]) await channel.deleteQueue(queue);
    await connection.close();
  });
  const send = async (from: number, to: number) => {
    for (const value of numbers(from, to)) channel.sendToQueue(input, Buffer.from(value));
    await channel.waitForConfirms();
  };
  const runner = started(
    t,
    `import { env, rabbitmq, topology } from "millrace";
const broker = rabbitmq({ url: env("AMQP_URL") });
export default topology("dead", (t) => {
  t.from(broker.source({ queue: "${input}", prefetch: 10, stallTimeout: "2s" }))
    .to(broker.sink({ queue: "${output}" }));
});
`,
    { AMQP_URL: through.href },
  );
  await send(0, 100);
  await delivers(runner, 100);
  const struck = faults.inject({ direction: "reply", kind: "deliver", action: "black hole" });
  await send(100, 200);
  await struck;
  await namesIt(t, runner, input);
  await delivers(runner, 200);
  assert.equal((await runner.stop()).code, 0);
  const found = new Set<string>();
  for (
    let got = await channel.get(output, { noAck: true });
    got;
    got = await channel.get(output, { noAck: true })
  ) {
    found.add(got.content.toString());
  }
  assert.deepEqual(
    [...found].sort((a, b) => Number(a) - Number(b)),
    numbers(0, 200),
  );
});
