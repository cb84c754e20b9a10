import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { CreditOptions } from "../component/source.ts";
import { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";
import { PlainRecords } from "../message/records.ts";
import { SimulatedClock } from "../testing/clock.ts";
import { LaneIntake } from "./intake.ts";

function open(options: Partial<CreditOptions> = {}) {
  const clock = new SimulatedClock();
  const emitted: (Chunk | Control)[] = [];
  let quiet = 0;
  const intake = new LaneIntake(
    "s",
    { messages: 100, bytes: 1e6, span: 400, chunk: 10, ...options },
    clock,
    () => {
      quiet++;
    },
  );
  intake.stream.subscribe((item) => emitted.push(item));
  let epoch = 0;
  const positions = new Map<Lane, number>();
  const lane = (target: string, onDrained?: (lane: Lane) => void) => {
    const opened = intake.open({
      origin: { target },
      epoch: ++epoch,
      ack: "cumulative",
      ...(onDrained === undefined ? {} : { onDrained }),
    });
    positions.set(opened, 0);
    return opened;
  };
  const offer = (to: Lane, count: number, size = 10) => {
    const from = positions.get(to)!;
    positions.set(to, from + count);
    intake.offer(
      to,
      new PlainRecords(
        Array.from({ length: count }, (_, i) => ({
          position: from + i,
          key: null,
          value: Buffer.alloc(size),
          headers: [],
          timestamp: 0,
        })),
      ),
    );
    while (clock.step());
  };
  const chunks = () => emitted.filter((item) => item instanceof Chunk);
  return { clock, intake, emitted, chunks, lane, offer, quiet: () => quiet };
}

const settleAll = (chunks: readonly Chunk[], outcome: Outcome = Outcome.delivered) => {
  for (const chunk of chunks) for (let i = 0; i < chunk.length; i++) chunk.settle(i, outcome);
};

test("no more than the credit is in flight, and what waits comes as credit returns", () => {
  const { clock, intake, chunks, lane, offer } = open();
  const drained: Lane[] = [];
  const one = lane("a", (it) => drained.push(it));
  offer(one, 250);
  assert.equal(intake.credit.inFlight, 100);
  assert.equal(intake.waiting(one), 150);
  assert.deepEqual(drained, []);
  settleAll(chunks());
  assert.equal(intake.credit.inFlight, 0, "not inside the settlement");
  while (clock.step());
  assert.equal(intake.credit.inFlight, 100);
  settleAll(chunks());
  while (clock.step());
  settleAll(chunks());
  assert.equal(intake.waiting(one), 0);
  assert.deepEqual(drained, [one]);
  assert.equal(intake.credit.conservation().delivered, 250);
  assert.equal(one.checkpoint, 250);
});

test("intake resumes only when a decent chunk fits", () => {
  const { clock, chunks, lane, offer } = open({ messages: 40, chunk: 20 });
  offer(lane("a"), 100);
  assert.equal(chunks().length, 2);
  chunks()[0]!.settle(0, Outcome.delivered);
  while (clock.step());
  assert.equal(chunks().length, 2, "one message of credit is not worth a chunk");
  for (let i = 1; i < 10; i++) chunks()[0]!.settle(i, Outcome.delivered);
  while (clock.step());
  assert.equal(chunks()[2]!.length, 10, "a quarter of the pool is");
});

test("one lane that takes all it can leaves the others their reserve", () => {
  const { chunks, intake, lane, offer } = open({ messages: 100 });
  const greedy = lane("a");
  const other = lane("b");
  offer(greedy, 500);
  assert.equal(greedy.inFlight, 70, "its own quarter and the shared half, by whole chunks");
  offer(other, 500);
  assert.equal(other.inFlight, 30, "the other's reserve was kept, and what the first left over");
  assert.equal(intake.credit.inFlight, 100);
  assert.ok(chunks().every((chunk) => chunk.length > 0));
});

test("a lane whose checkpoint stands still is cut to its reserve", () => {
  const { clock, chunks, lane, offer } = open({ messages: 100 });
  const stuck = lane("a");
  const moving = lane("b");
  offer(stuck, 500);
  clock.advance(5_001);
  // All but its first message settle: credit is free, yet the checkpoint stands.
  for (const chunk of chunks())
    for (let i = 0; i < chunk.length; i++) if (chunk.first + i > 0) chunk.settle(i, Outcome.delivered);
  while (clock.step());
  assert.ok(stuck.inFlight <= 25, `${stuck.inFlight} in flight`);
  offer(moving, 100);
  assert.ok(moving.inFlight >= 70, `${moving.inFlight} in flight`);
});

test("a lane stops at its span, whatever credit is free", () => {
  const { clock, chunks, intake, lane, offer } = open({ messages: 100, span: 120 });
  const only = lane("a");
  offer(only, 1_000);
  for (let round = 0; round < 20; round++) {
    for (const chunk of chunks())
      for (let i = 0; i < chunk.length; i++) if (chunk.first + i > 0) chunk.settle(i, Outcome.delivered);
    while (clock.step());
  }
  assert.ok(only.span <= 120);
  assert.ok(intake.credit.inFlight < 100);
  chunks()[0]!.settle(0, Outcome.delivered);
  while (clock.step());
  assert.ok(only.checkpoint > 100);
});

test("a message larger than all byte credit comes through alone", () => {
  const { clock, chunks, lane, offer } = open({ bytes: 100 });
  const only = lane("a");
  offer(only, 1, 5_000);
  offer(only, 3, 10);
  assert.deepEqual(
    chunks().map((chunk) => chunk.length),
    [1],
  );
  settleAll(chunks());
  while (clock.step());
  assert.deepEqual(
    chunks().map((chunk) => chunk.length),
    [1, 3],
  );
});

test("credit is for the whole flow: however many lanes there are, no more is in flight, and each gets its turn", () => {
  const { clock, intake, chunks, lane, offer } = open({ messages: 1 });
  const lanes = Array.from({ length: 8 }, (_, i) => lane(`lane-${i}`));
  for (const each of lanes) offer(each, 5);
  for (let next = 0; next < 40; next++) {
    assert.equal(intake.credit.inFlight, 1);
    settleAll(chunks().slice(next));
    while (clock.step());
  }
  assert.deepEqual([intake.waitingCount, intake.credit.inFlight], [0, 0]);
});

test("byte credit is for the whole flow too, and exceeded by no more than one message", () => {
  const { clock, intake, chunks, lane, offer } = open({ bytes: 1_000 });
  const lanes = Array.from({ length: 32 }, (_, i) => lane(`lane-${i}`));
  for (const each of lanes) offer(each, 3, 900);
  for (let next = 0; next < 96 && intake.waitingCount > 0; ) {
    assert.ok(intake.credit.bytesInFlight <= 2_000, `${intake.credit.bytesInFlight} bytes in flight`);
    const due = chunks().slice(next);
    assert.ok(due.length > 0, "something is always in flight");
    next += due.length;
    settleAll(due);
    while (clock.step());
  }
  assert.equal(intake.waitingCount, 0);
});

test("what is offered after someone threw who was told that a lane is drained still comes through", () => {
  const { clock, intake, chunks, lane, offer } = open({ messages: 20 });
  const one = lane("a", () => {
    throw new Error("the consumer is gone");
  });
  assert.throws(() => offer(one, 5), { message: "the consumer is gone" });
  const other = lane("b");
  offer(other, 40);
  for (let round = 0; round < 10; round++) {
    settleAll(chunks());
    while (clock.step());
  }
  assert.deepEqual([intake.waiting(other), other.checkpoint], [0, 40]);
});

test("an ended lane is told downstream; its waiting records go, its messages are returned", () => {
  const { emitted, chunks, intake, lane, offer } = open({ messages: 20 });
  const old = lane("a");
  offer(old, 50);
  intake.end(old);
  assert.deepEqual(emitted.at(-1), { kind: "revoke", lane: old });
  assert.equal(intake.credit.conservation().returned, 20);
  assert.equal(intake.credit.inFlight, 0);
  settleAll(chunks());
  assert.equal(intake.credit.conservation().delivered, 0, "a late settlement does nothing");
  const fresh = lane("a");
  offer(fresh, 50);
  assert.equal(fresh.inFlight, 20, "its credit is free again");
});

test("after a stop nothing more comes, and the books stay open for what is in flight", () => {
  const { clock, chunks, intake, lane, offer } = open({ messages: 20 });
  const only = lane("a");
  offer(only, 50);
  intake.stop();
  settleAll(chunks());
  while (clock.step());
  offer(only, 5);
  assert.equal(chunks().length, 2);
  assert.equal(only.checkpoint, 20);
  assert.equal(intake.waiting(only), 0);
});

test("starved is when nothing may come in and everything in flight is held or waits", () => {
  const { chunks, intake, lane, offer, quiet } = open({ messages: 20 });
  offer(lane("a"), 50);
  const { credit } = intake;
  assert.equal(credit.starved, false);
  credit.addHeld(15);
  assert.equal(credit.starved, false, "five are on their way");
  assert.equal(quiet(), 0);
  credit.addWaiting(5);
  assert.equal(credit.starved, true);
  assert.equal(quiet(), 1);
  credit.addHeld(-15);
  settleAll(chunks().slice(0, 1));
  assert.equal(credit.starved, false);
});

test("held messages starve nobody while there is credit, nor while something is on its way", () => {
  const { intake, lane, offer, quiet } = open({ messages: 20 });
  offer(lane("a"), 10);
  intake.credit.addHeld(10);
  assert.deepEqual([intake.credit.starved, quiet()], [false, 0], "ten more may come");
  offer(lane("b"), 30);
  assert.equal(intake.credit.starved, false, "what came last is on its way");
  intake.credit.addWaiting(intake.credit.inFlight - 10);
  assert.equal(intake.credit.starved, true);
});

test("a message in several parts starves its flow only when all its parts are held, and an ended lane's count no more", () => {
  const { intake, lane, offer } = open({ messages: 20 });
  const { credit } = intake;
  const ending = lane("ending");
  offer(ending, 20);
  credit.branched(ending, 20);
  credit.addHeld(20);
  assert.equal(credit.starved, false, "the other parts are on their way");
  credit.addHeld(20);
  assert.equal(credit.starved, true);
  credit.addHeld(-40);
  intake.end(ending);
  offer(lane("next"), 30);
  credit.addHeld(20);
  assert.equal(credit.starved, true, "nothing of the ended lane is waited for");
});

test("lanes that wait for the same credit get it in turn", () => {
  const { clock, chunks, intake, lane, offer } = open({ messages: 12, chunk: 2 });
  const lanes = [lane("a"), lane("b"), lane("c")];
  for (const each of lanes) offer(each, 300);
  for (let next = 0; next < 90; next++) {
    settleAll(chunks().slice(next, next + 1));
    while (clock.step());
  }
  const passed = lanes.map((each) => each.passed);
  assert.ok(Math.max(...passed) - Math.min(...passed) <= 20, `${passed}`);
  assert.equal(
    intake.credit.bytesInFlight,
    lanes.reduce((sum, each) => sum + each.bytesInFlight, 0),
  );
});

test("more lanes than credit share it: no more is in flight than may be", () => {
  const { clock, chunks, intake, lane, offer } = open({ messages: 4, chunk: 2 });
  const lanes = Array.from({ length: 9 }, (_, i) => lane(`lane ${i}`));
  for (const each of lanes) offer(each, 3);
  assert.equal(intake.credit.inFlight, 4);
  for (let round = 0; round < 100 && intake.waitingCount > 0; round++) {
    settleAll(chunks());
    while (clock.step());
    assert.ok(intake.credit.inFlight <= 4, `${intake.credit.inFlight} in flight`);
  }
  assert.equal(intake.waitingCount, 0, "and every lane gets its turn");
});

test("property: accepted = sum of outcomes + in flight, within the limits, whatever happens", () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("offer" as const),
      lane: fc.nat(2),
      count: fc.integer({ min: 1, max: 40 }),
      size: fc.integer({ min: 0, max: 60 }),
    }),
    fc.record({
      kind: fc.constant("settle" as const),
      chunk: fc.nat(),
      from: fc.nat(9),
      outcome: fc.constantFrom<Outcome>(1, 2, 3, 4),
    }),
    fc.record({ kind: fc.constant("end" as const), lane: fc.nat(2) }),
    fc.record({ kind: fc.constant("time" as const), ms: fc.nat(8_000) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { clock, chunks, intake, lane, offer } = open({ messages: 30, bytes: 1_000, span: 60 });
      const lanes = [lane("a"), lane("b"), lane("c")];
      for (const it of steps) {
        if (it.kind === "offer") offer(lanes[it.lane]!, it.count, it.size);
        else if (it.kind === "end") {
          intake.end(lanes[it.lane]!);
          lanes[it.lane] = lane("again");
        } else if (it.kind === "time") clock.advance(it.ms);
        else {
          const all = chunks();
          const chunk = all[it.chunk % Math.max(1, all.length)];
          if (chunk !== undefined) for (let i = it.from; i < chunk.length; i++) chunk.settle(i, it.outcome);
          while (clock.step());
        }
        const { accepted, inFlight, ...ended } = intake.credit.conservation();
        assert.equal(accepted, inFlight + Object.values(ended).reduce((sum, count) => sum + count, 0));
        assert.ok(inFlight <= 30, `${inFlight} in flight`);
        assert.equal(
          inFlight,
          intake.lanes.reduce((sum, one) => sum + one.inFlight, 0),
        );
        assert.equal(
          intake.credit.bytesInFlight,
          intake.lanes.reduce((sum, one) => sum + one.bytesInFlight, 0),
        );
        for (const one of intake.lanes) assert.ok(one.span <= 60);
      }
      // Liveness: once everything settles, everything offered to a living lane comes through.
      for (let round = 0; round < 500 && intake.waitingCount + intake.credit.inFlight > 0; round++) {
        settleAll(chunks());
        while (clock.step());
      }
      assert.equal(intake.waitingCount, 0);
      assert.equal(intake.credit.inFlight, 0);
      assert.equal(intake.credit.held, 0);
    }),
  );
});
