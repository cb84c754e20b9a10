import assert from "node:assert/strict";
import { test } from "node:test";
import { Observable } from "rxjs";
import type { Connection } from "../component/connection.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import type { Refusal, Sink, SinkSession } from "../component/sink.ts";
import type { Source, SourceContext } from "../component/source.ts";
import { MillraceError } from "../errors.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";
import { PlainRecords } from "../message/records.ts";
import { batch } from "../operators/batch.ts";
import { decode } from "../operators/decode.ts";
import { testContext } from "../testing/context.ts";
import type { Plan, PlanNode } from "../topology/plan.ts";
import { start } from "./run.ts";

const connection = { connector: "test", address: "here" } as Connection;

/** A source that a test feeds by hand and that remembers what was acknowledged. */
class HandSource {
  context!: SourceContext;
  lane!: Lane;
  committed = 0;
  closed = false;
  stopped = false;
  atEnd = true;
  next = 0;
  openError: Error | undefined;
  /** Opening takes so long, whatever the signal says. */
  opening: Promise<void> | undefined;

  readonly source: Source = {
    kind: "source",
    type: "hand",
    name: "in",
    connection,
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: true, order: "lane" },
    problems: [],
    targets: ["in"],
    credit: { messages: 100, bytes: 1e6, span: 400, chunk: 10 },
    open: async (context) => {
      if (this.openError !== undefined) throw this.openError;
      await this.opening;
      this.context = context;
      this.lane = context.intake.open({
        origin: { target: "in", partition: 0 },
        epoch: 1,
        ack: "cumulative",
      });
      return {
        stream: context.intake.stream,
        stopIntake: () => {
          this.stopped = true;
          context.intake.stop();
        },
        commit: async () => {
          this.committed = this.lane.checkpoint;
        },
        close: async () => {
          this.closed = true;
        },
        status: () => ({ ready: true, lastErrors: [] }),
        atEnd: async () => this.atEnd,
      };
    },
  };

  offer(...values: string[]): void {
    this.context.intake.offer(
      this.lane,
      new PlainRecords(
        values.map((value) => ({
          position: this.next++,
          key: Buffer.from("key"),
          value: Buffer.from(value),
          headers: [["h", Buffer.from("1")]],
          timestamp: 7,
        })),
      ),
    );
  }
}

/** A sink that keeps what it is given and answers when told to. */
class HandSink {
  /** What keeps it from taking anything. */
  reason: string | undefined;
  readonly written: string[] = [];
  /** The decoded values, as it sees them. */
  readonly values: unknown[] = [];
  bytesOnly = false;
  overlap = 0;
  readonly batches: Batch[] = [];
  readonly waiting: (() => void)[] = [];
  readonly destination: Destination = { name: "out" };
  hold = false;
  closed = false;
  refuse: (payload: string) => Refusal["failure"] | undefined = () => undefined;
  writeError: Error | undefined;
  readonly sink: Sink;

  constructor(name: string) {
    const session: SinkSession = {
      destinationOf: () => this.destination,
      write: (batch) => this.#write(batch),
      close: async () => {
        this.closed = true;
      },
      status: () => ({
        ready: this.reason === undefined,
        ...(this.reason === undefined ? {} : { reason: this.reason }),
        lastErrors: [],
      }),
    };
    this.sink = {
      kind: "sink",
      type: "hand",
      name,
      connection,
      capabilities: { order: "always", batches: true },
      problems: [],
      targets: [name],
      open: async () => ({ ...session, bytesOnly: this.bytesOnly, overlap: this.overlap }),
    };
  }

