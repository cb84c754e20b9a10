/** XFM on embedded brokers, with pond and lake in SQLite: what arrives where, and what becomes of bad input. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";
import { compileFiles } from "../../src/topology/load.ts";
import { until } from "../../test/brokers/until.ts";
import { type DumpedRecord, dumped, freshFolder, millrace, runMillrace } from "../../test/millrace.ts";
import { Lake } from "./lake.ts";
import { bundle, documents, file } from "./xfm-bed.ts";

const workers = ["ingester.ts", "transformer.ts", "loader.ts"].map(file);
const [imaging, operative, procedure, allergies, invalid] = documents;
const digestOf = (text: string) => createHash("sha256").update(text).digest("hex");

interface Feed {
  readonly cdar2?: readonly (string | Buffer)[];
  readonly fhir?: readonly (string | Buffer)[];
}

interface Ran {
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly folder: string;
  queue(name: string): Promise<DumpedRecord[]>;
  rows(database: "pond" | "lake", sql: string): Record<string, unknown>[];
}

/** The three workers in one process, until all is through. */
async function runXfm(
  t: TestContext,
  { cdar2 = [], fhir = [] }: Feed,
  folder = freshFolder(t),
): Promise<Ran> {
  const feeds = Object.entries({ "ingress-cdar2": cdar2, "ingress-fhir": fhir }).flatMap(
    ([queue, values]) => {
      const path = join(folder, `${queue}.in`);
      const line = (value: string | Buffer) =>
        `${JSON.stringify({ key: null, value: { base64: Buffer.from(value).toString("base64") } })}\n`;
      writeFileSync(path, values.map(line).join(""));
      return ["--feed", `${queue}=${path}`];
    },
  );
  const out = join(folder, "out");
  const args = ["--embedded", ...feeds, "--feed", `pond-seq=${file("data/pond-seq.ndjson")}`];
  const ended = await runMillrace(t, ["run", ...workers, ...args, "--until-idle", "--dump", out], {
    POND_URL: `sqlite:${join(folder, "pond.sqlite")}`,
    LAKE_URL: `sqlite:${join(folder, "lake.sqlite")}`,
  });
  return {
    ...ended,
    folder,
    queue: (name) => dumped(out, name),
    rows: (database, sql) => {
      const opened = new DatabaseSync(join(folder, `${database}.sqlite`), { readOnly: true });
      const rows = opened.prepare(sql).all();
      opened.close();
      return rows;
    },
  };
}

