import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Subject } from "rxjs";
import type { Flowing } from "../component/operator.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { Outcome } from "../message/outcome.ts";
import { type PlainRecord, PlainRecords } from "../message/records.ts";
import { type BedOptions, OperatorBed } from "../testing/operator-bed.ts";
import { type BatchOptions, batch } from "./batch.ts";

const places = new Map<string, Destination>();

/** Where a message goes: by the first letter of its value. */
function destinationOf(chunk: Chunk, index: number): Destination {
  const name = chunk.payload(index)?.toString("utf8", 0, 1) ?? "";
  const place = places.get(name) ?? { name };
  places.set(name, place);
  return place;
}

function bed(options: BatchOptions<never> = {}, bedOptions: BedOptions = { destinationOf }): OperatorBed {
  return new OperatorBed(batch(options), bedOptions);
}

function send(bed: OperatorBed, values: readonly string[], lane?: string): void {
  bed.send(
    values.map((value) => ({ value })),
    lane,
  );
}

/** The batches that came out since, as "destination: values". */
function batches(bed: OperatorBed): string[] {
  const found: string[] = [];
  for (const item of bed.output.splice(0)) {
    if (item instanceof Batch) found.push(`${item.destination.name}: ${values(item)}`);
    else found.push(item instanceof Chunk ? "chunk" : item.kind);
  }
  return found;
}

function values(batch: Batch): string {
  return Array.from({ length: batch.length }, (_, i) => batch.payload(i)?.toString() ?? "null").join(" ");
}

/** A chunk of a lane of its own that has not been sent. */
function unsent(bed: OperatorBed, records: readonly Partial<PlainRecord>[], laneName = "beside"): Chunk {
  const lane = bed.lane(laneName);
  const plain = new PlainRecords(
    records.map((record, position) => ({
      position: lane.position + position,
      key: null,
      value: null,
      headers: [],
      timestamp: 0,
      ...record,
    })),
  );
  return new Chunk(lane, lane, lane.take(plain, 0, plain.length), plain.length, plain, 0);
}

/** A batch operator beside the one of the bed, with the same context, to be given items as they are. */
function wired(bed: OperatorBed) {
  const input = new Subject<Flowing>();
  const output: Flowing[] = [];
  const errors: unknown[] = [];
  const subscription = batch()
    .build(bed.context)(input)
    .subscribe({ next: (item) => output.push(item), error: (error) => errors.push(error) });
  return { input, output, errors, subscription };
}

const a = { value: Buffer.from("a") };

