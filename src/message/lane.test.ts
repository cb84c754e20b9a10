import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Lane, type LaneOptions } from "./lane.ts";
import { Outcome } from "./outcome.ts";
import { PlainRecords } from "./records.ts";

/** Records at the given positions, of `size` bytes each. */
function recordsAt(positions: readonly number[], size = 10): PlainRecords {
  return new PlainRecords(
    positions.map((position) => ({
      position,
      key: null,
      value: Buffer.alloc(size),
      headers: [],
      timestamp: 0,
    })),
  );
}

function openLane(options: Partial<LaneOptions> = {}) {
  const settled: [outcome: number, bytes: number][] = [];
  const progress: number[] = [];
  const lane = new Lane({
    origin: { source: "s", target: "t", partition: 3 },
    epoch: 1,
    ack: "cumulative",
    ledger: {
      taken: () => {},
      settled: (_lane, outcome, bytes) => settled.push([outcome, bytes]),
      branched: () => {},
    },
    onProgress: () => progress.push(lane.checkpoint),
    ...options,
  });
  const take = (...positions: number[]) => lane.take(recordsAt(positions), 0, positions.length);
  return { lane, settled, progress, take };
}

test("the checkpoint waits for the first unsettled message, whatever settles after it", () => {
  const { lane, take } = openLane();
  assert.equal(take(5, 6, 7), 0);
  lane.settle(2, Outcome.delivered);
  lane.settle(1, Outcome.filtered);
  assert.equal(lane.checkpoint, 5);
  assert.equal(lane.readCheckpoint(), undefined, "nothing to commit while the first is open");
  lane.settle(0, Outcome.delivered);
  assert.equal(lane.readCheckpoint(), 8);
  assert.equal(lane.readCheckpoint(), undefined, "told once");
  assert.equal(lane.span, 0);
});

test("gaps between offsets count as settled", () => {
  const { lane, take } = openLane();
  take(5, 9);
  lane.settle(0, Outcome.delivered);
  assert.equal(lane.checkpoint, 9);
  lane.settle(1, Outcome.delivered);
  assert.equal(lane.checkpoint, 10);
  lane.skipTo(12);
  assert.equal(lane.readCheckpoint(), 12, "control records at the end of the log");
  lane.skipTo(3);
  assert.equal(lane.checkpoint, 12, "never backwards");
});

test("a skip does not pass an unsettled message", () => {
  const { lane, take } = openLane();
  take(5);
  lane.skipTo(9);
  assert.equal(lane.checkpoint, 5);
  lane.settle(0, Outcome.delivered);
  assert.equal(lane.checkpoint, 9);
});

test("a second settlement, and one after the epoch's end, change nothing", () => {
  const { lane, settled, take } = openLane();
  take(0, 1, 2);
  lane.settle(1, Outcome.delivered);
  lane.settle(1, Outcome.deadLettered);
  assert.deepEqual(settled, [[Outcome.delivered, 10]]);
  lane.end();
  assert.deepEqual(settled.slice(1), [
    [Outcome.returned, 10],
    [Outcome.returned, 10],
  ]);
  lane.settle(0, Outcome.delivered);
  assert.equal(settled.length, 3);
  assert.equal(lane.checkpoint, 0, "what was returned is never committed");
  assert.equal(lane.inFlight, 0);
});

test("an individual lane hands out the contiguous part at once and the rest above the hole one by one", () => {
  const { lane, take } = openLane({ ack: "individual" });
  take(1, 2, 3, 4, 5);
  const acks: [number, boolean][] = [];
  const collect = (aboveHoles: boolean) => {
    acks.length = 0;
    lane.collectAcks(aboveHoles, (tag, multiple) => acks.push([tag, multiple]));
    return [...acks];
  };
  lane.settle(0, Outcome.delivered);
  lane.settle(1, Outcome.delivered);
  lane.settle(3, Outcome.delivered);
  assert.equal(lane.settledAboveHole, 1);
  assert.deepEqual(collect(false), [[2, true]]);
  assert.deepEqual(collect(true), [[4, false]]);
  assert.deepEqual(collect(true), [], "each once");
  lane.settle(2, Outcome.deadLettered);
  assert.deepEqual(collect(true), [[3, true]], "not 4, whose tag the broker no longer knows");
  lane.settle(4, Outcome.delivered);
  assert.deepEqual(collect(false), [[5, true]]);
});

test("what waits above a hole is counted without what was handed out, whatever the head passes", () => {
  const { lane, take } = openLane({ ack: "individual" });
  take(1, 2, 3, 4, 5);
  lane.settle(1, Outcome.delivered);
  lane.settle(3, Outcome.delivered);
  assert.equal(lane.settledAboveHole, 2);
  lane.collectAcks(true, () => {});
  assert.equal(lane.settledAboveHole, 0);
  lane.settle(0, Outcome.delivered);
  lane.settle(4, Outcome.delivered);
  assert.equal(lane.settledAboveHole, 1);
  lane.settle(2, Outcome.delivered);
  assert.equal(lane.settledAboveHole, 0);
});

