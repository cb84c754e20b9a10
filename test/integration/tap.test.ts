/** `millrace tap`: a look at a topic that takes nothing from whoever reads it. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { freshName, needs, sharedKafka } from "../brokers/index.ts";
import { fill, readTopic } from "../kafka-log.ts";
import { runMillrace } from "../millrace.ts";
import { topologyFile } from "./embedded-run.ts";

function flow(t: TestContext, name: string): string {
  return topologyFile(
    t,
    `import { env, kafka, rabbitmq, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS") });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}" })).to(cluster.sink({ topic: "${name}.out" }));
  t.from(rabbitmq({ url: "amqp://127.0.0.1" }).source({ queue: "${name}.queue" })).to(cluster.sink({ topic: "${name}.side" }));
});
`,
  );
}

function tap(t: TestContext, args: readonly string[], brokers = "127.0.0.1:1") {
  return runMillrace(t, ["tap", ...args], { KAFKA_BROKERS: brokers });
}

test(
  "seed 003.5: a tap under a group of its own sees every message, and the flow beside it loses none",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const name = freshName("tap");
    const file = topologyFile(
      t,
      `import { env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS") });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}" })).to(cluster.sink({ topic: "${name}.out" }));
});
`,
    );
    for (const end of ["in", "out"]) await kafka.createTopic(`${name}.${end}`, { partitions: 2 });
    const sent = Array.from({ length: 300 }, (_, i) => ({
      key: `k${i % 7}`,
      value: `v${i}`,
      headers: { n: `${i}` },
    }));
    await fill(kafka.bootstrap, `${name}.in`, sent);
    const idle = ["--group", `${name}-debug`, "--until-idle"];

    const seen = await tap(t, [file, ...idle], kafka.bootstrap);
    assert.equal(seen.code, 0, seen.stderr);
    const lines = seen.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.deepEqual(lines.map(({ value }) => value).sort(), sent.map(({ value }) => value).sort());
    const one = lines.find(({ value }) => value === "v8");
    assert.deepEqual(Object.keys(one), ["partition", "offset", "key", "value", "headers", "timestamp"]);
    assert.deepEqual([one.key, one.headers], ["k1", [["n", "8"]]]);

    const flowed = await runMillrace(t, ["run", file, "--until-idle"], { KAFKA_BROKERS: kafka.bootstrap });
    assert.match(flowed.stdout, /accepted 300 = delivered 300/, "the tap has taken nothing from the flow");
    assert.equal((await readTopic(kafka.bootstrap, `${name}.out`)).length, 300);

    const again = await tap(t, [file, ...idle], kafka.bootstrap);
    assert.equal(again.stdout, "", "the group goes on where it ended");
    const other = await tap(
      t,
      [file, "--group", `${name}-other`, "--topic", `${name}.out`, "--until-idle"],
      kafka.bootstrap,
    );
    assert.equal(other.stdout.trim().split("\n").length, 300, "a topic that is only written can be seen too");
  },
);

test("a tap that would take messages away, or does not know from where, is refused before it connects", async (t) => {
  const file = flow(t, "f");
  const refused = async (args: readonly string[], said: RegExp) => {
    const { code, stderr } = await tap(t, [file, ...args]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, said);
  };
  await refused(["--group", "f", "--topic", "f.in"], /reads "f.in" with this group.*a name of your own/);
  await refused(
    ["--group", "g", "--topic", "f.queue"],
    /queue "f.queue" gives each message to one consumer only/,
  );
  await refused(
    ["--group", "g", "--topic", "f.none"],
    /--topic f.none: the topology does not name it; it has f.in, f.out, f.side/,
  );
  await refused(["--group", "g"], /--topic is needed.*reads 2 targets/);
  await refused([], /required option '--group <group>'/);
});