describe("a window closes", () => {
  test("at its count, counting from the batch before", () => {
    const b = bed({ count: 3 });
    send(b, ["a1", "a2"]);
    assert.deepEqual(batches(b), []);
    assert.equal(b.held, 2);
    send(b, ["a3", "a4", "a5", "a6", "a7"]);
    assert.deepEqual(batches(b), ["a: a1 a2 a3", "a: a4 a5 a6"]);
    assert.equal(b.held, 1);
    send(b, ["a8"]);
    assert.deepEqual(batches(b), []);
    send(b, ["a9"]);
    assert.deepEqual(batches(b), ["a: a7 a8 a9"]);
    assert.equal(b.held, 0);
    assert.equal(b.windows.size, 0);
    assert.equal(b.context.clock.pending, 0);
  });

  test("so long after its first message, however many follow, and after nothing else", () => {
    const b = bed({ within: "50ms" });
    b.context.clock.advance(17);
    send(b, ["a1"]);
    b.context.clock.advance(30);
    send(b, ["a2"]);
    b.context.clock.advance(19.5);
    assert.deepEqual(batches(b), []);
    b.context.clock.advance(0.5);
    assert.deepEqual(batches(b), ["a: a1 a2"]);
    b.context.clock.advance(500);
    assert.deepEqual(batches(b), [], "never empty");
    send(b, ["a3"]);
    b.context.clock.advance(49);
    assert.deepEqual(batches(b), []);
    b.context.clock.advance(1);
    assert.deepEqual(batches(b), ["a: a3"]);
  });

  test("each in its own time, with one timer for all", () => {
    const b = bed({ within: 50, count: 3 });
    send(b, ["a1"]);
    b.context.clock.advance(10);
    send(b, ["b1"]);
    b.context.clock.advance(10);
    send(b, ["c1", "a2", "a3"]);
    assert.deepEqual(batches(b), ["a: a1 a2 a3"]);
    assert.equal(b.context.clock.pending, 1);
    b.context.clock.advance(20);
    send(b, ["a4"]);
    b.context.clock.advance(19);
    assert.deepEqual(batches(b), []);
    b.context.clock.advance(1);
    assert.deepEqual(batches(b), ["b: b1"]);
    b.context.clock.advance(10);
    assert.deepEqual(batches(b), ["c: c1"]);
    b.context.clock.advance(19);
    assert.deepEqual(batches(b), []);
    b.context.clock.advance(1);
    assert.deepEqual(batches(b), ["a: a4"]);
    assert.equal(b.context.clock.pending, 0);
  });

  test("along with another whose time is over, when a tenth of its own is left at most", () => {
    const b = bed({ within: 50 });
    for (const message of ["a1", "b1", "c1"]) {
      send(b, [message]);
      b.context.clock.advance(3);
    }
    b.context.clock.advance(41);
    assert.deepEqual(batches(b), ["a: a1", "b: b1"]);
    b.context.clock.advance(5);
    assert.deepEqual(batches(b), []);
    b.context.clock.advance(1);
    assert.deepEqual(batches(b), ["c: c1"]);
  });

  test("in its time on the monotonic clock, wherever the wall clock jumps", () => {
    const b = bed({ within: "50ms" });
    send(b, ["a1"]);
    b.context.clock.jumpWall(3_600_000);
    b.context.clock.advance(49);
    assert.deepEqual(batches(b), []);
    b.context.clock.jumpWall(-7_200_000);
    b.context.clock.advance(1);
    assert.deepEqual(batches(b), ["a: a1"]);
  });

  test("before a message for which there is no room, and at once when it is full", () => {
    const b = bed({ bytes: 6 });
    send(b, ["aaa", "aa", "aa", "aaaa"]);
    assert.deepEqual(batches(b), ["a: aaa aa", "a: aa aaaa"]);
    assert.equal(b.held, 0);
  });

  test("keys count among the bytes", () => {
    const b = bed({ bytes: 6 });
    b.send([
      { key: Buffer.from("kk"), value: "aa" },
      { key: Buffer.from("kk"), value: "a" },
    ]);
    assert.deepEqual(batches(b), ["a: aa"]);
    assert.equal(b.held, 1);
  });

  test("around a message larger than a batch, which goes alone and in its place", () => {
    const b = bed({ bytes: 4 });
    send(b, ["a1", "b1", "a23456", "a7"]);
    assert.deepEqual(batches(b), ["a: a1", "a: a23456"]);
    b.flush();
    assert.deepEqual(batches(b), ["b: b1", "a: a7", "flush"]);
  });

  test("after the message for which `when` is true", () => {
    const b = bed({ when: (message) => String(message.value).endsWith("!") });
    send(b, ["a1", "a2!", "b1", "a3!", "b2"]);
    assert.deepEqual(batches(b), ["a: a1 a2!", "a: a3!"]);
    b.flush();
    assert.deepEqual(batches(b), ["b: b1 b2", "flush"]);
  });

  test("at the end of the input", () => {
    const b = bed();
    send(b, ["a1", "b1", "a2"]);
    b.complete();
    assert.deepEqual(batches(b), ["a: a1 a2", "b: b1"]);
    assert.equal(b.completed, true);
    assert.equal(b.held, 0);
    assert.equal(b.context.clock.pending, 0);
  });

  test("at a flush, the oldest first, and the flush follows", () => {
    const b = bed({ within: "10s" });
    send(b, ["b1", "a1"]);
    send(b, ["c1", "b2"], "other");
    b.flush();
    assert.deepEqual(batches(b), ["b: b1 b2", "a: a1", "c: c1", "flush"]);
    b.flush();
    assert.deepEqual(batches(b), ["flush"]);
    assert.equal(b.context.clock.pending, 0);
  });

  test("when the runtime finds that credit ran out", () => {
    const b = bed();
    send(b, ["a1"]);
    b.context.clock.advance(1);
    send(b, ["b1"]);
    const [oldest, newest] = [...b.windows];
    assert.deepEqual([oldest?.openedAt, newest?.openedAt], [0, 1]);
    oldest?.flush();
    assert.deepEqual(batches(b), ["a: a1"]);
    assert.deepEqual([...b.windows], [newest]);
    assert.equal(b.held, 1);
    oldest?.flush();
    send(b, ["a2"]);
    oldest?.flush();
    assert.deepEqual(batches(b), [], "a window that has closed has nothing to do with the next one");
    newest?.flush();
    [...b.windows][0]?.flush();
    assert.equal(b.context.clock.pending, 0);
  });
});

