/** Sinks and sources on the embedded database and on a real PostgreSQL alike. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import pg from "pg";
import { needs, sharedPostgres } from "../../../test/brokers/index.ts";
import { until } from "../../../test/brokers/until.ts";
import type { Context } from "../../component/context.ts";
import { systemClock, systemRandom } from "../../component/system.ts";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { testContext } from "../../testing/context.ts";
import { SinkBed, SourceBed } from "../../testing/session-bed.ts";
import { openDatabase } from "./drivers/sqlite/open.ts";
import {
  type SqlConnection,
  type SqlOptions,
  type SqlSinkOptions,
  type SqlSourceOptions,
  sql,
} from "./index.ts";

type Rows = readonly Record<string, unknown>[];

/** A database with one connector to it. */
class Bed {
  readonly context: Context & { readonly logged: string[]; readonly counted: Map<string, number> };
  readonly connection: SqlConnection;
  readonly #t: TestContext;
  readonly #query: (text: string) => Promise<Rows>;

  constructor(t: TestContext, connection: SqlConnection, context: Bed["context"], query: Bed["query"]) {
    this.#t = t;
    this.connection = connection;
    this.context = context;
    this.#query = query;
  }

  query(text: string): Promise<Rows> {
    return this.#query(text);
  }

  async sink(options: SqlSinkOptions): Promise<SinkBed> {
    const sink = this.connection.sink(options);
    assert.deepEqual([...sink.problems, ...(this.connection.problems ?? [])], []);
    const requirements = sink.targets.map(
      (name) => ({ kind: "table", name, role: "sink", at: "test" }) as const,
    );
    await this.connection.create(this.context, requirements);
    const session = await sink.open(this.context);
    this.#t.after(() => session.close(systemClock.now() + 2_000));
    return new SinkBed(this.context, session);
  }

  async source(options: SqlSourceOptions) {
    const source = this.connection.source({ poll: "20ms", ...options });
    assert.deepEqual([...source.problems, ...(this.connection.problems ?? [])], []);
    const requirement = { kind: "table", name: options.table, role: "source", at: "test" } as const;
    await this.connection.create(this.context, [requirement]);
    const bed = new SourceBed(this.context, source.credit);
    const session = await source.open(bed.context);
    this.#t.after(() => session.close(systemClock.now() + 2_000));
    return { bed, session };
  }
}

const realTime = (embedded?: RunEmbeddedBrokers) => ({
  ...testContext(1, { embedded }),
  clock: systemClock,
  random: systemRandom,
});

interface Database {
  readonly name: string;
  readonly needs: { skip: string | false };
  bed(t: TestContext, options?: Partial<SqlOptions>): Promise<Bed>;
}

const databases: readonly Database[] = [
  {
    name: "embedded",
    needs: { skip: false },
    async bed(t, options) {
      const connection = sql({ url: "postgres://app@nowhere:5432/app", ...options });
      const context = realTime(new RunEmbeddedBrokers());
      const { database } = connection.embedded(context) as unknown as {
        database: { prepare(text: string): { all(): Rows } };
      };
      return new Bed(t, connection, context, async (text) =>
        database
          .prepare(text)
          .all()
          .map((row) => ({ ...row })),
      );
    },
  },
  {
    name: "SQLite file",
    needs: { skip: false },
    async bed(t, options) {
      const folder = mkdtempSync(join(tmpdir(), "millrace-test-"));
      const path = join(folder, "app.db");
      const database = openDatabase(path);
      t.after(() => {
        database.close();
        rmSync(folder, { recursive: true, force: true });
      });
      return new Bed(t, sql({ url: `sqlite:${path}`, ...options }), realTime(), async (text) =>
        database
          .prepare(text)
          .all()
          .map((row) => ({ ...row })),
      );
    },
  },
  {
    name: "PostgreSQL",
    needs: needs("postgres"),
    async bed(t, options) {
      const url = await (await sharedPostgres()).freshDatabase(t);
      const client = await connect(t, url);
      return new Bed(
        t,
        sql({ url, ...options }),
        realTime(),
        async (text) => (await client.query(text)).rows,
      );
    },
  },
];

async function connect(t: TestContext, url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  t.after(() => client.end());
  return client;
}

