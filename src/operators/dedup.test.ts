import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Subject } from "rxjs";
import type { Flowing, Operator } from "../component/operator.ts";
import { MillraceError } from "../errors.ts";
import { Chunk } from "../message/chunk.ts";
import { KeyWriter } from "../message/key-column.ts";
import { Outcome } from "../message/outcome.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { type DedupOptions, dedup } from "./dedup.ts";
import { fanOut } from "./fan-out.ts";

interface Item {
  readonly id: unknown;
  readonly n?: number;
}

function bed(options: Partial<DedupOptions<Item>> = {}): OperatorBed {
  return new OperatorBed(dedup<Item>({ id: (item) => item.id as string, ...options }));
}

function send(bed: OperatorBed, ids: readonly unknown[], lane?: string): void {
  bed.sendValues(
    ids.map((id) => ({ id })),
    lane,
  );
}

/** Ids that came out and have no outcome, in order. */
function out(bed: OperatorBed): unknown[] {
  return bed.emitted().map(({ value }) => (value as Item).id);
}

function outcomes(bed: OperatorBed, lane = "t"): (string | undefined)[] {
  const found: (string | undefined)[] = [];
  for (const [place, outcome] of bed.outcomes) {
    const [name, position] = place.split(":");
    if (name === lane) found[Number(position)] = outcome;
  }
  return Array.from(found);
}

/** An operator beside the one of the bed, with the same context, to be given items as they are. */
function wired(operator: Operator<never, unknown>, bed: OperatorBed) {
  const input = new Subject<Flowing>();
  const output: Flowing[] = [];
  const errors: unknown[] = [];
  operator
    .build(bed.context)(input)
    .subscribe({ next: (item) => output.push(item), error: (error) => errors.push(error) });
  return { input, output, errors };
}

/** Lets what was put off to a later turn happen. */
function turn(bed: OperatorBed): void {
  bed.context.clock.advance(0);
}

describe("an id that was delivered", () => {
  test("settles its later messages as duplicates, at once", () => {
    const b = bed();
    send(b, ["a", "b"]);
    b.deliver();
    send(b, ["a", "c", "b", "a"]);
    assert.deepEqual(out(b), ["c"]);
    assert.deepEqual(outcomes(b), [
      "delivered",
      "delivered",
      "duplicate",
      undefined,
      "duplicate",
      "duplicate",
    ]);
    assert.equal(b.waiting, 0);
  });

  test("so does one that was filtered, or that a later dedup found to be a duplicate", () => {
    for (const outcome of [Outcome.filtered, Outcome.duplicate]) {
      const b = bed();
      send(b, ["a"]);
      b.deliver(outcome);
      send(b, ["a"]);
      assert.deepEqual(out(b), []);
      assert.equal(outcomes(b)[1], "duplicate");
    }
  });

  test("a chunk of duplicates alone is not passed on", () => {
    const b = bed();
    send(b, ["a"]);
    b.deliver();
    send(b, ["a", "a"]);
    assert.equal(b.output.length, 0);
  });

  test("is forgotten by its ttl, on the monotonic clock and from its delivery", () => {
    const b = bed({ ttl: "1s" });
    send(b, ["a"]);
    b.context.clock.advance(700);
    b.deliver();
    b.context.clock.jumpWall(3_600_000);
    b.context.clock.advance(600);
    send(b, ["a"]);
    b.context.clock.jumpWall(-7_200_000);
    b.context.clock.advance(399);
    send(b, ["a"]);
    assert.deepEqual(outcomes(b), ["delivered", "duplicate", "duplicate"]);
    b.context.clock.advance(1);
    send(b, ["a"]);
    assert.deepEqual(out(b), ["a"]);
    assert.equal(b.context.counted.get("dedup_expired_total"), 1);
  });

  test("is forgotten for want of capacity, the least recent first, and that is counted", () => {
    const b = bed({ capacity: 2 });
    send(b, ["a", "b"]);
    b.deliver();
    send(b, ["a", "c"]);
    b.deliver();
    send(b, ["a", "c", "b"]);
    assert.deepEqual(out(b), ["b"]);
    assert.equal(b.context.counted.get("dedup_evicted_total"), 1);
  });
});

