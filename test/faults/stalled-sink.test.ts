/**
 * A sink that stands still while the input goes on: what is in flight stays within its limit and memory flat, the
 * consumer stays in its group, and full speed is back within a second of the sink.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pace } from "node:timers/promises";
import { orders } from "../../bench/orders.ts";
import { freshName, needs, ownKafka, ownRabbitmq, sharedKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { fill, quietKafka } from "../kafka-log.ts";
import { freshFolder, type Millrace, millrace } from "../millrace.ts";

/** How long the sink stands still, ms: a minute where brokers are required, as on a machine for continuous integration. */
const stall = process.env.MILLRACE_REQUIRE_BROKERS === "1" ? 60_000 : 10_000;
/** Shorter than the stall, so that it would end the membership of a consumer that stands still with its sink. */
const sessionTimeout = `${Math.max(6_000, stall / 4)}ms`;
const MiB = 2 ** 20;

interface Stall {
  readonly runner: Millrace;
  readonly credit: number;
  /** Makes the sink stand still; done when it does. */
  begin(): Promise<void>;
  /** Lets it go on; done when it can. */
  end(): Promise<void>;
}

async function outlast(t: TestContext, { runner, credit, begin, end }: Stall): Promise<void> {
  const delivered = async () => (await runner.status()).conservation.delivered;
  const epochs = async () => (await runner.status()).sources[0]!.lanes.map(({ epoch }) => epoch);
  await until("it delivers", async () => (await delivered()) > 20_000, 60_000);
  const usual = await speed(runner, 1_000);
  const before = await epochs();
  assert.equal(before.length, 4);
  const memory = await runner.memory();
  await begin();
  const atStall = await delivered();
  let [most, largest] = [0, memory];
  const over = performance.now() + stall;
  await until(
    "the stall is over",
    async () => {
      const { conservation, sources } = await runner.status();
      assert.ok(conservation.inFlight <= credit, `${conservation.inFlight} in flight`);
      assert.ok(sources[0]!.lanes.every(({ span }) => span <= 4 * credit));
      most = Math.max(most, conservation.inFlight);
      largest = Math.max(largest, await runner.memory());
      return performance.now() >= over;
    },
    stall + 30_000,
  );
  const atRelease = await delivered();
  assert.ok(atRelease - atStall <= credit, "it stood still");
  assert.ok(most > credit / 2, `only ${most} in flight: the input came to an end`);
  assert.deepEqual(await epochs(), before, "the consumer stayed in its group");
  const growth = (largest - memory) / MiB;
  assert.ok(growth <= 64, `memory grew by ${growth.toFixed(1)} MiB`);

  const recovery = async () => {
    const atRelease = await delivered();
    await end();
    const released = performance.now();
    await until(
      "a quarter of a second's worth is delivered",
      async () => (await delivered()) >= atRelease + usual / 4,
    );
    return performance.now() - released;
  };
  let took = await recovery();
  t.diagnostic(
    `${Math.round(usual)} messages/s before; stalled for ${stall / 1_000} s: at most ${most} in flight, ${growth.toFixed(1)} MiB more memory; a quarter of a second's worth ${Math.round(took)} ms after the release`,
  );
  // The machine may have been busy just then; a sink that waits too long does so again.
  for (let again = 0; took > 1_000 && again < 3; again++) {
    await begin();
    await pace(10_000);
    took = await recovery();
    t.diagnostic(`once more, after 10 s: ${Math.round(took)} ms`);
  }
  assert.ok(took <= 1_000, `it took ${took} ms, each time`);
  assert.deepEqual(await epochs(), before);
  const { code, stdout, stderr } = await runner.stop();
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted (\d+) = delivered \1\n$/);
}

/** Messages delivered in each second, over `ms`. */
async function speed(runner: Millrace, ms: number): Promise<number> {
  const start = performance.now();
  const before = (await runner.status()).conservation.delivered;
  await pace(ms);
  const { delivered } = (await runner.status()).conservation;
  return ((delivered - before) / (performance.now() - start)) * 1_000;
}

