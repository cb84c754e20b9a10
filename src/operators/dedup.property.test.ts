import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { propertyRuns } from "../testing/property-runs.ts";
import { type DedupOptions, dedup } from "./dedup.ts";

/*
 * Messages of few ids come by several lanes, in chunks, while what came out is settled in any order and in any way,
 * lanes end, windows are flushed and time passes. Always:
 *
 *  1 a message comes out at most once, and has at most one outcome;
 *  2 of one id at most one message is out at a time (within the scope, in lanes that live);
 *  3 a duplicate is only settled after a message of its id was delivered or filtered, in its scope;
 *  4 nothing comes out whose id was delivered before, while nothing was forgotten;
 *  5 what neither came out nor is settled waits for one that is out, and is counted as waiting, lane by lane.
 *
 * And at the end, when all that came out is settled: every message of a living lane has its outcome, and nothing waits.
 */

interface Sent {
  readonly id: string;
  readonly lane: Lane;
  position: number;
  state: "given" | "out" | "settled";
}

type Step =
  | { readonly op: "send"; readonly lane: number; readonly ids: readonly number[] }
  | { readonly op: "settle"; readonly pick: number; readonly outcome: Outcome }
  | { readonly op: "settleLate"; readonly pick: number; readonly outcome: Outcome }
  | { readonly op: "revoke"; readonly lane: number }
  | { readonly op: "wait"; readonly ms: number }
  | { readonly op: "flush" };

const goodEnds: ReadonlySet<Outcome> = new Set([Outcome.delivered, Outcome.filtered]);
const laneNames = ["p", "q", "r"];

class World {
  readonly bed: OperatorBed;
  readonly sent: Sent[] = [];
  readonly out: { readonly message: Sent; readonly chunk: Chunk; readonly index: number }[] = [];
  readonly late: { readonly chunk: Chunk; readonly index: number }[] = [];
  readonly waiting = new Map<Lane, number>();
  /** Ids with a good end: by lane, or for all. */
  readonly done = new Map<Lane | "all", Set<string>>();
  readonly #options: DedupOptions<{ n: number }>;
  readonly #watched = new Set<Lane>();
  readonly #numbers = new Map<Lane, Sent[]>();

  constructor(options: Partial<DedupOptions<{ n: number }>>) {
    this.#options = { id: "/id", ...options };
    this.bed = new OperatorBed(dedup(this.#options));
    const counted = this.bed.context.waiting;
    this.bed.context.waiting = (lane, count) => {
      counted(lane, count);
      this.waiting.set(lane, (this.waiting.get(lane) ?? 0) + count);
    };
  }

  doneIn(lane: Lane): Set<string> {
    const scope = this.#options.scope === "topology" ? "all" : lane;
    const ids = this.done.get(scope) ?? new Set<string>();
    this.done.set(scope, ids);
    return ids;
  }

  run(step: Step): void {
    switch (step.op) {
      case "send":
        this.#send(laneNames[step.lane]!, step.ids);
        break;
      case "settle": {
        const [item] = this.out.splice(step.pick % Math.max(1, this.out.length), 1);
        item?.chunk.settle(item.index, step.outcome);
        break;
      }
      case "settleLate": {
        const item = this.late[step.pick % Math.max(1, this.late.length)];
        item?.chunk.settle(item.index, step.outcome);
        break;
      }
      case "revoke":
        this.#revoke(laneNames[step.lane]!);
        break;
      case "wait":
        this.bed.context.clock.advance(step.ms);
        break;
      case "flush":
        this.bed.flush();
        break;
    }
    this.#collect();
    this.#check();
  }

  #send(name: string, ids: readonly number[]): void {
    const lane = this.bed.lane(name);
    const numbers = this.#watch(lane);
    const messages = ids.map((n): Sent => ({ id: `${n}`, lane, position: -1, state: "given" }));
    numbers.push(...messages);
    this.sent.push(...messages);
    const chunk = this.bed.sendValues(
      messages.map(({ id }) => ({ id })),
      name,
    );
    for (let i = 0; i < messages.length; i++) messages[i]!.position = chunk.position(i);
  }

  #revoke(name: string): void {
    const lane = this.bed.lane(name);
    this.#watch(lane);
    const theirs = this.out.filter(({ message }) => message.lane === lane);
    this.late.push(...theirs);
    const staying = this.out.filter(({ message }) => message.lane !== lane);
    this.out.splice(0, this.out.length, ...staying);
    this.bed.revoke(name);
    assert.equal(this.waiting.get(lane) ?? 0, 0, "a lane that ended waits for nothing");
  }