  async #write(batch: Batch): Promise<readonly Refusal[]> {
    if (this.writeError !== undefined) throw this.writeError;
    this.batches.push(batch);
    if (this.hold) await new Promise<void>((resolve) => this.waiting.push(resolve));
    const refusals: Refusal[] = [];
    for (let entry = 0; entry < batch.length; entry++) {
      const payload = batch.payload(entry)?.toString() ?? "";
      this.values.push(batch.value(entry));
      const failure = this.refuse(payload);
      if (failure === undefined) {
        this.written.push(payload);
        batch.settle(entry, Outcome.delivered);
      } else refusals.push({ entry, failure });
    }
    return refusals;
  }

  release(): void {
    this.hold = false;
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

function operator(
  build: (context: OperatorContext, item: Flowing, emit: (item: Flowing) => void) => void,
): Operator<never, unknown> {
  return {
    kind: "operator",
    type: "test",
    options: {},
    location: undefined,
    problems: [],
    effect: { takes: "any", leaves: "same" },
    rejects: true,
    build: (context) => (input) =>
      new Observable((subscriber) =>
        input.subscribe({
          next: (item) => build(context, item, (out) => subscriber.next(out)),
          complete: () => subscriber.complete(),
        }),
      ),
  };
}

interface Setup {
  readonly middle?: readonly Operator<never, unknown>[];
  /** Another source, which leads to the sinks directly. */
  readonly other?: HandSource;
  readonly sinks?: number;
  readonly deadLetters?: boolean;
  readonly audit?: boolean;
  readonly stopAtFirst?: boolean;
  readonly drainTimeout?: number;
}

function setup({
  middle = [],
  other,
  sinks = 1,
  deadLetters = true,
  audit = false,
  stopAtFirst = false,
  drainTimeout = 1_000,
}: Setup = {}) {
  const context = testContext();
  const from = new HandSource();
  const to = Array.from({ length: sinks }, (_, i) => new HandSink(`out-${i}`));
  const dead = new HandSink("dead");
  const events = new HandSink("events");
  const nodes: PlanNode[] = [
    { kind: "source", name: "in", location: undefined, inputs: [], source: from.source },
  ];
  middle.forEach((it, i) => {
    nodes.push({
      kind: "operator",
      name: `op-${i}`,
      location: undefined,
      inputs: [{ node: nodes.at(-1)!.name }],
      operator: it,
    });
  });
  const last = nodes.at(-1)!.name;
  if (other !== undefined)
    nodes.push({ kind: "source", name: "other", location: undefined, inputs: [], source: other.source });
  for (const sink of to) {
    nodes.push({
      kind: "sink",
      name: sink.sink.name,
      location: undefined,
      inputs: [{ node: last }, ...(other === undefined ? [] : [{ node: "other" }])],
      sink: sink.sink,
      audit: audit ? events.sink : undefined,
      stopAtFirst,
    });
  }
  const plan: Plan = {
    name: "test",
    nodes,
    deadLetters: deadLetters ? { sink: dead.sink, location: undefined } : undefined,
    connections: [],
    warnings: [],
  };
  const begin = () => start(plan, { ...context, drainTimeout });
  return { context, from, to, dead, events, begin, run: (ms: number) => context.clock.run(ms) };
}

/** Drives virtual time until the promise is settled. */
async function drive<T>(
  clock: ReturnType<typeof setup>["context"]["clock"],
  promise: Promise<T>,
): Promise<T> {
  let done = false;
  promise.finally(() => {
    done = true;
  });
  for (let turn = 0; turn < 10_000 && !done; turn++) await clock.run(5);
  assert.ok(done, "nothing happened for 50 s of virtual time");
  return promise;
}

test("messages go from the source to the sink and are acknowledged by a drain", async () => {
  const { context, from, to, begin, run } = setup();
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(10);
  assert.deepEqual(to[0]!.written, ["a", "b", "c"]);
  assert.equal(running.status().conservation.delivered, 3);
  assert.deepEqual(await drive(context.clock, running.drain()), { how: "done" });
  assert.equal(from.committed, 3);
  assert.ok(from.closed && to[0]!.closed);
  assert.equal(running.status().mode, "done");
});

for (const [title, middle] of [
  ["without a batch step", [decode("json")]],
  ["with one", [decode("json"), batch({ within: "1ms" })]],
] as const) {
  test(`decoded values reach a sink, and are gone before one that looks at bytes only: ${title}`, async () => {
    for (const bytesOnly of [false, true]) {
      const { from, to, begin, run } = setup({ middle: middle as Setup["middle"] & {} });
      to[0]!.bytesOnly = bytesOnly;
      await begin().started;
      from.offer("1", '"two"');
      await run(10);
      assert.deepEqual(to[0]!.written, ["1", '"two"']);
      assert.deepEqual(to[0]!.values, bytesOnly ? [undefined, undefined] : [1, "two"]);
    }
  });
}

test("what gathers while a write is out goes together", async () => {
  const { from, to, begin, run } = setup();
  to[0]!.hold = true;
  const running = begin();
  await running.started;
  from.offer("a");
  await run(1);
  from.offer("b");
  from.offer("c");
  await run(1);
  assert.equal(to[0]!.batches.length, 1);
  to[0]!.release();
  await run(1);
  assert.deepEqual(
    to[0]!.batches.map((batch) => batch.length),
    [1, 2],
  );
});

for (const audit of [false, true]) {
  const what = audit
    ? "writes do not overlap where an event tells of each"
    : "a write follows while fewer messages are out than may overlap";
  test(what, async () => {
    const { from, to, begin, run } = setup({ audit });
    to[0]!.overlap = 3;
    to[0]!.hold = true;
    const running = begin();
    await running.started;
    for (const values of [["a"], ["b", "c"], ["d"], ["e"]]) {
      from.offer(...values);
      await run(1);
    }
    const lengths = () => to[0]!.batches.map((batch) => batch.length);
    assert.deepEqual(lengths(), audit ? [1] : [1, 2]);
    to[0]!.waiting.shift()!();
    await run(1);
    assert.deepEqual(lengths(), audit ? [1, 4] : [1, 2, 2]);
    to[0]!.release();
    await run(1);
    assert.deepEqual(to[0]!.written, ["a", "b", "c", "d", "e"]);
  });
}

const refused = (payload: string) => (given: string) =>
  given === payload
    ? { class: "business" as const, code: "record-refused", message: "it is refused" }
    : undefined;

test("stopAtFirst: behind a message that is refused nothing is written before its dead letter is", async () => {
  const { context, from, to, dead, begin, run } = setup({ stopAtFirst: true });
  to[0]!.refuse = refused("b");
  dead.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b", "c", "d");
  await run(50);
  assert.deepEqual(to[0]!.written, ["a"]);
  assert.deepEqual(
    to[0]!.batches.map((batch) => batch.payload(0)?.toString()),
    ["a", "b"],
  );
  const [source] = running.status().sources;
  assert.deepEqual([source!.waiting, from.lane.checkpoint], [2, 1]);
  dead.release();
  await run(50);
  assert.deepEqual(to[0]!.written, ["a", "c", "d"]);
  assert.deepEqual(dead.written, ["b"]);
  assert.equal(running.status().sources[0]!.waiting, 0);
  assert.deepEqual(await drive(context.clock, running.drain()), { how: "done" });
  assert.equal(from.committed, 4);
});

test("stopAtFirst without dead letters: the run ends at the first failure, with what came before it delivered", async () => {
  const { context, from, to, begin } = setup({ stopAtFirst: true, deadLetters: false });
  to[0]!.refuse = refused("c");
  const running = begin();
  await running.started;
  from.offer("a", "b", "c", "d");
  const result = await drive(context.clock, running.finished);
  assert.equal(result.how, "failed");
  assert.deepEqual(to[0]!.written, ["a", "b"]);
  assert.equal(to[0]!.batches.length, 3, "d was not tried");
  assert.equal(from.lane.checkpoint, 2);
});

test("stopAtFirst: a message that a step rejects holds up those behind it as well", async () => {
  const { from, to, dead, begin, run } = setup({ stopAtFirst: true, middle: [rejectB] });
  dead.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(50);
  assert.deepEqual(to[0]!.written, ["a"]);
  dead.release();
  await run(50);
  assert.deepEqual(to[0]!.written, ["a", "c"]);
});

test("stopAtFirst: what was at the gate of a lane that ended is not written, and no longer waits", async () => {
  const { from, to, begin, run } = setup({ stopAtFirst: true });
  to[0]!.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(10);
  assert.equal(running.status().sources[0]!.waiting, 2);
  from.context.intake.end(from.lane);
  assert.equal(running.status().sources[0]!.waiting, 0);
  to[0]!.release();
  await run(10);
  assert.deepEqual(to[0]!.written, ["a"]);
  assert.equal(running.status().conservation.returned, 3);
});

test("a fan-out is delivered when both sinks have it", async () => {
  const { from, to, begin, run } = setup({ sinks: 2 });
  to[1]!.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b");
  await run(10);
  assert.deepEqual(to[0]!.written, ["a", "b"]);
  assert.equal(from.lane.checkpoint, 0);
  to[1]!.release();
  await run(10);
  assert.equal(from.lane.checkpoint, 2);
  assert.equal(running.status().conservation.delivered, 2);
});

const rejectB = operator((context, item, emit) => {
  if (item instanceof Chunk) {
    for (let i = 0; i < item.length; i++) {
      if (item.value(i)?.toString() === "b") {
        context.reject(item, i, {
          class: "business",
          code: "schema-violation",
          message: "b is not allowed",
          path: "/x",
        });
      }
    }
  }
  emit(item);
});

test("a rejected message settles once its dead letter is acknowledged, with its bytes and where it came from", async () => {
  const { from, to, dead, begin, run } = setup({ middle: [rejectB] });
  dead.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(10);
  assert.deepEqual(to[0]!.written, ["a", "c"]);
  assert.equal(from.lane.checkpoint, 1, "b is not settled yet");
  assert.equal(running.status().conservation.inFlight, 1);
  const letter = dead.batches[0]!;
  const headers = Object.fromEntries(letter.headers(0).map(([name, value]) => [name, String(value)]));
  assert.equal(letter.payload(0)?.toString(), "b");
  assert.equal(letter.key(0)?.toString(), "key");
  assert.equal(headers.h, "1");
  assert.equal(headers["millrace-error-code"], "schema-violation");
  assert.equal(headers["millrace-error-class"], "business");
  assert.equal(headers["millrace-error-path"], "/x");
  assert.equal(headers["millrace-error-node"], "op-0");
  assert.equal(headers["millrace-error-target"], "in");
  assert.equal(headers["millrace-error-partition"], "0");
  assert.equal(headers["millrace-error-position"], "1");
  dead.release();
  await run(10);
  assert.equal(from.lane.checkpoint, 3);
  assert.equal(running.status().conservation.deadLettered, 1);
});

test("a dead letter is of the time it was made, and names its message's own, whatever that is", async () => {
  const { context, from, dead, begin, run } = setup({ middle: [rejectB] });
  const running = begin();
  await running.started;
  from.offer("b");
  await run(10);
  const letter = dead.batches[0]!;
  assert.ok(Math.abs(letter.timestamp(0) - context.clock.wall()) < 1_000);
  assert.equal(new Map(letter.headers(0)).get("millrace-error-timestamp"), "7");
});

test("a rejection with no dead letters stops the run, and nothing is acknowledged", async () => {
  const { context, from, begin } = setup({ middle: [rejectB], deadLetters: false });
  const running = begin();
  await running.started;
  from.offer("a", "b");
  const result = await drive(context.clock, running.finished);
  assert.equal(result.how, "failed");
  assert.match(
    (result as { error: Error }).error.message,
    /op-0 rejects the message at in\/0 position 1 .* no dead letters/,
  );
  assert.equal(from.committed, 0);
  assert.ok(from.closed);
});

test("a message that a sink refuses is dead-lettered; a refused dead letter becomes a stub", async () => {
  const { from, to, dead, begin, run } = setup();
  to[0]!.refuse = (payload) =>
    payload === "b" ? { class: "business", code: "record-too-large", message: "too large" } : undefined;
  dead.refuse = (payload) =>
    payload === "b" ? { class: "business", code: "record-too-large", message: "too large" } : undefined;
  const running = begin();
  await running.started;
  from.offer("a", "b");
  await run(10);
  const stub = dead.batches.at(-1)!;
  assert.equal(stub.payload(0), null);
  const headers = Object.fromEntries(stub.headers(0));
  assert.equal(headers["millrace-error-value"], "omitted");
  assert.equal(headers["millrace-error-value-size"], "1");
  assert.equal(String(headers["millrace-error-value-sha256"]).length, 64);
  assert.equal(running.status().conservation.deadLettered, 1);
  assert.equal(from.lane.checkpoint, 2);
});

test("with an audit, messages settle only once the event about their batch is acknowledged", async () => {
  const { from, to, dead, events, begin, run } = setup({ audit: true });
  events.hold = true;
  to[0]!.refuse = (payload) =>
    payload === "b" ? { class: "business", code: "record-refused", message: "no" } : undefined;
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(10);
  assert.deepEqual(to[0]!.written, ["a", "c"]);
  assert.equal(running.status().conservation.delivered, 0);
  events.release();
  await run(10);
  const event = JSON.parse(events.written[0]!);
  assert.equal(event.topic, "out-0");
  assert.equal(event.succeeded, 2);
  assert.equal(event.failed, 1);
  assert.deepEqual(event.errors, [
    { target: "in", partition: 0, position: 1, code: "record-refused", message: "no" },
  ]);
  assert.deepEqual(event.stored, [], "this sink gives no offsets");
  assert.equal(running.status().conservation.delivered, 2);
  assert.deepEqual(dead.written, ["b"]);
});

test("a source is told what is amiss with the sinks it leads to, their audit and the dead letters", async () => {
  const other = new HandSource();
  const { from, to, dead, events, begin } = setup({
    sinks: 2,
    other,
    audit: true,
    middle: [operator(() => {})],
  });
  const running = begin();
  await running.started;
  const told = () => [from.context.downstream(), other.context.downstream()];
  assert.deepEqual(told(), [undefined, undefined]);
  for (const [sink, name] of [
    [to[1]!, "out-1"],
    [events, "events"],
    [dead, "dead"],
  ] as const) {
    sink.reason = "away";
    assert.deepEqual(told(), [`${name}: away`, `${name}: away`]);
    sink.reason = undefined;
  }
});

test("a drain waits for what is in flight, and one that cannot finish says what is left", async () => {
  const { context, from, to, begin, run } = setup({ drainTimeout: 500 });
  to[0]!.hold = true;
  const running = begin();
  await running.started;
  from.offer("a", "b");
  await run(10);
  const result = await drive(context.clock, running.drain());
  assert.equal(result.how, "drain-timeout");
  assert.match(
    (result as { error: Error }).error.message,
    /2 messages still in flight were not acknowledged/,
  );
  assert.equal(from.committed, 0);
  assert.ok(from.stopped && from.closed);
});

/** A step of author code that lets nothing out. */
const keeper = operator((context, item) => {
  if (!(item instanceof Chunk)) return;
  const { length } = item;
  for (let i = 0; i < length; i++) item.takeOut(i);
  context.keeps(() => length);
});

test("a drain that waits for author code names it, and says what to do", async () => {
  const { context, from, begin, run } = setup({ middle: [keeper] });
  const running = begin();
  await running.started;
  from.offer("a", "b", "c");
  await run(10);
  const { error } = (await drive(context.clock, running.drain())) as unknown as { error: MillraceError };
  assert.match(error.message, /3 messages still in flight were not acknowledged \(op-0 keeps 3\)/);
  assert.match(error.remedy ?? "", /message\.drop\(\)/);
});

test("with all input read, author code that keeps messages is told of once", async () => {
  const { context, from, begin, run } = setup({ middle: [keeper] });
  const running = begin();
  await running.started;
  from.offer("a", "b");
  running.untilIdle();
  await run(3_000);
  const warnings = () => context.logged.filter((line) => line.includes("do not come out"));
  assert.deepEqual(warnings(), []);
  await run(60_000);
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0]!, /op-0 keeps 2/);
  await drive(context.clock, running.drain());
});

