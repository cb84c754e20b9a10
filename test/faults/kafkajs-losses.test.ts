/**
 * Two ways in which kafkajs' producer loses what it has acknowledged, and the same faults under our sink, which
 * loses nothing. That kafkajs loses is shown, not required: whether it happens in one run is a matter of luck.
 *
 * A lost reply: an idempotent producer with several sends under way takes back a sequence number when a request
 * fails, and another send uses it before the retry does; the broker takes the later one for a repetition.
 * A moved leader: answers are kept by broker, so a partition that moves to a broker which has answered already
 * is taken for written. The answer names one partition twice, and another not at all.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pace } from "node:timers/promises";
import type { Admin } from "kafkajs";
import { orders } from "../../bench/orders.ts";
import { seededRandom } from "../../src/testing/context.ts";
import { freshName, needs, ownKafka } from "../brokers/index.ts";
import type { KafkaCluster } from "../brokers/kafka.ts";
import { countOf, fill, quietKafka, readTopic } from "../kafka-log.ts";
import { freshFolder, millrace } from "../millrace.ts";
import { kafkaFrames } from "./kafka-frames.ts";
import { moveLeaders } from "./leaders.ts";
import { Faults, TcpProxy } from "./proxy.ts";

const partitions = 6;
const replication = 3;

/** Acknowledged values that the topic does not hold. */
async function unstored(kafka: KafkaCluster, topic: string, acked: Iterable<string>): Promise<string[]> {
  const stored = new Set((await readTopic(kafka.bootstrap, topic)).map(({ value }) => value));
  return [...acked].filter((value) => !stored.has(value));
}

/** Does something again and again, with pauses, until it is told to stop or has done it often enough; counts. */
function keep(
  every: number,
  work: () => Promise<unknown>,
  most = Number.POSITIVE_INFINITY,
): { stop(): Promise<number> } {
  let over = false;
  const done = (async () => {
    let times = 0;
    while (!over && times < most) {
      await work();
      times++;
      await pace(every);
    }
    return times;
  })();
  return {
    stop: () => {
      over = true;
      return done;
    },
  };
}

const drivers = ["wire", "kafkajs"] as const;

/** Copies one topic to another with the runner; returns what is missing there, and how many came twice. */
async function throughSink(
  t: TestContext,
  kafka: KafkaCluster,
  { driver, bootstrap, count }: { driver: (typeof drivers)[number]; bootstrap: string; count: number },
  faults: (output: string) => { stop(): Promise<number> },
) {
  const name = freshName("sink");
  await kafka.createTopic(`${name}.in`, { partitions, replication });
  await kafka.createTopic(`${name}.out`, { partitions, replication });
  await fill(kafka.bootstrap, `${name}.in`, orders(count));
  const file = join(freshFolder(t), "copy.ts");
  writeFileSync(
    file,
    `import { decode, env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), driver: "${driver}" });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}", credit: 1000, maxWait: "50ms" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "${name}.out", maxBackoff: "200ms" }));
  t.deadLetters(cluster.sink({ topic: "${name}.out" }));
});
`,
  );
  const runner = millrace(t, ["run", file, "--until-idle"], { KAFKA_BROKERS: bootstrap });
  await runner.logged("partitions assigned", 60_000);
  const struck = faults(`${name}.out`);
  const { code, stderr } = await runner.ended;
  const times = await struck.stop();
  assert.equal(code, 0, stderr);
  const wanted = [...orders(count)].map(({ value }) => value);
  const missing = await unstored(kafka, `${name}.out`, wanted);
  return { times, missing, twice: (await countOf(kafka.bootstrap, `${name}.out`)) - count };
}

