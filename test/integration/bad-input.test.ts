/**
 * Messages that are wrong, between good ones of the same partition, through the runner on embedded brokers: the
 * neighbours arrive in order, the bad one lies among the dead letters as it came, with the reason; everything is
 * accounted for; and nothing of it is printed.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { constants, crc32, deflateRawSync, gzipSync, zstdCompressSync } from "node:zlib";
import lz4 from "lz4-napi";
import snappy from "snappy";
import type { DumpedRecord } from "../millrace.ts";
import {
  bytesOf,
  canary,
  type EmbeddedRun,
  type Fed,
  ownHeaders,
  reasonOf,
  runEmbedded,
} from "./embedded-run.ts";

interface BadCase {
  readonly name: string;
  readonly fed: Fed;
  readonly code: string;
  /** Default business. */
  readonly class?: string;
}

const head = `import { batch, compress, decode, decompress, dedup, encode, filter, kafka, key, map, rabbitmq, reject, topology, validate } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
`;

/** One flow in → out with these steps, and dead letters. */
function flow(steps: string, more = ""): string {
  return `${head}${more}
export default topology("bad", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "g" }))
    .pipe(${steps})
    .to(cluster.sink({ topic: "out" }));
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`;
}

/** A good message before, between and after the bad ones: none of them may be lost or change places. */
function amongGood(bad: readonly BadCase[], good: (i: number) => Fed): { feed: Fed[]; goods: Fed[] } {
  const goods = Array.from({ length: bad.length + 1 }, (_, i) => good(i));
  return { feed: goods.flatMap((one, i) => (bad[i] === undefined ? [one] : [one, bad[i].fed])), goods };
}

/** The same bytes as were fed: key, value and headers. */
function assertSame(record: DumpedRecord, fed: Fed, what: string): void {
  const bytes = (content: Buffer | string | null | undefined) =>
    content === null || content === undefined ? null : Buffer.from(content);
  assert.deepEqual(bytesOf(record.value), bytes(fed.value), `${what}: the value`);
  assert.deepEqual(bytesOf(record.key), bytes(fed.key), `${what}: the key`);
  assert.deepEqual(
    ownHeaders(record).map(([name, content]) => [name, bytesOf(content)]),
    (fed.headers ?? []).map(([name, content]) => [name, bytes(content)]),
    `${what}: the headers`,
  );
}

function assertQuiet({ stdout, stderr }: EmbeddedRun): void {
  const printed = `${stdout}${stderr}`;
  const at = printed.indexOf(canary);
  assert.equal(at, -1, `a payload is printed: ${printed.slice(Math.max(0, at - 300), at + 100)}`);
}

/** Runs the bad ones among good ones through the steps, and checks all that must hold of them. */
async function assertRejected(
  t: TestContext,
  topology: string,
  bad: readonly BadCase[],
  good: (i: number) => Fed,
  changed: (value: Buffer) => Buffer = (value) => value,
): Promise<EmbeddedRun> {
  const { feed, goods } = amongGood(bad, good);
  const run = await runEmbedded(t, topology, { in: feed });
  assert.equal(run.code, 0, run.stderr);
  // The dead letters may lie in any partition, as their keys say: their own position tells which is which.
  const dead = new Map(
    (await run.records("dead")).map((record) => [
      Number(reasonOf(record)["millrace-error-position"]),
      record,
    ]),
  );
  assert.deepEqual(
    bad.filter(({ fed }) => !dead.has(feed.indexOf(fed))).map(({ name }) => name),
    [],
    "not among the dead letters",
  );
  const { accepted, delivered, deadLettered, inFlight } = run.report.conservation;
  assert.deepEqual(
    { accepted, delivered, deadLettered, inFlight },
    { accepted: feed.length, delivered: goods.length, deadLettered: bad.length, inFlight: 0 },
  );
  const out = await run.records("out");
  assert.deepEqual(
    out.map(({ value }) => bytesOf(value)?.toString("latin1")),
    goods.map(({ value }) => changed(Buffer.from(value!)).toString("latin1")),
    "the neighbours, in order",
  );
  for (const one of bad) {
    await t.test(one.name, () => {
      const letter = dead.get(feed.indexOf(one.fed));
      assertSame(letter!, one.fed, one.name);
      const reason = reasonOf(letter!);
      assert.equal(reason["millrace-error-code"], one.code, reason["millrace-error-message"]);
      assert.equal(reason["millrace-error-class"], one.class ?? "business");
      assert.equal(reason["millrace-error-target"], "in");
      assert.equal(reason["millrace-error-partition"], "0");
      assert.ok(
        !Object.values(reason).join(" ").includes(canary),
        `the reason quotes it: ${JSON.stringify(reason)}`,
      );
      assert.ok((reason["millrace-error-message"] ?? "").length > 5, "in words");
      assert.ok(Date.now() - Date.parse(reason["millrace-error-time"]!) < 600_000, "when");
    });
  }
  assertQuiet(run);
  return run;
}