test("rejections are logged once for each node and code, then once a minute, and never quoted", async () => {
  const careless = operator((context, item, emit) => {
    if (item instanceof Chunk) {
      for (let i = 0; i < item.length; i++) {
        const message = `cannot read ${item.payload(i)}`;
        context.reject(item, i, { class: "application", code: "author-error", message });
      }
    } else emit(item);
  });
  const { context, from, begin, run } = setup({ middle: [careless] });
  const running = begin();
  await running.started;
  const lines = () => context.logged.filter((line) => line.includes("own code fails"));
  from.offer("secret-1", "secret-2", "secret-3");
  await run(10);
  assert.equal(lines().length, 1);
  await run(60_000);
  from.offer("secret-4");
  await run(10);
  assert.equal(lines().length, 2);
  assert.match(lines()[1]!, /"node":"op-0".*"code":"author-error".*in\/0 position 3.*"sinceLast":3/);
  assert.ok(!context.logged.some((line) => line.includes("secret")));
  assert.equal(running.status().counters.author_errors_total, 4);
  await drive(context.clock, running.drain());
});

test("a commit that fails in the drain ends the run as what it is, not as a drain that took too long", async () => {
  const { context, from, begin, run } = setup();
  const cause = new Error("EROFS: read-only file system");
  const open = from.source.open;
  Object.assign(from.source, {
    open: async (given: SourceContext) => ({
      ...(await open(given)),
      commit: () => Promise.reject(new MillraceError("disk-failed", "no checkpoint", { cause })),
    }),
  });
  const running = begin();
  await running.started;
  from.offer("a");
  await run(10);
  const result = await drive(context.clock, running.drain());
  assert.equal(result.how, "failed");
  const { error } = result as unknown as { error: MillraceError };
  assert.deepEqual([error.code, error.message, error.cause], ["disk-failed", "no checkpoint", cause]);
  assert.deepEqual(
    running.status().lastErrors.map(({ node, message }) => [node, message]),
    [["in", "no checkpoint"]],
  );
  assert.equal(await running.finished, result);
  assert.ok(from.closed);
});