test("seed 004.2, 004.3: from the ingress queues through transform-rim and load-sql into pond and lake, each document once", async (t) => {
  const ran = await runXfm(t, { cdar2: documents, fhir: [bundle] });
  assert.equal(ran.code, 0, ran.stderr);
  const rim = (await ran.queue("transform-rim")).map(({ value }) => String(value));
  assert.deepEqual(
    documents.filter((document) => !rim.includes(document)),
    [],
    "CDA passes byte for byte",
  );
  const [translated] = rim.filter((document) => !documents.includes(document));
  assert.match(translated ?? "", /<ClinicalDocument xmlns="urn:hl7-org:v3"/);
  const loads = (await ran.queue("load-sql")).map(({ value }) => JSON.parse(String(value)));
  assert.equal(loads.length, 5);
  for (const { statements } of loads) {
    for (const { sql } of statements)
      assert.match(sql, /^INSERT INTO \w+ \([a-z_, ]+\) VALUES \([$\d, ]+\)$/);
  }
  const expected = [imaging, operative, procedure, allergies, translated!].map(digestOf).sort();
  for (const database of ["pond", "lake"] as const) {
    const stored = ran.rows(database, "SELECT id, digest FROM document ORDER BY digest");
    assert.deepEqual(
      stored.map(({ digest }) => digest),
      expected,
      `${database}: each document once`,
    );
    assert.ok(stored.every(({ id }) => Number(id) >= 1 && Number(id) <= 1_000));
    assert.equal(new Set(stored.map(({ id }) => id)).size, 5);
  }
  const sameId = ran.rows("lake", "SELECT title FROM document WHERE extension = 'TT988'");
  assert.equal(sameId.length, 2, "two documents under one document id are two documents");
  const [patient] = ran.rows(
    "lake",
    "SELECT given, family, gender, birth_time FROM document WHERE extension = ''  AND given = 'Gustavo'",
  );
  assert.deepEqual(
    { ...patient },
    { given: "Gustavo", family: "Mejía", gender: "M", birth_time: "19861127" },
  );
  const [acts] = ran.rows(
    "lake",
    `SELECT count(*) AS count, count(DISTINCT section) AS sections FROM act
     WHERE document_id = (SELECT id FROM document WHERE given = 'Gustavo')`,
  );
  assert.deepEqual({ ...acts }, { count: 70, sections: 6 });
  assert.deepEqual(
    ran.rows("lake", "SELECT * FROM act ORDER BY document_id, place"),
    ran.rows("pond", "SELECT * FROM act ORDER BY document_id, place"),
  );
  assert.deepEqual(ran.rows("pond", "SELECT * FROM pending_upload"), []);
  const [refused] = await ran.queue("error");
  assert.equal(refused?.value, invalid);

  // The same once more, with the databases of the first run: nothing is stored twice.
  const again = await runXfm(t, { cdar2: documents, fhir: [bundle] }, ran.folder);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(again.rows("pond", "SELECT id FROM document").length, 5);
  assert.equal(again.rows("lake", "SELECT id FROM document").length, 5);
});

test("the command of the README loads five documents of six", async (t) => {
  const readme = readFileSync(file("../README.md"), "utf8");
  const section = /^## XFM\n([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(readme)![1]!;
  const commands = [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
    block!.trim().split("\n"),
  );
  assert.equal(commands.length, 1);
  const args = commands[0]!.replace(/^npx millrace /, "").split(" ");
  const folder = freshFolder(t);
  const placed = args.map((arg) =>
    arg.replaceAll(/(^|=)topologies\//g, `$1${file("../")}`).replace(/^out\//, `${folder}/`),
  );
  const { code, stdout, stderr } = await runMillrace(t, placed, {
    POND_URL: `sqlite:${folder}/pond.sqlite`,
    LAKE_URL: `sqlite:${folder}/lake.sqlite`,
  });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 6 = delivered 5 \+ deadLettered 1\n[\s\S]*accepted 5 = delivered 5\n$/);
  assert.equal((await dumped(join(folder, "xfm"), "error")).length, 1);
});

const laughs = `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">${Array.from(
  { length: 9 },
  (_, i) => `<!ENTITY lol${i + 1} "${`&lol${i === 0 ? "" : i};`.repeat(10)}">`,
).join("")}]><ClinicalDocument xmlns="urn:hl7-org:v3">&lol9;</ClinicalDocument>`;
const external = `<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><ClinicalDocument xmlns="urn:hl7-org:v3"><title>&x;</title></ClinicalDocument>`;
const slow = JSON.stringify({
  resourceType: "Bundle",
  entry: [
    {
      resource: {
        resourceType: "Patient",
        extension: [{ url: "http://example.org/x", valueBase64Binary: `${"AAAA  ".repeat(40)}!` }],
      },
    },
  ],
});
const ofSystem = (system: string) =>
  JSON.stringify({
    resourceType: "Bundle",
    entry: [
      { resource: { resourceType: "Patient", id: "p" } },
      { resource: { resourceType: "Condition", code: { coding: [{ system, code: "1" }] } } },
    ],
  });

