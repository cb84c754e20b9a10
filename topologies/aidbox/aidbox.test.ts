import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { sql } from "millrace";
import pg from "pg";
import { freshName, needs, sharedKafka, sharedPostgres } from "../../test/brokers/index.ts";
import { until } from "../../test/brokers/until.ts";
import { countOf, type LogRecord, readTopic } from "../../test/kafka-log.ts";
import { dumped, freshFolder, millrace, runMillrace } from "../../test/millrace.ts";
import { type Kind, parametersOf } from "./destination.ts";
import { type Change, changeAndTell, changeThenTell, resourceTable } from "./resources.ts";

const file = (name: string) => new URL(name, import.meta.url).pathname;
const lines = readFileSync(file("../data/aidbox_notifications.ndjson"), "utf8").trim().split("\n");

interface Notification {
  readonly resourceType: "Bundle";
  readonly entry: readonly {
    readonly resource: {
      readonly resourceType: string;
      readonly id?: string;
      readonly notificationEvent?: readonly { readonly focus: { readonly reference: string } }[];
    };
  }[];
}
const parse = (line: string) => JSON.parse(line) as Notification;
const focusOf = (line: string) => parse(line).entry[0]!.resource.notificationEvent![0]!.focus.reference;
/** Of some the questionnaire is a reference, as it was before R4. */
const isValid = (line: string) => !line.includes('"questionnaire":{');
const valid = lines.filter(isValid);

/** A notification like the first one, about another resource. */
function about(
  resource: { readonly resourceType: string; readonly id: string } & Record<string, unknown>,
): string {
  const like = parse(lines[0]!);
  const [status, changed] = like.entry;
  const reference = `${resource.resourceType}/${resource.id}`;
  const event = { eventNumber: 1, focus: { reference } };
  return JSON.stringify({
    ...like,
    entry: [
      { ...status, resource: { ...status!.resource, notificationEvent: [event] } },
      { ...changed, resource },
    ],
  });
}

/** FHIR's own pattern for base64 takes a backtracking engine longer than there is time for on this. */
const slow = about({
  resourceType: "Patient",
  id: "slow",
  extension: [{ url: "http://example.org/x", valueBase64Binary: `${"AAAA  ".repeat(60)}!` }],
});
const poison = '{"resourceType": "Bundle", ';
const invalid = about({ resourceType: "Encounter", id: "wrong", status: "no such" });
/** Nothing that a codec could make smaller than a topic takes. */
const noise = randomBytes(150_000).toString("hex");
const large = about({ resourceType: "Patient", id: "large", name: [{ text: noise }] });

function headerOf(record: LogRecord, name: string): string | undefined {
  const value = record.headers?.[name];
  return value === undefined ? undefined : String(value);
}

test("seed 002.1: at least once runs embedded: notifications from the outbox go to their topic, others to the dead letters", async (t) => {
  const folder = freshFolder(t);
  const feed = join(folder, "feed.ndjson");
  writeFileSync(feed, [...lines, poison, slow, invalid].join("\n"));
  const started = performance.now();
  const { code, stderr } = await runMillrace(
    t,
    [
      "run",
      file("at-least-once.ts"),
      "--embedded",
      "--feed",
      `outbox=${feed}`,
      "--until-idle",
      "--dump",
      folder,
    ],
    { KAFKA_BROKERS: "", AIDBOX_DESTINATION: "" },
  );
  assert.equal(code, 0, stderr);
  assert.ok(performance.now() - started < 60_000, "the slow pattern holds nothing up");
  const written = await dumped(folder, "aidbox-forms");
  assert.deepEqual(written.map(({ value }) => value).sort(), [...valid].sort());
  for (const { key, value } of written) assert.equal(key, focusOf(value as string));
  const dead = await dumped(folder, "aidbox-forms.dead");
  const codes = dead.map(({ value, headers }) => [value, new Map(headers).get("millrace-error-code")]);
  assert.deepEqual(
    codes.filter(([, code]) => code === "json-invalid").map(([value]) => value),
    [poison],
  );
  assert.deepEqual(
    codes
      .filter(([, code]) => code === "schema-violation")
      .map(([value]) => value)
      .sort(),
    [...lines.filter((line) => !isValid(line)), slow, invalid].sort(),
  );
  assert.deepEqual(await dumped(folder, "outbox"), [], "what is settled is no longer in the outbox");
});

/** The runner with standard input, which the best-effort topology reads. */
async function runBestEffort(t: TestContext, args: readonly string[], env: NodeJS.ProcessEnv, input: string) {
  const child = spawn(
    process.execPath,
    [file("../../bin/millrace.js"), "run", file("best-effort.ts"), "--until-idle", ...args],
    { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] },
  );
  t.after(() => child.kill("SIGKILL"));
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  child.stdin.write(input);
  return {
    stderr: () => stderr,
    async end() {
      child.stdin.end();
      const [code] = await once(child, "close");
      return { code, stdout, stderr };
    },
  };
}