const json = (fields: object) => JSON.stringify(fields);

const thing = `{
  type: "object",
  required: ["name"],
  properties: {
    name: { type: "string", maxLength: 40, pattern: "^[^!]*$" },
    n: { type: "integer", maximum: 100 },
    kind: { enum: ["a", "b"] },
    tags: { type: "array", uniqueItems: true, items: { type: "string" } },
  },
  additionalProperties: true,
}`;

test("JSON that is not what it should be", async (t) => {
  const named = (text: string | Buffer): Fed => ({ value: text, key: `k-${canary}` });
  const nested = (open: string, close: string) => `${open.repeat(100_000)}1${close.repeat(100_000)}`;
  const bad: BadCase[] = [
    { name: "cut short", fed: named(`{"name":"${canary}","n":`), code: "json-invalid" },
    { name: "something after its end", fed: named(`{"name":"${canary}"}}`), code: "json-invalid" },
    { name: "two values", fed: named(`{"name":"a"} {"name":"${canary}"}`), code: "json-invalid" },
    { name: "nothing in it", fed: named(""), code: "json-invalid" },
    { name: "only spaces", fed: named("  \n\t "), code: "json-invalid" },
    { name: "a word", fed: named(canary), code: "json-invalid" },
    { name: "NaN", fed: named(`{"name":"${canary}","n":NaN}`), code: "json-invalid" },
    { name: "a comment", fed: named(`{"name":"${canary}" /* ${canary} */}`), code: "json-invalid" },
    { name: "a bare line break in text", fed: named(`{"name":"${canary}\n"}`), code: "json-invalid" },
    { name: "single quotes", fed: named(`{'name':'${canary}'}`), code: "json-invalid" },
    { name: "a byte order mark", fed: named(`\ufeff{"name":"${canary}"}`), code: "json-invalid" },
    {
      name: "UTF-16",
      fed: named(Buffer.from(`\ufeff{"name":"${canary}"}`, "utf16le")),
      code: "utf8-invalid",
    },
    {
      name: "a stray byte",
      fed: named(Buffer.concat([Buffer.from(`{"name":"${canary}`), Buffer.from([0xff]), Buffer.from('"}')])),
      code: "utf8-invalid",
    },
    {
      name: "an overlong slash",
      fed: named(Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}')])),
      code: "utf8-invalid",
    },
    {
      name: "an encoded surrogate",
      fed: named(
        Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"}')]),
      ),
      code: "utf8-invalid",
    },
    {
      name: "a character cut in half",
      fed: named(Buffer.from(`{"name":"ü`).subarray(0, -1)),
      code: "utf8-invalid",
    },
    {
      name: "beyond U+10FFFF",
      fed: named(
        Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xf5, 0x80, 0x80, 0x80]), Buffer.from('"}')]),
      ),
      code: "utf8-invalid",
    },
    {
      name: "random bytes",
      fed: named(Buffer.from(Array.from({ length: 997 }, (_, i) => (i * 151 + 128) % 256))),
      code: "utf8-invalid",
    },
    { name: "100,000 arrays in each other", fed: named(nested("[", "]")), code: "json-too-deep" },
    { name: "100,000 open brackets", fed: named("[".repeat(100_000)), code: "json-too-deep" },
    { name: "100,000 objects in each other", fed: named(nested('{"name":', "}")), code: "json-too-deep" },
    {
      name: "__proto__",
      fed: named(`{"name":"a","__proto__":{"admin":"${canary}"}}`),
      code: "json-forbidden-key",
    },
    {
      name: "__proto__ in escapes",
      fed: named(`{"name":"a","deep":[{"\\u005f_proto_\\u005F":{"admin":"${canary}"}}]}`),
      code: "json-forbidden-key",
    },
    { name: "no object", fed: named(`["${canary}"]`), code: "schema-violation" },
    { name: "null, the word", fed: named("null"), code: "schema-violation" },
    { name: "a field missing", fed: named(`{"nam":"${canary}"}`), code: "schema-violation" },
    {
      name: "a field that only a prototype has",
      fed: named(`{"constructor":{"prototype":{"name":"${canary}"}}}`),
      code: "schema-violation",
    },
    { name: "a wrong type", fed: named(`{"name":["${canary}"]}`), code: "schema-violation" },
    { name: "not among the words", fed: named(`{"name":"a","kind":"${canary}"}`), code: "schema-violation" },
    { name: "against the pattern", fed: named(`{"name":"${canary}!"}`), code: "schema-violation" },
    { name: "too long", fed: named(`{"name":"${canary.repeat(10)}"}`), code: "schema-violation" },
    { name: "beyond the maximum", fed: named(`{"name":"a","n":100.5}`), code: "schema-violation" },
    {
      name: "twice the same",
      fed: named(`{"name":"a","tags":["${canary}","${canary}"]}`),
      code: "schema-violation",
    },
    {
      name: "a tombstone",
      fed: { value: null, key: `k-${canary}`, headers: [["h", canary]] },
      code: "value-missing",
    },
    { name: "a tombstone without a key", fed: { value: null }, code: "value-missing" },
  ];
  // Strange and right: deep text that is no nesting, every escape, an empty name, an own "constructor".
  const strange = [
    (i: number) => json({ name: `n${i}`, text: `${"[".repeat(2_000)}{"a":` }),
    (i: number) => `{"name":"n${i}\\u0000\\ud83d\\ude00\\/","constructor":{"prototype":{"admin":true}}}`,
    (i: number) => json({ name: "", toString: i, hasOwnProperty: null, proto__: i }),
    (i: number) => ` \r\n\t{ "name" : "Pāhala ${i}" , "n" : -0 } `,
  ];
  const good = (i: number): Fed => ({ value: strange[i % strange.length]!(i), key: `k-${canary}` });
  const steps = `decode("json"), validate(${thing}), filter(() => ({}).admin === undefined && Object.prototype.admin === undefined)`;
  await assertRejected(t, flow(steps), bad, good);
});

