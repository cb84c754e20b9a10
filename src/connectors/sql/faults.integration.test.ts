/** What a real PostgreSQL does to its clients when it dies, and what a network does. */
import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { needs, ownPostgres, sharedPostgres } from "../../../test/brokers/index.ts";
import { until } from "../../../test/brokers/until.ts";
import { systemClock, systemRandom } from "../../component/system.ts";
import { testContext } from "../../testing/context.ts";
import { SinkBed, SourceBed } from "../../testing/session-bed.ts";
import { type SqlConnection, type SqlSinkOptions, type SqlSourceOptions, sql } from "./index.ts";

const realTime = () => ({ ...testContext(), clock: systemClock, random: systemRandom });
type RealTime = ReturnType<typeof realTime>;

async function openSink(
  t: TestContext,
  connection: SqlConnection,
  context: RealTime,
  options: SqlSinkOptions,
) {
  const session = await connection.sink(options).open(context);
  t.after(() => session.close(systemClock.now() + 2_000));
  return new SinkBed(context, session);
}

async function openSource(
  t: TestContext,
  connection: SqlConnection,
  context: RealTime,
  options: SqlSourceOptions,
) {
  const source = connection.source({ poll: "20ms", ...options });
  const bed = new SourceBed(context, source.credit);
  const session = await source.open(bed.context);
  t.after(() => session.close(systemClock.now() + 2_000));
  return { bed, session };
}

/** A way to the server that breaks at the word of the test. */
class Way {
  /** Passes on the next COMMIT, and breaks before its answer. */
  cutAnswerOfCommit = false;
  /** Breaks before the next COMMIT is passed on. */
  cutCommit = false;
  cuts = 0;
  readonly #sockets = new Set<Socket>();

  static async to(t: TestContext, url: string): Promise<{ way: Way; url: string }> {
    const way = new Way();
    const target = new URL(url);
    const server = createServer((near) => way.#join(near, connect(Number(target.port), target.hostname)));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(() => {
      for (const socket of way.#sockets) socket.destroy();
      server.close();
    });
    const through = new URL(url);
    through.port = String((server.address() as { port: number }).port);
    return { way, url: through.href };
  }

  #join(near: Socket, far: Socket): void {
    let answerIsCut = false;
    const cut = () => {
      this.cuts++;
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        near.destroy();
        far.destroy();
      });
    }
    near.on("data", (bytes) => {
      const commits = bytes.includes("COMMIT\0");
      if (commits && this.cutCommit) {
        this.cutCommit = false;
        cut();
        return;
      }
      if (commits && this.cutAnswerOfCommit) {
        this.cutAnswerOfCommit = false;
        answerIsCut = true;
      }
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      if (answerIsCut) cut();
      else near.write(bytes);
    });
  }
}

const messages = (from: number, count: number) =>
  Array.from({ length: count }, (_, index) => ({ key: Buffer.from(`k${from + index}`), value: "v" }));

for (const [what, cut] of [
  ["the answer to a COMMIT is lost", "cutAnswerOfCommit"],
  ["a COMMIT is lost", "cutCommit"],
] as const) {
  test(
    `when ${what}, the batch is there once, and no message is refused for it`,
    needs("postgres"),
    async (t) => {
      const server = await sharedPostgres();
      const { way, url } = await Way.to(t, await server.freshDatabase(t));
      const context = realTime();
      const connection = sql({ url, tables: { pond: "CREATE TABLE pond (id text PRIMARY KEY, body text)" } });
      await connection.create(context, [{ kind: "table", name: "pond", role: "sink", at: "test" }]);
      const sink = await openSink(t, connection, context, {
        // Without a key, so that a second attempt would be refused.
        table: "pond",
        columns: { id: "key", body: "value" },
      });
      way[cut] = true;
      const written = sink.write(messages(0, 50))[0]!;
      await written.done;
      assert.equal(way.cuts, 1);
      assert.deepEqual([written.failure, written.refusals], [undefined, []]);
      assert.deepEqual(new Set(written.outcomes), new Set(["delivered"]));
      await sink.write(messages(50, 1))[0]!.done;
      const check = await openSink(t, connection, context, {
        statement: "SELECT 1 / (CASE WHEN (SELECT count(*) FROM pond) = 51 THEN 1 ELSE 0 END)",
      });
      const checked = check.write([{ value: "" }])[0]!;
      await checked.done;
      assert.deepEqual(checked.outcomes, ["delivered"]);
    },
  );
}