test("seed 002.1: best effort runs embedded, in memory only", async (t) => {
  const folder = freshFolder(t);
  const run = await runBestEffort(
    t,
    ["--embedded", "--dump", folder],
    { KAFKA_BROKERS: "", AIDBOX_DESTINATION: "" },
    `${[...lines, slow].join("\n")}\n`,
  );
  const { code, stderr } = await run.end();
  assert.equal(code, 0, stderr);
  assert.deepEqual(
    (await dumped(folder, "aidbox-forms")).map(({ value }) => value).sort(),
    [...valid].sort(),
  );
  assert.equal((await dumped(folder, "aidbox-forms.dead")).length, lines.length - valid.length + 1);
});

/** The destination's resource in a file of its own, for a topic of the test. */
function destinationFile(t: TestContext, kind: Kind, topic: string, more: readonly object[] = []): string {
  const path = join(freshFolder(t), "destination.json");
  const resource = JSON.parse(
    readFileSync(file(`${kind.replace("kafka-", "")}.destination.json`), "utf8"),
  ) as { parameter: { name: string; valueString?: string }[] };
  const names = new Set(["kafkaTopic", ...more.map((parameter) => (parameter as { name: string }).name)]);
  const parameter = [
    ...resource.parameter.filter(({ name }) => !names.has(name)),
    { name: "kafkaTopic", valueString: topic },
    ...more,
  ];
  writeFileSync(path, JSON.stringify({ ...resource, parameter }));
  return path;
}

/** A database with the tables of an application, and topics of which the first takes no large messages. */
async function prepare(t: TestContext) {
  const kafka = await sharedKafka();
  const url = await (await sharedPostgres()).freshDatabase(t);
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  t.after(() => client.end());
  await client.query(sql({ url }).outbox({ table: "outbox" }));
  await client.query(resourceTable);
  const topic = await kafka.createTopic(freshName("aidbox"), { settings: { "max.message.bytes": "65536" } });
  await kafka.createTopic(`${topic}.dead`);
  const env = {
    DATABASE_URL: url,
    DATABASE_PASSWORD: "",
    KAFKA_BROKERS: kafka.bootstrap,
    AIDBOX_DESTINATION: destinationFile(t, "kafka-at-least-once", topic),
  };
  const waiting = async () => Number((await client.query("SELECT count(*) AS n FROM outbox")).rows[0].n);
  return { kafka, client, topic, env, waiting };
}

function changeOf(line: string): Change {
  const { resource } = parse(line).entry[1]!;
  return {
    resourceType: resource.resourceType,
    id: resource.id!,
    resource: JSON.stringify(resource),
    notification: line,
  };
}