test("keys and ids that are missing, empty, or cannot be told apart", async (t) => {
  const bad: BadCase[] = [
    { name: "no id", fed: { value: json({ k: "a", secret: canary }) }, code: "id-missing" },
    { name: "no id, again", fed: { value: json({ k: "b", secret: canary }) }, code: "id-missing" },
    { name: "a null id", fed: { value: json({ k: "a", id: null, secret: canary }) }, code: "id-missing" },
    {
      name: "an id that is an object",
      fed: { value: json({ k: "a", id: { [canary]: 1 } }) },
      code: "id-invalid",
    },
    {
      name: "an id with a half character",
      fed: { value: `{"k":"a","id":"${canary}\\ud800"}` },
      code: "id-invalid",
    },
    { name: "an id beyond all numbers", fed: { value: '{"k":"a","id":1e999}' }, code: "id-invalid" },
    { name: "no key", fed: { value: json({ id: "x1", secret: canary }) }, code: "key-missing" },
    { name: "a null key", fed: { value: json({ id: "x2", k: null }) }, code: "key-missing" },
    {
      name: "a key that is an object",
      fed: { value: json({ id: "x3", k: { [canary]: 1 } }) },
      code: "key-invalid",
    },
    { name: "a key that is true", fed: { value: json({ id: "x4", k: true }) }, code: "key-invalid" },
    {
      name: "a key with a half character",
      fed: { value: `{"id":"x5","k":"${canary}\\udc00"}` },
      code: "key-invalid",
    },
    { name: "a fraction as a key", fed: { value: '{"id":"x6","k":0.5}' }, code: "key-invalid" },
  ];
  const good = (i: number): Fed => ({ value: json({ id: `g${i}`, k: "same" }), key: null });
  for (const [title, steps] of [
    ["by pointer", 'decode("json"), key("/k"), dedup({ id: "/id" })'],
    ["by function", 'decode("json"), key((o) => o.k), dedup({ id: (o) => o.id })'],
  ] as const) {
    await t.test(title, async (t) => {
      await assertRejected(t, flow(steps), bad, good);
    });
  }
});

