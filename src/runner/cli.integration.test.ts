/** The program on real brokers: what is missing, what is refused, what is created. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { freshName, needs, sharedKafka, sharedRabbitmq } from "../../test/brokers/index.ts";
import { freshFolder, runMillrace } from "../../test/millrace.ts";

function relay(t: TestContext, name: string, brokers: string, more = "", options = "") {
  const file = join(freshFolder(t), "relay.ts");
  writeFileSync(
    file,
    `import { kafka, topology } from "millrace";
const cluster = kafka({ brokers: "${brokers}"${more} });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}", sessionTimeout: "6s" }))
    .to(cluster.sink({ topic: "${name}.out"${options} }));
});
`,
  );
  return file;
}

test(
  "missing topics exit 78 with their names and the command that makes them, which makes them",
  needs("kafka"),
  async (t) => {
    const { bootstrap } = await sharedKafka();
    const name = freshName("relay");
    const file = relay(t, name, bootstrap, "", ", partitions: 3, replicationFactor: 1");
    const checked = await runMillrace(t, ["check", "--connect", file]);
    assert.equal(checked.code, 78);
    assert.match(checked.stdout, new RegExp(`error {2}target-missing {2}.*"${name}\\.in"`));
    assert.match(checked.stdout, new RegExp(`error {2}target-missing {2}.*"${name}\\.out"`));
    const refused = await runMillrace(t, ["run", "--until-idle", file]);
    assert.equal(refused.code, 78);
    assert.equal(refused.stdout, "");
    assert.match(refused.stderr, new RegExp(`relay\\.ts:\\d+.*"${name}\\.in" does not exist`));
    assert.match(refused.stderr, new RegExp(`relay\\.ts:\\d+.*"${name}\\.out" does not exist`));
    assert.ok(refused.stderr.endsWith(`to create what is missing: millrace run --create ${file}\n`));
    const created = await runMillrace(t, ["run", "--create", "--until-idle", file]);
    assert.equal(created.code, 0, created.stderr);
    assert.match(created.stderr, new RegExp(`created topic ${name}\\.out`));
    assert.match(created.stdout, /\naccepted 0 = 0\n$/);
    const again = await runMillrace(t, ["check", "--connect", file]);
    assert.deepEqual([again.code, again.stdout], [0, `ok  ${name}  all that it needs exists\n`]);
  },
);

test("from real Kafka to real Kafka until idle, and no dump of it", needs("kafka"), async (t) => {
  const kafka = await sharedKafka();
  const name = freshName("relay");
  const file = relay(t, name, kafka.bootstrap);
  await kafka.createTopic(`${name}.in`, { partitions: 4 });
  await kafka.createTopic(`${name}.out`, { partitions: 2 });
  await kafka.kcat(["-P", "-b", kafka.bootstrap, "-t", `${name}.in`, "-p", "-1"], {
    stdin: Array.from({ length: 500 }, (_, i) => `${i}\n`).join(""),
  });
  const dumped = await runMillrace(t, ["run", "--until-idle", "--dump", freshFolder(t), file]);
  assert.equal(dumped.code, 2);
  const { code, stdout, stderr } = await runMillrace(t, ["run", "--until-idle", file]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /\naccepted 500 = delivered 500\n$/);
  assert.doesNotMatch(stderr, /TimeoutNegativeWarning/);
  const second = await runMillrace(t, ["run", "--until-idle", file]);
  assert.match(second.stdout, /\naccepted 0 = 0\n$/, "what was delivered is acknowledged");
});

test(
  "refused access exits 78 after a few tries, and the password is not printed",
  needs("kafka"),
  async (t) => {
    // A broker that asks nobody for a password refuses to be given one.
    const { bootstrap } = await sharedKafka();
    const sasl = ', sasl: { mechanism: "plain", username: "someone", password: "canary-91" }';
    const file = relay(t, freshName("relay"), bootstrap, sasl);
    const { code, stderr, stdout } = await runMillrace(t, ["run", "--until-idle", file]);
    assert.equal(code, 78, stderr);
    assert.match(stderr, /"attempt":2,"code":"access-refused"/);
    assert.doesNotMatch(stderr, /"attempt":4,/);
    assert.doesNotMatch(stderr + stdout, /canary/);
  },
);

function queues(t: TestContext, name: string, url: string, more = "") {
  const file = join(freshFolder(t), "queues.ts");
  writeFileSync(
    file,
    `import { rabbitmq, topology } from "millrace";
const broker = rabbitmq({ url: "${url}"${more} });
export default topology("${name}", (t) => {
  t.from(broker.source({ queue: "${name}.in" })).to(broker.sink({ queue: "${name}.out" }));
});
`,
  );
  return file;
}

test(
  "RabbitMQ: missing queues exit 78 with their names, and are made on demand",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const name = freshName("relay");
    const file = queues(t, name, url);
    const refused = await runMillrace(t, ["run", "--until-idle", file]);
    assert.equal(refused.code, 78, refused.stderr);
    assert.match(refused.stderr, new RegExp(`queues\\.ts:\\d+.*"${name}\\.in"`));
    assert.match(refused.stderr, /to create what is missing: millrace run --create /);
    const created = await runMillrace(t, ["run", "--create", "--until-idle", file]);
    assert.equal(created.code, 0, created.stderr);
    assert.match(created.stdout, /\naccepted 0 = 0\n$/);
    // What is there otherwise than declared cannot be made, and nobody is told to try.
    const other = queues(t, name, url, `, queues: { "${name}.in": { maxLength: 3 } }`);
    for (const args of [
      ["run", "--until-idle", other],
      ["check", "--connect", other],
    ]) {
      const { code, stdout, stderr } = await runMillrace(t, args);
      assert.equal(code, 78, stderr);
      assert.match(stdout + stderr, /is not as declared/);
      assert.doesNotMatch(stdout + stderr, /--create/);
    }
  },
);

test(
  "RabbitMQ: wrong credentials exit 78 after a few tries, and are not printed",
  needs("rabbitmq"),
  async (t) => {
    const url = new URL((await sharedRabbitmq()).url);
    url.username = "someone";
    url.password = "canary-91";
    const { code, stderr, stdout } = await runMillrace(t, [
      ...["run", "--until-idle", queues(t, freshName("relay"), url.href)],
    ]);
    assert.equal(code, 78, stderr);
    assert.match(stderr, /"attempt":2,"code":"access-refused"/);
    assert.doesNotMatch(stderr + stdout, /canary/);
  },
);
