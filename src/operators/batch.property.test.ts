import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { propertyRuns } from "../testing/property-runs.ts";
import { batch } from "./batch.ts";
import { dedup } from "./dedup.ts";

/*
 * Messages of several sizes, keys and destinations come by several lanes; time passes, windows are flushed by hand, by
 * the runtime and by count, lanes end. Always:
 *
 *  1 a batch is not empty, has one destination, and is within its limits unless it is one message alone;
 *  2 a message comes out at most once, and never once its lane has ended;
 *  3 messages of one destination (with `per: "key"`, of one destination and key) come out in the order they came;
 *  4 nothing is kept at or beyond the deadline, `within` after its window's first message, nor after a flush;
 *  5 nothing comes out early: a window closes for its count, its bytes, `when`, its deadline, another's that is no more
 *    than a tenth of `within` before its own, or because it was told to;
 *  6 what is kept is counted as held, lane by lane, and there is a window for it, and a timer while there is a window.
 *
 * And at the end everything of living lanes has come out.
 */

type Per = "destination" | "key" | "all";

type Step =
  | { readonly op: "send"; readonly lane: number; readonly messages: readonly Shape[] }
  | { readonly op: "wait"; readonly ms: number }
  | { readonly op: "flush" }
  | { readonly op: "starve" }
  | { readonly op: "revoke"; readonly lane: number };

interface Shape {
  readonly size: number;
  readonly key: number;
  readonly destination: number;
  readonly last: boolean;
}

interface Sent extends Shape {
  readonly number: number;
  readonly lane: Lane;
  readonly at: number;
  state: "kept" | "out" | "gone";
}

interface Limits {
  readonly count: number;
  readonly bytes: number;
  readonly within: number;
  readonly per: Per;
}

const laneNames = ["p", "q", "r"];
const destinations: readonly Destination[] = [{ name: "0" }, { name: "1" }, { name: "2" }];
const keys = [null, Buffer.from("k"), Buffer.from("")];

class World {
  readonly bed: OperatorBed;
  readonly sent: Sent[] = [];
  readonly held = new Map<Lane, number>();
  readonly #limits: Limits;
  /** By window: what should be in it, in order. */
  readonly #model = new Map<string, Sent[]>();