test("whole numbers beyond 2^53 as key and id: exact by pointer, refused by function, never one for two", async (t) => {
  const numbers = [
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9007199254740994",
    "123456789012345678901234567890",
    "-9007199254740993",
  ];
  const values = numbers.map((n) => `{"id":${n},"k":${n}}`);
  const feed = values.map((value) => ({ value }));
  const byPointer = await runEmbedded(t, flow('decode("json"), key("/k"), dedup({ id: "/id" })'), {
    in: [...feed, ...feed],
  });
  assert.equal(byPointer.code, 0, byPointer.stderr);
  const { delivered, duplicate } = byPointer.report.conservation;
  assert.deepEqual({ delivered, duplicate }, { delivered: numbers.length, duplicate: numbers.length });
  assert.deepEqual((await byPointer.records("out")).map(({ key }) => key).sort(), [...numbers].sort());
  const steps = 'decode("json"), key((o) => o.k), dedup({ id: (o) => o.id })';
  const byFunction = await runEmbedded(t, flow(steps), { in: feed });
  assert.equal(byFunction.code, 0, byFunction.stderr);
  assert.deepEqual(
    (await byFunction.records("out")).map(({ value }) => value),
    [values[0]],
  );
  const dead = await byFunction.records("dead");
  assert.deepEqual(dead.map(({ value }) => value).sort(), values.slice(1).sort());
  for (const letter of dead) assert.equal(reasonOf(letter)["millrace-error-code"], "key-invalid");
});

test("null and empty keys and values are two things, all the way", async (t) => {
  const fed: Fed[] = [
    { value: "v1", key: null },
    { value: "v2", key: "" },
    { value: "", key: null },
    { value: "", key: "" },
    { value: null, key: null },
    { value: null, key: "" },
    { value: null, key: Buffer.from([0, 0xff]) },
    {
      value: Buffer.from([0xff, 0, 0xfe]),
      key: "k",
      headers: [
        ["", ""],
        ["n", null],
        ["b", Buffer.from([0xff])],
        ["n", "2"],
      ],
    },
  ];
  for (const steps of ["batch({ count: 3 })", 'compress("zstd")', 'decode("bytes", { nullValue: "pass" })']) {
    const run = await runEmbedded(t, flow(steps), { in: fed });
    assert.equal(run.code, 0, run.stderr);
    const out = await run.records("out");
    assert.equal(out.length, fed.length, steps);
    const form = (key: Buffer | null, value: Buffer | null) =>
      `${key?.toString("hex") ?? "null"} ${value?.toString("hex") ?? "null"}`;
    const bytes = (content: Buffer | string | null | undefined) =>
      content === null || content === undefined ? null : Buffer.from(content);
    assert.deepEqual(
      out.map(({ key, value }) => form(bytesOf(key), bytesOf(value))).sort(),
      fed.map(({ key, value }) => form(bytes(key), bytes(value))).sort(),
      steps,
    );
    const withHeaders = out.find(({ headers }) => headers.length > 0)!;
    assertSame(withHeaders, fed.at(-1)!, steps);
  }
});

test("keys, ids and headers named like what every object has", async (t) => {
  const names = [
    "__proto__",
    "constructor",
    "prototype",
    "toString",
    "hasOwnProperty",
    "valueOf",
    "__defineGetter__",
    "then",
  ];
  const fed = names.map((name) => ({
    value: json({ id: name, k: name }),
    key: name,
    headers: names.map((header) => [header, canary] as const),
  }));
  const steps = `decode("json"), key((o, m) => { m.headers; return o.k; }), dedup({ id: (o) => o.id }), batch({ count: 4, per: "key" })`;
  const run = await runEmbedded(t, flow(steps), { in: [...fed, ...fed] });
  assert.equal(run.code, 0, run.stderr);
  const { delivered, duplicate } = run.report.conservation;
  assert.deepEqual({ delivered, duplicate }, { delivered: names.length, duplicate: names.length });
  const out = await run.records("out");
  assert.deepEqual(out.map(({ key }) => key).sort(), [...names].sort());
  for (const record of out)
    assert.deepEqual(
      record.headers.map(([name]) => name),
      names,
    );
  assertQuiet(run);
});