test("a drain whose commit hangs says that only acknowledging is left", async () => {
  const { context, from, begin, run } = setup({ drainTimeout: 500 });
  const open = from.source.open;
  Object.assign(from.source, {
    open: async (given: SourceContext) => ({
      ...(await open(given)),
      commit: () => new Promise<void>(() => {}),
    }),
  });
  const running = begin();
  await running.started;
  from.offer("a");
  await run(10);
  const result = await drive(context.clock, running.drain());
  assert.equal(result.how, "drain-timeout");
  assert.match((result as { error: Error }).error.message, /all messages were done, and acknowledging/);
});

test("a drain acknowledges, waits for the broker's word, and only then closes", async () => {
  const { context, from, begin, run } = setup();
  const told: string[] = [];
  let committed!: () => void;
  const open = from.source.open;
  Object.assign(from.source, {
    open: async (given: SourceContext) => {
      const session = await open(given);
      return {
        ...session,
        commit: async () => {
          told.push("commit");
          await new Promise<void>((resolve) => {
            committed = resolve;
          });
          told.push("committed");
        },
        close: async () => {
          told.push("close");
        },
      };
    },
  });
  const running = begin();
  await running.started;
  from.offer("a");
  await run(10);
  const drained = running.drain();
  await run(100);
  assert.deepEqual(told, ["commit"]);
  committed();
  assert.deepEqual(await drive(context.clock, drained), { how: "done" });
  assert.deepEqual(told, ["commit", "committed", "close"]);
});