test(
  "kill -9 of the server: nothing acknowledged is missing, and the sink and the source go on by themselves",
  needs("own postgres"),
  async (t) => {
    const server = await ownPostgres(t);
    const context = realTime();
    const connection = sql({
      url: server.url,
      tables: { pond: "CREATE TABLE pond (id text PRIMARY KEY, body text)" },
    });
    await connection.create(context, [{ kind: "table", name: "pond", role: "sink", at: "test" }]);
    connection.source({ table: "outbox" });
    await connection.create(context, [{ kind: "table", name: "outbox", role: "source", at: "test" }]);
    const sink = await openSink(t, connection, context, {
      table: "pond",
      key: ["id"],
      columns: { id: "key", body: "value" },
      maxBackoff: "100ms",
    });
    const outbox = await openSink(t, connection, context, {
      table: "outbox",
      columns: { key: "keyBytes", value: "keyBytes" },
    });
    await outbox.write(messages(0, 40))[0]!.done;
    const source = await openSource(t, connection, context, { table: "outbox" });
    await until("the rows arrive", () => source.bed.payloads.length === 40);
    source.bed.settle(0, 10);
    const first = sink.write(messages(0, 100))[0]!;
    await first.done;
    const second = sink.write(messages(100, 100))[0]!;
    await server.kill();
    const third = sink.write(messages(200, 100))[0]!;
    await until("both say so", () =>
      [sink.session.status(), source.session.status()].every(({ ready }) => !ready),
    );
    await server.restart();
    await Promise.all([second.done, third.done]);
    assert.deepEqual(await server.query("SELECT count(*)::int AS n FROM pond"), [{ n: 300 }]);
    await until("all is well again", () =>
      [sink.session.status(), source.session.status()].every(({ ready }) => ready),
    );
    await until("what was in flight comes again", () => source.bed.payloads.length >= 70);
    source.bed.forgetEnded();
    source.bed.settle();
    await until("the outbox is empty", async () => (await server.query("SELECT 1 FROM outbox")).length === 0);
    assert.equal(new Set(source.bed.payloads).size, 40);
    // Those settled before it died were taken out first, so they did not come again.
    assert.equal(source.bed.payloads.length, 70);
  },
);

test("a password that the server refuses ends the start, and is not shown", needs("postgres"), async (t) => {
  const url = new URL(await (await sharedPostgres()).freshDatabase(t));
  url.password = "hunter2";
  const context = realTime();
  const opening = sql({ url: url.href })
    .sink({ table: "pond", columns: { id: "key" } })
    .open(context);
  await assert.rejects(opening, (error: { code?: string; message: string }) => {
    assert.equal(error.code, "access-refused");
    assert.doesNotMatch(error.message, /hunter2/);
    return true;
  });
  assert.doesNotMatch(context.logged.join(), /hunter2/);
});

test(
  "a table that is not there ends the start, and check says how to make it",
  needs("postgres"),
  async (t) => {
    const connection = sql({ url: await (await sharedPostgres()).freshDatabase(t) });
    const context = realTime();
    await assert.rejects(
      connection.source({ table: "outbox" }).open(new SourceBed(context, credit).context),
      {
        code: "target-missing",
      },
    );
    const unmet = await connection.verify(context, [
      { kind: "table", name: "outbox", role: "source", at: "test" },
      { kind: "table", name: "pond", role: "sink", at: "test" },
    ]);
    assert.deepEqual(
      unmet.map(({ remedy }) => remedy),
      [
        "create it, or run with --create",
        'create it, or declare it: sql({ tables: { "pond": "CREATE TABLE …" } })',
      ],
    );
  },
);

const credit = { messages: 10, bytes: 1e6, span: 40, chunk: 10 };
