/**
 * What a crash, a stop and a lost broker do to the orders job between two topics of a real Kafka: nothing is
 * ever lost, each customer's orders stay in order, and a clean stop repeats nothing.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { needs, ownKafka, sharedKafka } from "../brokers/index.ts";
import { committedOf, countOf, readTopic } from "../kafka-log.ts";
import { millrace } from "../millrace.ts";
import { checkOrders, finish, prepareOrders, written } from "../orders-job.ts";

const count = 200_000;

test("killed with -9 ten times at random moments: every order arrives, in order", {
  ...needs("kafka"),
  timeout: 400_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const job = await prepareOrders(t, kafka, count);
  let kills = 0;
  for (; kills < 10; kills++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("partitions assigned", 60_000);
    // From just after the assignment to deep in the work; what is random is the moment, not the outcome.
    await written(kafka, job, Math.floor((Math.random() * count) / 12));
    assert.equal((await runner.kill()).code, "SIGKILL");
  }
  await finish(millrace(t, ["run", job.file, "--until-idle"], job.env));
  const { missing, duplicates, inversions } = checkOrders(
    await readTopic(kafka.bootstrap, job.output),
    count,
  );
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
  const job = await prepareOrders(t, kafka, count);
  for (let stops = 0; stops < 4; stops++) {
    const runner = millrace(t, ["run", job.file], job.env);
    await runner.logged("partitions assigned", 60_000);
    await written(kafka, job, 10_000);
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
  assert.deepEqual(checkOrders(records, count), { missing: 0, duplicates: 0, inversions: [] });
});

test("the broker is restarted and killed under it: it reconnects, and nothing is lost", {
  ...needs("own kafka"),
  timeout: 300_000,
}, async (t) => {
  const kafka = await ownKafka(t);
  const job = await prepareOrders(t, kafka, count);
  const runner = millrace(t, ["run", job.file, "--until-idle"], job.env);
  await runner.logged("partitions assigned", 60_000);
  for (const how of ["restart", "kill"] as const) {
    await written(kafka, job, 5_000);
    if (how === "kill") await kafka.kill();
    await kafka.restart();
  }
  await finish(runner);
  const { missing, duplicates, inversions } = checkOrders(
    await readTopic(kafka.bootstrap, job.output),
    count,
  );
  t.diagnostic(
    `2 broker faults: ${missing} missing, ${inversions.length} inversions, ${duplicates} duplicates`,
  );
  assert.equal(missing, 0);
});
