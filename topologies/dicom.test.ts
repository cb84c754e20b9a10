import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { type AuditEvent, key } from "millrace";
import { OperatorBed } from "../src/testing/operator-bed.ts";
import { freshName, needs, sharedKafka, sharedRabbitmq } from "../test/brokers/index.ts";
import { until } from "../test/brokers/until.ts";
import { readTopic } from "../test/kafka-log.ts";
import { dumped, freshFolder, millrace, runMillrace } from "../test/millrace.ts";
import { type SimulatedRun, simulatedRun } from "../test/simulated-run.ts";
import { withNames } from "../test/topology-copy.ts";

const topology = new URL("dicom.ts", import.meta.url).pathname;
const kinds = [
  { queue: "dicom-store", data: "data/dicom_store_meta.ndjson", topic: "storage_queue" },
  { queue: "dicom-state", data: "data/dicom_state_meta.ndjson", topic: "dicom_state_queue" },
  { queue: "dicom-image", data: "data/dicom_image_meta.ndjson", topic: "dicom_image_queue" },
] as const;
const topics = [...kinds.map(({ topic }) => topic), "log_queue", "dicom.dead"];

function linesOf(file: string): string[] {
  return readFileSync(new URL(file, import.meta.url), "utf8")
    .trim()
    .split("\n");
}

interface Read {
  readonly key: string | null;
  readonly value: string | null;
}

/** What must have arrived, whatever the brokers: by topic, in the order of each key. */
function assertArrived(read: Readonly<Record<string, readonly Read[]>>): void {
  const expected = linesOf("data/dicom_expected_keys.tsv")
    .slice(1)
    .map((line) => line.split("\t"));
  for (const { topic, data } of kinds) {
    const lines = linesOf(data);
    const records = read[topic]!;
    const good = lines.filter((line) => JSON.parse(line).study_uid !== "");
    assert.equal(good.length, 115);
    assert.deepEqual(
      records.map(({ value }) => value).sort(),
      [...good].sort(),
      `${topic}: each line once, byte for byte`,
    );
    const keyOf = (line: string) => {
      const row = expected[lines.indexOf(line)]!;
      if (topic === "storage_queue") return JSON.parse(line).trace_id as string;
      return topic === "dicom_state_queue" ? row[1]! : row[2]!;
    };
    for (const { key, value } of records) assert.equal(key, keyOf(value!), `${topic}: the key of ${value}`);
    // Two messages with one key both arrive, in the order in which they were sent.
    const inOrder = (list: readonly string[]) => Map.groupBy(list, keyOf);
    assert.deepEqual(inOrder(records.map(({ value }) => value!)), inOrderOf(inOrder(good), records));
  }
  const dead = read["dicom.dead"]!;
  assert.equal(dead.length, 39);
  assert.ok(dead.every(({ value }) => JSON.parse(value!).study_uid === ""));
  const events = read.log_queue!.map(
    ({ value }) => JSON.parse(value!) as { topic: string; succeeded: number; failed: number },
  );
  for (const { topic } of kinds) {
    const own = events.filter((event) => event.topic.endsWith(topic));
    assert.equal(
      own.reduce((sum, { succeeded }) => sum + succeeded, 0),
      115,
      `${topic}: the audit counts every message`,
    );
    assert.equal(
      own.reduce((sum, { failed }) => sum + failed, 0),
      0,
    );
  }
}

/** The same groups in the order in which their keys first appear, so that only the order within a key counts. */
function inOrderOf(groups: Map<string, string[]>, records: readonly Read[]): Map<string, string[]> {
  return new Map([...new Set(records.map(({ key }) => key!))].map((key) => [key, groups.get(key)!]));
}

test("seed 000.1, 000.5, 000.6, 000.7: on the embedded brokers 115 of each kind under the expected keys, 39 rejected with the reason", async (t) => {
  const out = freshFolder(t);
  const feeds = kinds.flatMap(({ queue, data }) => [
    "--feed",
    `${queue}=${new URL(data, import.meta.url).pathname}`,
  ]);
  const { code, stdout, stderr } = await runMillrace(t, [
    "run",
    topology,
    "--embedded",
    ...feeds,
    "--until-idle",
    "--dump",
    out,
  ]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 384 = delivered 345 \+ deadLettered 39/);
  const read: Record<string, Read[]> = {};
  for (const topic of topics) read[topic] = (await dumped(out, topic)) as Read[];
  assertArrived(read);
  for (const { headers } of await dumped(out, "dicom.dead")) {
    const named = Object.fromEntries(headers) as Record<string, string>;
    assert.equal(named["millrace-error-class"], "business");
    assert.match(named["millrace-error-message"] ?? "", /study UID is empty/);
  }
});