test("very many headers, large headers, and headers that a dead letter has already", async (t) => {
  const many: Fed = {
    value: `{"n":1}`,
    headers: Array.from({ length: 20_000 }, (_, i) => [`h${i}`, "x"] as const),
  };
  const large: Fed = { value: `{"n":2}`, headers: [["large", "y".repeat(300_000)]] };
  const again: Fed = {
    value: `{"n":`,
    headers: [
      ["millrace-error-code", "schema-violation"],
      ["millrace-error-class", "network"],
      ["millrace-error-position", "999"],
    ],
  };
  const manyBad: Fed = { ...many, value: canary };
  const good: Fed = { value: `{"n":3}` };
  const run = await runEmbedded(t, flow('decode("json")'), { in: [good, many, again, large, manyBad, good] });
  assert.equal(run.code, 0, run.stderr);
  const { accepted, delivered, deadLettered } = run.report.conservation;
  assert.deepEqual({ accepted, delivered, deadLettered }, { accepted: 6, delivered: 4, deadLettered: 2 });
  const out = await run.records("out");
  const same = (n: number, fed: Fed) =>
    assertSame(out.find(({ value }) => value === `{"n":${n}}`)!, fed, String(n));
  same(1, many);
  same(2, large);
  const dead = await run.records("dead");
  const letter = dead.find(({ value }) => value === again.value)!;
  assert.equal(reasonOf(letter)["millrace-error-code"], "json-invalid", "the last failure is told");
  assert.equal(reasonOf(letter)["millrace-error-class"], "business");
  assert.equal(reasonOf(letter)["millrace-error-position"], "2");
  const other = dead.find(({ value }) => value === canary)!;
  assert.equal(ownHeaders(other).length, 20_000);
  assertQuiet(run);
});

test("functions of the author that throw anything, or give what is none", async (t) => {
  const throwing = `
const throwOne = {
  error: () => { throw new Error("told by the author"); },
  nothing: () => { throw undefined; },
  nil: () => { throw null; },
  text: () => { throw "text"; },
  frozen: () => { throw Object.freeze(Object.assign(new Error("frozen"), { code: "ENOSPC" })); },
  hostile: () => { throw { get message() { throw new Error("again"); }, toString() { throw new Error("and again"); } }; },
  proxy: () => { throw new Proxy({}, { get() { throw new Error("proxy"); } }); },
  type: (o) => o.no.such.field,
  recursion: function deeper() { return deeper() + 1; },
  promise: async () => { throw new Error("later"); },
};
`;
  const kinds = ["error", "nothing", "nil", "text", "hostile", "proxy", "type", "recursion", "promise"];
  const bad: BadCase[] = kinds.map((kind) => ({
    name: kind,
    fed: { value: json({ kind, n: canary }) },
    code: "author-error",
    class: "application",
  }));
  const good = (i: number): Fed => ({ value: json({ n: i }) });
  const steps = 'decode("json"), filter((o) => o.kind === undefined || throwOne[o.kind](o))';
  await assertRejected(t, flow(steps, throwing), bad, good);
});

test("records that the destination finds too large, alone and in a batch", async (t) => {
  // What comes in is small and grows on the way: so the dead letter fits, and is what came in.
  const grown =
    'decode("json"), map((o) => (o.grow ? { n: o.n, pad: "x".repeat(o.grow) } : o)), encode("json")';
  const large = (n: number, grow: number): Fed => ({ value: json({ n, grow, secret: canary }), key: "k" });
  const small = (n: number): Fed => ({ value: json({ n }), key: "k" });
  for (const [title, steps] of [
    ["each by itself", `${grown}, batch({ count: 1 })`],
    ["in a batch of many", `${grown}, batch({ count: 100, bytes: "64MiB", within: "200ms" })`],
    [
      "in a compressed batch",
      `${grown}, batch({ count: 100, bytes: "64MiB", within: "200ms" }), compress("gzip")`,
    ],
  ] as const) {
    await t.test(title, async (t) => {
      const bad: BadCase[] = [2 ** 20 + 1, 2 ** 21, 2 ** 23].map((grow, i) => ({
        name: `${grow} bytes`,
        fed: large(i, grow),
        code: "record-too-large",
      }));
      if (title.includes("compressed")) {
        // Compressed these fit well: nothing is too large.
        const feed = [small(0), ...bad.map(({ fed }) => fed), small(1)];
        const run = await runEmbedded(t, flow(steps), { in: feed });
        assert.equal(run.code, 0, run.stderr);
        const { accepted, delivered, deadLettered } = run.report.conservation;
        assert.equal(delivered + deadLettered, accepted);
        const out = await run.records("out");
        assert.deepEqual(out.at(-1)!.value, small(1).value);
      } else {
        await assertRejected(t, flow(steps), bad, small);
      }
    });
  }
  await t.test("a thousand good ones that together are too large for one request", async (t) => {
    const feed = Array.from({ length: 200 }, (_, n) => large(n, 100_000));
    const run = await runEmbedded(
      t,
      flow(`${grown}, batch({ count: 200, bytes: "64MiB", within: "500ms" })`),
      { in: feed },
    );
    assert.equal(run.code, 0, run.stderr);
    assert.equal(run.report.conservation.delivered, 200);
    const numbers = (await run.records("out")).map(({ value }) => JSON.parse(value as string).n);
    assert.deepEqual(
      numbers,
      Array.from({ length: 200 }, (_, n) => n),
    );
  });
});

