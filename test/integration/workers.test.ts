/** `millrace run --workers`: several processes share one plan's partitions; killing one loses nothing. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { freshName, needs, sharedKafka, sharedRabbitmq } from "../brokers/index.ts";
import type { Kafka } from "../brokers/kafka.ts";
import { until } from "../brokers/until.ts";
import { committedOf, fill, readTopic } from "../kafka-log.ts";
import { millrace, runMillrace } from "../millrace.ts";
import { topologyFile } from "./embedded-run.ts";

function flow(t: TestContext, name: string): string {
  return topologyFile(
    t,
    `import { env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS") });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}", sessionTimeout: "6s", heartbeatInterval: "500ms" }))
    .to(cluster.sink({ topic: "${name}.out" }));
});
`,
  );
}

async function prepared(t: TestContext, kafka: Kafka) {
  const name = freshName("workers");
  for (const end of ["in", "out"]) await kafka.createTopic(`${name}.${end}`, { partitions: 4 });
  return { name, file: flow(t, name), env: { KAFKA_BROKERS: kafka.bootstrap } };
}

const numbered = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => ({ key: `k${i % 50}`, value: `${from + i}` }));

/** Which workers have partitions now, by their last word about it. */
function assigned(stderr: string): Map<number, string> {
  const last = new Map<number, string>();
  for (const line of stderr.split("\n")) {
    if (!line.includes('"partitions assigned"')) continue;
    const { worker, partitions } = JSON.parse(line) as { worker: number; partitions: string };
    last.set(worker, partitions);
  }
  return last;
}

test(
  "two workers share a topic's partitions and one port, and one that is killed loses nothing",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const { name, file, env } = await prepared(t, kafka);
    const runner = millrace(t, ["run", file, "--workers", "2", "--http", "0"], env);
    await until("both have partitions", () => {
      const shares = [...assigned(runner.stderr).values()];
      return shares.length === 2 && shares.every((partitions) => partitions.includes("/"));
    });
    await fill(kafka.bootstrap, `${name}.in`, numbered(2_000));
    await until("all is written, as one status says", async () => {
      const { conservation, sources } = await runner.status();
      return conservation.delivered === 2_000 && sources.length === 1 && sources[0]!.lanes.length === 4;
    });
    const metrics = await (await fetch(`${await runner.http()}/metrics`)).text();
    for (const worker of [1, 2])
      assert.match(
        metrics,
        new RegExp(`millrace_worker_resident_memory_bytes\\{worker="${worker}"\\} \\d{7}`),
      );

    const pid = Number(/"pid":(\d+),"worker":2/.exec(runner.stderr)?.[1]);
    process.kill(pid, "SIGKILL");
    await runner.logged("a worker died");
    await fill(kafka.bootstrap, `${name}.in`, numbered(2_000, 2_000));
    await until(
      "the rest is committed",
      async () => (await committedOf(kafka.bootstrap, name, `${name}.in`)) === 4_000,
    );
    await until("it is ready again, with another worker", async () => {
      const response = await fetch(`${await runner.http()}/readyz`);
      return response.status === 200 && /"pid":(?!${pid})\d+,"worker":2/.test(runner.stderr);
    });
    const { code, stdout } = await runner.stop();
    assert.equal(code, 0, runner.stderr);
    assert.match(stdout, new RegExp(`^${name}: done\n`));
    assert.match(stdout, /accepted (\d+) = delivered \1\n$|accepted \d+ = delivered \d+ \+ returned \d+\n$/);
    const values = new Set((await readTopic(kafka.bootstrap, `${name}.out`)).map(({ value }) => value));
    assert.equal(values.size, 4_000, "every message arrived");
  },
);

test("--until-idle ends all workers; their sum is the table", needs("kafka"), async (t) => {
  const kafka = await sharedKafka();
  const { name, file, env } = await prepared(t, kafka);
  await fill(kafka.bootstrap, `${name}.in`, numbered(1_000));
  const { code, stdout, stderr } = await runMillrace(t, ["run", file, "--workers", "2", "--until-idle"], env);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 1000 = delivered 1000/);
  assert.equal(stdout.match(/accepted 1000 =/g)?.length, 1, "one table");
});