test("a whole part that was acknowledged one by one is not acknowledged again", () => {
  const { lane, take } = openLane({ ack: "individual" });
  take(1, 2, 3);
  lane.settle(1, Outcome.delivered);
  lane.settle(2, Outcome.delivered);
  lane.collectAcks(true, () => {});
  lane.settle(0, Outcome.delivered);
  const acks: [number, boolean][] = [];
  lane.collectAcks(true, (tag, multiple) => acks.push([tag, multiple]));
  assert.deepEqual(acks, [[1, true]]);
});

/** A schedule of takes and settlements, in any order and with repeats. */
const schedule = fc.array(
  fc.oneof(
    { weight: 1, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 600 }), gap: fc.nat(3) }) },
    { weight: 4, arbitrary: fc.record({ settle: fc.nat(5_000) }) },
    { weight: 1, arbitrary: fc.record({ settleRun: fc.nat(5_000), length: fc.nat(800) }) },
  ),
  { maxLength: 60 },
);

test("property: no checkpoint passes an unsettled message, and none stays behind when all below are settled", () => {
  fc.assert(
    fc.property(schedule, (steps) => {
      const { lane, progress } = openLane();
      const positions: number[] = [];
      const settled = new Set<number>();
      let next = 0;
      for (const step of steps) {
        if ("take" in step) {
          const taken = Array.from(
            { length: step.take },
            (_, i) => next + i + (i > step.take / 2 ? step.gap : 0),
          );
          next = taken.at(-1)! + 1;
          assert.equal(lane.take(recordsAt(taken), 0, taken.length), positions.length);
          positions.push(...taken);
        } else if (positions.length > 0) {
          const first = ("settle" in step ? step.settle : step.settleRun) % positions.length;
          const length = "settle" in step ? 1 : step.length;
          for (let i = first; i < Math.min(positions.length, first + length); i++) {
            lane.settle(i, Outcome.delivered);
            settled.add(i);
          }
        }
        const open = positions.findIndex((_, i) => !settled.has(i));
        assert.equal(lane.checkpoint, open === -1 ? next : positions[open]);
        assert.equal(lane.inFlight, positions.length - settled.size);
        assert.equal(lane.bytesInFlight, 10 * lane.inFlight);
      }
      assert.deepEqual(
        progress,
        [...progress].sort((a, b) => a - b),
        "checkpoints only grow",
      );
    }),
  );
});

test("property: an individual lane acknowledges each settled message exactly once, and no other", () => {
  fc.assert(
    fc.property(schedule, fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }), (steps, above) => {
      const { lane } = openLane({ ack: "individual" });
      const outstanding = new Set<number>();
      const settled = new Set<number>();
      let next = 1;
      steps.forEach((step, at) => {
        if ("take" in step) {
          const tags = Array.from({ length: step.take }, (_, i) => next + i);
          next += step.take;
          lane.take(recordsAt(tags), 0, tags.length);
          for (const tag of tags) outstanding.add(tag);
        } else {
          const first = "settle" in step ? step.settle : step.settleRun;
          for (let i = first; i < first + ("settle" in step ? 1 : step.length) && i < next - 1; i++) {
            lane.settle(i, Outcome.delivered);
            settled.add(i + 1);
          }
        }
        lane.collectAcks(above[at]!, (tag, multiple) => {
          assert.ok(outstanding.has(tag), `tag ${tag} is not outstanding`);
          for (const other of multiple ? [...outstanding].filter((one) => one <= tag) : [tag]) {
            assert.ok(settled.has(other), `tag ${other} is acknowledged and not settled`);
            outstanding.delete(other);
          }
        });
      });
      lane.collectAcks(true, (tag, multiple) => {
        for (const other of multiple ? [...outstanding].filter((one) => one <= tag) : [tag])
          outstanding.delete(other);
      });
      for (const tag of settled)
        assert.ok(!outstanding.has(tag), `tag ${tag} is settled and not acknowledged`);
    }),
  );
});

test("offsets that the broker never shows move the checkpoint, and that is told, once nothing is in flight", () => {
  const { lane, progress, take } = openLane();
  lane.skipTo(4);
  assert.deepEqual(progress, [4]);
  assert.equal(lane.readCheckpoint(), 4);
  take(4);
  lane.skipTo(9);
  assert.equal(lane.readCheckpoint(), undefined, "a message below is open");
  lane.settle(0, Outcome.delivered);
  assert.equal(lane.readCheckpoint(), 9);
});

test("a lane that grows past its room keeps what is settled above the first open message", () => {
  const { lane } = openLane();
  const positions = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);
  lane.take(recordsAt(positions(0, 1_000)), 0, 1_000);
  for (let sequence = 1; sequence < 1_000; sequence++) lane.settle(sequence, Outcome.delivered);
  lane.take(recordsAt(positions(1_000, 3_000)), 0, 3_000);
  assert.equal(lane.checkpoint, 0);
  lane.settle(0, Outcome.delivered);
  assert.equal(lane.checkpoint, 1_000);
  assert.equal(lane.inFlight, 3_000);
  for (let sequence = 1_000; sequence < 4_000; sequence++) lane.settle(sequence, Outcome.delivered);
  assert.deepEqual([lane.checkpoint, lane.inFlight, lane.bytesInFlight], [4_000, 0, 0]);
});
