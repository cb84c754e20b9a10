import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Operator } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { filter } from "./filter.ts";
import { map } from "./map.ts";
import { reject } from "./reject.ts";

const bedOf = (operator: Operator<never, unknown>) => new OperatorBed(operator);

test("a predicate that throws, or answers later, decides nothing: its message alone is rejected", () => {
  const bed = bedOf(
    filter<number>((n) => {
      if (n === 1) throw new TypeError("bad number");
      return (n === 2 ? Promise.resolve(true) : true) as boolean;
    }),
  );
  bed.sendValues([0, 1, 2, 3]);
  assert.deepEqual(
    bed.emitted().map(({ value }) => value),
    [0, 3],
  );
  assert.deepEqual(
    bed.rejected.map(({ failure }) => [failure.class, failure.code]),
    [
      ["application", "author-error"],
      ["application", "author-error"],
    ],
  );
  assert.match(bed.rejected[0]!.failure.message, /predicate of filter threw TypeError: bad number/);
});

test("a predicate may look at the whole message", () => {
  const bed = bedOf(filter<unknown>((_, message) => message.origin.position === 1));
  bed.sendValues(["a", "b"]);
  assert.deepEqual(
    bed.emitted().map(({ value }) => value),
    ["b"],
  );
});

test("reject gives its reason", () => {
  const bed = bedOf(reject<number>((n) => n < 0, "the number is negative"));
  bed.sendValues([1, -1, 2]);
  assert.deepEqual(
    bed.emitted().map(({ value }) => value),
    [1, 2],
  );
  const { failure } = bed.rejected[0]!;
  assert.deepEqual(
    [failure.class, failure.code, failure.message],
    ["business", "rule-broken", "the number is negative"],
  );
});

test("a wrong option is a problem, not an exception", () => {
  assert.equal(filter("x" as never).problems[0]?.code, "option-invalid");
  assert.equal(reject(() => true, "").problems[0]?.code, "option-invalid");
});

test("property: each message goes on, or is filtered, in order and once", () => {
  fc.assert(
    fc.property(fc.array(fc.array(fc.integer(), { minLength: 1 })), (chunks) => {
      const bed = bedOf(filter<number>((n) => n % 3 !== 0));
      for (const values of chunks) bed.sendValues(values);
      const all = chunks.flat();
      assert.deepEqual(
        bed.emitted().map(({ value }) => value),
        all.filter((n) => n % 3 !== 0),
      );
      bed.deliver();
      all.forEach((n, i) => {
        assert.equal(bed.outcomes.get(`t:${i}`), n % 3 === 0 ? "filtered" : "delivered");
      });
    }),
  );
});

test("types: a predicate sees the type that flows in, and leaves it", () => {
  const pipe = <A, B, C>(_first: Operator<A, B>, _second: Operator<B, C>) => {};
  const orders = map<unknown, { amount: number }>(() => ({ amount: 1 }));
  pipe(
    orders,
    filter((o) => o.amount > 1),
  );
  pipe(
    orders,
    // @ts-expect-error no such field
    filter((o) => o.amout > 1),
  );
  pipe(
    orders,
    // @ts-expect-error no such field
    reject((o) => o.amout < 0, "negative"),
  );
  const texts: Operator<string | number, string> = filter((value) => typeof value === "string");
  // @ts-expect-error what is left may be a number
  const wrong: Operator<string | number, string> = filter((value: string | number) => value !== 1);
  assert.deepEqual([...texts.problems, ...wrong.problems], []);
});