test("a dead letter that is itself too large leaves a stub that tells of it", async (t) => {
  const value = `{"secret":"${canary}","pad":"${"x".repeat(2 ** 20)}"`;
  const run = await runEmbedded(t, flow('decode("json")'), {
    in: [{ value: "1" }, { value }, { value: "2" }],
  });
  assert.equal(run.code, 0, run.stderr);
  const { accepted, delivered, deadLettered } = run.report.conservation;
  assert.deepEqual({ accepted, delivered, deadLettered }, { accepted: 3, delivered: 2, deadLettered: 1 });
  const [stub] = await run.records("dead");
  const reason = reasonOf(stub!);
  assert.equal(reason["millrace-error-code"], "json-invalid");
  assert.equal(reason["millrace-error-value"], "omitted");
  assert.equal(stub!.value, null);
  assert.match(JSON.stringify(reason), new RegExp(String(Buffer.byteLength(value))), "its size");
  assertQuiet(run);
});

test("headers and keys that no queue has room for do not stop a run whose dead letters go to one", async (t) => {
  const fed: Fed[] = [
    { value: "good" },
    { value: "large headers", headers: [["h", "x".repeat(70 * 1_024)]] },
    { value: "a long name", headers: [["n".repeat(300), "1"]] },
    { value: "good too" },
  ];
  const run = await runEmbedded(
    t,
    `import { kafka, rabbitmq, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
const hare = rabbitmq({ url: "amqp://127.0.0.1:1", queues: { done: {}, dead: {} } });
export default topology("headers", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "g" })).to(hare.sink({ queue: "done" }));
  t.deadLetters(hare.sink({ queue: "dead" }));
});
`,
    { in: fed },
  );
  assert.equal(run.code, 0, run.stderr);
  assert.deepEqual(
    (await run.records("done")).map(({ value }) => value),
    ["good", "good too"],
  );
  const dead = await run.records("dead");
  assert.deepEqual(
    dead.map((record) => reasonOf(record)["millrace-error-position"]),
    ["1", "2"],
  );
  for (const record of dead) {
    assert.deepEqual(ownHeaders(record), []);
    assert.equal(reasonOf(record)["millrace-error-key-and-headers"], "omitted");
  }
});