/** What is wrong, the message, and the code and reason that its error headers give. */
const bad: readonly [what: string, kind: keyof Feed, value: string | Buffer, code: string, reason: RegExp][] =
  [
    ["billion laughs", "cdar2", laughs, "rule-broken", /document type/],
    ["external entity", "cdar2", external, "rule-broken", /document type/],
    [
      "undeclared entity",
      "cdar2",
      imaging.replace("<title>", "<title>&x;"),
      "rule-broken",
      /line \d+, column \d+: undefined entity/,
    ],
    [
      "undeclared prefix",
      "cdar2",
      imaging.replace("<title>", '<title nope:x="1">'),
      "rule-broken",
      /unbound namespace prefix/,
    ],
    ["cut off", "cdar2", imaging.slice(0, 20_000), "rule-broken", /line \d+, column \d+: unclosed tag/],
    [
      "nested too deep",
      "cdar2",
      `<ClinicalDocument xmlns='urn:hl7-org:v3'>${"<a>".repeat(50_000)}`,
      "rule-broken",
      /deeper than 100/,
    ],
    ["another root", "cdar2", "<html/>", "rule-broken", /no ClinicalDocument/],
    ["no bytes at all", "cdar2", "", "rule-broken", /line 1, column 0/],
    [
      "not UTF-8",
      "cdar2",
      Buffer.from(imaging.replace("Everyman", "Müller"), "latin1"),
      "utf8-invalid",
      /UTF-8/,
    ],
    [
      "says it is Latin-1",
      "cdar2",
      allergies.replace('encoding="UTF-8"', 'encoding="ISO-8859-1"'),
      "rule-broken",
      /not UTF-8/,
    ],
    ["breaks a rule of CDA", "cdar2", invalid, "rule-broken", /which kind of document/],
    [
      "kind in another code system",
      "cdar2",
      allergies.replace(
        'codeSystem="2.16.840.1.113883.6.1" codeSystemName="LOINC" displayName="Summ',
        'codeSystem="1.2.3" displayName="Summ',
      ),
      "rule-broken",
      /LOINC/,
    ],
    ["too large", "cdar2", Buffer.alloc(8 * 2 ** 20 + 1, "x"), "record-too-large", /8388609 bytes/],
    ["not JSON", "fhir", "<Bundle/>", "json-invalid", /not valid JSON/],
    ["against the schema", "fhir", '{"resourceType":"Bundle","entry":[]}', "schema-violation", /entry/],
    ["not a bundle", "fhir", '{"resourceType":"Patient"}', "schema-violation", /entry|resourceType/],
    ["slow for a pattern", "fhir", slow, "schema-violation", /pattern/],
    [
      "two patients",
      "fhir",
      '{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient"}},{"resource":{"resourceType":"Patient"}}]}',
      "rule-broken",
      /2 patients/,
    ],
    [
      "unknown code system",
      "fhir",
      ofSystem("http://example.org/codes"),
      "rule-broken",
      /entry 1 \(Condition\) is coded in no code system/,
    ],
    [
      "a character XML has not",
      "fhir",
      ofSystem("http://loinc.org").replace('"code":"1"', '"code":"\\u0001"'),
      "rule-broken",
      /XML cannot carry/,
    ],
    ["too large JSON", "fhir", `{"a":"${"x".repeat(8 * 2 ** 20)}"}`, "value-too-large", /bytes/],
  ];

test("seed 004.7: each bad input ends in the queue error, quickly, with its bytes and the reason; its neighbours are loaded", async (t) => {
  const of = (kind: keyof Feed) => bad.filter(([, its]) => its === kind).map(([, , value]) => value);
  const started = performance.now();
  const ran = await runXfm(t, { cdar2: [imaging, ...of("cdar2"), operative], fhir: [...of("fhir"), bundle] });
  const took = performance.now() - started;
  assert.equal(ran.code, 0, ran.stderr);
  assert.ok(took < 60_000, `took ${took} ms`);
  const refused = new Map((await ran.queue("error")).map((record) => [bytesOf(record.value), record]));
  for (const [what, kind, value, code, reason] of bad) {
    const record = refused.get(Buffer.from(value).toString("base64"));
    assert.ok(record, `${what}: the source message is the payload`);
    const headers = Object.fromEntries(record.headers) as Record<string, string>;
    assert.equal(headers["millrace-error-class"], "business", what);
    assert.equal(headers["millrace-error-code"], code, what);
    assert.match(headers["millrace-error-message"] ?? "", reason, what);
    const read = kind === "fhir" || code === "record-too-large" ? `ingress-${kind}` : "transform-rim";
    assert.equal(headers["millrace-error-target"], read, what);
    for (const name of ["node", "source", "position", "time"]) {
      assert.notEqual(headers[`millrace-error-${name}`] ?? "", "", `${what}: ${name}`);
    }
  }
  assert.equal(refused.size, bad.length);
  assert.deepEqual(await ran.queue("dead-letter"), []);
  assert.equal(ran.rows("lake", "SELECT id FROM document").length, 3);
  assert.doesNotMatch(
    ran.stderr + [...refused.values()].map(({ headers }) => JSON.stringify(headers)).join(),
    /root:x:0/,
  );
});