test("a message whose lane has ended is not dead-lettered: it comes again", async () => {
  let late!: () => void;
  const later = operator((context, item) => {
    if (!(item instanceof Chunk)) return;
    late = () => context.reject(item, 0, { class: "business", code: "rule-broken", message: "no" });
  });
  const { from, dead, begin, run } = setup({ middle: [later] });
  const running = begin();
  await running.started;
  from.offer("a");
  await run(10);
  from.context.intake.end(from.lane);
  late();
  await run(100);
  assert.deepEqual(dead.written, []);
  assert.equal(running.status().conservation.returned, 1);
});

test("dead letters that cannot be written stop the run, and nothing is acknowledged", async () => {
  const refuseAll = operator((context, item) => {
    if (!(item instanceof Chunk)) return;
    for (let i = 0; i < item.length; i++)
      context.reject(item, i, { class: "business", code: "rule-broken", message: "no" });
  });
  for (const spoil of [
    (dead: HandSink) => {
      dead.writeError = new MillraceError("disk-failed", "no space left");
    },
    (dead: HandSink) => {
      dead.refuse = () => ({ class: "business", code: "record-refused", message: "never" });
    },
    (dead: HandSink) => {
      dead.refuse = () => ({ class: "business", code: "record-too-large", message: "even the stub" });
    },
  ]) {
    const { context, from, dead, begin } = setup({ middle: [refuseAll] });
    spoil(dead);
    const running = begin();
    await running.started;
    from.offer("a");
    const result = await drive(context.clock, running.finished);
    assert.equal(result.how, "failed");
    assert.equal(running.status().conservation.deadLettered, 0);
    assert.equal(from.committed, 0);
  }
});