test("compressed payloads: damaged, cut short, unknown, and bombs", async (t) => {
  const text = Buffer.from(json({ n: 0, pad: `${canary} `.repeat(50) }));
  const packed = {
    gzip: gzipSync(text),
    zstd: zstdCompressSync(text, { params: { [constants.ZSTD_c_checksumFlag]: 1 } }),
    lz4: await lz4.compressFrame(text),
    snappy: await snappy.compress(text),
  };
  const header = (codec: string) => [["content-encoding", codec] as const];
  const bad: BadCase[] = [];
  for (const [codec, bytes] of Object.entries(packed)) {
    const flipped = Buffer.from(bytes);
    flipped[bytes.length >> 1]! ^= 0x55;
    const invalid = "compressed-invalid";
    bad.push(
      {
        name: `${codec}: cut in the middle`,
        fed: { value: bytes.subarray(0, bytes.length >> 1), headers: header(codec) },
        code: invalid,
      },
      {
        name: `${codec}: without its last byte`,
        fed: { value: bytes.subarray(0, -1), headers: header(codec) },
        code: invalid,
      },
      { name: `${codec}: nothing`, fed: { value: "", headers: header(codec) }, code: invalid },
      {
        name: `${codec}: its first byte`,
        fed: { value: bytes.subarray(0, 1), headers: header(codec) },
        code: invalid,
      },
      {
        name: `${codec}: garbage`,
        fed: { value: Buffer.alloc(100, 0xa5), headers: header(codec) },
        code: invalid,
      },
      { name: `${codec}: plain text`, fed: { value: text, headers: header(codec) }, code: invalid },
      {
        name: `${codec}: something after its end`,
        fed: { value: Buffer.concat([bytes, Buffer.from("tail")]), headers: header(codec) },
        code: invalid,
      },
    );
    // Raw snappy has no checksum, and this library's LZ4 frames have none: damage there may go unseen.
    if (codec === "gzip" || codec === "zstd")
      bad.push({
        name: `${codec}: a byte flipped`,
        fed: { value: flipped, headers: header(codec) },
        code: invalid,
      });
  }
  bad.push(
    { name: "an unknown codec", fed: { value: text, headers: header("rot13") }, code: "codec-unknown" },
    {
      name: "a codec named like a method",
      fed: { value: text, headers: header("toString") },
      code: "codec-unknown",
    },
    {
      name: "a codec named __proto__",
      fed: { value: text, headers: header("__proto__") },
      code: "codec-unknown",
    },
    {
      name: "a tombstone that says gzip",
      fed: { value: null, headers: header("gzip") },
      code: "value-missing",
    },
  );
  const good = (i: number): Fed => ({ value: json({ n: i, pad: "abc".repeat(100) }) });
  // What goes on is plain again, so the good ones are as they were.
  await assertRejected(t, flow('decompress(), decode("json")'), bad, good);
});

test("bombs: a small payload that would fill the memory", async (t) => {
  const zeros = Buffer.alloc(256 * 2 ** 20);
  const header = (codec: string) => [["content-encoding", codec] as const];
  const gzip = gzipSync(zeros, { level: 1 });
  const bombs: BadCase[] = [
    {
      name: "gzip",
      fed: { value: gzipSync(zeros.subarray(0, 128 * 2 ** 20)), headers: header("gzip") },
      code: "decompressed-too-large",
    },
    {
      name: "gzip, in a hundred members",
      fed: {
        value: Buffer.concat(Array.from({ length: 100 }, () => gzipSync(zeros.subarray(0, 2 ** 22)))),
        headers: header("gzip"),
      },
      code: "decompressed-too-large",
    },
    {
      name: "zstd",
      fed: { value: zstdCompressSync(zeros), headers: header("zstd") },
      code: "decompressed-too-large",
    },
    {
      name: "zstd in a hundred frames",
      fed: {
        value: Buffer.concat(Array.from({ length: 100 }, () => zstdCompressSync(zeros.subarray(0, 2 ** 22)))),
        headers: header("zstd"),
      },
      code: "decompressed-too-large",
    },
    {
      name: "lz4",
      fed: {
        value: (await lz4.compressFrame(zeros.subarray(0, 2 ** 27))).subarray(0),
        headers: header("lz4"),
      },
      code: "decompressed-too-large",
    },
    {
      name: "gzip in gzip",
      fed: { value: gzipSync(gzip), headers: [["content-encoding", "gzip"]] },
      code: "json-invalid",
    },
    // A length of 4 GiB in five bytes, and nothing behind it.
    {
      name: "snappy that claims 4 GiB",
      fed: { value: Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61]), headers: header("snappy") },
      code: "compressed-invalid",
    },
    {
      name: "a gzip trailer that lies",
      fed: { value: lyingGzip(zeros.subarray(0, 2 ** 26)), headers: header("gzip") },
      code: "decompressed-too-large",
    },
  ];
  const good = (i: number): Fed => ({ value: json({ n: i }) });
  const fits = bombs.filter(({ fed }) => (fed.value as Buffer).length < 900_000);
  assert.equal(fits.length >= 6, true);
  const run = await assertRejected(
    t,
    flow('decompress(), decode("json")', watch),
    fits.filter(({ name }) => name !== "gzip in gzip"),
    good,
  );
  const peak = Number(/"peak":(\d+)/.exec(run.stderr)?.[1]);
  assert.ok(peak > 0 && peak < 450 * 2 ** 20, `it grew to ${peak / 2 ** 20} MiB`);
});