function onEach(title: string, run: (t: TestContext, database: Database) => Promise<void>): void {
  for (const database of databases) {
    test(`${database.name}: ${title}`, database.needs, (t) => run(t, database));
  }
}

const pond = {
  tables: { pond: "CREATE TABLE pond (id text PRIMARY KEY, size integer CHECK (size >= 0), body text)" },
};
const byKey = {
  table: "pond",
  key: ["id"],
  columns: { id: "key", size: (message) => (message.value as Buffer).length, body: "value" },
} as const satisfies SqlSinkOptions;
const message = (key: string, value: string) => ({ key: Buffer.from(key), value });

onEach(
  "rows are written by key: what comes again is written over, within a batch too",
  async (t, database) => {
    const bed = await database.bed(t, pond);
    const sink = await bed.sink(byKey);
    const [written] = sink.write([message("a", "1"), message("b", "22"), message("a", "333")]);
    await written!.done;
    assert.deepEqual(written!.outcomes, ["delivered", "delivered", "delivered"]);
    await sink.write([message("b", "4444")])[0]!.done;
    assert.deepEqual(await bed.query("SELECT id, size, body FROM pond ORDER BY id"), [
      { id: "a", size: 3, body: "333" },
      { id: "b", size: 4, body: "4444" },
    ]);
  },
);

onEach("a row that is there is kept where the sink says so", async (t, database) => {
  const bed = await database.bed(t, pond);
  const sink = await bed.sink({ ...byKey, onConflict: "keep" });
  await sink.write([message("a", "1"), message("a", "22")])[0]!.done;
  await sink.write([message("a", "333"), message("b", "1")])[0]!.done;
  assert.deepEqual(await bed.query("SELECT id, body FROM pond ORDER BY id"), [
    { id: "a", body: "1" },
    { id: "b", body: "1" },
  ]);
});

onEach(
  "only the rows that break a constraint are refused, with their SQLSTATE and without their values",
  async (t, database) => {
    const bed = await database.bed(t, {
      tables: {
        pond: "CREATE TABLE pond (id text PRIMARY KEY, size integer NOT NULL CHECK (size < 9), body text)",
      },
    });
    const sink = await bed.sink({
      ...byKey,
      columns: {
        ...byKey.columns,
        size: ({ value }) => ((value as Buffer).length === 1 ? null : (value as Buffer).length),
      },
    });
    const many = Array.from({ length: 100 }, (_, index) => message(`k${index}`, "fine"));
    many[13] = message("k13", "secretsecret");
    many[57] = message("k57", "x");
    many[99] = message("k99", "secretsecret");
    const [written] = sink.write(many);
    await written!.done;
    assert.deepEqual(
      written!.refusals!.map(({ entry, failure }) => [
        entry,
        failure.class,
        /SQLSTATE (\w+)/.exec(failure.message)?.[1],
      ]),
      [
        [13, "business", "23514"],
        [57, "business", "23502"],
        [99, "business", "23514"],
      ],
    );
    assert.ok(written!.refusals!.every(({ failure }) => !failure.message.includes("secret")));
    assert.equal(written!.outcomes.filter((outcome) => outcome === "delivered").length, 97);
    assert.deepEqual(
      (await bed.query("SELECT count(*) AS n FROM pond")).map(({ n }) => Number(n)),
      [97],
    );
  },
);

onEach(
  "a deferred constraint fails at COMMIT, and only the row that breaks it is refused",
  async (t, database) => {
    const bed = await database.bed(t, {
      tables: {
        patient: "CREATE TABLE patient (id text PRIMARY KEY)",
        pond: "CREATE TABLE pond (id text PRIMARY KEY, patient text REFERENCES patient(id) DEFERRABLE INITIALLY DEFERRED)",
      },
    });
    await bed.sink({ table: "patient", columns: { id: "key" } });
    await bed.query("INSERT INTO patient VALUES ('p')");
    const sink = await bed.sink({ table: "pond", key: ["id"], columns: { id: "key", patient: "value" } });
    const [written] = sink.write(
      ["a", "b", "c", "d"].map((key) => message(key, key === "c" ? "nobody" : "p")),
    );
    await written!.done;
    assert.deepEqual(written!.outcomes, ["delivered", "delivered", "inFlight", "delivered"]);
    assert.match(written!.refusals![0]!.failure.message, /SQLSTATE 23503/);
  },
);