test("a queue's message is never a stub, since nobody keeps the original; and dead letters have the fetched bytes", async () => {
  const change = operator((context, item) => {
    if (!(item instanceof Chunk)) return;
    item.payloads = Array.from({ length: item.length }, () => Buffer.from("changed"));
    context.reject(item, 0, { class: "business", code: "rule-broken", message: "no" });
  });
  const { context, from, dead, begin, run } = setup({ middle: [change] });
  Object.assign(from.source.capabilities, { ack: "individual" });
  const running = begin();
  await running.started;
  from.offer("fetched");
  await run(10);
  assert.deepEqual(dead.written, ["fetched"]);
  // A stub, whose value is left out, would be taken.
  dead.refuse = (payload) =>
    payload === "" ? undefined : { class: "business", code: "record-too-large", message: "too large" };
  from.offer("large");
  const result = await drive(context.clock, running.finished);
  assert.equal(result.how, "failed");
  assert.deepEqual(dead.written, ["fetched"]);
});

test("a sink that fails for good stops the run", async () => {
  const { context, from, to, begin } = setup();
  to[0]!.writeError = new MillraceError("disk-failed", "no space left");
  const running = begin();
  await running.started;
  from.offer("a");
  const result = await drive(context.clock, running.finished);
  assert.equal(result.how, "failed");
  assert.equal(from.committed, 0);
  assert.equal(running.status().lastErrors[0]?.message, "no space left");
});

