import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compositeTextOf, identityOf, isFault, keyOf } from "./identity.ts";

const part = fc.oneof(
  fc.string({ unit: fc.constantFrom("_", ",", ":", "-", "0", "1", "a", "\0", "é", "😀") }),
  fc.maxSafeInteger(),
  fc.bigInt(),
  fc.constant(null),
);
const id = fc.oneof(
  part,
  fc.uint8Array({ maxLength: 4 }).map((bytes) => Buffer.from(bytes)),
  fc.array(
    part.filter((p) => p !== null),
    { minLength: 1, maxLength: 4 },
  ),
);

/** What tells two parts of a key apart: numbers count as their digits. */
const partText = (value: unknown) => (value === null ? "null" : `text ${String(value)}`);

test("a key is text, bytes as they are, or decimal digits", () => {
  const bytes = Buffer.from([0, 255]);
  assert.equal(keyOf(bytes), bytes);
  assert.equal(keyOf("é"), "é");
  assert.equal(keyOf(""), "");
  assert.equal(keyOf(-12), "-12");
  assert.equal(keyOf(-0), "0");
  assert.equal(keyOf(9007199254740993n), "9007199254740993");
});

test("what is no key says why, and missing is told from invalid", () => {
  const faultOf = (value: unknown) => {
    const result = keyOf(value);
    assert.ok(isFault(result));
    assert.deepEqual(identityOf(value), result);
    return result;
  };
  assert.equal(faultOf(undefined).kind, "missing");
  assert.equal(faultOf(null).kind, "missing");
  assert.match(faultOf(2 ** 53).reason, /JSON pointer/);
  assert.match(faultOf(Number.POSITIVE_INFINITY).reason, /whole number/);
  assert.match(faultOf(1.5).reason, /whole number/);
  assert.match(faultOf("a\ud800").reason, /surrogate/);
  assert.match(faultOf(Promise.resolve("a")).reason, /promise/);
  for (const value of [true, {}, () => "a", Symbol("a")]) assert.equal(faultOf(value).kind, "invalid");
});

test("composite keys: no two lists of fields give one text", () => {
  fc.assert(
    fc.property(fc.array(part, { maxLength: 4 }), fc.array(part, { maxLength: 4 }), (a, b) => {
      const same = a.length === b.length && a.every((_, i) => partText(a[i]) === partText(b[i]));
      assert.equal(compositeTextOf(a, undefined) === compositeTextOf(b, undefined), same);
    }),
    {
      numRuns: 2_000,
      examples: [
        [["a", "b"], ["a,1:b"]],
        [[""], [null]],
        [[], [""]],
        [["-,"], [null]],
      ],
    },
  );
});

test("composite keys have the stated form", () => {
  assert.equal(compositeTextOf(["hé", 7, null, ""], undefined), "3:hé,1:7,-,0:,");
  assert.equal(compositeTextOf(["t", "p_q", 3n], "_"), "t_p_q_3");
  assert.equal(compositeTextOf(["", ""], "_"), "_");
});

test("a composite key refuses undefined always, and null where it has no form", () => {
  const refused = (parts: unknown[], join?: string) => {
    const result = compositeTextOf(parts, join);
    assert.ok(isFault(result));
    return result.kind;
  };
  assert.equal(refused(["a", undefined]), "missing");
  assert.equal(refused(["a", null], "_"), "missing");
  assert.equal(refused(["a", 0.5]), "invalid");
});

test("dedup ids: equal for equal ids and for no others, kinds kept apart", () => {
  const known = (value: unknown): string => {
    if (Array.isArray(value)) return `[${value.map(known).join()}]`;
    if (Buffer.isBuffer(value)) return `bytes ${value.toString("hex")}`;
    return typeof value === "string" ? `text ${JSON.stringify(value)}` : `number ${value}`;
  };
  const sound = id.filter((value) => value !== null);
  fc.assert(
    fc.property(sound, sound, (a, b) => {
      const [left, right] = [identityOf(a), identityOf(b)];
      assert.ok(!isFault(left) && !isFault(right));
      assert.equal(left === right, known(a) === known(b));
    }),
    {
      numRuns: 2_000,
      examples: [
        ["1", 1],
        ["\0n1", 1],
        ["\0s", "\0s\0s"],
        [["a"], "a"],
        [["s1:a"], ["a"]],
      ],
    },
  );
});

test("a dedup id without one of its fields is missing, never shared by all that lack it", () => {
  for (const value of [["a", null], ["a", undefined], []]) {
    const result = identityOf(value);
    assert.ok(isFault(result));
    assert.equal(result.kind, "missing");
  }
});