/** Orders without end, about 4,000 a second. Stops with the test. */
async function endless(t: TestContext, bootstrap: string, topic: string): Promise<void> {
  const producer = quietKafka(bootstrap).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  const portion = [...orders(400)];
  let over = false;
  const produced = (async () => {
    for (let turn = 0; !over; turn++) {
      await producer.send({
        topic,
        messages: portion.map((message, i) => ({ ...message, partition: (turn + i) % 4 })),
      });
      await pace(100);
    }
  })();
  t.after(async () => {
    over = true;
    await produced;
    await producer.disconnect();
  });
}

function topologyFile(t: TestContext, text: string): string {
  const file = join(freshFolder(t), "stall.ts");
  writeFileSync(file, text);
  return file;
}

test(`a Kafka that hangs for ${stall / 1_000} s under one that has more than it can take`, {
  ...needs("kafka", "own kafka"),
  timeout: 300_000,
}, async (t) => {
  const [from, to] = [await sharedKafka(), await ownKafka(t)];
  const name = freshName("stall");
  await from.createTopic(`${name}.in`);
  await to.createTopic(`${name}.out`);
  const portion = 900_000;
  await fill(from.bootstrap, `${name}.in`, orders(portion));
  const credit = 10_000;
  const file = topologyFile(
    t,
    `import { decode, env, kafka, topology } from "millrace";
const from = kafka({ brokers: env("FROM") });
const to = kafka({ brokers: env("TO") });
export default topology("${name}", (t) => {
  t.from(from.source({ topics: ["${name}.in"], group: "${name}", credit: ${credit}, sessionTimeout: "${sessionTimeout}" }))
    .pipe(decode("json"))
    .to(to.sink({ topic: "${name}.out" }));
  t.deadLetters(to.sink({ topic: "${name}.out" }));
});
`,
  );
  const env = { FROM: from.bootstrap, TO: to.bootstrap };
  await outlast(t, {
    runner: millrace(t, ["run", file, "--http", "127.0.0.1:0"], env),
    credit,
    // And as much again, so that the input comes to no end in the quickest recovery.
    begin: async () => {
      to.pause();
      await fill(from.bootstrap, `${name}.in`, orders(portion));
    },
    end: async () => to.resume(),
  });
});

test(`a RabbitMQ out of disk for ${stall / 1_000} s under an endless Kafka`, {
  ...needs("kafka", "own rabbitmq"),
  timeout: 300_000,
}, async (t) => {
  const [kafka, rabbitmq] = [await sharedKafka(), await ownRabbitmq(t)];
  const name = freshName("endless");
  await kafka.createTopic(`${name}.in`);
  await endless(t, kafka.bootstrap, `${name}.in`);
  const credit = 5_000;
  const file = topologyFile(
    t,
    `import { decode, env, kafka, rabbitmq, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS") });
const hare = rabbitmq({
  url: env("AMQP_URL"),
  queues: { "${name}.out": { maxLength: 1_000 }, "${name}.dead": {} },
});
export default topology("${name}", (t) => {
  t.from(cluster.source({
    topics: ["${name}.in"], group: "${name}", credit: ${credit}, sessionTimeout: "${sessionTimeout}", heartbeatInterval: "1s"
  })).pipe(decode("json")).to(hare.sink({ queue: "${name}.out" }));
  t.deadLetters(hare.sink({ queue: "${name}.dead" }));
});
`,
  );
  const env = { KAFKA_BROKERS: kafka.bootstrap, AMQP_URL: rabbitmq.url };
  const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], env);
  const reason = async () => (await runner.status()).sinks[0]!.reason ?? "";
  await outlast(t, {
    runner,
    credit,
    // The alarm of low memory would do the same, and leave the broker slow for seconds after.
    begin: async () => {
      await rabbitmq.ctl("set_disk_free_limit", "1000000GB");
      await until("the sink tells why it waits", async () => /alarm/.test(await reason()));
    },
    end: async () => {
      // The command takes longer to return than the broker to go on.
      const open = rabbitmq.ctl("set_disk_free_limit", "50MB");
      await until("the sink is ready", async () => (await reason()) === "");
      t.after(() => open);
    },
  });
});