describe("an id under way", () => {
  test("makes its twins wait, without holding back what follows them", () => {
    const b = bed();
    send(b, ["a", "a", "b", "a"]);
    send(b, ["c", "a"]);
    assert.deepEqual(out(b), ["a", "b", "c"]);
    assert.deepEqual(outcomes(b), []);
    assert.equal(b.waiting, 3);
    assert.equal(b.lane().inFlight, 6);
    b.deliver();
    assert.deepEqual(outcomes(b), [
      "delivered",
      "duplicate",
      "delivered",
      "duplicate",
      "delivered",
      "duplicate",
    ]);
    assert.equal(b.waiting, 0);
    assert.equal(b.lane().inFlight, 0);
  });

  for (const [name, outcome] of [
    ["dead-lettered", Outcome.deadLettered],
    ["returned", Outcome.returned],
    ["lost", Outcome.lost],
  ] as const) {
    test(`${name}: the oldest twin takes its place on a later turn, the others wait for that one`, () => {
      const b = bed();
      b.sendValues([
        { id: "a", n: 0 },
        { id: "a", n: 1 },
        { id: "a", n: 2 },
      ]);
      assert.equal(b.deliver(outcome), 1);
      assert.deepEqual(b.output, [], "never inside the settlement");
      assert.equal(b.waiting, 1);
      turn(b);
      assert.deepEqual(
        b.emitted().map(({ value }) => value),
        [{ id: "a", n: 1 }],
      );
      assert.deepEqual(outcomes(b).slice(1), [], "the others are not settled");
      send(b, ["a"]);
      assert.equal(b.waiting, 2);
      b.deliver();
      assert.deepEqual(outcomes(b).slice(1), ["delivered", "duplicate", "duplicate"]);
      assert.equal(b.waiting, 0);
    });
  }

  test("dead-lettered without a twin: the next one is new", () => {
    const b = bed();
    send(b, ["a"]);
    b.deliver(Outcome.deadLettered);
    send(b, ["a"]);
    assert.deepEqual(out(b), ["a"]);
    assert.equal(b.waiting, 0);
  });

  test("is never pushed out, whatever the capacity", () => {
    const b = bed({ capacity: 1 });
    const ids = Array.from({ length: 500 }, (_, i) => `id-${i}`);
    send(b, ids);
    send(b, ids);
    assert.equal(b.waiting, 500);
    assert.equal(out(b).length, 500);
    b.deliver();
    assert.deepEqual(new Set(outcomes(b).slice(500)), new Set(["duplicate"]));
  });

  test("a second outcome for the owner changes nothing", () => {
    const b = bed();
    send(b, ["a", "a", "a"]);
    const chunk = b.output[0] as Chunk;
    chunk.settle(0, Outcome.deadLettered);
    chunk.settle(0, Outcome.delivered);
    turn(b);
    assert.equal(b.waiting, 1);
    assert.deepEqual(outcomes(b), ["deadLettered"]);
  });

  test("a promoted twin travels with the columns it had, whatever became of its chunk's since", () => {
    const b = bed();
    const values = [
      { id: "a", n: 0 },
      { id: "a", n: 1 },
    ];
    b.sendValues(values);
    const passed = b.output[0] as Chunk;
    passed.values = [{ id: "changed" }];
    const keys = new KeyWriter(1);
    keys.write(0, "k");
    passed.keys = keys.finish();
    b.deliver(Outcome.deadLettered);
    turn(b);
    const [promoted] = b.emitted();
    assert.deepEqual(promoted?.value, { id: "a", n: 1 });
    assert.equal(promoted?.key, null);
    assert.equal(promoted?.position, 1);
    assert.equal(promoted?.payload, JSON.stringify(values[1]));
  });

  test("a promoted twin goes before what comes after its promotion", () => {
    const b = bed();
    send(b, ["a", "a"]);
    b.deliver(Outcome.deadLettered);
    send(b, ["b"]);
    assert.deepEqual(out(b), ["a", "b"]);
    turn(b);
    assert.deepEqual(out(b), ["a", "b"]);
  });

  test("a promoted twin goes before a flush", () => {
    const b = bed();
    send(b, ["a", "a"]);
    b.deliver(Outcome.deadLettered);
    b.flush();
    assert.deepEqual(
      b.output.map((item) => (item instanceof Chunk ? "chunk" : "kind" in item && item.kind)),
      ["chunk", "flush"],
    );
  });

  test("a fan-out before it hears each outcome once, and of one behind it the worst counts", () => {
    const source = bed({ missing: "pass" });
    const { input, output } = wired(dedup<Item>({ id: (item) => item.id as string }), source);
    const [left, right] = fanOut(source.sendValues([{ n: 0 }, { n: 1 }]), 2);
    left!.values = [{ id: "a" }, { id: "a" }];
    input.next(left!);
    const ends = fanOut(output[0] as Chunk, 2);
    ends[0]!.settle(0, Outcome.delivered);
    assert.equal(source.waiting, 1, "the other end is out");
    ends[1]!.settle(0, Outcome.deadLettered);
    turn(source);
    assert.equal(output.length, 2, "the twin is promoted");
    (output[1] as Chunk).settle(0, Outcome.delivered);
    assert.equal(source.lane().inFlight, 2, "the branch beside dedup is out");
    right!.settle(0, Outcome.delivered);
    right!.settle(1, Outcome.delivered);
    assert.deepEqual(outcomes(source), ["deadLettered", "delivered"]);
  });
});