test("a source that cannot be opened fails the start, and what was opened is closed", async () => {
  const { context, from, to, begin } = setup();
  from.openError = new MillraceError("target-missing", "no such topic");
  const running = begin();
  await assert.rejects(running.started, { message: "no such topic" });
  const result = await drive(context.clock, running.finished);
  assert.equal(result.how, "failed");
  assert.ok(to[0]!.closed);
});

test("told to stop while it starts, a run is done, and what opens only then is closed", async () => {
  const { context, from, to, begin, run } = setup({ sinks: 2 });
  const opening = to.map(({ sink }) => {
    const open = sink.open;
    let go!: () => void;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    Object.assign(sink, {
      open: async (opened: Parameters<typeof open>[0]) => {
        await Promise.race([
          gate,
          new Promise((_, reject) =>
            opened.signal.addEventListener(
              "abort",
              () => sink === to[0]!.sink && reject(opened.signal.reason),
            ),
          ),
        ]);
        return open(opened);
      },
    });
    return go;
  });
  const running = begin();
  running.started.catch(() => {});
  await run(10);
  const drained = running.drain();
  await run(10);
  opening[1]!();
  assert.deepEqual(await drive(context.clock, drained), { how: "done" });
  assert.deepEqual(await drive(context.clock, running.finished), { how: "done" });
  assert.equal(running.status().mode, "done");
  assert.deepEqual(running.status().lastErrors, []);
  assert.ok(to[1]!.closed, "the sink that opened late");
  assert.equal(from.context, undefined, "the source was never opened");
});

