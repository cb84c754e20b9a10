import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Operator } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { decode } from "./decode.ts";
import { encode } from "./encode.ts";

/** Encodes one value, through the column that `decode` would have made. */
function encoded(operator: Operator<never, unknown>, value: unknown) {
  const bed = new OperatorBed(operator);
  const chunk = bed.sendValues([value]);
  return { bed, bytes: chunk.payload(0), failure: bed.rejected[0]?.failure };
}

test("what encode writes, decode reads: JSON, text and bytes", () => {
  const back = (format: "json", payload: Buffer) => {
    const bed = new OperatorBed(decode(format));
    bed.send([{ value: payload }]);
    return bed.emitted()[0]?.value;
  };
  const value = fc
    .jsonValue({ stringUnit: "binary" })
    .filter((v) => !JSON.stringify(v).includes("__proto__"));
  fc.assert(
    fc.property(value, (value) => {
      const expected = JSON.parse(JSON.stringify(value));
      assert.deepEqual(back("json", encoded(encode("json"), value).bytes!), expected);
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      assert.equal(back("text" as "json", encoded(encode("text"), text).bytes!), text);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.deepEqual(back("bytes" as "json", encoded(encode("bytes"), bytes).bytes!), Buffer.from(bytes));
    }),
  );
});

test("a lone surrogate survives in JSON, as an escape", () => {
  assert.equal(encoded(encode("json"), "a\ud800").bytes?.toString(), '"a\\ud800"');
});

test("what cannot be written is rejected with the reason, which quotes nothing", () => {
  const circle: Record<string, unknown> = {};
  circle.hunter2 = circle;
  const deep = Array.from({ length: 100_000 }).reduce<unknown>((inner) => [inner], 0);
  const bad = { toJSON: () => assert.fail("hunter2") };
  const reasons = [
    [encode("json"), circle, /refers to itself/],
    [encode("json"), { a: 1n }, /bigint/],
    [encode("json"), undefined, /undefined/],
    [encode("json"), () => 1, /function/],
    [encode("json"), deep, /too deep/],
    [encode("json"), bad, /toJSON/],
    [encode("text"), "a\udc00", /surrogate/],
    [encode("text"), 7, /number, not a string/],
    [encode("text"), null, /null/],
    [encode("bytes"), "a", /string, not a Buffer/],
    [encode("bytes"), null, /null/],
  ] as const;
  for (const [operator, value, reason] of reasons) {
    const { bed, failure } = encoded(operator, value);
    assert.equal(failure?.code, "encode-failed");
    assert.equal(failure.class, "business");
    assert.match(failure.message, reason);
    assert.doesNotMatch(failure.message, /hunter/);
    assert.deepEqual(bed.emitted(), []);
    assert.deepEqual(bed.outcomes.get("t:0"), "deadLettered");
  }
});

test("null is the JSON text null, or a tombstone where the author says so", () => {
  assert.equal(encoded(encode("json"), null).bytes?.toString(), "null");
  for (const operator of [
    encode("json", { nullValue: "pass" }),
    encode("text", { nullValue: "pass" }),
    encode("bytes", { nullValue: "pass" }),
  ]) {
    assert.equal(encoded(operator, null).bytes, null);
  }
});

test("afterwards the bytes are the value, and match", () => {
  const bed = new OperatorBed(encode("json"));
  const chunk = bed.sendValues([{ a: 1 }, undefined, { b: 2 }]);
  assert.deepEqual(chunk.value(0), Buffer.from('{"a":1}'));
  assert.equal(chunk.changed, false);
  assert.deepEqual(
    bed.emitted().map(({ payload }) => payload),
    ['{"a":1}', '{"b":2}'],
  );
});

test("types: text wants strings, and null only where it may pass", () => {
  const takes = <T>(operator: Operator<T, unknown>, value: T) => [operator, value];
  takes(encode("text"), "a");
  takes(encode("text", { nullValue: "pass" }), null);
  // @ts-expect-error null cannot be text
  takes<string | null>(encode("text"), null);
  // @ts-expect-error a number is no text
  takes<number>(encode("text"), 1);
});