  /** Sees every settlement as the lane does. */
  #watch(lane: Lane): Sent[] {
    const numbers = this.#numbers.get(lane) ?? [];
    this.#numbers.set(lane, numbers);
    if (this.#watched.has(lane)) return numbers;
    this.#watched.add(lane);
    const settle = lane.settle;
    lane.settle = (sequence, outcome) => {
      if (!lane.ended) {
        const message = numbers[sequence]!;
        assert.notEqual(message.state, "settled", "one outcome");
        message.state = "settled";
        if (goodEnds.has(outcome)) this.doneIn(lane).add(message.id);
        if (outcome === Outcome.duplicate) {
          assert.ok(this.doneIn(lane).has(message.id), "no duplicate of what has not arrived");
        }
      }
      settle.call(lane, sequence, outcome);
    };
    return numbers;
  }

  #collect(): void {
    for (const item of this.bed.output.splice(0)) {
      if (!(item instanceof Chunk)) continue;
      assert.ok(item.live > 0, "no empty chunk");
      const numbers = this.#numbers.get(item.lane)!;
      for (let i = 0; i < item.length; i++) {
        if (item.state[i] === 0) continue;
        const message: Sent = numbers.find(({ position }) => position === item.position(i))!;
        assert.equal((item.value(i) as { id: string }).id, message.id);
        assert.ok(!item.lane.ended, "nothing of an ended lane comes out");
        assert.equal(message.state, "given", "comes out once");
        message.state = "out";
        if (this.#remembersAll)
          assert.ok(!this.doneIn(item.lane).has(message.id), "the id was delivered before");
        this.out.push({ message, chunk: item, index: i });
      }
    }
  }

  get #remembersAll(): boolean {
    return (this.#options.capacity ?? 1_000) >= 1_000 && this.#options.ttl === undefined;
  }

  #check(): void {
    const scopeOf = (lane: Lane) => (this.#options.scope === "topology" ? "all" : lane);
    const out = new Set<unknown>();
    const placed = (message: Sent) => `${laneNames.indexOf(message.lane.name)} ${message.id}`;
    for (const { message } of this.out) {
      const mark = scopeOf(message.lane) === "all" ? message.id : placed(message);
      assert.ok(!out.has(mark), "one of an id at a time");
      out.add(mark);
    }
    if (this.bed.context.clock.pending > 0) return;
    const kept = new Map<Lane, number>();
    for (const message of this.sent) {
      if (message.state !== "given" || message.lane.ended) continue;
      kept.set(message.lane, (kept.get(message.lane) ?? 0) + 1);
      const mark = scopeOf(message.lane) === "all" ? message.id : placed(message);
      assert.ok(out.has(mark), "whatever waits, waits for one that is out");
    }
    for (const [lane, count] of this.waiting) assert.equal(count, kept.get(lane) ?? 0, lane.name);
    for (const [lane, count] of kept) assert.equal(this.waiting.get(lane) ?? 0, count, lane.name);
  }

  /** Everything that comes out is settled until nothing more does. */
  finish(outcomes: readonly Outcome[], ending: "quiet" | "complete"): void {
    if (ending === "complete") {
      this.bed.complete();
      this.#collect();
    }
    for (let n = 0; this.out.length > 0 || this.bed.context.clock.pending > 0; n++) {
      this.run({ op: "settle", pick: n * 7, outcome: outcomes[n % outcomes.length]! });
      this.run({ op: "wait", ms: 1 });
    }
    for (const { lane, state } of this.sent) assert.ok(lane.ended || state === "settled", "everything ends");
    for (const lane of this.#numbers.keys()) if (!lane.ended) assert.equal(lane.inFlight, 0);
    assert.equal(this.bed.waiting, 0);
    assert.equal(this.bed.completed, ending === "complete");
    assert.deepEqual(this.bed.failures, []);
  }
}

const outcome = fc.constantFrom<Outcome>(
  Outcome.delivered,
  Outcome.delivered,
  Outcome.filtered,
  Outcome.deadLettered,
  Outcome.deadLettered,
  Outcome.returned,
);
const lane = fc.nat(laneNames.length - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant("send" as const),
      lane,
      ids: fc.array(fc.nat(4), { minLength: 1, maxLength: 6 }),
    }),
  },
  { weight: 8, arbitrary: fc.record({ op: fc.constant("settle" as const), pick: fc.nat(50), outcome }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("settleLate" as const), pick: fc.nat(50), outcome }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("revoke" as const), lane }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant("wait" as const), ms: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("flush" as const) }) },
);
const memories: fc.Arbitrary<Pick<DedupOptions, "capacity" | "ttl">> = fc.constantFrom(
  {},
  {},
  { capacity: 1 },
  { capacity: 3 },
  { ttl: 2 },
);

for (const scope of ["lane", "topology"] as const) {
  test(`scope ${scope}: one of an id at a time, none lost, none called a duplicate too early`, () => {
    fc.assert(
      fc.property(
        memories,
        fc.array(step, { maxLength: 80, size: "max" }),
        fc.array(outcome, { minLength: 1, maxLength: 5 }),
        fc.constantFrom("quiet" as const, "complete" as const),
        (memory, steps, outcomes, ending) => {
          const world = new World({ ...memory, scope });
          for (const each of steps) world.run(each);
          world.finish(outcomes, ending);
        },
      ),
      propertyRuns(1_500),
    );
  });
}