test(
  "seed 002.1, 002.8: at least once on PostgreSQL and Kafka: a committed change is told of, a rolled-back one is not, bad input ends in the dead letters",
  needs("kafka", "postgres"),
  async (t) => {
    const { kafka, client, topic, env, waiting } = await prepare(t);
    for (const line of valid) await changeAndTell(client, [changeOf(line)]);
    const undone = changeOf(about({ resourceType: "Patient", id: "undone" }));
    await assert.rejects(changeAndTell(client, [undone, { ...undone, id: "other", resource: "no JSON" }]));
    for (const bad of [poison, slow, invalid, large])
      await client.query("INSERT INTO outbox (key, value) VALUES ($1, $2)", ["bad", Buffer.from(bad)]);
    const runner = millrace(t, ["run", file("at-least-once.ts"), "--http", "127.0.0.1:0"], env);
    await until("the outbox is empty", async () => (await waiting()) === 0, 60_000);
    const response = await fetch(`${await runner.http()}/status?format=fhir`);
    assert.match(response.headers.get("content-type") ?? "", /application\/fhir\+json/);
    const answer = (await response.json()) as {
      resourceType: string;
      parameter: { name: string; valueDecimal?: number }[];
    };
    assert.equal(answer.resourceType, "Parameters");
    assert.deepEqual(
      answer.parameter.slice(0, 6).map(({ name }) => name),
      [
        "messagesDelivered",
        "messagesDeliveryAttempts",
        "messagesInProcess",
        "messagesQueued",
        "startTimestamp",
        "status",
      ],
    );
    assert.equal(answer.parameter[0]!.valueDecimal, valid.length);
    const { code, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
    const written = await readTopic(kafka.bootstrap, topic);
    assert.deepEqual(written.map(({ value }) => value).sort(), [...valid].sort());
    for (const focus of new Set(valid.map(focusOf))) {
      assert.deepEqual(
        written.filter(({ key }) => key === focus).map(({ value }) => value),
        valid.filter((line) => focusOf(line) === focus),
        "changes of one resource come in their order",
      );
    }
    const dead = await readTopic(kafka.bootstrap, `${topic}.dead`);
    const ends = new Map(dead.map((record) => [record.value, headerOf(record, "millrace-error-code")]));
    assert.deepEqual(
      ends,
      new Map([
        [poison, "json-invalid"],
        [slow, "schema-violation"],
        [invalid, "schema-violation"],
        [large, "record-too-large"],
      ]),
    );
    for (const record of dead) {
      assert.equal(headerOf(record, "millrace-error-source"), "outbox");
      assert.match(headerOf(record, "millrace-outbox-id") ?? "", /^\d+$/);
    }
  },
);

test(
  "seed 002.1: at least once over a kill -9: every committed change arrives, and few twice",
  needs("kafka", "postgres"),
  async (t) => {
    const { kafka, client, topic, env, waiting } = await prepare(t);
    const count = 6_000;
    const notifications = Array.from({ length: count }, (_, id) =>
      about({ resourceType: "Patient", id: `p${id}` }),
    );
    for (let from = 0; from < count; from += 500) {
      const part = notifications.slice(from, from + 500);
      await client.query(
        "INSERT INTO outbox (value) SELECT convert_to(v, 'UTF8') FROM unnest($1::text[]) AS v",
        [part],
      );
    }
    const first = millrace(t, ["run", file("at-least-once.ts")], env);
    await until("some have arrived", async () => (await countOf(kafka.bootstrap, topic)) > 0, 60_000);
    await first.kill();
    const left = await waiting();
    t.diagnostic(`killed when ${left} of ${count} were left`);
    assert.ok(left > 0, "it was killed in the middle");
    const { code, stderr } = await runMillrace(t, ["run", file("at-least-once.ts"), "--until-idle"], env);
    assert.equal(code, 0, stderr);
    assert.equal(await waiting(), 0);
    const written = await readTopic(kafka.bootstrap, topic);
    assert.equal(new Set(written.map(({ value }) => value)).size, count);
    // What was in flight, and what was settled and not yet taken out.
    assert.ok(written.length - count <= 2_000, `${written.length - count} came twice`);
  },
);

test(
  "seed 002.6: best effort counts as lost what Kafka does not take in time, and says so in $status",
  needs("kafka"),
  async (t) => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("aidbox"), { settings: { "max.message.bytes": "1" } });
    await kafka.createTopic(`${topic}.dead`);
    const env = {
      KAFKA_BROKERS: kafka.bootstrap,
      AIDBOX_DESTINATION: destinationFile(t, "kafka-best-effort", topic, [
        { name: "deliveryTimeoutMs", valueInteger: 1_500 },
      ]),
    };
    const run = await runBestEffort(t, ["--http", "127.0.0.1:0"], env, `${valid.join("\n")}\n`);
    const url = await until("it serves", () => /http:\/\/[\d.]+:\d+/.exec(run.stderr())?.[0]);
    const lost = async () => {
      const response = await fetch(`${url}/status?format=fhir`);
      const { parameter } = (await response.json()) as {
        parameter: { name: string; valueString?: string }[];
      };
      return { lost: parameter.find(({ name }) => name === "messagesLost")?.valueString, parameter };
    };
    await until("they are lost", async () => (await lost()).lost === String(valid.length));
    const { parameter } = await lost();
    const errors = parameter.filter(({ name }) => name === "lastErrorDetail").length;
    assert.ok(errors >= 1 && errors <= 5);
    const { code, stdout, stderr } = await run.end();
    assert.equal(code, 0, stderr);
    assert.match(stdout + stderr, new RegExp(`lost\\s+${valid.length}\\b`));
  },
);

test(
  "seed 002.2: best effort sends only what its transaction has committed",
  needs("postgres"),
  async (t) => {
    const url = await (await sharedPostgres()).freshDatabase(t);
    const client = new pg.Client(url);
    client.on("error", () => {});
    await client.connect();
    t.after(() => client.end());
    await client.query(resourceTable);
    const emitted: string[] = [];
    const emit = (notification: string) => emitted.push(notification);
    const [first, second] = [changeOf(valid[0]!), changeOf(valid[1]!)];
    await assert.rejects(changeThenTell(client, [first, { ...second, resource: "no JSON" }], emit));
    assert.deepEqual(emitted, []);
    assert.deepEqual((await client.query("SELECT 1 FROM resource")).rows, []);
    await changeThenTell(client, [first, second], emit);
    assert.deepEqual(emitted, [first.notification, second.notification]);
  },
);

test("seed 002.8: the destination's resource is configuration: its kind, profile and parameters are checked", () => {
  const resource = JSON.parse(readFileSync(file("at-least-once.destination.json"), "utf8"));
  assert.deepEqual(parametersOf(resource, "kafka-at-least-once"), {
    kafkaTopic: "aidbox-forms",
    bootstrapServers: "127.0.0.1:9092",
    compressionType: "zstd",
    batchSize: 65_536,
    deliveryTimeoutMs: 60_000,
  });
  for (const wrong of [
    { ...resource, kind: "kafka-best-effort" },
    { ...resource, resourceType: "Patient" },
    { ...resource, meta: { profile: ["http://example.org/other"] } },
    { ...resource, parameter: [resource.parameter[0], resource.parameter[0]] },
  ])
    assert.throws(() => parametersOf(wrong, "kafka-at-least-once"), { code: "option-invalid" });
});