describe("what shares a window", () => {
  test("destination: the same destination", () => {
    const b = bed({ count: 2 });
    send(b, ["a1", "b1", "c1", "b2", "a2"]);
    assert.deepEqual(batches(b), ["b: b1 b2", "a: a1 a2"]);
  });

  test("destination: everything, where no one sink is known", () => {
    const b = bed({ count: 3 }, {});
    send(b, ["a1", "b1", "c1"]);
    assert.deepEqual(batches(b), ["anywhere: a1 b1 c1"]);
  });

  test("key: the same key, of which there may be any number, and none is a key of its own", () => {
    const b = bed({ count: 2, per: "key" });
    const keyed = (key: string | null, value: string) => ({
      key: key === null ? null : Buffer.from(key),
      value,
    });
    b.send([
      keyed("k1", "a1"),
      keyed("", "a2"),
      keyed(null, "a3"),
      keyed("k1", "a4"),
      keyed(null, "a5"),
      keyed("", "a6"),
    ]);
    assert.deepEqual(batches(b), ["a: a1 a4", "a: a3 a5", "a: a2 a6"]);
    for (let i = 0; i < 500; i++) b.send([keyed(`k${i}`, "a")]);
    assert.equal(b.windows.size, 500);
    b.flush();
    assert.equal(b.windows.size, 0);
    assert.equal(b.held, 0);
  });

  test("all: everything, parted by destination in the order of the first messages", () => {
    const b = bed({ count: 5, per: "all" });
    send(b, ["b1", "a1", "b2", "c1", "a2", "b3"]);
    assert.deepEqual(batches(b), ["b: b1 b2", "a: a1 a2", "c: c1"]);
    assert.equal(b.held, 1);
  });

  test("never messages for which compress asked for different codecs", () => {
    const b = bed();
    const { input, output } = wired(b);
    for (const codec of ["none", "zstd", "zstd"] as const) {
      const chunk = unsent(b, [a]);
      chunk.codec = codec;
      input.next(chunk);
    }
    input.complete();
    assert.deepEqual(
      output.map((item) => (item instanceof Batch ? [item.codec, item.length] : undefined)),
      [
        ["none", 1],
        ["zstd", 2],
      ],
    );
  });
});

describe("a lane whose epoch ends", () => {
  test("takes only its own messages out of the windows", () => {
    const b = bed({ within: "50ms" });
    send(b, ["a1", "b1"], "p");
    b.context.clock.advance(10);
    send(b, ["a2"], "q");
    send(b, ["a3"], "p");
    send(b, ["a4"], "q");
    assert.equal(b.held, 5);
    const lane = b.lane("p");
    b.revoke("p");
    assert.deepEqual(b.output.splice(0), [{ kind: "revoke", lane }]);
    assert.equal(b.held, 2);
    assert.equal(b.windows.size, 1, "the window that is empty is closed");
    b.context.clock.advance(40);
    assert.deepEqual(batches(b), ["a: a2 a4"]);
    assert.equal(b.held, 0);
    assert.equal(b.context.clock.pending, 0);
  });

  test("leaves room: count and bytes go by what is left", () => {
    const b = bed({ count: 3, bytes: 6 });
    send(b, ["aaa"], "p");
    send(b, ["a1"], "q");
    b.revoke("p");
    send(b, ["a2"], "q");
    assert.deepEqual(batches(b), ["revoke"]);
    send(b, ["a3"], "q");
    assert.deepEqual(batches(b), ["a: a1 a2 a3"]);
  });

  test("sends nothing more, even before the word of it has come", () => {
    const b = bed({ count: 3 });
    send(b, ["a1", "b1"], "p");
    send(b, ["a2"], "q");
    b.lane("p").end();
    send(b, ["a3", "a4"], "q");
    assert.deepEqual(batches(b), ["a: a2 a3"]);
    b.flush();
    assert.deepEqual(batches(b), ["a: a4", "flush"]);
    assert.equal(b.held, 0);
  });

  test("has what still comes of it passed by", () => {
    const b = bed();
    const { input, output } = wired(b);
    const chunk = unsent(b, [a]);
    chunk.lane.end();
    input.next(chunk);
    assert.equal(b.windows.size, 0);
    assert.equal(b.held, 0);
    input.complete();
    assert.deepEqual(output, []);
  });
});

test("an error of the source passes, nothing is emitted or settled, no timer is left", () => {
  const b = bed();
  const { input, output, errors } = wired(b);
  input.next(unsent(b, [a]));
  assert.equal(b.windows.size, 1);
  const gone = new Error("the disk is gone");
  input.error(gone);
  assert.deepEqual(errors, [gone]);
  assert.deepEqual(output, []);
  assert.equal(b.outcomes.size, 0);
  assert.equal(b.windows.size, 0);
  assert.equal(b.held, 0);
  assert.equal(b.context.clock.pending, 0);
});