function bytesOf(value: DumpedRecord["value"]): string {
  if (value === null) return "";
  return typeof value === "string" ? Buffer.from(value).toString("base64") : value.base64;
}

test("a loader executes the statements it knows and nothing else", async (t) => {
  const folder = freshFolder(t);
  const digest = "0".repeat(64);
  const loads = [
    { digest, statements: [{ sql: "DELETE FROM act WHERE document_id < $1", rows: [[]] }] },
    {
      digest,
      statements: [
        {
          sql: "INSERT INTO section (document_id, place, code, title) VALUES ($1, $2, $3, $4)",
          rows: [[0, "x"]],
        },
      ],
    },
    { digest: "x", statements: [] },
    {
      digest,
      statements: [
        { sql: "INSERT INTO section (document_id, place, code, title) VALUES ($1, $2, $3, $4)", rows: [] },
      ],
    },
    // Known, well-formed, and refused by the database: its place is taken.
    {
      digest,
      statements: [
        {
          sql: "INSERT INTO section (document_id, place, code, title) VALUES ($1, $2, $3, $4)",
          rows: [
            [0, "a", "b"],
            [0, "a", "b"],
          ],
        },
      ],
    },
  ];
  const path = join(folder, "load-sql.in");
  writeFileSync(path, loads.map((load) => `${JSON.stringify(load)}\n`).join(""));
  const out = join(folder, "out");
  const feeds = ["--feed", `load-sql=${path}`, "--feed", `pond-seq=${file("data/pond-seq.ndjson")}`];
  const { code, stdout, stderr } = await runMillrace(
    t,
    ["run", file("loader.ts"), "--embedded", ...feeds, "--until-idle", "--dump", out],
    { POND_URL: `sqlite:${folder}/pond.sqlite`, LAKE_URL: `sqlite:${folder}/lake.sqlite` },
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 5 = deadLettered 5/);
  const reasons = (await dumped(out, "error")).map(
    ({ headers }) => headers.findLast(([name]) => name === "millrace-error-message")?.[1],
  );
  assert.equal(reasons.filter((reason) => /does not execute/.test(String(reason))).length, 2);
  assert.equal(reasons.filter((reason) => /the database refuses/.test(String(reason))).length, 1);
  assert.equal(reasons.filter((reason) => /do not store the document/.test(String(reason))).length, 1);
});