test("told to stop while one of its sources is opening, a run acknowledges what the others took in, and ends in time", async () => {
  const other = new HandSource();
  let opened!: () => void;
  other.opening = new Promise((resolve) => {
    opened = resolve;
  });
  const { context, from, to, begin, run } = setup({ other, drainTimeout: 1_000 });
  const running = begin();
  running.started.catch(() => {});
  await run(10);
  to[0]!.hold = true;
  from.offer("a", "b");
  await run(10);
  const begun = context.clock.now();
  const drained = running.drain();
  from.offer("c");
  await run(10);
  to[0]!.release();
  assert.deepEqual(await drive(context.clock, drained), { how: "done" });
  assert.deepEqual([to[0]!.written, from.committed], [["a", "b"], 2]);
  assert.ok(context.clock.now() - begun <= 1_100, `it took ${context.clock.now() - begun} ms`);
  assert.equal(other.closed, false);
  opened();
  await run(10);
  assert.ok(other.closed, "what opens late is closed then");
});

test("idle is at the end with nothing in flight, seen twice", async () => {
  const { context, from, to, begin, run } = setup();
  to[0]!.hold = true;
  const running = begin();
  await running.started;
  let idle = false;
  const waiting = running.untilIdle().then(() => {
    idle = true;
  });
  from.offer("a");
  await run(1_000);
  assert.equal(idle, false, "a message is in flight");
  to[0]!.release();
  await run(1);
  from.atEnd = false;
  await run(1_000);
  assert.equal(idle, false, "there is more to read");
  from.atEnd = true;
  await drive(context.clock, waiting);
  assert.ok(idle);
});

test("when credit runs out and a window holds everything, the oldest window opens", async () => {
  const held: { chunk: Chunk; index: number }[] = [];
  const hold = operator((context, item, emit) => {
    if (!(item instanceof Chunk)) {
      emit(item);
      return;
    }
    for (let i = 0; i < item.length; i++) {
      item.takeOut(i);
      held.push({ chunk: item, index: i });
      context.held(item.lane, 1);
    }
    const window = {
      openedAt: context.clock.now(),
      flush: () => {
        context.closed(window);
        const batch = new Batch({ name: "out" }, 0);
        for (const { chunk, index } of held.splice(0)) {
          context.held(chunk.lane, -1);
          batch.add(chunk, index);
        }
        emit(batch);
      },
    };
    if (held.length === item.length) context.opened(window);
  });
  const { from, to, begin, run } = setup({ middle: [hold] });
  const running = begin();
  await running.started;
  from.offer(...Array.from({ length: 250 }, (_, i) => String(i)));
  await run(100);
  assert.equal(to[0]!.written.length, 200, "two full credits went; the rest leaves credit free, so it stays");
  assert.equal(running.status().counters.starvation_flushes_total, 2);
});