/** Tells at its end how large the process was, at most: ru_maxrss. */
const watch =
  'process.on("exit", () => console.error(JSON.stringify({ peak: process.resourceUsage().maxRSS * 1024 })));\n';

/** A member whose trailer says it holds 10 bytes, as a bomb would that hopes for a buffer of the size it names. */
function lyingGzip(content: Buffer): Buffer {
  const header = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(content), 0);
  trailer.writeUInt32LE(10, 4);
  return Buffer.concat([header, deflateRawSync(content), trailer]);
}

test("one bad message among ten thousand good ones of four partitions: the others do not notice", async (t) => {
  const feed: Fed[] = Array.from({ length: 10_000 }, (_, i) => ({
    value: i % 997 === 500 ? `{"n":${i},"${canary}` : json({ n: i, p: i % 4 }),
    key: `k${i % 4}`,
    partition: i % 4,
  }));
  const run = await runEmbedded(
    t,
    flow(
      'decode("json"), key((o) => "p" + o.p), dedup({ id: (o) => o.n }), batch({ count: 100 }), compress("lz4")',
    ),
    { in: feed },
  );
  assert.equal(run.code, 0, run.stderr);
  const bad = feed.filter(({ value }) => (value as string).includes(canary));
  const { accepted, delivered, deadLettered } = run.report.conservation;
  assert.deepEqual(
    { accepted, delivered, deadLettered },
    { accepted: 10_000, delivered: 10_000 - bad.length, deadLettered: bad.length },
  );
  const last = new Map<string, number>();
  for (const { key, value } of await run.records("out")) {
    const { n } = JSON.parse(value as string) as { n: number };
    assert.ok(n > (last.get(key!) ?? -1), `${key}: ${n} after ${last.get(key!)}`);
    last.set(key!, n);
  }
  assert.deepEqual(
    (await run.records("dead")).map(({ value }) => value).sort(),
    bad.map(({ value }) => value).sort(),
  );
  assertQuiet(run);
});

test("RabbitMQ: bad messages, and those that no queue takes, are dead letters with their properties", async (t) => {
  const text = `${head}
const hare = rabbitmq({
  url: "amqp://user:${canary}@127.0.0.1:1/%2f",
  queues: { in: {}, out: {}, dead: {} },
  exchanges: { sorted: { type: "direct" } },
  bindings: [{ queue: "out", exchange: "sorted", key: "known" }],
});
export default topology("hare", (t) => {
  t.from(hare.source({ queue: "in" }))
    .pipe(decode("json"), validate(${thing}))
    .to(hare.sink({ exchange: "sorted", key: (message) => message.value.name }));
  t.deadLetters(hare.sink({ queue: "dead" }));
});
`;
  const fed: Fed[] = [
    { value: json({ name: "known", n: 1 }), headers: [["h", "1"]] },
    { value: `{"name":"${canary}`, headers: [["h", "2"]] },
    { value: json({ name: "known", n: 2 }) },
    { value: json({ name: `un-${canary}` }) },
    { value: json({ name: "known", n: 3 }) },
    { value: "" },
    { value: json({ name: "known", n: 4 }) },
  ];
  const run = await runEmbedded(t, text, { in: fed });
  assert.equal(run.code, 0, run.stderr);
  const { accepted, delivered, deadLettered } = run.report.conservation;
  assert.deepEqual({ accepted, delivered, deadLettered }, { accepted: 7, delivered: 4, deadLettered: 3 });
  const out = await run.records("out");
  assert.deepEqual(
    out.map(({ value }) => JSON.parse(value as string).n),
    [1, 2, 3, 4],
  );
  const dead = await run.records("dead");
  const codes = Object.fromEntries(
    dead.map((letter) => [letter.value, reasonOf(letter)["millrace-error-code"]]),
  );
  assert.deepEqual(codes, {
    [fed[1]!.value as string]: "json-invalid",
    [fed[3]!.value as string]: "unroutable",
    "": "json-invalid",
  });
  const first = dead.find(({ value }) => value === fed[1]!.value)!;
  assert.ok(
    ownHeaders(first).some(([name, content]) => name === "h" && content === "2"),
    JSON.stringify(first),
  );
  assertQuiet(run);
});