for (const { queue, data, topic } of kinds) {
  test(`seed 000.4, 000.9, 001.5: what ${queue} brings within 100 ms is written as one batch in snappy, with one audit event`, async (t) => {
    const run = await simulatedRun(
      t,
      topology,
      topics.map((name) => ({ topic: name })),
    );
    const sent = linesOf(data)
      .filter((line) => JSON.parse(line).study_uid !== "")
      .slice(0, 5);
    for (const line of sent) await run.send(queue, line, 10);
    await run.pass(200);
    assert.deepEqual(run.batchesOf(topic), [{ topic, codec: "snappy", values: sent }]);
    const stored = [{ first: 0, count: 5 }];
    assert.deepEqual(eventsOf(run), [{ topic, succeeded: 5, failed: 0, stored, errors: [] }]);
  });
}

test("seed 000.9: two publishers on the same queues share the work, and together send everything once", async (t) => {
  const run = await simulatedRun(
    t,
    topology,
    topics.map((name) => ({ topic: name })),
    2,
  );
  for (const { queue, data } of kinds) for (const line of linesOf(data)) await run.send(queue, line, 1);
  await run.pass(1_000);
  const shares = run.statuses().map(({ conservation }) => conservation.accepted);
  assert.equal(shares[0]! + shares[1]!, 384);
  assert.ok(Math.min(...shares) > 100, `one took ${shares[0]}, the other ${shares[1]}`);
  for (const { topic, data } of kinds) {
    const good = linesOf(data).filter((line) => JSON.parse(line).study_uid !== "");
    const arrived = run.batchesOf(topic).flatMap(({ values }) => values);
    assert.deepEqual(arrived.sort(), good.sort(), topic);
  }
});

test("seed 000.4: one message goes alone, and over a connection that was lost and came back", async (t) => {
  const run = await simulatedRun(
    t,
    topology,
    topics.map((name) => ({ topic: name })),
  );
  const [first, second] = linesOf("data/dicom_store_meta.ndjson") as [string, string];
  await run.send("dicom-store", first, 200);
  run.kafka.faults.cut(5_000);
  await run.send("dicom-store", second, 4_000);
  const written = () => run.batchesOf("storage_queue").map(({ values }) => values);
  assert.deepEqual(written(), [[first]], "while it is away nothing is given up");
  await run.pass(60_000);
  assert.deepEqual(written(), [[first], [second]]);
});

test("a message that is no JSON, or none of its kind, is rejected with the reason, and its neighbours are sent", async (t) => {
  const run = await simulatedRun(
    t,
    topology,
    topics.map((name) => ({ topic: name })),
  );
  const [first, second] = linesOf("data/dicom_state_meta.ndjson") as [string, string];
  for (const line of [first, "{", '{"study_uid":"1.2"}', second]) await run.send("dicom-state", line, 10);
  await run.pass(1_000);
  assert.deepEqual(
    run.batchesOf("dicom_state_queue").flatMap(({ values }) => values),
    [first, second],
  );
  const dead = [...run.kafka.contents("dicom.dead")].map(({ value, headers }) => [
    String(value),
    String(headers.find(([name]) => name === "millrace-error-code")?.[1]),
  ]);
  assert.deepEqual(dead, [
    ["{", "json-invalid"],
    ['{"study_uid":"1.2"}', "schema-violation"],
  ]);
});