describe("scope", () => {
  test("lane: lanes know nothing of each other", () => {
    const b = bed();
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    assert.deepEqual(out(b), ["a", "a"]);
    b.deliver();
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    send(b, ["a"], "r");
    assert.deepEqual(out(b), ["a"]);
  });

  test("topology: they share what is under way and what is done", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    assert.deepEqual(out(b), ["a"]);
    b.deliver();
    assert.deepEqual(outcomes(b, "q"), ["duplicate"]);
    send(b, ["a"], "r");
    assert.deepEqual(outcomes(b, "r"), ["duplicate"]);
  });

  test("lane: the capacity is shared by the lanes there are", () => {
    const b = bed({ capacity: 8 });
    const ids = (lane: string) => Array.from({ length: 8 }, (_, i) => `${lane}${i}`);
    send(b, ids("p"), "p");
    b.deliver();
    turn(b);
    send(b, ["p0"], "p");
    assert.deepEqual(out(b), [], "one lane has all of it");
    send(b, ["q0"], "q");
    b.deliver();
    turn(b);
    // p0 is the most recent, p1 to p4 have gone.
    send(b, ["p0", "p5", "p6", "p7"], "p");
    assert.deepEqual(out(b), [], "the most recent half is still known");
    send(b, ["p4"], "p");
    assert.deepEqual(out(b), ["p4"]);
    assert.equal(b.context.counted.get("dedup_evicted_total"), 4);
    b.deliver();
    b.revoke("q");
    turn(b);
    send(b, ["p8", "p9", "p10", "p11"], "p");
    b.deliver();
    send(b, ["p4", "p7", "p6", "p5"], "p");
    assert.deepEqual(out(b), [], "the part of a lane that went is used by those that stay");
  });
});

