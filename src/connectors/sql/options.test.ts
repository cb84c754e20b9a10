import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { secret } from "../../component/secret.ts";
import { sql } from "./index.ts";
import type { SqlOptions, SqlSinkOptions, SqlSourceOptions } from "./options.ts";

const url = "postgres://app:hunter2@db.example:5433/orders";
const told = (options: unknown) => sql(options as SqlOptions).problems!.map(({ message }) => message);
const toldOfSink = (options: unknown) =>
  sql({ url })
    .sink(options as SqlSinkOptions)
    .problems.map(({ message }) => message);
const toldOfSource = (options: unknown) =>
  sql({ url })
    .source(options as SqlSourceOptions)
    .problems.map(({ message }) => message);

test("an address is shown without user and password, wherever the connection turns up", () => {
  const connection = sql({ url: secret(url), password: secret("hunter3") });
  assert.equal(connection.address, "db.example:5433/orders");
  const shown = [inspect(connection, { depth: 9 }), JSON.stringify(connection)].join("");
  assert.doesNotMatch(shown, /hunter/);
  assert.equal(sql({ url: "sqlite:data/orders.db" }).address, "sqlite:data/orders.db");
  assert.equal(
    sql({ url: "postgres://app@localhost/orders?host=/run/postgresql" }).address,
    "/run/postgresql:5432/orders",
  );
});

test("what is wrong with a url is told without showing it", () => {
  for (const [given, about] of [
    ["mysql://app:hunter2@db/orders", /no address of a database/],
    ["postgres://app:hunter2@db", /must name a host and a database/],
    ["postgres://:hunter2@db/orders", /names no user/],
    ["postgres://app:hunter2@db/orders?sslmode=require", /part after/],
    ["postgres://app:100%@db/orders", /escapes nothing/],
    ["sqlite:", /names no file/],
    ["sqlite::memory:", /in memory/],
  ] as const) {
    const [message, ...more] = told({ url: given });
    assert.match(message!, about, given);
    assert.doesNotMatch(message!, /hunter2|100%/);
    assert.deepEqual(more, []);
  }
  assert.deepEqual(told({ url: "sqlite:a.db", tls: true }), [
    "sql: a SQLite file has neither tls nor a password",
  ]);
  assert.deepEqual(told({ url, tls: { cert: "c.pem" } }), ['sql needs the option "tls.key" with "tls.cert"']);
});

test("a sink is told one way to write", () => {
  const columns = { id: "key" };
  assert.deepEqual(toldOfSink({ table: "pond", columns, key: ["id"] }), []);
  assert.deepEqual(toldOfSink({ statement: "SELECT 1" }), []);
  for (const [options, about] of [
    [{}, /needs "table", "statement" or "statements"/],
    [{ table: "pond", statement: "SELECT 1", columns }, /one by one/],
    [{ table: "pond" }, /needs the option "columns"/],
    [{ table: "pond; DROP", columns }, /a table's name/],
    [{ table: "pond", columns: { "id; --": "key" } }, /columns/],
    [{ table: "pond", columns, key: ["nr"] }, /"key" names "nr"/],
    [{ table: "pond", columns, onConflict: "keep" }, /"onConflict" needs "key"/],
    [{ table: "pond", columns, parameters: () => [] }, /for statements of your own/],
    [{ statements: () => [], parameters: () => [] }, /"parameters" are for "statement"/],
    [{ statement: "SELECT 1", key: ["id"] }, /are for "table"/],
  ] as const) {
    const messages = toldOfSink(options);
    assert.equal(messages.length, 1, JSON.stringify(messages));
    assert.match(messages[0]!, about);
  }
});

test("a source is told of what it cannot do", () => {
  assert.deepEqual(
    toldOfSource({ table: "app.outbox", onSettled: "mark", columns: { settled: "done" } }),
    [],
  );
  assert.match(toldOfSource({})[0]!, /needs the option "table"/);
  assert.match(toldOfSource({ table: "outbox", columns: { settled: "done" } })[0]!, /for onSettled "mark"/);
  assert.match(toldOfSource({ table: "outbox", notify: 'a"; DROP' })[0]!, /notify/);
});

test("the outbox's statements can be put into a migration", () => {
  assert.equal(
    sql({ url }).outbox({ table: "app.outbox", columns: { value: "payload" } }),
    `CREATE TABLE IF NOT EXISTS "app"."outbox" (
  "id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "key" bytea,
  "payload" bytea,
  "headers" jsonb,
  "created_at" timestamptz NOT NULL DEFAULT (clock_timestamp())
);
`,
  );
  assert.match(
    sql({ url: "sqlite:a.db" }).outbox({ table: "outbox", onSettled: "mark" }),
    /CREATE INDEX .*"outbox_unsettled"/,
  );
  assert.throws(() => sql({ url }).outbox({ table: "no table" }), /a table's name/);
});

/** Run by a Node that cannot find `pg`, and looks at what is printed of SQLite. */
function inAnotherNode(body: string): { readonly stdout: string; readonly stderr: string } {
  const module = new URL("./index.ts", import.meta.url).href;
  const context = new URL("../../testing/context.ts", import.meta.url).href;
  return spawnSync(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      `import { registerHooks } from "node:module";
       registerHooks({ resolve: (name, context, next) => { if (name === "pg") throw new Error("not found"); return next(name, context); } });
       const { sql } = await import(${JSON.stringify(module)});
       const { testContext } = await import(${JSON.stringify(context)});
       ${body}`,
    ],
    { encoding: "utf8" },
  );
}

test("without the package pg a PostgreSQL is refused with what to do, and nothing else needs it", () => {
  const { stdout } = inAnotherNode(`
    await sql({ url: "postgres://a@127.0.0.1:1/b" }).verify(testContext(), []).catch(({ code, message, remedy }) => console.log(code, message, remedy));`);
  assert.equal(
    stdout,
    'package-missing the package "pg" is needed for PostgreSQL and cannot be loaded npm install pg\n',
  );
});

test("SQLite is used without Node's warning that it is new, and other warnings stay", () => {
  const { stdout, stderr } = inAnotherNode(`
    console.log(await sql({ url: "sqlite:${join(mkdtempSync(join(tmpdir(), "millrace-test-")), "a.db")}" }).verify(testContext(), []));
    process.emitWarning("mind the step");`);
  assert.equal(stdout, "[]\n");
  assert.match(stderr, /mind the step/);
  assert.doesNotMatch(stderr, /SQLite/);
});