test("acknowledged messages that kafkajs loses are not lost by our sink", {
  ...needs("own kafka"),
  timeout: 300_000,
}, async (t) => {
  const kafka = await ownKafka(t, { brokers: 3, proxied: true });
  const faults = new Faults();
  const proxies = await Promise.all(
    kafka.doors.map(({ advertised, listens }) => TcpProxy.start(kafkaFrames, faults, advertised, listens)),
  );
  t.after(() => Promise.all(proxies.map((proxy) => proxy.close())));
  const proxied = proxies.map(({ port }) => `127.0.0.1:${port}`).join(",");
  const admin: Admin = quietKafka(kafka.bootstrap).admin();
  await admin.connect();
  t.after(() => admin.disconnect());
  const random = seededRandom(11);

  await t.test("a lost reply, kafkajs alone: idempotent, six sends under way", async (t) => {
    const topic = await kafka.createTopic(freshName("reply"), { partitions: 1, replication });
    const acked = new Set<string>();
    let rounds = 0;
    let lost: string[] = [];
    for (; rounds < 5 && lost.length === 0; rounds++) {
      const producer = quietKafka(proxied).producer({ idempotent: true, maxInFlightRequests: 1 });
      await producer.connect();
      await producer.send({ topic, messages: [{ value: `warm ${rounds}` }] });
      const struck = faults.inject({ direction: "reply", kind: "Produce", action: "cut" });
      const send = async (value: string) => {
        await producer.send({ topic, acks: -1, messages: [{ value }] });
        acked.add(value);
      };
      const sends = [0, 1, 2, 3, 4, 5].map((i) => send(`${rounds}-${i}`));
      await Promise.all([struck, ...sends.map((sent) => sent.catch(() => {}))]);
      await producer.disconnect();
      lost = await unstored(kafka, topic, acked);
    }
    t.diagnostic(
      lost.length > 0
        ? `kafkajs: ${acked.size} acknowledged, lost: ${lost.join(" ")} (round ${rounds})`
        : `kafkajs was lucky: ${acked.size} acknowledged and stored in ${rounds} rounds`,
    );
  });

  for (const driver of drivers) {
    await t.test(`lost replies, our sink by ${driver}: nothing is lost`, async (t) => {
      const job = { driver, bootstrap: proxied, count: 20_000 };
      const { times, missing, twice } = await throughSink(t, kafka, job, () =>
        keep(
          100,
          () =>
            Promise.race([
              faults.inject({ direction: "reply", kind: "Produce", nth: 3, action: "cut" }),
              // There may be nothing left to write.
              pace(2_000, undefined, { ref: false }),
            ]),
          20,
        ),
      );
      faults.disarm();
      t.diagnostic(`ours: ${times} replies lost, ${missing.length} messages lost, ${twice} twice`);
      assert.ok(times > 3, `${times} replies were cut`);
      assert.deepEqual(missing.slice(0, 5), []);
      if (driver === "wire") assert.equal(twice, 0, "a resend is known for what it is");
    });
  }

  await t.test("leaders moved, kafkajs alone: not idempotent, one send at a time each", async (t) => {
    const topic = await kafka.createTopic(freshName("moved"), { partitions, replication });
    const client = quietKafka(kafka.bootstrap);
    const mover = keep(250, () => moveLeaders(admin, topic, random));
    const acked = new Set<string>();
    let uncovered = 0;
    const end = performance.now() + 30_000;
    const produce = async (name: number) => {
      const producer = client.producer({
        allowAutoTopicCreation: false,
        retry: { retries: 50, initialRetryTime: 50, maxRetryTime: 500 },
      });
      await producer.connect();
      for (let turn = 0; performance.now() < end && uncovered < 10; turn++) {
        const messages = Array.from({ length: partitions * 5 }, (_, i) => ({
          partition: i % partitions,
          value: `${name}-${turn}-${i}`,
        }));
        const answers = await producer.send({ topic, acks: -1, messages }).catch(() => undefined);
        if (answers === undefined) continue;
        for (const { value } of messages) acked.add(value);
        if (new Set(answers.map(({ partition }) => partition)).size < partitions) uncovered++;
      }
      await producer.disconnect();
    };
    // One is often lucky for that long.
    await Promise.all([0, 1, 2, 3].map(produce));
    const moves = await mover.stop();
    const lost = await unstored(kafka, topic, acked);
    t.diagnostic(
      lost.length > 0
        ? `kafkajs: ${acked.size} acknowledged without an error, ${lost.length} of them lost in ${moves} moves`
        : `kafkajs was lucky: ${acked.size} acknowledged and stored in ${moves} moves`,
    );
    t.diagnostic(`kafkajs: ${uncovered} answers did not name every partition that was sent`);
  });

  for (const driver of drivers) {
    await t.test(`leaders moved, our sink by ${driver}: nothing is lost`, async (t) => {
      const job = { driver, bootstrap: kafka.bootstrap, count: 30_000 };
      const { times, missing, twice } = await throughSink(t, kafka, job, (output) =>
        keep(250, () => moveLeaders(admin, output, random)),
      );
      t.diagnostic(`ours: ${times} moves, ${missing.length} messages lost, ${twice} twice`);
      assert.ok(times > 3, `the leaders moved ${times} times`);
      assert.deepEqual(missing.slice(0, 5), []);
    });
  }
});