test("workers end with their parent, however it goes", needs("kafka"), async (t) => {
  const kafka = await sharedKafka();
  const { file, env } = await prepared(t, kafka);
  const runner = millrace(t, ["run", file, "--workers", "2"], env);
  await until("both run", () => assigned(runner.stderr).size === 2);
  const pids = new Set([...runner.stderr.matchAll(/"pid":(\d+),"worker":\d/g)].map(([, pid]) => Number(pid)));
  assert.equal(pids.size, 2);
  runner.signal("SIGKILL");
  await until("no worker is left", () =>
    [...pids].every((pid) => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    }),
  );
});

test("what one process must have for itself is refused with --workers", async (t) => {
  const refused = async (declared: string, said: RegExp) => {
    const file = topologyFile(
      t,
      `import { dedup, file, kafka, rabbitmq, stdin, stdout, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
export default topology("alone", (t) => { ${declared} });
`,
    );
    const { code, stderr } = await runMillrace(t, ["run", file, "--workers", "2"]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, said);
  };
  const from = 't.from(cluster.source({ topics: ["in"], group: "g" }))';
  await refused(
    't.from(stdin()).to(cluster.sink({ topic: "out" }));',
    /stdin stdin is for one process alone/,
  );
  await refused(`${from}.to(file().sink({ path: "out" }));`, /file out is for one process alone/);
  await refused(
    `${from}.pipe(dedup({ id: (_, { key }) => String(key), store: file().idStore({ path: "ids" }) }))
      .to(cluster.sink({ topic: "out" }));`,
    /the id store "ids" is for one process alone/,
  );
  await refused(
    `${from}.to(cluster.sink({ topic: "out" }), { audit: stdout() });`,
    /stdout stdout is for one/,
  );
  await refused(
    't.from(kafka({ brokers: "127.0.0.1:1", driver: "embedded" }).source({ topics: ["in"], group: "g" })).to(cluster.sink({ topic: "out" }));',
    /embedded brokers of its own/,
  );
  const wrong = await runMillrace(t, ["run", "none.ts", "--workers", "0"]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /whole number from 1 to 64/);
});

test(
  "a worker that refuses its topology ends all with 78, and is not started again and again",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const { file, env } = await prepared(t, kafka);
    const only = 'if (process.argv.includes("--worker")) throw new Error("not in a worker");\n';
    writeFileSync(file, `${readFileSync(file, "utf8")}\n${only}`);
    const { code, stderr } = await runMillrace(t, ["run", file, "--workers", "2"], env);
    assert.equal(code, 78, stderr);
    assert.match(stderr, /not in a worker/);
    assert.match(stderr, /worker \d refused to start/);
    assert.doesNotMatch(stderr, /started again/);
  },
);

test(
  "workers share a RabbitMQ queue, one that is killed included: every message once or again, none lost",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const name = freshName("workers");
    const connection = await connect(url);
    const channel = await connection.createConfirmChannel();
    for (const end of ["in", "out"]) await channel.assertQueue(`${name}.${end}`, { durable: true });
    t.after(async () => {
      for (const end of ["in", "out"]) await channel.deleteQueue(`${name}.${end}`);
      await connection.close();
    });
    const file = topologyFile(
      t,
      `import { env, rabbitmq, topology } from "millrace";
const broker = rabbitmq({ url: env("AMQP_URL") });
export default topology("${name}", (t) => {
  t.from(broker.source({ queue: "${name}.in", prefetch: 50 })).to(broker.sink({ queue: "${name}.out" }));
});
`,
    );
    for (let i = 0; i < 5_000; i++)
      channel.sendToQueue(`${name}.in`, Buffer.from(String(i)), { persistent: true });
    await channel.waitForConfirms();
    const runner = millrace(t, ["run", file, "--workers", "3", "--until-idle"], { AMQP_URL: url });
    await runner.logged('"worker":2');
    process.kill(Number(/"pid":(\d+),"worker":2/.exec(runner.stderr)?.[1]), "SIGKILL");
    const { code, stdout, stderr } = await runner.ended;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /accepted \d+ = /);
    const values = new Set<string>();
    for (
      let got = await channel.get(`${name}.out`, { noAck: true });
      got !== false;
      got = await channel.get(`${name}.out`, { noAck: true })
    ) {
      values.add(got.content.toString());
    }
    assert.equal(values.size, 5_000);
  },
);