test("seed 000.8, 000.10: a message that Kafka refuses is counted as failed, and its dead letter names it", async (t) => {
  const limit = 50_000;
  const run = await simulatedRun(
    t,
    topology,
    topics.map((name) =>
      name === "storage_queue" ? { topic: name, maxMessageBytes: limit } : { topic: name },
    ),
  );
  const [first, second, third] = linesOf("data/dicom_store_meta.ndjson").map((line) => JSON.parse(line));
  // Random, so that no codec makes it fit.
  const large = { ...second, file_path: randomBytes(limit).toString("base64") };
  const sent = [first, large, third].map((message) => JSON.stringify(message));
  for (const line of sent) await run.send("dicom-store", line, 10);
  await run.pass(1_000);
  const arrived = run.batchesOf("storage_queue").flatMap(({ values }) => values);
  assert.deepEqual(arrived, [sent[0], sent[2]]);
  const [event] = eventsOf(run);
  assert.deepEqual([event!.succeeded, event!.failed], [2, 1]);
  assert.deepEqual(event!.stored, [{ first: 0, count: 2 }]);
  const [{ message, ...error }, ...otherErrors] = event!.errors as [AuditEvent["errors"][0]];
  assert.deepEqual(error, { target: "dicom-store", position: 2, code: "record-too-large" });
  assert.match(message, /at most 50000/);
  assert.deepEqual(otherErrors, []);
  const [letter, ...more] = [...run.kafka.contents("dicom.dead")];
  assert.ok(letter);
  assert.deepEqual(more, []);
  assert.equal(letter.value?.toString(), sent[1], "with its own bytes");
  const named = Object.fromEntries(letter.headers.map(([name, content]) => [name, String(content)]));
  assert.equal(named["millrace-error-code"], "record-too-large");
  assert.equal(named["millrace-error-target"], "dicom-store");
  assert.equal(named["millrace-error-position"], "2");
  assert.match(named["millrace-error-message"] ?? "", /at most 50000/);
});

test("seed 000.10, 000.11: two states with one key in one batch both arrive, in order", async (t) => {
  const run = await simulatedRun(
    t,
    topology,
    topics.map((name) => ({ topic: name })),
  );
  const state = JSON.parse(linesOf("data/dicom_state_meta.ndjson")[0]!) as Record<string, unknown>;
  const sent = ["first", "second", "third"].map((comment) => JSON.stringify({ ...state, comment }));
  for (const line of sent) await run.send("dicom-state", line, 5);
  await run.pass(200);
  assert.deepEqual(
    run.batchesOf("dicom_state_queue").map(({ values }) => values),
    [sent],
  );
  const keys = [...run.kafka.contents("dicom_state_queue")].map((record) => String(record.key));
  assert.equal(new Set(keys).size, 1);
  assert.match(keys[0]!, /^[0-9a-f]{32}$/);
});

test("seed 000.2: buffering, batching, linger and codec are what the environment says, and a mistake is told", async (t) => {
  const check = (env: NodeJS.ProcessEnv) => runMillrace(t, ["check", topology], env);
  assert.equal((await check({ BATCH_NUM_MESSAGES: "10", COMPRESSION_CODEC: "lz4" })).code, 0);
  const wrong = await check({ COMPRESSION_CODEC: "snapy", QUEUE_BUFFERING_MAX_MS: "soon" });
  assert.equal(wrong.code, 78);
  assert.match(
    `${wrong.stdout}${wrong.stderr}`,
    /compression_codec.*queue_buffering_max_ms|queue_buffering_max_ms.*compression_codec/s,
  );
  assert.equal((await check({ LINGER_MS: "5" })).code, 0);
  const two = await check({ LINGER_MS: "5", QUEUE_BUFFERING_MAX_MS: "100" });
  assert.equal(two.code, 78);
  assert.match(
    `${two.stdout}${two.stderr}`,
    /"queue_buffering_max_ms" and "linger_ms" are one setting \(batch within\) with two values/,
  );
  // As large as a producer's buffer usually is, which no consumer of RabbitMQ can be given at once.
  const usual = await check({
    QUEUE_BUFFERING_MAX_MESSAGES: "100000",
    QUEUE_BUFFERING_MAX_KBYTES: "1048576",
    BATCH_NUM_MESSAGES: "10000",
  });
  assert.equal(usual.code, 0, usual.stdout + usual.stderr);
  const out = freshFolder(t);
  const feed = `dicom-state=${new URL("data/dicom_state_meta.ndjson", import.meta.url).pathname}`;
  const args = ["run", topology, "--embedded", "--feed", feed, "--until-idle", "--dump", out];
  const { code, stderr } = await runMillrace(t, args, { BATCH_NUM_MESSAGES: "7" });
  assert.equal(code, 0, stderr);
  const sizes = (await dumped(out, "log_queue")).map(({ value }) => JSON.parse(String(value)) as AuditEvent);
  assert.ok(sizes.length >= 115 / 7);
  assert.ok(
    sizes.every(({ succeeded }) => succeeded <= 7),
    "no batch has more messages than the setting",
  );
});

