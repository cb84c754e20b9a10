import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../../errors.ts";
import { compile, decode, map, topology } from "../../index.ts";
import { testContext } from "../../testing/context.ts";
import { inertSink, inertSource } from "../../testing/inert.ts";
import { SinkBed } from "../../testing/session-bed.ts";
import { type Writer, type WriterOptions, writer } from "./index.ts";

const text = (...values: string[]) => values.map((value) => ({ value }));

/** A writer that keeps what it is given, once `attempt` has let it. */
async function open(attempt: (values: readonly string[], call: number) => Promise<void> | void = () => {}) {
  const context = testContext();
  const stored: string[][] = [];
  let calls = 0;
  let closed = 0;
  const sink = writer<Buffer>({
    name: "pond",
    open: async () => ({
      async write(messages) {
        const values = messages.map(({ value }) => value.toString());
        await attempt(values, ++calls);
        stored.push(values);
      },
      async close() {
        closed++;
      },
    }),
  });
  const session = await sink.open(context);
  const bed = new SinkBed(context, session);
  return { context, clock: context.clock, session, bed, stored, calls: () => calls, closed: () => closed };
}

test("messages are delivered when the write resolves, and not before", async () => {
  let store!: () => void;
  const { bed, clock, stored } = await open(() => new Promise<void>((resolve) => (store = resolve)));
  const [written] = bed.write(text("a", "b"));
  await clock.run(60_000);
  assert.deepEqual(written!.outcomes, ["inFlight", "inFlight"]);
  store();
  await clock.run(1);
  assert.deepEqual(written!.outcomes, ["delivered", "delivered"]);
  assert.deepEqual(stored, [["a", "b"]]);
  assert.deepEqual(written!.refusals, []);
});

test("one write at a time, in order, also over a failure", async () => {
  let open_ = 0;
  const { bed, clock, stored } = await open(async (_, call) => {
    assert.equal(++open_, 1);
    await Promise.resolve();
    open_--;
    if (call === 1) throw new Error("the pond is away");
  });
  for (const value of ["a", "b", "c"]) bed.write(text(value));
  await clock.run(1_000);
  assert.deepEqual(stored, [["a"], ["b"], ["c"]]);
});

test("an error that blames nobody is tried again for as long as it takes, and shows", async () => {
  let away = true;
  const { context, bed, clock, session } = await open(() => {
    if (away) throw new Error("connect amqp://u:canary@host refused");
  });
  const [written] = bed.write(text("a"));
  await clock.run(3_600_000);
  assert.deepEqual(written!.outcomes, ["inFlight"]);
  const { ready, reason, lastErrors } = session.status();
  assert.equal(ready, false);
  assert.match(reason ?? "", /^pond cannot be written: connect amqp:\/\/\*\*\*@host refused$/);
  assert.equal(lastErrors.length, 5);
  assert.equal(context.logged.filter((line) => line.startsWith("warn")).length, 1);
  assert.ok((context.counted.get("write_retries_total") ?? 0) > 300);
  away = false;
  await clock.run(20_000);
  assert.deepEqual(written!.outcomes, ["delivered"]);
  assert.equal(session.status().ready, true);
});

test("a message that is blamed is refused alone, and its neighbours are stored in order", async () => {
  const { bed, clock, stored } = await open((values) => {
    if (values.includes("bad")) throw new MillraceError("rule-broken", "no such statement");
  });
  const [written] = bed.write(text("a", "bad", "b"));
  await clock.run(1);
  assert.deepEqual(stored, [["a"], ["b"]]);
  assert.deepEqual(written!.outcomes, ["delivered", "inFlight", "delivered"]);
  assert.deepEqual(written!.refusals, [
    { entry: 1, failure: { class: "business", code: "rule-broken", message: "no such statement" } },
  ]);
});

test("a process that is unwell ends the run, and nothing is settled", async () => {
  for (const error of [
    new MillraceError("disk-failed", "no room"),
    Object.assign(new Error("no room"), { code: "ENOSPC" }),
  ]) {
    const { bed, clock } = await open(() => {
      throw error;
    });
    const [written] = bed.write(text("a", "b"));
    await clock.run(1);
    assert.equal(written!.failure, error);
    assert.deepEqual(written!.outcomes, ["inFlight", "inFlight"]);
  }
});

test("an aborted run leaves off, and a closed one closes after its last write", async () => {
  const { context, bed, clock } = await open(() => {
    throw new Error("away");
  });
  const [written] = bed.write(text("a"));
  await clock.run(1_000);
  context.abort();
  await clock.run(1);
  assert.match(String(written!.failure), /aborted/);

  const calm = await open();
  calm.bed.write(text("a"));
  await calm.session.close(calm.clock.now());
  assert.deepEqual(calm.stored, [["a"]]);
  assert.equal(calm.closed(), 1);
});

test("opening is tried again while the other side is away, and refused for a mistake", async () => {
  const opening = (fail: (call: number) => Error | undefined) => {
    const context = testContext();
    let calls = 0;
    const open = async (): Promise<Writer> => {
      const error = fail(++calls);
      if (error !== undefined) throw error;
      return { write: async () => {} };
    };
    const session = writer({ name: "pond", open }).open(context);
    session.catch(() => {});
    return { context, session };
  };
  const away = opening((call) => (call < 5 ? new Error("away") : undefined));
  await away.context.clock.run(60_000);
  assert.equal((await away.session).status().ready, true);
  const wrong = opening(() => new MillraceError("option-invalid", "no such pond"));
  await wrong.context.clock.run(1);
  await assert.rejects(wrong.session, /no such pond/);
});

test("it is given values, so nothing need be encoded for it", () => {
  const { problems } = compile(
    topology("loads", (t) => {
      t.from(inertSource("in"))
        .pipe(
          decode("text"),
          map((text) => ({ text })),
        )
        .to(writer<{ text: string }>({ name: "pond", open: async () => ({ write: async () => {} }) }));
      t.deadLetters(inertSink("dead"));
    }),
  );
  assert.deepEqual(problems, []);
});

test("mistakes in its options are told before anything is opened", () => {
  const messages = (options: unknown) =>
    writer(options as WriterOptions).problems.map(({ message }) => message);
  assert.deepEqual(messages({ name: "pond", open: async () => ({}) }), []);
  assert.equal(messages({ name: "pond" }).length, 1);
  assert.equal(messages({ name: "", open: async () => ({}) }).length, 1);
  assert.equal(messages(undefined).length > 0, true);
});