test("seed 004.8: with a wrong configuration nothing starts and nothing is consumed", async (t) => {
  for (const [name, value, complaint] of [
    ["POND_URL", "mysql://127.0.0.1/pond", /a database's address begins with/],
    ["MESSAGING_URL", "http://127.0.0.1", /"url" is not an AMQP address/],
    ["XFM_CLOSE_AT", "many", /"gate\.closeAt" must be a whole number/],
  ] as const) {
    const folder = freshFolder(t);
    const path = join(folder, "in");
    writeFileSync(path, `${JSON.stringify({ key: null, value: imaging })}\n`);
    const args = [
      "--embedded",
      "--feed",
      `ingress-cdar2=${path}`,
      "--feed",
      `pond-seq=${file("data/pond-seq.ndjson")}`,
    ];
    const { code, stderr, stdout } = await runMillrace(t, ["run", ...workers, ...args, "--until-idle"], {
      POND_URL: `sqlite:${folder}/pond.sqlite`,
      LAKE_URL: `sqlite:${folder}/lake.sqlite`,
      [name]: value,
    });
    assert.equal(code, 78, `${name}: ${stdout}${stderr}`);
    assert.match(stderr, complaint);
    assert.doesNotMatch(stdout, /accepted [1-9]/);
  }
});

test("seed 004.8: what our own code fails on is logged and goes to the dead-letter queue, not back", async (t) => {
  const folder = freshFolder(t);
  // A transformer of an author who made a mistake, on the brokers and with the errors of the real one.
  writeFileSync(
    join(folder, "mistaken.ts"),
    `import { decode, encode, map, topology } from "millrace";
import { errors, messaging } from ${JSON.stringify(file("brokers.ts"))};
export default topology("mistaken", (t) => {
  t.from(messaging.source({ queue: "transform-rim" }))
    .pipe(decode("text"), map((xml) => (JSON.parse("null") as { x: string }).x + xml), encode("text"))
    .to(messaging.sink({ exchange: "load", key: "sql" }));
  t.deadLetters(errors);
});
`,
  );
  const path = join(folder, "in");
  writeFileSync(path, `${JSON.stringify({ key: null, value: allergies })}\n`);
  const runner = millrace(t, [
    "run",
    join(folder, "mistaken.ts"),
    "--embedded",
    "--feed",
    `transform-rim=${path}`,
    "--until-idle",
    "--dump",
    join(folder, "out"),
  ]);
  const { code, stdout, stderr } = await runner.ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 1 = deadLettered 1/);
  assert.match(stderr, /"level":"warn".*"code":"author-error".*the topology's own code fails on a message/);
  const [letter, ...more] = await dumped(join(folder, "out"), "dead-letter");
  assert.deepEqual(more, []);
  assert.equal(letter?.value, allergies);
  assert.equal(Object.fromEntries(letter!.headers)["millrace-error-class"], "application");
  assert.deepEqual(await dumped(join(folder, "out"), "error"), []);
});

/** The ingester under virtual time, on brokers that outlive its crashes. */
async function ingesting(count: number) {
  const { plans, problems } = await compileFiles([file("ingester.ts")]);
  assert.ok(plans, problems.map(({ message }) => message).join("\n"));
  const context = testContext();
  const { clock } = context;
  const embedded = new RunEmbeddedBrokers();
  const brokers: Record<string, EmbeddedRabbitmq> = {};
  for (const { connection } of plans[0]!.connections) {
    const name = connection.address.endsWith("/gateway") ? "gateway" : "messaging";
    brokers[name] = connection.embedded({ ...context, embedded }) as EmbeddedRabbitmq;
  }
  const { gateway, messaging } = brokers as { gateway: EmbeddedRabbitmq; messaging: EmbeddedRabbitmq };
  const sent = Array.from({ length: count }, (_, i) => `<document n="${i}"/>`);
  gateway.feed(
    "ingress-cdar2",
    sent.map((value) => ({ value: Buffer.from(value) })),
  );
  let run: Run | undefined;
  const begin = () => {
    run = start(plans[0]!, { ...context, embedded });
  };
  const crash = async (requests: "lost" | "applied") => {
    for (const broker of [gateway, messaging]) broker.cut(requests);
    run?.abort(new Error("killed"));
    await clock.run(10);
  };
  const forwarded = () => [...messaging.contents("transform-rim")].map(({ value }) => String(value));
  return { clock, gateway, messaging, sent, begin, crash, forwarded, status: () => run!.status() };
}

test("seed 004.11: whatever crashes when, nothing is lost, and a crash repeats no more than was in flight", async () => {
  const crashes = fc.array(
    fc.record({
      after: fc.integer({ min: 0, max: 40 }),
      withholds: fc.boolean(),
      requests: fc.constantFrom("lost" as const, "applied" as const),
    }),
    { maxLength: 5 },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 200 }), crashes, async (count, all) => {
      const { clock, gateway, messaging, sent, begin, crash, forwarded } = await ingesting(count);
      for (const { after, withholds, requests } of all) {
        messaging.withholdConfirms(withholds);
        begin();
        await clock.run(after);
        await crash(requests);
        const left = [...gateway.remaining("ingress-cdar2")].map(String);
        const there = new Set([...left, ...forwarded()]);
        assert.deepEqual(
          sent.filter((value) => !there.has(value)),
          [],
          "nothing is acknowledged before it is forwarded",
        );
      }
      messaging.withholdConfirms(false);
      begin();
      await clock.run(5_000);
      assert.equal([...gateway.remaining("ingress-cdar2")].length, 0);
      assert.deepEqual(new Set(forwarded()), new Set(sent));
      // A crash brings again what was in flight: the prefetch, at most.
      assert.ok(forwarded().length <= count + all.length * 50);
      await crash("applied");
    }),
    { numRuns: 60 },
  );
});

