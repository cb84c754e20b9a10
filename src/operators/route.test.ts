import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Chunk } from "../message/chunk.ts";
import { Outcome } from "../message/outcome.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { filter } from "./filter.ts";
import { route } from "./route.ts";

/** A chunk of values on a bed of its own, and the bed. */
function chunkOf(values: readonly unknown[]): { bed: OperatorBed; chunk: Chunk } {
  const bed = new OperatorBed(filter(() => true));
  return { bed, chunk: bed.sendValues(values) };
}

const valuesIn = (chunk: Chunk | undefined) =>
  chunk === undefined
    ? []
    : Array.from({ length: chunk.length }, (_, i) => i).flatMap((i) =>
        chunk.state[i] === 1 ? [chunk.value(i)] : [],
      );

test("each message goes to the first branch whose predicate is true of it", () => {
  const { bed, chunk } = chunkOf([5, 50, 500]);
  const parts = route<number>({ big: (n) => n > 100, even: (n) => n % 2 === 0 }, { otherwise: "rest" }).build(
    bed.context,
  )(chunk);
  assert.deepEqual(parts.map(valuesIn), [[500], [50], [5]]);
});

test("one that no branch takes is rejected, and so is one whose predicate throws", () => {
  const { bed, chunk } = chunkOf([1, 2, 3]);
  const router = route<number>({
    one: (n) => {
      if (n === 3) throw new Error("three");
      return n === 1;
    },
  });
  assert.deepEqual(router.build(bed.context)(chunk).map(valuesIn), [[1]]);
  assert.deepEqual(
    bed.rejected.map(({ failure }) => [failure.code, failure.class]),
    [
      ["route-none", "business"],
      ["author-error", "application"],
    ],
  );
});

test("mistakes are told: no branch, no function, a branch named twice", () => {
  assert.match(route({}).problems[0]!.message, /no branches/);
  assert.match(route({ a: 1 as never }).problems[0]!.message, /"a" must be a function/);
  assert.match(route({ a: () => true }, { otherwise: "a" }).problems[0]!.message, /names the branch "a"/);
});

test("property: every message is in exactly one part, and settles from there", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20), { minLength: 1 }), (values) => {
      const { bed, chunk } = chunkOf(values);
      const router = route<number>({ a: (n) => n % 3 === 0, b: (n) => n % 3 === 1 }, { otherwise: "c" });
      const parts = router.build(bed.context)(chunk);
      assert.deepEqual(
        parts.map(valuesIn),
        [0, 1, 2].map((rest) => values.filter((n) => n % 3 === rest)),
      );
      parts.forEach((part, branch) => {
        if (part === undefined) return;
        for (let i = 0; i < part.length; i++)
          if (part.state[i] === 1) part.settle(i, branch === 0 ? Outcome.filtered : Outcome.delivered);
      });
      values.forEach((n, i) => {
        assert.equal(bed.outcomes.get(`t:${i}`), n % 3 === 0 ? "filtered" : "delivered");
      });
    }),
  );
});