  constructor(limits: Limits) {
    this.#limits = limits;
    this.bed = new OperatorBed(
      batch<Buffer>({ ...limits, when: ({ value }) => this.#messageOf(value).last }),
      {
        destinationOf: (chunk, index) => destinations[this.#messageOf(chunk.payload(index)!).destination]!,
      },
    );
    const counted = this.bed.context.held;
    this.bed.context.held = (lane, count) => {
      counted(lane, count);
      this.held.set(lane, (this.held.get(lane) ?? 0) + count);
    };
  }

  /** A message's bytes begin with its number. */
  #messageOf(payload: Buffer): Sent {
    return this.sent[payload.readUInt16BE(0)]!;
  }

  run(step: Step): void {
    const { clock } = this.bed.context;
    switch (step.op) {
      case "send":
        this.#send(laneNames[step.lane]!, step.messages);
        break;
      case "wait":
        clock.advance(step.ms);
        this.#expire(clock.now());
        break;
      case "flush":
        this.bed.flush();
        this.#model.clear();
        break;
      case "starve": {
        const windows = [...this.bed.windows];
        const oldest = windows[0];
        for (const window of windows) assert.ok(window.openedAt >= oldest!.openedAt);
        const first = this.#model.keys().next().value;
        oldest?.flush();
        if (first !== undefined) this.#model.delete(first);
        break;
      }
      case "revoke": {
        const lane = this.bed.lane(laneNames[step.lane]!);
        this.bed.revoke(laneNames[step.lane]!);
        for (const message of this.sent) if (message.lane === lane) message.state = "gone";
        for (const [name, messages] of this.#model) {
          const staying = messages.filter((message) => message.lane !== lane);
          if (staying.length === 0) this.#model.delete(name);
          else this.#model.set(name, staying);
        }
        assert.equal(this.held.get(lane) ?? 0, 0);
        break;
      }
    }
    this.#collect();
    this.#check();
  }

  /** In the order of their deadlines: one that is over takes along those that are nearly. */
  #expire(now: number): void {
    const { within } = this.#limits;
    const deadlines = [...this.#model.keys()]
      .map((name) => ({ name, at: this.#openedAt(name) + within }))
      .toSorted((a, b) => a.at - b.at);
    let until = Number.NEGATIVE_INFINITY;
    for (const { name, at } of deadlines) {
      if (at > until) {
        if (at > now) break;
        until = at + within / 10;
      }
      this.#model.delete(name);
    }
  }

  readonly #opened = new Map<string, number>();

  #openedAt(name: string): number {
    return this.#opened.get(name)!;
  }

  #send(name: string, shapes: readonly Shape[]): void {
    const lane = this.bed.lane(name);
    const messages = shapes.map(
      (shape, i): Sent => ({
        ...shape,
        number: this.sent.length + i,
        lane,
        at: this.bed.context.clock.now(),
        state: "kept",
      }),
    );
    this.sent.push(...messages);
    for (const message of messages) this.#place(message);
    this.bed.send(
      messages.map(({ number, size, key }) => {
        const value = Buffer.alloc(size);
        value.writeUInt16BE(number, 0);
        return { key: keys[key]!, value };
      }),
      name,
    );
  }

  /** By the book: which window the message goes to, and which close for it. */
  #place(message: Sent): void {
    const { count, bytes, per } = this.#limits;
    const name = { destination: `${message.destination}`, key: `${message.key}`, all: "" }[per];
    const sizeOf = (messages: readonly Sent[]) => messages.reduce((sum, one) => sum + bytesOf(one), 0);
    let window = this.#model.get(name) ?? [];
    if (window.length > 0 && sizeOf(window) + bytesOf(message) > bytes) window = [];
    if (window.length === 0) {
      this.#model.delete(name);
      this.#opened.set(name, message.at);
    }
    window.push(message);
    if (window.length >= count || sizeOf(window) >= bytes || message.last) this.#model.delete(name);
    else this.#model.set(name, window);
  }

  #collect(): void {
    const { count, bytes } = this.#limits;
    for (const item of this.bed.output.splice(0)) {
      assert.ok(!(item instanceof Chunk));
      if (!(item instanceof Batch)) continue;
      assert.ok(item.length > 0);
      assert.ok(item.length <= count);
      let size = 0;
      for (let entry = 0; entry < item.length; entry++) {
        const message = this.#messageOf(item.payload(entry)!);
        assert.equal(message.state, "kept");
        message.state = "out";
        assert.equal(item.destination, destinations[message.destination]);
        assert.equal(item.chunk(entry).lane, message.lane);
        this.#checkOrder(message);
        size += bytesOf(message);
        item.settle(entry, Outcome.delivered);
      }
      assert.equal(item.bytes, size);
      assert.ok(size <= bytes || item.length === 1);
    }
  }

  readonly #newest = new Map<string, number>();

  #checkOrder({ number, destination, key }: Sent): void {
    const domain = this.#limits.per === "key" ? `${destination} ${key}` : `${destination}`;
    assert.ok(number > (this.#newest.get(domain) ?? -1), "in the order they came");
    this.#newest.set(domain, number);
  }

  #check(): void {
    const kept = this.sent.filter(({ state }) => state === "kept");
    const expected = [...this.#model.values()].flat();
    assert.deepEqual(
      new Set(kept.map(({ number }) => number)),
      new Set(expected.map(({ number }) => number)),
    );
    const byLane = new Map<Lane, number>();
    for (const { lane } of kept) byLane.set(lane, (byLane.get(lane) ?? 0) + 1);
    for (const [lane, count] of this.held) assert.equal(count, byLane.get(lane) ?? 0);
    for (const [lane, count] of byLane) assert.equal(this.held.get(lane), count);
    assert.equal(this.bed.windows.size, this.#model.size);
    assert.equal(this.bed.context.clock.pending, this.#model.size > 0 ? 1 : 0);
  }

  finish(): void {
    this.bed.complete();
    this.#model.clear();
    this.#collect();
    this.#check();
    for (const { lane, state } of this.sent) assert.ok(lane.ended || state === "out");
    for (const name of laneNames) assert.equal(this.bed.lane(name).inFlight, 0);
    assert.ok([...this.bed.outcomes.values()].every((outcome) => outcome === "delivered"));
    assert.deepEqual([this.bed.held, this.bed.windows.size, this.bed.completed], [0, 0, true]);
  }
}

function bytesOf({ size, key }: Shape): number {
  return size + (keys[key]?.length ?? 0);
}

const shape: fc.Arbitrary<Shape> = fc.record({
  size: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: 2, max: 8 }) },
    { weight: 1, arbitrary: fc.constant(30) },
  ),
  key: fc.nat(keys.length - 1),
  destination: fc.nat(destinations.length - 1),
  last: fc.oneof({ weight: 15, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});
const lane = fc.nat(laneNames.length - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant("send" as const),
      lane,
      messages: fc.array(shape, { minLength: 1, maxLength: 6 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ op: fc.constant("wait" as const), ms: fc.constantFrom(0, 1, 2.5, 7, 20) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("flush" as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("starve" as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("revoke" as const), lane }) },
);

for (const per of ["destination", "key", "all"] as const) {
  test(`per ${per}: bounds, order, deadlines, and nothing lost`, () => {
    fc.assert(
      fc.property(
        fc.record({
          count: fc.integer({ min: 1, max: 7 }),
          bytes: fc.integer({ min: 1, max: 29 }),
          within: fc.constantFrom(0, 3, 10, 1_000),
        }),
        fc.array(step, { maxLength: 60, size: "max" }),
        (limits, steps) => {
          const world = new World({ ...limits, per });
          for (const each of steps) world.run(each);
          world.finish();
        },
      ),
      propertyRuns(),
    );
  });
}

/*
 * dedup before batch, as in most topologies: twins wait for owners that a window holds. Whatever happened before, a
 * drain (flush and settle until nothing is in flight, then complete) ends everything, each message once.
 */
test("behind dedup: a drain ends every message, and nothing is held or waits", () => {
  const sendOne = fc.record({
    op: fc.constant("send" as const),
    lane,
    ids: fc.array(fc.nat(5), { minLength: 1, maxLength: 6 }),
  });
  const sinkOne = fc.record({
    op: fc.constant("write" as const),
    outcomes: fc.array(fc.constantFrom<Outcome>(Outcome.delivered, Outcome.deadLettered), {
      minLength: 1,
      maxLength: 4,
    }),
  });
  const others = fc.oneof(
    fc.record({ op: fc.constant("wait" as const), ms: fc.nat(6) }),
    fc.record({ op: fc.constant("starve" as const) }),
    fc.record({ op: fc.constant("revoke" as const), lane }),
  );
  fc.assert(
    fc.property(
      fc.constantFrom("lane" as const, "topology" as const),
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.oneof(sendOne, sinkOne, others), { maxLength: 60, size: "max" }),
      (scope, count, steps) => {
        const first = dedup<{ id: number }>({ id: "/id", scope });
        const second = batch({ count, within: 5 });
        const bed = new OperatorBed({
          ...second,
          build: (context) => (source) => second.build(context)(first.build(context)(source)),
        });
        const lanes = new Set<Lane>();
        let sent = 0;
        let settled = 0;
        const laneOf = (number: number) => {
          const found = bed.lane(laneNames[number]!);
          if (lanes.has(found)) return found;
          lanes.add(found);
          const seen = new Set<number>();
          const { settle } = found;
          found.settle = (sequence, outcome) => {
            if (!found.ended) {
              assert.ok(!seen.has(sequence), "one outcome");
              seen.add(sequence);
              settled++;
            }
            settle.call(found, sequence, outcome);
          };
          return found;
        };
        const write = (outcomes: readonly Outcome[]) => {
          let n = 0;
          for (const item of bed.output.splice(0)) {
            if (!(item instanceof Batch)) continue;
            for (let entry = 0; entry < item.length; entry++)
              item.settle(entry, outcomes[n++ % outcomes.length]!);
          }
        };
        for (const each of steps) {
          if (each.op === "send") {
            laneOf(each.lane);
            sent += each.ids.length;
            bed.sendValues(
              each.ids.map((id) => ({ id })),
              laneNames[each.lane],
            );
          } else if (each.op === "write") write(each.outcomes);
          else if (each.op === "wait") bed.context.clock.advance(each.ms);
          else if (each.op === "starve") [...bed.windows][0]?.flush();
          else {
            sent -= laneOf(each.lane).inFlight;
            bed.revoke(laneNames[each.lane]);
          }
        }
        for (let n = 0; sent > settled; n++) {
          assert.ok(n < 100, "a drain comes to an end");
          bed.flush();
          write([Outcome.deadLettered, Outcome.delivered]);
          bed.context.clock.advance(0);
        }
        bed.complete();
        assert.equal(sent, settled);
        assert.deepEqual([bed.held, bed.waiting, bed.windows.size, bed.completed], [0, 0, 0, true]);
        bed.context.clock.advance(0);
        assert.equal(bed.context.clock.pending, 0);
      },
    ),
    propertyRuns(),
  );
});
