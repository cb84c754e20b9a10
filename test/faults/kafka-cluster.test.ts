/**
 * The orders job on three brokers that go and come, and with members that join and leave, by the driver "wire":
 * nothing is lost, each customer's orders stay in order, and a rebalance repeats nothing, since it waits.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { needs, ownKafka } from "../brokers/index.ts";
import type { KafkaCluster } from "../brokers/kafka.ts";
import { until } from "../brokers/until.ts";
import { quietKafka, readTopic } from "../kafka-log.ts";
import { millrace } from "../millrace.ts";
import { checkOrders, finish, type OrdersJob, prepareOrders, written } from "../orders-job.ts";

test("brokers are killed, stopped and restarted in turn, and leaders move back", {
  ...needs("own kafka"),
  timeout: 400_000,
}, async (t) => {
  const count = 600_000;
  const kafka = await ownKafka(t, { brokers: 3, properties: { "min.insync.replicas": "2" } });
  const job = await prepareOrders(t, kafka, count, { driver: "wire", replication: 3 });
  // Unthrottled, it would be done before the first broker is gone.
  await kafka.javaTool("kafka.admin.ConfigCommand", [
    ...["--alter", "--entity-type", "clients", "--entity-name", "millrace"],
    ...["--add-config", "consumer_byte_rate=2000000"],
  ]);
  const runner = millrace(t, ["run", job.file, "--until-idle"], job.env);
  await runner.logged("partitions assigned", 60_000);
  let faults = 0;
  for (const broker of [0, 1, 2]) {
    if (runner.over) break;
    await written(kafka, job, 5_000);
    if (broker === 1) await kafka.shutDown(broker);
    else await kafka.kill(broker);
    faults++;
    await written(kafka, job, 5_000);
    await kafka.restart(broker);
    // It fails for as long as a replica is behind.
    await until(
      "leaders have moved back",
      () =>
        kafka.javaTool("org.apache.kafka.tools.LeaderElectionCommand", [
          ...["--election-type", "preferred", "--all-topic-partitions"],
        ]),
      60_000,
    );
  }
  await finish(runner);
  const { missing, duplicates, inversions } = checkOrders(
    await readTopic(kafka.bootstrap, job.output),
    count,
  );
  t.diagnostic(
    `${faults} broker faults: ${missing} missing, ${inversions.length} inversions, ${duplicates} duplicates`,
  );
  assert.equal(missing, 0);
  assert.deepEqual(inversions.slice(0, 5), []);
});

/** Watches a group's committed offsets, which must never go back. */
function watchCommits(
  t: TestContext,
  kafka: KafkaCluster,
  job: OrdersJob,
): { readonly regressions: string[] } {
  const regressions: string[] = [];
  const highest = new Map<number, number>();
  let over = false;
  t.after(() => {
    over = true;
  });
  (async () => {
    const admin = quietKafka(kafka.bootstrap).admin();
    await admin.connect();
    try {
      while (!over) {
        for (const { partitions } of await admin.fetchOffsets({ groupId: job.group, topics: [job.input] })) {
          for (const { partition, offset } of partitions) {
            const before = highest.get(partition) ?? -1;
            if (Number(offset) < before) regressions.push(`${partition}: ${offset} after ${before}`);
            highest.set(partition, Math.max(before, Number(offset)));
          }
        }
      }
    } finally {
      await admin.disconnect();
    }
  })().catch(() => {});
  return { regressions };
}

for (const protocols of ["classic,consumer", "classic"]) {
  test(`members join and leave all the time: nothing is lost or repeated (protocols of the group: ${protocols})`, {
    ...needs("own kafka"),
    timeout: 400_000,
  }, async (t) => {
    const count = 600_000;
    const kafka = await ownKafka(t, {
      properties: { "group.coordinator.rebalance.protocols": protocols },
    });
    const job = await prepareOrders(t, kafka, count, { driver: "wire" });
    const commits = watchCommits(t, kafka, job);
    const first = millrace(t, ["run", job.file, "--until-idle"], job.env);
    await first.logged("partitions assigned", 60_000);
    let joins = 0;
    for (; joins < 4 && !first.over; joins++) {
      const other = millrace(t, ["run", job.file], job.env);
      await until("it got a share", () => other.over || /"partitions":"[^"n]/.test(other.stderr), 60_000);
      const { code, stderr } = await other.stop();
      assert.equal(code, 0, stderr);
    }
    await finish(first);
    const result = checkOrders(await readTopic(kafka.bootstrap, job.output), count);
    t.diagnostic(
      `${joins} joins: ${result.missing} missing, ${result.inversions.length} inversions, ${result.duplicates} duplicates`,
    );
    assert.ok(joins > 0);
    assert.deepEqual(
      { ...result, inversions: result.inversions.slice(0, 5) },
      {
        missing: 0,
        duplicates: 0,
        inversions: [],
      },
    );
    assert.deepEqual(commits.regressions, []);
  });
}
