import assert from "node:assert/strict";
import { test } from "node:test";
import { freshName, needs, sharedKafka } from "../test/brokers/index.ts";
import { until } from "../test/brokers/until.ts";
import { committedOf, fill, readTopic } from "../test/kafka-log.ts";
import { freshFolder, millrace, runMillrace } from "../test/millrace.ts";
import { simulatedRun } from "../test/simulated-run.ts";
import { withNames } from "../test/topology-copy.ts";

const topology = new URL("dms.ts", import.meta.url).pathname;
const topics = ["dms.requests", "dms.results", "dms.journal", "dms.dead"];

interface Change {
  readonly id: string;
  readonly account: string;
  readonly amount: number;
}

/** Changes of a few accounts, numbered within each. */
function changes(count: number, from = 0): Change[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `c-${from + i}`,
    account: `a-${i % 20}`,
    amount: from + i,
  }));
}

const keyed = (all: readonly Change[]) =>
  all.map((change) => ({ key: change.account, value: JSON.stringify(change) }));

test("seed 003.4: after a failure nothing behind it begins, and what precedes it is committed", async (t) => {
  const limit = 20_000;
  const run = await simulatedRun(t, topology, [
    { topic: "dms.requests" },
    { topic: "dms.results", maxMessageBytes: limit },
    { topic: "dms.journal" },
    { topic: "dms.dead" },
  ]);
  const sent = changes(5).map((change, i) =>
    JSON.stringify(i === 2 ? { ...change, note: "x".repeat(limit) } : change),
  );
  // The dead letters are away, so that the failed change stays unsettled for a while.
  run.kafka.faults.limit("dms.dead", 1);
  for (const line of sent) await run.send("dms.requests", line, 0);
  await run.pass(3_000);
  const results = () => [...run.kafka.contents("dms.results")].map(({ value }) => value!.toString());
  assert.deepEqual(results(), sent.slice(0, 2), "nothing behind the failed one was begun");
  assert.equal(
    run.kafka.group("dms-worker").committed("dms.requests").get(0),
    2,
    "what precedes it is committed",
  );
  run.kafka.faults.limit("dms.dead", 1_000_000);
  await run.pass(20_000);
  assert.deepEqual(results(), [...sent.slice(0, 2), ...sent.slice(3)]);
  const [letter, ...more] = [...run.kafka.contents("dms.dead")];
  assert.equal(letter!.value!.toString(), sent[2]);
  assert.deepEqual(more, []);
  assert.equal(run.kafka.group("dms-worker").committed("dms.requests").get(0), 5);
});

test(
  "seed 003.2, 003.3: killed in the middle, uncommitted changes come again; repeats have no effect, after a restart either",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const { bootstrap } = kafka;
    const { file, topics: names, group } = withNames(t, topology, topics, freshName("dms"));
    for (const topic of topics) await kafka.createTopic(names[topic]!, { partitions: 4 });
    const [requests, results] = [names["dms.requests"]!, names["dms.results"]!];
    const env = { KAFKA_BROKERS: bootstrap, STATE_DIR: freshFolder(t) };
    const all = changes(800);
    await fill(bootstrap, requests, keyed(all));

    const killed = millrace(t, ["run", file, "--http", "0"], env);
    await until("some are delivered", async () => (await killed.status()).conservation.delivered > 100);
    await killed.kill();
    const committed = await committedOf(bootstrap, group, requests);
    assert.ok(committed < all.length, "it was killed before the end");

    const again = await runMillrace(t, ["run", file, "--until-idle"], env);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(await committedOf(bootstrap, group, requests), all.length);
    const written = (await readTopic(bootstrap, results)).map(({ value }) => JSON.parse(value!) as Change);
    assert.equal(new Set(written.map(({ id }) => id)).size, all.length, "none is lost");
    const afterKill = written.length;

    // The producer, which never heard of its success, sends everything once more.
    await fill(bootstrap, requests, keyed(all));
    const repeated = await runMillrace(t, ["run", file, "--until-idle"], env);
    assert.match(repeated.stdout, /accepted 800 = duplicate 800\n$/);
    assert.equal((await readTopic(bootstrap, results)).length, afterKill, "repeats have no effect");

    const firsts = new Map<string, Change>();
    for (const change of written) if (!firsts.has(change.id)) firsts.set(change.id, change);
    for (const [account, inOrder] of Map.groupBy(firsts.values(), (change) => change.account)) {
      assert.deepEqual(
        inOrder.map(({ id }) => id),
        all.filter((change) => change.account === account).map(({ id }) => id),
        `${account} is in order`,
      );
    }
  },
);

test("seed 003.4: on the embedded broker: the journal takes whole batches; what is wrong goes to the dead letters, the rest through", async (t) => {
  const run = await simulatedRun(
    t,
    topology,
    topics.map((topic) => ({ topic })),
  );
  const [one, other] = changes(2).map((change) => JSON.stringify(change));
  for (const line of [one!, "not json", '{"id":"x"}', one!, other!]) await run.send("dms.requests", line, 10);
  await run.pass(1_000);
  const read = (topic: string) => [...run.kafka.contents(topic)].map(({ value }) => value!.toString());
  assert.deepEqual(read("dms.results"), [one, other]);
  assert.deepEqual(
    run.batchesOf("dms.journal").map(({ codec, values }) => ({ codec, values })),
    [{ codec: "lz4", values: [one, other] }],
    "one batch",
  );
  assert.deepEqual(read("dms.dead"), ["not json", '{"id":"x"}']);
});
