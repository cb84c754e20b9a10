/**
 * What a crash, a stop and a lost broker do to the orders job between two topics of a real Kafka: nothing is
 * ever lost, each customer's orders stay in order, and a clean stop repeats nothing.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { orders } from "../../bench/orders.ts";
import { freshName, needs, ownKafka, sharedKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { committedOf, countOf, fill, type LogRecord, readTopic } from "../kafka-log.ts";
import { type Millrace, millrace } from "../millrace.ts";
import { withNames } from "../topology-copy.ts";

const topology = new URL("../../topologies/orders.ts", import.meta.url).pathname;
const count = 200_000;
const customers = 500;

interface Job {
  readonly file: string;
  readonly input: string;
  readonly output: string;
  readonly group: string;
  readonly env: NodeJS.ProcessEnv;
}

async function prepare(
  t: TestContext,
  kafka: { bootstrap: string; createTopic(name: string): Promise<string> },
): Promise<Job> {
  const names = withNames(t, topology, ["orders", "orders.accepted", "orders.dead"], freshName("o"));
  // A killed member is waited for until its session times out; the broker's least is 6 s.
  const { readFileSync, writeFileSync } = await import("node:fs");
  const text = readFileSync(names.file, "utf8").replace(
    `group: "${names.group}"`,
    `group: "${names.group}", sessionTimeout: "6s", heartbeatInterval: "1s"`,
  );
  writeFileSync(names.file, text);
  for (const topic of Object.values(names.topics)) await kafka.createTopic(topic);
  await fill(kafka.bootstrap, names.topics.orders!, orders(count, customers));
  return {
    file: names.file,
    input: names.topics.orders!,
    output: names.topics["orders.accepted"]!,
    group: names.group,
    env: { KAFKA_BROKERS: kafka.bootstrap },
  };
}

/** What the output holds against what went in. */
function check(records: readonly LogRecord[]): { missing: number; duplicates: number; inversions: string[] } {
  const seen = new Map<string, Set<number>>();
  const highest = new Map<string, number>();
  let duplicates = 0;
  const inversions: string[] = [];
  for (const { partition, offset, key, value } of records) {
    const { seq, customer } = JSON.parse(value!) as { seq: number; customer: string };
    assert.equal(key, customer);
    let own = seen.get(customer);
    if (own === undefined) {
      own = new Set();
      seen.set(customer, own);
    }
    // The first arrival of an order must come after the first arrival of every earlier one of its customer.
    if (own.has(seq)) duplicates++;
    else if (seq !== (highest.get(customer) ?? -1) + 1)
      inversions.push(`${customer} ${seq} at ${partition}/${offset}`);
    own.add(seq);
    highest.set(customer, Math.max(seq, highest.get(customer) ?? -1));
  }
  let present = 0;
  for (const own of seen.values()) present += own.size;
  return { missing: count - present, duplicates, inversions };
}

async function finish(runner: Millrace): Promise<void> {
  const { code, stderr } = await runner.ended;
  assert.equal(code, 0, stderr);
}

test("killed with -9 ten times at random moments: every order arrives, in order", {
  ...needs("kafka"),
  timeout: 400_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const job = await prepare(t, kafka);
  let kills = 0;
  for (; kills < 10; kills++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("partitions assigned", 60_000);
    // From just after the assignment to deep in the work; what is random is the moment, not the outcome.
    const before = await countOf(kafka.bootstrap, job.output);
    const target = before + Math.floor((Math.random() * count) / 12);
    await until(
      "the runner has written some more",
      async () => (await countOf(kafka.bootstrap, job.output)) > target,
      60_000,
    );
    assert.equal((await runner.kill()).code, "SIGKILL");
  }
  await finish(millrace(t, ["run", job.file, "--until-idle"], job.env));
  const { missing, duplicates, inversions } = check(await readTopic(kafka.bootstrap, job.output));
  t.diagnostic(
    `${kills} kills: ${missing} missing, ${inversions.length} inversions, ${duplicates} duplicates`,
  );
  assert.equal(missing, 0);
  assert.deepEqual(inversions.slice(0, 5), []);
  // Span plus a commit interval of work for each of the four partitions and each kill.
  assert.ok(duplicates <= kills * 4 * 40_000);
});

test("stopped with SIGTERM again and again: no order arrives twice", {
  ...needs("kafka"),
  timeout: 300_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const job = await prepare(t, kafka);
  for (let stops = 0; stops < 4; stops++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("partitions assigned", 60_000);
    const before = await countOf(kafka.bootstrap, job.output);
    await until(
      "the runner has written some more",
      async () => (await countOf(kafka.bootstrap, job.output)) > before + 10_000,
      60_000,
    );
    const { code, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
    assert.equal(
      await committedOf(kafka.bootstrap, job.group, job.input),
      await countOf(kafka.bootstrap, job.output),
      "all that was written is committed",
    );
  }
  await finish(millrace(t, ["run", job.file, "--until-idle"], job.env));
  // And once more, when there is nothing left to read.
  await finish(millrace(t, ["run", job.file, "--until-idle"], job.env));
  const records = await readTopic(kafka.bootstrap, job.output);
  assert.deepEqual(check(records), { missing: 0, duplicates: 0, inversions: [] });
});

test("the broker is restarted and killed under it: it reconnects, and nothing is lost", {
  ...needs("own kafka"),
  timeout: 300_000,
}, async (t) => {
  const kafka = await ownKafka(t);
  const job = await prepare(t, kafka);
  const runner = millrace(t, ["run", job.file, "--until-idle"], job.env);
  await runner.logged("partitions assigned", 60_000);
  for (const how of ["restart", "kill"] as const) {
    const before = await countOf(kafka.bootstrap, job.output);
    await until(
      "the runner writes",
      async () => (await countOf(kafka.bootstrap, job.output)) > before + 5_000,
      60_000,
    );
    if (how === "kill") await kafka.kill();
    await kafka.restart();
  }
  await finish(runner);
  const { missing, duplicates, inversions } = check(await readTopic(kafka.bootstrap, job.output));
  t.diagnostic(
    `2 broker faults: ${missing} missing, ${inversions.length} inversions, ${duplicates} duplicates`,
  );
  assert.equal(missing, 0);
});