onEach("an author's statement takes parameters and never text", async (t, database) => {
  const bed = await database.bed(t, pond);
  const sink = await bed.sink({
    statement:
      "INSERT INTO pond (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    parameters: ({ key, value }) => [String(key), String(value)],
    tables: ["pond"],
  });
  const evil = "'); DROP TABLE pond; --";
  const [written] = sink.write([message("a", evil), { key: null, value: "no\0text" }]);
  await written!.done;
  assert.deepEqual(await bed.query("SELECT id, body FROM pond"), [{ id: "a", body: evil }]);
  assert.match(written!.refusals![0]!.failure.message, /SQLSTATE 22021.*parameter 2/);
});

onEach("the statements of one message are run together or not at all", async (t, database) => {
  const bed = await database.bed(t, pond);
  const insert = "INSERT INTO pond (id, size) VALUES ($1, $2)";
  const sink = await bed.sink({
    tables: ["pond"],
    statements: ({ value }) => {
      const name = String(value);
      if (name === "throws") throw new Error("cannot be translated");
      return [
        { text: insert, values: [`${name}1`, 1] },
        { text: insert, values: [`${name}2`, name === "bad" ? -1 : 1] },
      ];
    },
  });
  const [written] = sink.write(["good", "bad", "throws", "fine"].map((value) => ({ value })));
  await written!.done;
  assert.deepEqual(
    written!.refusals!.map(({ entry, failure }) => [entry, failure.class]),
    [
      [1, "business"],
      [2, "application"],
    ],
  );
  assert.deepEqual(
    (await bed.query("SELECT id FROM pond ORDER BY id")).map(({ id }) => id),
    ["fine1", "fine2", "good1", "good2"],
  );
});

onEach(
  "a table that goes away is no message's fault: the sink holds, says so, and goes on when it is back",
  async (t, database) => {
    const bed = await database.bed(t, pond);
    const sink = await bed.sink({ ...byKey, maxBackoff: "20ms" });
    await bed.query("ALTER TABLE pond RENAME TO gone");
    const first = sink.write([message("a", "1")])[0]!;
    const second = sink.write([message("b", "1")])[0]!;
    await until("the sink says so", () => /pond/.test(sink.session.status().reason ?? ""));
    assert.deepEqual([first.refusals, second.refusals], [undefined, undefined]);
    assert.equal(sink.session.status().ready, false);
    await bed.query("ALTER TABLE gone RENAME TO pond");
    await Promise.all([first.done, second.done]);
    assert.deepEqual([first.outcomes, second.outcomes], [["delivered"], ["delivered"]]);
    assert.equal(sink.session.status().ready, true);
  },
);

onEach(
  "a statement that fits nothing is its message's fault once a later one is taken",
  async (t, database) => {
    const bed = await database.bed(t, pond);
    const sink = await bed.sink({
      tables: ["pond"],
      maxBackoff: "20ms",
      statements: ({ value }) => [{ text: `INSERT INTO pond (${String(value)}) VALUES ($1)`, values: ["a"] }],
    });
    const alone = sink.write([{ value: "nowhere" }])[0]!;
    await until("it is held", () => sink.session.status().ready === false);
    assert.equal(alone.refusals, undefined);
    const next = sink.write([{ value: "id" }])[0]!;
    await Promise.all([alone.done, next.done]);
    assert.match(alone.refusals![0]!.failure.message, /SQLSTATE 42703/);
    assert.deepEqual(next.outcomes, ["delivered"]);
  },
);

onEach("more rows than one statement can hold are written", async (t, database) => {
  const bed = await database.bed(t, pond);
  const sink = await bed.sink(byKey);
  const written = sink.write(Array.from({ length: 25_000 }, (_, index) => message(`k${index}`, "x")))[0]!;
  await written.done;
  assert.equal(written.failure, undefined);
  assert.deepEqual(
    (await bed.query("SELECT count(*) AS n FROM pond")).map(({ n }) => Number(n)),
    [25_000],
  );
});

const outbox = { table: "outbox" } as const;
const insert = (...values: string[]) =>
  `INSERT INTO outbox (key, value, headers) VALUES ${values.map((value) => `('k', '${value}', '{"type":"note"}')`).join(", ")}`;

