import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Outcome, outcomeNames } from "../message/outcome.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { fanOut } from "./fan-out.ts";
import { filter } from "./filter.ts";

const chunkOf = (values: readonly unknown[]) => {
  const bed = new OperatorBed(filter(() => true));
  return { bed, chunk: bed.sendValues(values) };
};

test("a branch's columns are its own, the records are not copied", () => {
  const { chunk } = chunkOf(["a", "b"]);
  const [left, right] = fanOut(chunk, 2);
  left!.values![0] = "changed";
  left!.takeOut(1);
  assert.deepEqual([right!.value(0), right!.live, left!.live], ["a", 2, 1]);
  assert.equal(left!.records, chunk.records);
});

test("property: a message settles when all its branches have, with the worst of their outcomes", () => {
  const outcome = fc.constantFrom(...Object.values(Outcome));
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }).chain((branches) =>
        fc.record({
          outcomes: fc.array(fc.array(outcome, { minLength: branches, maxLength: branches }), {
            minLength: 1,
            maxLength: 5,
          }),
          gone: fc.nat(5),
          seed: fc.nat(),
        }),
      ),
      ({ outcomes, gone, seed }) => {
        const { bed, chunk } = chunkOf(outcomes);
        // One may have been taken out before it branched.
        if (gone < chunk.length) chunk.settle(gone, Outcome.filtered);
        const branches = fanOut(chunk, outcomes[0]!.length);
        const settlements = outcomes.flatMap((own, index) =>
          own.map((outcome, branch) => ({ index, branch, outcome })),
        );
        settlements.sort(
          (a, b) => ((a.index * 7 + a.branch * 13 + seed) % 11) - ((b.index * 7 + b.branch * 13 + seed) % 11),
        );
        const open = outcomes.map((own) => own.length);
        for (const { index, branch, outcome } of settlements) {
          if (branches[branch]!.state[index] === 0) continue;
          branches[branch]!.settle(index, outcome);
          assert.equal(bed.outcomes.has(`t:${index}`), --open[index]! === 0);
        }
        outcomes.forEach((own, index) => {
          const expected = index === gone ? Outcome.filtered : Math.max(...own);
          assert.equal(bed.outcomes.get(`t:${index}`), outcomeNames[expected]);
        });
        assert.equal(bed.lane().inFlight, 0);
      },
    ),
  );
});
