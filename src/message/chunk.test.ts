import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Chunk, Fork, Split } from "./chunk.ts";
import { KeyWriter } from "./key-column.ts";
import { Lane } from "./lane.ts";
import { Outcome } from "./outcome.ts";
import { PlainRecords } from "./records.ts";

function chunkOf(count: number) {
  const outcomes: (Outcome | undefined)[] = new Array(count).fill(undefined);
  let parts = 0;
  const lane = new Lane({
    origin: { source: "s", target: "t" },
    epoch: 1,
    ack: "cumulative",
    ledger: {
      taken: (_lane, taken) => {
        parts += taken;
      },
      settled: () => {
        parts--;
      },
      branched: (_lane, more) => {
        parts += more;
      },
    },
  });
  const records = new PlainRecords(
    Array.from({ length: count }, (_, position) => ({
      position,
      key: Buffer.from(`k${position}`),
      value: Buffer.from(`v${position}`),
      headers: [],
      timestamp: position,
    })),
  );
  lane.take(records, 0, count);
  const owner = {
    settle(sequence: number, outcome: Outcome) {
      outcomes[sequence] ??= outcome;
      lane.settle(sequence, outcome);
    },
  };
  return { chunk: new Chunk(lane, owner, 0, count, records, 0), outcomes, parts: () => parts };
}

test("columns that were never written are read from the records", () => {
  const { chunk } = chunkOf(2);
  assert.equal(chunk.value(1)?.toString(), "v1");
  assert.equal(chunk.key(1)?.toString(), "k1");
  assert.equal(chunk.payload(1)?.toString(), "v1");
  assert.deepEqual([chunk.keyLength(1), chunk.payloadLength(1), chunk.payloadText(1)], [2, 2, "v1"]);
  assert.equal(chunk.payloadSize(1), 4);
  const keys = new KeyWriter(2);
  keys.write(1, "new");
  chunk.keys = keys.finish();
  assert.equal(chunk.key(0), null);
  assert.equal(chunk.single(1).key(0)?.toString(), "new");
  assert.deepEqual([chunk.keyLength(0), chunk.keyLength(1)], [-1, 3]);
  chunk.payloads = [null, Buffer.from("other")];
  assert.deepEqual([chunk.payloadSize(0), chunk.payloadSize(1)], [0, 8]);
  assert.deepEqual([chunk.payloadText(0), chunk.payloadText(1)], ["", "other"]);
  assert.equal(chunk.single(1).position(0), 1);
});

test("a branch has columns of its own", () => {
  const { chunk } = chunkOf(2);
  chunk.values = ["a", "b"];
  const copy = new Fork(chunk, 1).branch();
  (copy.values as unknown[])[0] = "changed";
  copy.takeOut(1);
  assert.equal(chunk.value(0), "a");
  assert.equal(chunk.live, 2);
  assert.equal(copy.live, 1);
});

test("property: a fan-out settles a message once all branches have, with the worst outcome", () => {
  const outcome = fc.constantFrom<Outcome>(1, 2, 3, 4, 6);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }).chain((branches) =>
        fc.record({
          branches: fc.constant(branches),
          ends: fc.array(fc.array(outcome, { minLength: branches, maxLength: branches }), {
            minLength: 1,
            maxLength: 8,
          }),
          seed: fc.infiniteStream(fc.nat()),
        }),
      ),
      ({ branches, ends, seed }) => {
        const { chunk, outcomes, parts } = chunkOf(ends.length);
        const fork = new Fork(chunk, branches);
        const copies = Array.from({ length: branches }, () => fork.branch());
        assert.equal(parts(), ends.length * branches);
        const moves = ends.flatMap((list, index) => list.map((end, branch) => ({ index, branch, end })));
        const left = ends.map(() => branches);
        while (moves.length > 0) {
          const [move] = moves.splice(seed.next().value! % moves.length, 1);
          const { index, branch, end } = move!;
          assert.equal(outcomes[index], undefined, "not before the last branch");
          copies[branch]!.settle(index, end);
          left[index]!--;
          if (left[index] === 0) assert.equal(outcomes[index], Math.max(...ends[index]!));
        }
        assert.equal(parts(), 0);
      },
    ),
  );
});

test("a branch that tells an outcome twice does not tell that of another", () => {
  const { chunk, outcomes, parts } = chunkOf(1);
  const fork = new Fork(chunk, 2);
  const [one, other] = [fork.branch(), fork.branch()];
  one.settle(0, Outcome.delivered);
  one.settle(0, Outcome.delivered);
  assert.deepEqual([outcomes[0], parts()], [undefined, 1]);
  other.settle(0, Outcome.deadLettered);
  assert.deepEqual([outcomes[0], parts()], [Outcome.deadLettered, 0]);
});

test("a parent settles once all children have, with the worst outcome, and a repeated child counts once", () => {
  const { chunk, outcomes, parts } = chunkOf(2);
  const split = new Split(chunk, 1, 3);
  assert.equal(parts(), 4);
  split.settle(0, Outcome.delivered);
  split.settle(0, Outcome.delivered);
  split.settle(2, Outcome.deadLettered);
  assert.equal(outcomes[1], undefined);
  split.settle(1, Outcome.filtered);
  assert.equal(outcomes[1], Outcome.deadLettered);
  assert.equal(outcomes[0], undefined);
  assert.equal(parts(), 1);
});

test("a message that is taken out and then settled is one that travels no longer, not two", () => {
  const { chunk, outcomes } = chunkOf(3);
  chunk.takeOut(0);
  chunk.takeOut(0);
  chunk.settle(0, Outcome.filtered);
  assert.deepEqual([chunk.live, outcomes[0]], [2, Outcome.filtered]);
});