describe("a lane whose epoch ends", () => {
  test("lane scope: starts again with nothing known", () => {
    const b = bed();
    send(b, ["a", "b", "b"]);
    (b.output[0] as Chunk).settle(0, Outcome.delivered);
    b.revoke();
    assert.equal(b.waiting, 0);
    b.output.length = 0;
    send(b, ["a", "b"]);
    assert.deepEqual(out(b), ["a", "b"]);
  });

  test("topology scope: what was delivered stays known", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"]);
    b.deliver();
    b.revoke();
    send(b, ["a"]);
    assert.deepEqual(out(b), []);
  });

  test("its ids pass to the oldest twin of another lane; a late outcome of the old owner does nothing", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a", "x"], "p");
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    send(b, ["a"], "r");
    const old = b.output.shift() as Chunk;
    assert.equal(b.waiting, 3);
    b.revoke("p");
    assert.equal(b.waiting, 1);
    turn(b);
    assert.deepEqual(
      b.emitted().map(({ lane, value }) => [lane, (value as Item).id]),
      [["q", "a"]],
    );
    old.settle(0, Outcome.delivered);
    old.settle(1, Outcome.delivered);
    assert.equal(b.waiting, 1, "r still waits");
    send(b, ["x", "a"], "q");
    assert.equal(b.waiting, 2);
    assert.deepEqual(out(b), ["a", "x"]);
    b.deliver();
    assert.deepEqual(outcomes(b, "q"), ["delivered", "delivered", "duplicate"]);
    assert.deepEqual(outcomes(b, "r"), ["duplicate"]);
    assert.equal(b.waiting, 0);
  });

  test("an outcome between the end of the epoch and the word of it does nothing either", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    b.lane("p").end();
    b.deliver();
    assert.equal(b.waiting, 1);
    assert.deepEqual(outcomes(b, "q"), []);
  });

  test("twins in lanes that stay keep their order", () => {
    const b = bed({ scope: "topology" });
    for (const lane of ["p", "q", "r", "q", "s"]) send(b, ["a"], lane);
    b.revoke("r");
    const order: string[] = [];
    while (b.emitted().length > 0) {
      order.push(...b.emitted().map(({ lane, position }) => `${lane}${position}`));
      b.deliver(Outcome.deadLettered);
      turn(b);
    }
    assert.deepEqual(order, ["p0", "q0", "q1", "s0"]);
  });

  test("the same while the twin's promotion is put off: the next lane's twin has its turn", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    send(b, ["a"], "r");
    b.deliver(Outcome.deadLettered);
    b.revoke("q");
    turn(b);
    assert.deepEqual(
      b.emitted().map(({ lane }) => lane),
      ["r"],
    );
    assert.equal(b.waiting, 0);
  });

  test("its own twins wait no longer, and are never promoted", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "p");
    send(b, ["a", "b"], "q");
    send(b, ["a"], "r");
    send(b, ["b"], "r");
    b.revoke("q");
    assert.equal(b.waiting, 1, "r waits for p");
    turn(b);
    const owner = b.output.shift() as Chunk;
    owner.settle(0, Outcome.deadLettered);
    turn(b);
    assert.deepEqual(
      b.emitted().flatMap(({ lane, value }) => (lane === "r" ? [(value as Item).id] : [])),
      ["b", "a"],
    );
    assert.equal(b.waiting, 0);
  });

  test("what still comes of it goes nowhere, and takes no id", () => {
    const b = bed({ missing: "pass" });
    const { input, output } = wired(dedup<Item>({ id: () => "a", scope: "topology" }), b);
    const late = b.sendValues([{ n: 0 }]);
    b.lane().end();
    input.next(late);
    assert.deepEqual(output, []);
    input.next(b.sendValues([{ n: 1 }], "q"));
    assert.equal(output.length, 1);
  });

  test("is told downstream after dedup has let go, and telling it twice is harmless", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "p");
    send(b, ["a"], "q");
    b.output.length = 0;
    const lane = b.lane("p");
    b.revoke("p");
    assert.deepEqual(b.output, [{ kind: "revoke", lane }]);
    assert.equal(b.waiting, 0);
    turn(b);
    assert.deepEqual(out(b), ["a"]);
  });

  test("many times over, with an owner that never ends: nothing of it stays behind", () => {
    const b = bed({ scope: "topology" });
    send(b, ["a"], "stuck");
    for (let epoch = 0; epoch < 50; epoch++) {
      send(b, ["a", "a"], "p");
      assert.equal(b.waiting, 2);
      b.revoke("p");
      assert.equal(b.waiting, 0);
    }
  });
});

