/** The tutorial is true: every step of README.md is run in its order, on real brokers, and prints what it says. */
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { connect } from "amqplib";
import { kafka, rabbitmq } from "millrace";
import { needs, ownKafka, sharedRabbitmq } from "../../test/brokers/index.ts";
import { run } from "../../test/brokers/run.ts";
import { until } from "../../test/brokers/until.ts";
import { committedOf, fill, readTopic } from "../../test/kafka-log.ts";
import { dumped, freshFolder, millrace, runMillrace } from "../../test/millrace.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tutorial = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
const file = (name: string) => join(import.meta.dirname, name);

/** Each command block with the output that follows it, under the heading it stands under. */
const steps = [...tutorial.matchAll(/^```sh\n([\s\S]*?)^```\n\n```text\n([\s\S]*?)^```/gm)].map((match) => ({
  heading: [...tutorial.slice(0, match.index).matchAll(/^## (.+)$/gm)].at(-1)?.[1] ?? "No broker at hand",
  commands: match[1]!,
  output: match[2]!,
}));

const literal = (text: string) => text.replaceAll(/[^\w\s]/g, "\\$&");

/** The output as a pattern: "…" is anything on its line. */
function pattern(output: string): RegExp {
  return new RegExp(`^${output.split("…").map(literal).join("[^\\n]+?")}$`);
}

test("the tutorial's steps are those that are tried here", () => {
  assert.deepEqual(
    steps.map(({ heading }) => heading),
    [
      "No broker at hand",
      "Produce to RabbitMQ",
      "Consume from RabbitMQ",
      "Produce to Kafka",
      "Consume from Kafka",
      "Consume from Kafka",
      "Exercise: message filtering",
      "Exercise: batching",
      "Exercise: priority queues",
    ],
  );
  assert.equal(tutorial.match(/^```sh/gm)?.length, steps.length, "every command shows its output");
});

test(
  "seed 001.1, 001.2, 001.6: every step of the tutorial prints what it says, on real brokers",
  needs("kafka", "rabbitmq"),
  async (t) => {
    // Fixed names: a Kafka and a vhost that hold nothing of anybody else.
    const kafka = await ownKafka(t);
    const { url } = await sharedRabbitmq();
    const queues = ["hello", "jobs", "jobs.dead"];
    const clear = async () => {
      const connection = await connect(url);
      const channel = await connection.createChannel();
      for (const queue of queues) await channel.deleteQueue(queue);
      await connection.close();
    };
    await clear();
    t.after(clear);
    const env: NodeJS.ProcessEnv = { ...process.env, AMQP_ADDR: url, KAFKA_BROKERS: kafka.bootstrap };
    delete env.NODE_OPTIONS;
    delete env.NODE_TEST_CONTEXT;
    for (const { heading, commands, output } of steps) {
      await t.test(heading, async () => {
        const { stdout } = await run("bash", ["-c", `set -eo pipefail\n${commands}`], {
          cwd: root,
          env,
          within: 60_000,
        });
        assert.match(stdout, pattern(output));
      });
    }
    await t.test("and a second run of a consumer has nothing left", async () => {
      const again = () =>
        runMillrace(t, ["run", file("kafka-consume.ts"), "--until-idle"], { KAFKA_BROKERS: kafka.bootstrap });
      assert.equal((await again()).stdout.trim().split("\n").length, 5, "what the exercises have added");
      assert.equal((await again()).stdout, "");
    });
  },
);

test(
  "seed 001.4: two consumers of a group share the partitions, and together read every message once",
  needs("kafka"),
  async (t) => {
    const kafka = await ownKafka(t);
    const { bootstrap } = kafka;
    await kafka.createTopic("test-topic", { partitions: 3 });
    const consumers = [0, 1].map(() =>
      millrace(t, ["run", file("kafka-consume.ts")], { KAFKA_BROKERS: bootstrap }),
    );
    await until("both have partitions, and together all three", () => {
      const shares = consumers.map(({ stderr }) => {
        const last = [...stderr.matchAll(/"partitions":"([^"]*)","msg":"partitions assigned"/g)].at(-1);
        return (last?.[1] ?? "").split(" ").filter((name) => name.startsWith("test-topic"));
      });
      return shares.every(({ length }) => length > 0) && shares.flat().length === 3;
    });
    const sent = Array.from({ length: 300 }, (_, i) => ({ key: `k${i}`, value: `m${i}` }));
    await fill(bootstrap, "test-topic", sent);
    await until(
      "all is committed",
      async () => (await committedOf(bootstrap, "test-group", "test-topic")) === 300,
    );
    const read = await Promise.all(consumers.map((consumer) => consumer.stop()));
    const lines = read.map(({ stdout }) => stdout.trim().split("\n"));
    assert.ok(
      lines.every(({ length }) => length > 1),
      "both read",
    );
    assert.deepEqual(lines.flat().sort(), sent.map(({ value }) => value).sort());
  },
);

test(
  "seed 001.4: killed between a batch and its acknowledgement, the greetings come again, and none is lost",
  needs("kafka", "rabbitmq"),
  async (t) => {
    const kafka = await ownKafka(t);
    const { url } = await sharedRabbitmq();
    for (const topic of ["test-topic", "test-topic.dead"]) await kafka.createTopic(topic, { partitions: 1 });
    const connection = await connect(url);
    t.after(() => connection.close());
    const channel = await connection.createConfirmChannel();
    await channel.deleteQueue("hello");
    await channel.assertQueue("hello", { durable: true });
    const sent = Array.from({ length: 5_000 }, (_, i) => `hello, ${i}`);
    for (const greeting of sent) channel.sendToQueue("hello", Buffer.from(greeting), { persistent: true });
    await channel.waitForConfirms();
    const env = { AMQP_ADDR: url, KAFKA_BROKERS: kafka.bootstrap };
    const killed = millrace(t, ["run", file("batch.ts"), "--http", "0"], env);
    await until("some are delivered", async () => (await killed.status()).conservation.delivered > 0);
    await killed.kill();
    const { code, stderr } = await runMillrace(t, ["run", file("batch.ts"), "--until-idle"], env);
    assert.equal(code, 0, stderr);
    const arrived = (await readTopic(kafka.bootstrap, "test-topic")).map(({ value }) => value);
    assert.deepEqual([...new Set(arrived)].sort(), [...sent].sort());
    assert.equal((await channel.deleteQueue("hello")).messageCount, 0);
  },
);

test("seed 001.1: the address is AMQP_ADDR, and the default one with the vhost %2f without it", async (t) => {
  const unreachable = { AMQP_ADDR: "amqp://127.0.0.1:1/some%2fvhost" };
  const given = millrace(t, ["run", file("rabbitmq-consume.ts")], unreachable);
  await given.logged("127.0.0.1:1/some%2fvhost");
  await given.kill();
  assert.equal(rabbitmq({ url: "amqp://127.0.0.1:5672/%2f" }).address, "127.0.0.1:5672/%2f");
  const text = readFileSync(file("rabbitmq-consume.ts"), "utf8");
  assert.match(text, /env\("AMQP_ADDR", "amqp:\/\/127\.0\.0\.1:5672\/%2f"\)/);
});

test("seed 001.6: filtering and batching on the embedded brokers", async (t) => {
  const out = freshFolder(t);
  const feed = ["--feed", `hello=${file("greetings.txt")}`, "--until-idle", "--dump", out];
  const filtered = await runMillrace(t, ["run", file("filter.ts"), "--embedded", ...feed]);
  assert.match(filtered.stdout, /accepted 3 = delivered 2 \+ filtered 1/);
  assert.deepEqual(
    (await dumped(out, "test-topic")).map(({ value }) => value),
    ["Hello, world!", "Hello, Kafka!"],
  );
  const batched = await runMillrace(t, ["run", file("batch.ts"), "--embedded", ...feed]);
  const reports = batched.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    reports.map(({ destination, succeeded, stored }) => ({ destination, succeeded, stored })),
    [{ destination: "test-topic/1", succeeded: 3, stored: [{ first: 0, count: 3 }] }],
  );
});

test("seed 001.6: a quorum queue takes no x-max-priority, and check says so", () => {
  const connection = rabbitmq({
    url: "amqp://127.0.0.1",
    queues: { jobs: { type: "quorum", maxPriority: 5 } },
  });
  assert.match(connection.problems?.[0]?.message ?? "", /maxPriority/);
});

test("seed 001.7: no document claims that acknowledgements avoid duplicates", () => {
  assert.match(tutorial, /acknowledgements give \*at least once\*/);
  assert.match(tutorial, /they do not keep duplicates out/);
  for (const name of globSync("{*.md,{src,bench,test,topologies}/**/*.md}", { cwd: root })) {
    const text = readFileSync(join(root, name), "utf8");
    assert.doesNotMatch(text, /(?:acknowledg\w*|\backs?)\s+(?:avoid|prevent|exclude)/i, name);
  }
});

test("seed 001.3: connection, queue or topic, and consumer are configured in groups, and a mistake names its group", () => {
  const connection = rabbitmq({
    url: "amqps://user:password@broker.example:5671/%2f",
    queues: { hello: { type: "quorum", durable: true, deadLetterExchange: "dead" } },
  });
  const cluster = kafka({
    brokers: "broker.example:9092",
    tls: true,
    sasl: { mechanism: "scram-sha-512", username: "user", password: "password" },
  });
  const parts = [
    connection,
    connection.source({ queue: "hello", prefetch: 100, consumerTag: "me" }),
    connection.sink({ queue: "hello", persistent: true }),
    cluster,
    cluster.source({ topics: ["test-topic"], group: "test-group", commitInterval: "1s" }),
    cluster.sink({ topic: "test-topic", partitions: 6, replicationFactor: 3 }),
  ];
  assert.deepEqual(
    parts.flatMap(({ problems }) => problems ?? []),
    [],
  );
  const mistaken = [
    rabbitmq({ url: "amqp://127.0.0.1", queues: { hello: { durable: "yes" as never } } }),
    connection.source({ queue: "hello", prefetch: 0 }),
    cluster.source({ topics: ["test-topic"], group: "" }),
    cluster.sink({ topic: "test-topic", replicationFactor: 0 }),
  ];
  assert.deepEqual(
    mistaken.map(
      ({ problems }) => /^\w+(?: source| sink)?: "[\w./]+"/.exec(problems?.[0]?.message ?? "")?.[0],
    ),
    [
      'rabbitmq: "queues.hello.durable"',
      'rabbitmq source: "prefetch"',
      'kafka source: "group"',
      'kafka sink: "replicationFactor"',
    ],
  );
});