onEach("an outbox is read in order, and a row goes when its message is settled", async (t, database) => {
  const bed = await database.bed(t);
  const { bed: source, session } = await bed.source(outbox);
  await bed.query(insert("a", "b", "c"));
  await until("all have arrived", () => source.payloads.length === 3);
  assert.deepEqual(source.payloads, ["a", "b", "c"]);
  const { chunk, index } = source.open[0]!;
  const { key, headers, timestamp } = chunk.message(index);
  assert.equal(String(key), "k");
  assert.deepEqual(headers, [
    ["type", "note"],
    ["millrace-outbox-id", "1"],
  ]);
  assert.ok(Math.abs(timestamp - Date.now()) < 60_000, String(timestamp));
  source.settle(1, 1);
  await session.commit();
  assert.deepEqual(
    (await bed.query("SELECT value FROM outbox ORDER BY id")).map(({ value }) =>
      String(Buffer.from(value as Buffer)),
    ),
    ["a", "c"],
  );
  assert.equal(await session.atEnd(), true);
  source.settle();
  await until(
    "the settled rows go by themselves",
    async () => (await bed.query("SELECT 1 FROM outbox")).length === 0,
  );
  assert.equal(source.payloads.length, 3);
});

onEach("a row can be marked instead", async (t, database) => {
  const bed = await database.bed(t);
  const { bed: source, session } = await bed.source({ ...outbox, onSettled: "mark" });
  await bed.query(insert("a", "b"));
  await until("both have arrived", () => source.payloads.length === 2);
  source.settle(0, 1);
  await session.commit();
  assert.deepEqual(await bed.query("SELECT id FROM outbox WHERE settled_at IS NULL"), [
    { id: database.name === "PostgreSQL" ? "2" : 2 },
  ]);
  assert.equal(await session.atEnd(), true);
});

onEach("what was not settled comes again, and what was does not", async (t, database) => {
  const bed = await database.bed(t);
  const first = await bed.source(outbox);
  await bed.query(insert("a", "b", "c"));
  await until("all have arrived", () => first.bed.payloads.length === 3);
  first.bed.settle(1, 1);
  await first.session.commit();
  await first.session.close(systemClock.now() + 1_000);
  const second = await bed.source(outbox);
  await until("the others come", () => second.bed.payloads.length === 2);
  assert.deepEqual(second.bed.payloads, ["a", "c"]);
});

onEach("of two readers one stands by, and takes over when the other leaves", async (t, database) => {
  const bed = await database.bed(t);
  const first = await bed.source(outbox);
  const second = await bed.source(outbox);
  assert.match(second.session.status().reason ?? "", /stands by/);
  await bed.query(insert("a", "b"));
  await until("the first has them", () => first.bed.payloads.length === 2);
  assert.equal(await second.session.atEnd(), false);
  assert.deepEqual(second.bed.payloads, []);
  first.bed.settle(0, 1);
  await first.session.commit();
  await first.session.close(systemClock.now() + 1_000);
  await until("the second has what was left", () => second.bed.payloads.length === 1);
  assert.deepEqual(second.bed.payloads, ["b"]);
});

onEach("credit bounds what is read, in messages and in bytes", async (t, database) => {
  const bed = await database.bed(t);
  const { bed: source } = await bed.source({ ...outbox, credit: 4, chunk: 3, creditBytes: "1KiB" });
  await bed.query(insert(..."abcdefgh"));
  await until("the credit is used", () => source.payloads.length === 4);
  source.settle(0, 2);
  await until("two more come", () => source.payloads.length === 6);
  source.settle();
  await until("the rest comes", () => source.payloads.length === 8);
  source.settle();
  await bed.query(insert("x".repeat(900), "y".repeat(900), "z"));
  await until("one at a time", () => source.open.length === 1);
  assert.equal(source.open[0]!.payload!.length, 900);
  source.settle();
  await until("the others", () => source.payloads.length === 11);
});

test("PostgreSQL: nothing is skipped when an earlier id commits later", needs("postgres"), async (t) => {
  const bed = await databases[2]!.bed(t);
  const url = (bed.connection as unknown as { address: string }).address;
  const { bed: source, session } = await bed.source(outbox);
  const late = await second(t, bed);
  await late.query("BEGIN");
  await late.query(insert("early id, late commit"));
  await bed.query(insert("late id, early commit"));
  await until("what is committed arrives", () => source.payloads.length === 1);
  source.settle();
  await session.commit();
  assert.equal(await session.atEnd(), true, url);
  await late.query("COMMIT");
  await until("the late one arrives", () => source.payloads.length === 2);
  assert.deepEqual(source.payloads, ["late id, early commit", "early id, late commit"]);
});