test("seed 000.10: without `join` no two lists of ids make one key, with it some do", () => {
  const keyOf = (ids: readonly string[], join: { join?: string }) => {
    const bed = new OperatorBed(key({ digest: "md5", of: (list: readonly string[]) => list, ...join }));
    bed.sendValues([ids]);
    return bed.emitted()[0]!.key;
  };
  const [one, other] = [
    ["a_b", "c"],
    ["a", "b_c"],
  ] as const;
  assert.equal(keyOf(one, { join: "_" }), keyOf(other, { join: "_" }));
  assert.notEqual(keyOf(one, {}), keyOf(other, {}));
});

/** The audit events, without what differs from run to run. */
function eventsOf(
  run: SimulatedRun,
): Pick<AuditEvent, "topic" | "succeeded" | "failed" | "stored" | "errors">[] {
  return run
    .batchesOf("log_queue")
    .flatMap(({ values }) => values)
    .map((value) => JSON.parse(value) as AuditEvent)
    .map(({ topic, succeeded, failed, stored, errors }) => ({ topic, succeeded, failed, stored, errors }));
}

/** The topology under names of its own, between brokers that hold its data. */
async function onRealBrokers(t: TestContext) {
  const [kafka, rabbitmq] = [await sharedKafka(), await sharedRabbitmq()];
  const names = withNames(t, topology, [...kinds.map(({ queue }) => queue), ...topics], freshName("d"));
  for (const topic of topics) await kafka.createTopic(names.topics[topic]!);
  const connection = await connect(rabbitmq.url);
  t.after(() => connection.close());
  const channel = await connection.createConfirmChannel();
  for (const { queue, data } of kinds) {
    const name = names.topics[queue]!;
    await channel.assertQueue(name, { durable: true });
    for (const line of linesOf(data)) channel.sendToQueue(name, Buffer.from(line), { persistent: true });
  }
  await channel.waitForConfirms();
  return {
    file: names.file,
    env: { KAFKA_BROKERS: kafka.bootstrap, AMQP_URL: rabbitmq.url },
    async read() {
      const read: Record<string, Read[]> = {};
      for (const topic of topics) read[topic] = await readTopic(kafka.bootstrap, names.topics[topic]!);
      return read;
    },
    /** Nothing may be left in the queues. */
    async end() {
      for (const { queue } of kinds)
        assert.equal((await channel.deleteQueue(names.topics[queue]!)).messageCount, 0);
    },
  };
}

test("seed 000.1, 000.4: from a real RabbitMQ to a real Kafka", needs("kafka", "rabbitmq"), async (t) => {
  const { file, env, read, end } = await onRealBrokers(t);
  const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--until-idle"], env);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 384 = delivered 345 \+ deadLettered 39/);
  assertArrived(await read());
  await end();
});

test(
  "killed in the middle, nothing is lost, and each key's messages first arrive in their order",
  needs("kafka", "rabbitmq"),
  async (t) => {
    const { file, env, read, end } = await onRealBrokers(t);
    // Few at a time, so that there is a middle.
    const killed = millrace(t, ["run", file, "--http", "0"], {
      ...env,
      QUEUE_BUFFERING_MAX_MESSAGES: "20",
      BATCH_NUM_MESSAGES: "5",
    });
    await until("some are delivered", async () => (await killed.status()).conservation.delivered > 0);
    await killed.kill();
    const { code, stderr } = await runMillrace(t, ["run", file, "--until-idle"], env);
    assert.equal(code, 0, stderr);
    const arrived = await read();
    for (const { topic, data } of kinds) {
      const firsts = [...new Map(arrived[topic]!.map(({ value, key }) => [value, key]))];
      const good = linesOf(data).filter((line) => JSON.parse(line).study_uid !== "");
      assert.deepEqual(firsts.map(([value]) => value).sort(), [...good].sort(), `${topic}: none is lost`);
      for (const [key, own] of Map.groupBy(firsts, ([, of]) => of)) {
        const values = own.map(([value]) => value!);
        assert.deepEqual(
          values,
          good.filter((line) => values.includes(line)),
          `${topic}: ${key} in order`,
        );
      }
    }
    const dead = new Set(arrived["dicom.dead"]!.map(({ value }) => value));
    assert.equal(
      dead.size,
      new Set(kinds.flatMap(({ data }) => linesOf(data)).filter((line) => JSON.parse(line).study_uid === ""))
        .size,
    );
    await end();
  },
);