describe("the end of the input", () => {
  test("comes after twins that were promoted and not yet sent", () => {
    const b = bed();
    send(b, ["a", "a"]);
    b.deliver(Outcome.deadLettered);
    b.complete();
    assert.deepEqual(out(b), ["a"]);
    assert.equal(b.completed, true);
  });

  test("waits for twins that wait", () => {
    const b = bed();
    send(b, ["a", "a", "b", "b"]);
    b.complete();
    assert.equal(b.completed, false);
    const chunk = b.output.shift() as Chunk;
    chunk.settle(2, Outcome.delivered);
    turn(b);
    assert.equal(b.completed, false);
    chunk.settle(0, Outcome.deadLettered);
    assert.equal(b.completed, false, "never inside the settlement");
    turn(b);
    assert.deepEqual(out(b), ["a"]);
    assert.equal(b.completed, true);
    b.deliver();
    assert.deepEqual(outcomes(b), ["deadLettered", "delivered", "delivered", "duplicate"]);
  });

  test("comes at once when nothing waits", () => {
    const b = bed();
    send(b, ["a"]);
    b.complete();
    assert.equal(b.completed, true);
    assert.deepEqual(outcomes(b), []);
  });

  test("by an error: it passes, nothing is settled, nothing more is sent", () => {
    const b = bed({ missing: "pass" });
    const { input, output, errors } = wired(dedup<Item>({ id: (item) => item.id as string }), b);
    const chunk = b.sendValues([{ n: 0 }, { n: 1 }, { n: 2 }]);
    chunk.values = [{ id: "a" }, { id: "b" }, { id: "b" }];
    input.next(chunk);
    (output.shift() as Chunk).settle(1, Outcome.returned);
    const gone = new Error("the disk is gone");
    input.error(gone);
    turn(b);
    assert.deepEqual(errors, [gone]);
    assert.deepEqual(output, []);
    assert.deepEqual(outcomes(b), [undefined, "returned"]);
  });
});