test(
  "PostgreSQL: a table that another process makes at the same moment is there",
  needs("postgres"),
  async (t) => {
    const bed = await databases[2]!.bed(t, pond);
    const other = await second(t, bed);
    await other.query("BEGIN");
    await other.query(pond.tables.pond);
    const created = bed.connection.create(bed.context, [
      { kind: "table", name: "pond", role: "sink", at: "test" },
    ]);
    const waiting =
      "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE TABLE pond%'";
    await until("it waits for the other", async () => (await bed.query(waiting)).length === 1);
    await other.query("COMMIT");
    assert.deepEqual(await created, [], "made by the other one");
  },
);

test("PostgreSQL: a notification wakes the source before its next look", needs("postgres"), async (t) => {
  const bed = await databases[2]!.bed(t);
  const { bed: source } = await bed.source({ ...outbox, poll: "10m", notify: "outbox_filled" });
  await bed.query("CREATE TABLE other (id int)");
  await bed.query(insert("a"));
  await bed.query("NOTIFY outbox_filled");
  await until("it arrives", () => source.payloads.length === 1);
});

test(
  "PostgreSQL: an outbox of one's own, with names and JSON of its own, is read too",
  needs("postgres"),
  async (t) => {
    const bed = await databases[2]!.bed(t);
    await bed.query("CREATE SCHEMA app");
    await bed.query(
      'CREATE TABLE app."Event" (nr bigserial PRIMARY KEY, aggregate text, payload jsonb, meta jsonb, at timestamptz DEFAULT now())',
    );
    const { bed: source, session } = await bed.source({
      table: "app.Event",
      columns: { id: "nr", key: "aggregate", value: "payload", headers: "meta", time: "at" },
    });
    await bed.query(
      `INSERT INTO app."Event" (aggregate, payload, meta) VALUES ('p1', '{"a": [1]}', '{"n": 1, "deep": {"x": 1}}')`,
    );
    await until("it arrives", () => source.payloads.length === 1);
    const { chunk, index } = source.open[0]!;
    assert.deepEqual([String(chunk.key(index)), source.payloads[0]], ["p1", '{"a": [1]}']);
    assert.deepEqual(chunk.headers(index), [
      ["n", 1],
      ["deep", '{"x":1}'],
      ["millrace-outbox-id", "1"],
    ]);
    source.settle();
    await session.commit();
    assert.deepEqual(await bed.query('SELECT 1 FROM app."Event"'), []);
  },
);

/** Transaction ids, or a horizon over them, would turn these two around. */
test(
  "PostgreSQL: changes of the same data keep their order, whatever their transactions' numbers",
  needs("postgres"),
  async (t) => {
    const bed = await databases[2]!.bed(t);
    const { bed: source } = await bed.source(outbox);
    await bed.query("CREATE TABLE patient (id int, name text)");
    await bed.query("INSERT INTO patient VALUES (1, 'a')");
    const lower = await second(t, bed);
    const long = await second(t, bed);
    const higher = await second(t, bed);
    for (const client of [lower, long, higher]) {
      await client.query("BEGIN");
      await client.query("SELECT pg_current_xact_id()");
    }
    await higher.query("UPDATE patient SET name = 'first'");
    await higher.query(insert("first"));
    const waiting = lower
      .query("UPDATE patient SET name = 'second'")
      .then(() => lower.query(insert("second")));
    await higher.query("COMMIT");
    await waiting;
    await lower.query("COMMIT");
    await until("both arrive, while a transaction between them is open", () => source.payloads.length === 2);
    assert.deepEqual(source.payloads, ["first", "second"]);
    await long.query("ROLLBACK");
  },
);

async function second(t: TestContext, bed: Bed): Promise<pg.Client> {
  const [row] = await bed.query("SELECT current_database() AS name");
  const url = new URL((await sharedPostgres()).url);
  url.pathname = `/${row!.name}`;
  return connect(t, url.href);
}