test("when nobody listens any more no timer and no window is left", () => {
  const b = bed();
  const { input, subscription } = wired(b);
  input.next(unsent(b, [a]));
  assert.equal(b.windows.size, 1);
  subscription.unsubscribe();
  assert.equal(b.windows.size, 0);
  assert.equal(b.held, 0);
  assert.equal(b.context.clock.pending, 0);
});

test("its outcomes go to the messages they are for", () => {
  const b = bed({ count: 3 });
  send(b, ["a1", "b1"], "p");
  send(b, ["a2", "a3"], "q");
  const [whole] = b.output as Batch[];
  whole!.settle(0, Outcome.delivered);
  whole!.settle(2, Outcome.deadLettered);
  assert.deepEqual(Object.fromEntries(b.outcomes), { "p:0": "delivered", "q:1": "deadLettered" });
});

test("`when` that throws or returns a promise rejects its message alone", () => {
  const b = bed({
    count: 2,
    when: (message) => {
      const text = String(message.value);
      if (text === "a2") throw new TypeError("no such field");
      return (text === "a3" ? Promise.reject(new Error("late")) : false) as boolean;
    },
  });
  send(b, ["a1", "a2", "a3", "a4"]);
  assert.deepEqual(batches(b), ["a: a1 a4"]);
  assert.deepEqual(
    b.rejected.map(({ position, failure }) => [position, failure.code]),
    [
      [1, "author-error"],
      [2, "author-error"],
    ],
  );
  assert.equal(b.held, 0);
});

test("a few survivors of a large chunk are whole, and let go of its bytes", () => {
  for (const [survivors, copied] of [
    [[5], true],
    [[1, 5], false],
  ] as const) {
    const b = bed();
    const { input, output } = wired(b);
    const fetched = Buffer.alloc(48);
    for (let i = 0; i < 8; i++) fetched.write(`k${i}h${i}v${i}`, i * 6);
    const chunk = unsent(
      b,
      Array.from({ length: 8 }, (_, i) => ({
        key: fetched.subarray(i * 6, i * 6 + 2),
        headers: [["name", fetched.subarray(i * 6 + 2, i * 6 + 4)] as const],
        value: fetched.subarray(i * 6 + 4, i * 6 + 6),
        timestamp: 1_000 + i,
      })),
    );
    chunk.values = Array.from({ length: 8 }, (_, i) => ({ i }));
    for (let i = 0; i < 8; i++) if (!survivors.some((n) => n === i)) chunk.settle(i, Outcome.filtered);
    input.next(chunk);
    input.complete();
    const kept = output[0] as Batch;
    assert.equal(kept.length, survivors.length);
    const entry = survivors.length - 1;
    assert.equal(kept.key(entry)?.toString(), "k5");
    assert.equal(kept.payload(entry)?.toString(), "v5");
    assert.deepEqual(kept.value(entry), { i: 5 });
    assert.deepEqual(
      kept.headers(entry).map(([name, value]) => [name, String(value)]),
      [["name", "h5"]],
    );
    assert.equal(kept.timestamp(entry), 1_005);
    assert.equal(kept.chunk(entry).position(kept.index(entry)), 5);
    const bytes = [kept.key(entry), kept.payload(entry), kept.headers(entry)[0]?.[1]] as Buffer[];
    for (const own of bytes) assert.equal(own.buffer !== fetched.buffer, copied);
    kept.settleAll(Outcome.delivered);
    assert.equal(b.outcomes.get("beside:5"), "delivered");
    assert.equal(b.lane("beside").inFlight, 0);
  }
});

test("every mistake in the options is named", () => {
  const messages = (options: unknown) =>
    batch(options as BatchOptions).problems.map(({ message, remedy }) => `${message}; ${remedy}`);
  assert.match(messages({ count: 0 }).join(), /"count"/);
  assert.match(messages({ count: 1.5 }).join(), /"count"/);
  assert.match(messages({ bytes: "1 fathom" }).join(), /not a size/);
  assert.match(messages({ bytes: 0 }).join(), /"bytes" is 0/);
  assert.match(messages({ within: "soon" }).join(), /not a duration/);
  assert.match(messages({ within: 1e12 }).join(), /at most 24 days/);
  assert.match(messages({ per: "keys" }).join(), /did you mean "key"/);
  assert.match(messages({ cuont: 1 }).join(), /did you mean "count"/);
  assert.match(messages({ when: true }).join(), /must be a function/);
  assert.deepEqual(messages({ count: 10, bytes: "64KiB", within: 5, when: () => true, per: "all" }), []);
  assert.deepEqual([batch().holds, batch({ count: 7 }).holds], [1_000, 7]);
});
