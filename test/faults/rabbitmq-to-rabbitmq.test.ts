/**
 * What a crash, a stop and a lost broker do to a topology between two queues of a real RabbitMQ: nothing is ever
 * lost, and a clean stop repeats nothing.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { orders } from "../../bench/orders.ts";
import { freshName, needs, ownRabbitmq, sharedRabbitmq } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { freshFolder, millrace } from "../millrace.ts";

const count = 30_000;

interface Job {
  readonly file: string;
  readonly input: string;
  readonly output: string;
  readonly env: NodeJS.ProcessEnv;
}

async function prepare(t: TestContext, url: string): Promise<Job> {
  const prefix = freshName("relay");
  const [input, output, dead] = [`${prefix}.in`, `${prefix}.out`, `${prefix}.dead`];
  const file = join(freshFolder(t), "relay.ts");
  writeFileSync(
    file,
    `import { batch, decode, env, rabbitmq, topology } from "millrace";
const broker = rabbitmq({ url: env("AMQP_URL"), queues: {
  "${input}": { type: "classic" }, "${output}": { type: "classic" }, "${dead}": { type: "classic" } } });
export default topology("${prefix}", (t) => {
  t.from(broker.source({ queue: "${input}", prefetch: 500 }))
    .pipe(decode("json"), batch({ count: 100, within: "20ms" }))
    .to(broker.sink({ queue: "${output}" }));
  t.deadLetters(broker.sink({ queue: "${dead}" }));
});
`,
  );
  const connection = await connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(input, { durable: true });
  await channel.assertQueue(output, { durable: true });
  for (const { value } of orders(count)) {
    if (!channel.sendToQueue(input, Buffer.from(value), { persistent: true })) {
      await new Promise((resolve) => channel.once("drain", resolve));
    }
  }
  await channel.waitForConfirms();
  await connection.close();
  return { file, input, output, env: { AMQP_URL: url } };
}

/** Messages ready in a queue; waits for a broker that is away. */
async function ready(url: string, queue: string): Promise<number> {
  const ask = async () => {
    const connection = await connect(url);
    try {
      const channel = await connection.createChannel();
      return { count: (await channel.checkQueue(queue)).messageCount };
    } finally {
      await connection.close();
    }
  };
  return (await until(`queue ${queue} answers`, ask, 60_000)).count;
}

/**
 * Waits until `more` than now are in the output queue. Also until the input has nothing left to give: a runner may be
 * through with it while nobody looks.
 */
async function written(url: string, job: Job, more: number): Promise<void> {
  const before = await ready(url, job.output);
  await until(
    `${more} more are written`,
    async () => (await ready(url, job.output)) > before + more || (await ready(url, job.input)) === 0,
  );
}

/** Takes everything out of the output queue: how many ids came, how often, and what of the input never did. */
async function check(url: string, job: Job): Promise<{ missing: number; duplicates: number }> {
  const connection = await connect(url);
  const channel = await connection.createChannel();
  const total = (await channel.checkQueue(job.output)).messageCount;
  const seen = new Set<string>();
  let read = 0;
  if (total > 0) {
    await new Promise<void>((resolve) => {
      channel.consume(
        job.output,
        (message) => {
          seen.add((JSON.parse(message!.content.toString()) as { id: string }).id);
          if (++read === total) resolve();
        },
        { noAck: true },
      );
    });
  }
  await connection.close();
  return { missing: count - seen.size, duplicates: read - seen.size };
}

test("killed with -9 ten times: every message arrives", {
  ...needs("rabbitmq"),
  timeout: 300_000,
}, async (t) => {
  const { url } = await sharedRabbitmq();
  const job = await prepare(t, url);
  for (let kills = 0; kills < 10; kills++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("topology running", 60_000);
    await written(url, job, Math.floor((Math.random() * count) / 14));
    assert.equal((await runner.kill()).code, "SIGKILL");
  }
  const { code, stderr } = await millrace(t, ["run", job.file, "--until-idle"], job.env).ended;
  assert.equal(code, 0, stderr);
  const { missing, duplicates } = await check(url, job);
  t.diagnostic(`10 kills: ${missing} missing, ${duplicates} duplicates`);
  assert.equal(missing, 0);
  assert.ok(duplicates <= 10 * 500, "what a crash repeats is within the prefetch");
});

test("stopped with SIGTERM again and again: nothing arrives twice", {
  ...needs("rabbitmq"),
  timeout: 200_000,
}, async (t) => {
  const { url } = await sharedRabbitmq();
  const job = await prepare(t, url);
  for (let stops = 0; stops < 4; stops++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("topology running", 60_000);
    await written(url, job, 2_000);
    const { code, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
  }
  const { code, stderr } = await millrace(t, ["run", job.file, "--until-idle"], job.env).ended;
  assert.equal(code, 0, stderr);
  assert.deepEqual(await check(url, job), { missing: 0, duplicates: 0 });
});

test("the broker is killed and restarted under it: it reconnects, and nothing is lost", {
  ...needs("own rabbitmq"),
  timeout: 300_000,
}, async (t) => {
  const broker = await ownRabbitmq(t);
  const job = await prepare(t, broker.url);
  await broker.settleNames();
  const runner = millrace(t, ["run", job.file, "--until-idle"], job.env);
  await runner.logged("topology running", 60_000);
  await written(broker.url, job, 2_000);
  await broker.kill();
  await broker.restart();
  const { code, stderr } = await runner.ended;
  assert.equal(code, 0, stderr);
  const { missing, duplicates } = await check(broker.url, job);
  t.diagnostic(`a broker killed: ${missing} missing, ${duplicates} duplicates`);
  assert.equal(missing, 0);
});