test("seed 004.4, 004.11: a crash between forwarding and acknowledging brings the message twice", async () => {
  const { clock, gateway, messaging, sent, begin, crash, forwarded } = await ingesting(3);
  const refused = () => [...messaging.contents("error")].length;
  const left = () =>
    ["ingress-cdar2", "ingress-fhir"].flatMap((queue) => [...gateway.remaining(queue)]).length;
  gateway.feed("ingress-fhir", [{ value: Buffer.from("poison") }]);
  messaging.withholdConfirms(true);
  begin();
  await clock.run(2_000);
  assert.deepEqual(forwarded(), sent);
  assert.equal(refused(), 1);
  assert.equal(left(), 4, "output and error message are stored, not confirmed: nothing is acknowledged");
  messaging.withholdConfirms(false);
  await crash("applied");
  begin();
  await clock.run(2_000);
  assert.deepEqual(forwarded(), [...sent, ...sent]);
  assert.equal(refused(), 2);
  assert.equal(left(), 0);
  await crash("applied");
});

test("seed 004.4: a loader acknowledges what the lake has, and not what is in its pond alone", async (t) => {
  const { queue } = await runXfm(t, { cdar2: [allergies] });
  const [load] = await queue("load-sql");
  const folder = freshFolder(t);
  const [feed, path] = [join(folder, "load-sql.in"), join(folder, "lake.sqlite")];
  writeFileSync(feed, `${JSON.stringify({ key: null, value: load!.value })}\n`);
  await (await Lake.open(`sqlite:${path}`)).close();
  const lake = new DatabaseSync(path, { timeout: 5_000 });
  t.after(() => lake.close());
  // No document is taken while this overflows, which is no document's fault.
  lake.exec("CREATE TABLE fault (n); INSERT INTO fault VALUES (-9223372036854775808)");
  lake.exec("CREATE TRIGGER failing BEFORE INSERT ON document BEGIN SELECT abs(n) FROM fault; END");
  const feeds = ["--feed", `load-sql=${feed}`, "--feed", `pond-seq=${file("data/pond-seq.ndjson")}`];
  const loader = millrace(
    t,
    ["run", file("loader.ts"), "--embedded", ...feeds, "--until-idle", "--http", "0"],
    { POND_URL: `sqlite:${folder}/pond.sqlite`, LAKE_URL: `sqlite:${path}` },
  );
  // The pond is written before the lake is tried.
  const { conservation } = await until("the lake is tried", async () => {
    const status = await loader.status();
    const tried = /integer overflow/.test(status.sinks[0]?.reason ?? "");
    return tried || status.conservation.delivered > 0 ? status : undefined;
  });
  assert.deepEqual([conservation.accepted, conservation.delivered, conservation.inFlight], [1, 0, 1]);
  lake.exec("DELETE FROM fault");
  const { code, stdout, stderr } = await loader.ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 1 = delivered 1\n$/);
  assert.equal(lake.prepare("SELECT id FROM document").all().length, 1);
});