describe("the id", () => {
  test("missing: rejected, and never taken for another one's", () => {
    const b = bed();
    send(b, [undefined, null, "undefined", "null", undefined, ""]);
    assert.deepEqual(out(b), ["undefined", "null", ""]);
    assert.deepEqual(
      b.rejected.map(({ position, failure }) => [position, failure.class, failure.code]),
      [0, 1, 4].map((position) => [position, "business", "id-missing"]),
    );
  });

  test("missing: passes by choice, each one, and settles as it ends", () => {
    const b = bed({ missing: "pass" });
    send(b, [undefined, null, undefined, "a", "a"]);
    assert.equal(b.emitted().length, 4);
    assert.equal(b.deliver(), 4);
    assert.deepEqual(outcomes(b), ["delivered", "delivered", "delivered", "delivered", "duplicate"]);
    send(b, [null]);
    assert.equal(b.emitted().length, 1);
    assert.equal(b.rejected.length, 0);
  });

  test("of one kind is never that of another", () => {
    const b = bed();
    const ids = [
      "1",
      1,
      Buffer.from("1"),
      [1],
      ["1"],
      ["1", ""],
      ["", "1"],
      "",
      Buffer.alloc(0),
      true,
      "true",
    ];
    send(b, ids);
    assert.equal(b.emitted().length, ids.length - 1, "all but the boolean");
    assert.deepEqual(
      b.rejected.map(({ failure }) => failure.code),
      ["id-invalid"],
    );
    send(b, [1n]);
    assert.equal(b.waiting, 1, "1 and 1n are one number");
  });

  test("that a function returns as an unsafe number, a fraction or a promise is refused", () => {
    const b = bed();
    send(b, [2 ** 53, 1.5, Number.NaN, Promise.reject(new Error("late"))]);
    assert.deepEqual(
      b.rejected.map(({ failure }) => failure.code),
      ["id-invalid", "id-invalid", "id-invalid", "author-error"],
    );
  });

  test("by pointer is read from the bytes where a number is beyond 2^53", () => {
    const b = new OperatorBed(dedup({ id: "/id" }));
    const texts = [
      '{"id":9007199254740993}',
      '{"id":9007199254740992}',
      '{"id":9007199254740993}',
      '{"id":7}',
      '{"id":"7"}',
      "{}",
    ];
    const { input, output } = wired(dedup({ id: "/id" }), b);
    const chunk = new OperatorBed(dedup({ id: "/id", missing: "pass" })).send(
      texts.map((value) => ({ value })),
    );
    const decoded = chunk.share();
    decoded.state.fill(1);
    decoded.values = texts.map((text) => JSON.parse(text));
    input.next(decoded);
    assert.equal((output[0] as Chunk).live, 4);
    assert.equal(b.waiting, 1);
    assert.deepEqual(
      b.rejected.map(({ failure }) => [failure.code, failure.path]),
      [["id-missing", "/id"]],
    );
  });

  test("may be several fields that count together", () => {
    const b = new OperatorBed(dedup({ id: ["/a", "/b"] }));
    b.sendValues([{ a: "x", b: 1 }, { a: "x", b: 2 }, { a: "x", b: 1 }, { a: "x" }]);
    assert.equal(b.emitted().length, 2);
    assert.equal(b.waiting, 1);
    assert.equal(b.rejected[0]?.failure.code, "id-missing");
  });

  test("function that throws rejects its message alone; one that runs out of memory stops the run", () => {
    const b = bed({
      id: ({ id }) => {
        if (id === "bad") throw new TypeError("no such field");
        if (id === "oom") throw Object.assign(new Error("out of memory"), { code: "ENOMEM" });
        if (id === "own") throw new MillraceError("value-missing", "there is nothing");
        return id as string;
      },
    });
    send(b, ["a", "bad", "own", "b"]);
    assert.deepEqual(out(b), ["a", "b"]);
    assert.deepEqual(
      b.rejected.map(({ failure }) => [failure.class, failure.code]),
      [
        ["application", "author-error"],
        ["business", "value-missing"],
      ],
    );
    assert.deepEqual(b.failures, []);
    send(b, ["oom"]);
    assert.equal(b.failures.length, 1);
  });
});

test("every mistake in the options is named", () => {
  const messages = (options: unknown) =>
    dedup(options as DedupOptions).problems.map(({ message, remedy }) => `${message}; ${remedy}`);
  assert.match(messages({}).join(), /needs the option "id"/);
  assert.match(messages({ id: "/a", capacty: 1 }).join(), /did you mean "capacity"/);
  assert.match(messages({ id: "/a", scope: "lanes" }).join(), /did you mean "lane"/);
  assert.match(messages({ id: "/a", capacity: 0 }).join(), /"capacity"/);
  assert.match(messages({ id: "/a", ttl: "soon" }).join(), /not a duration/);
  assert.match(messages({ id: "/a", ttl: 0 }).join(), /under 1 ms/);
  assert.match(messages({ id: ["/a", "b"] }).join(), /did you mean "\/b"/);
  assert.match(messages({ id: [] }).join(), /"id"/);
  assert.deepEqual(messages({ id: "/a", capacity: 10, ttl: "10m", scope: "topology", missing: "pass" }), []);
  assert.deepEqual(dedup({ id: "/a" }).effect, { takes: "value", leaves: "same" });
  assert.deepEqual(dedup({ id: () => 1 }).effect, { takes: "any", leaves: "same" });
});
