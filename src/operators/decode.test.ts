import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { OperatorBed } from "../testing/operator-bed.ts";
import { decode } from "./decode.ts";

const cases = readFileSync(new URL("../../test/data/json-parsing/cases.tsv", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .slice(1)
  .map((line) => {
    const [name, base64] = line.split("\t") as [string, string];
    return { name, bytes: Buffer.from(base64, "base64") };
  });

/** Decodes one value: what came out, or the code of its rejection. */
function json(value: Buffer | string, options: Parameters<typeof decode>[1] = {}) {
  const bed = new OperatorBed(decode("json", options));
  bed.send([{ value }]);
  const [rejected] = bed.rejected;
  if (rejected === undefined) return { value: bed.emitted()[0]?.value };
  assert.deepEqual(bed.emitted(), []);
  return rejected.failure;
}
const code = (result: ReturnType<typeof json>) => ("code" in result ? result.code : undefined);

test("accepts and refuses what JSON's test suite says", () => {
  assert.equal(cases.length, 40);
  const accepted = cases.filter(({ bytes }) => code(json(bytes)) === undefined).map(({ name }) => name);
  const mayBe = ["i_number_real_pos_overflow", "i_string_invalid_lonely_surrogate"];
  assert.deepEqual(
    accepted,
    cases.map(({ name }) => name).filter((name) => name.startsWith("y_") || mayBe.includes(name)),
  );
});

test("gives the value that JSON.parse gives", () => {
  const value = fc.oneof(fc.jsonValue({ stringUnit: "binary" }), fc.jsonValue());
  fc.assert(
    fc.property(value, (value) => {
      const text = JSON.stringify(value);
      if (text.includes("__proto__")) return;
      assert.deepEqual(json(text), { value: JSON.parse(text) });
    }),
  );
});

test("refuses bytes exactly when they are not valid UTF-8, U+FFFD itself being valid", () => {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.string({ unit: fc.constantFrom("\ufffd", "a", "é", "😀") }).map((text) => Buffer.from(text)),
    fc.array(fc.constantFrom(0xef, 0xbf, 0xbd, 0xc3, 0xa9, 0x61)).map((list) => Buffer.from(list)),
  );
  fc.assert(
    fc.property(bytes, (bytes) => {
      const bed = new OperatorBed(decode("text"));
      bed.send([{ value: Buffer.from(bytes) }]);
      let expected: string | undefined;
      try {
        expected = strict.decode(bytes);
      } catch {}
      assert.equal(bed.emitted()[0]?.value, expected);
      assert.equal(bed.rejected[0]?.failure.code, expected === undefined ? "utf8-invalid" : undefined);
    }),
    { numRuns: 1_000 },
  );
});

test("a bad value in the middle of a chunk is rejected and its neighbours go on in order", () => {
  const bed = new OperatorBed(decode("json"));
  bed.send([{ value: "1" }, { value: '{"a":' }, { value: Buffer.from([0x22, 0xff, 0x22]) }, { value: "4" }]);
  assert.deepEqual(
    bed.emitted().map(({ position, value }) => [position, value]),
    [
      [0, 1],
      [3, 4],
    ],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.class, failure.code]),
    [
      [1, "business", "json-invalid"],
      [2, "business", "utf8-invalid"],
    ],
  );
  assert.equal(bed.outcomes.get("t:1"), "deadLettered");
});

test("100,000 opening brackets are a business error", () => {
  assert.equal(code(json("[".repeat(100_000))), "json-too-deep");
  assert.equal(code(json('{"a":'.repeat(100_000))), "json-too-deep");
});

test("depth is counted in nesting, not in brackets, and not inside strings", () => {
  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  assert.equal(code(json(nested(64))), undefined);
  assert.equal(code(json(nested(65))), "json-too-deep");
  assert.equal(code(json(nested(65), { maxDepth: 65 })), undefined);
  assert.equal(code(json(`[${"[{}],".repeat(500)}0]`)), undefined);
  assert.equal(code(json(JSON.stringify('\\"[{'.repeat(100)))), undefined);
  assert.equal(
    code(json(JSON.stringify({ '"[': nested(65), deep: JSON.parse(nested(64)) }))),
    "json-too-deep",
  );
});

test("a key __proto__ is refused however it is written; such text elsewhere, and constructor, are harmless", () => {
  assert.equal(code(json('{"__proto__":{"admin":true}}')), "json-forbidden-key");
  assert.equal(code(json('[{"a":[{"\\u005f_\\u0070roto__":1}]}]')), "json-forbidden-key");
  assert.equal(code(json('{"__PROTO__":1,"a":"__proto__","b":"\\u005f"}')), undefined);
  const result = json('{"constructor":{"prototype":{"admin":true}}}');
  assert.ok("value" in result);
  assert.equal(Object.getPrototypeOf(result.value), Object.prototype);
  assert.equal(Object.getOwnPropertyDescriptor(Object.prototype, "admin"), undefined);
});

test("a missing value is rejected, or passes as null where the author says so", () => {
  const rejecting = new OperatorBed(decode("bytes"));
  rejecting.send([{ value: null }, { value: "" }]);
  assert.equal(rejecting.rejected[0]?.failure.code, "value-missing");
  assert.deepEqual(
    rejecting.emitted().map(({ value }) => value),
    [Buffer.alloc(0)],
  );
  const passing = new OperatorBed(decode("json", { nullValue: "pass" }));
  passing.send([{ value: null }, { value: "null" }]);
  assert.deepEqual(
    passing.emitted().map(({ value }) => value),
    [null, null],
  );
  assert.deepEqual(passing.rejected, []);
});

test("a value over the limit is rejected unparsed", () => {
  assert.equal(code(json('"123"', { maxBytes: 4 })), "value-too-large");
  assert.equal(code(json('"12"', { maxBytes: "4B" })), undefined);
});

test("errors say where, and never quote the value", () => {
  const failures = [
    '{"secret":"hunter2" x}',
    "[hunter2]",
    '"hunter2',
    '{"hunter2',
    '{"hunter2" at position 7',
    '{"hunter2":1}hunter2',
  ].map((value) => json(value));
  for (const failure of failures) {
    assert.ok("message" in failure);
    assert.doesNotMatch(failure.message, /hunter|secret/);
  }
  assert.deepEqual(
    failures.map((failure) => ("message" in failure ? failure.message.replace(/^.*JSON/, "") : "")),
    [
      ": see character 21",
      "",
      ": see character 9",
      ": see character 10",
      ": see character 12",
      ": see character 14",
    ],
  );
});

test("mistakes in the options are kept for the compiler", () => {
  const problems = (options: object) => decode("json", options).problems.map(({ message }) => message);
  assert.deepEqual(problems({ maxDepth: 5, maxBytes: "1MiB" }), []);
  assert.match(problems({ maxByte: 5 })[0] ?? "", /maxByte/);
  assert.match(problems({ maxBytes: "many" })[0] ?? "", /size/);
  assert.equal(decode("xml" as "json").problems.length, 1);
});

test("types: what comes out is what the format says", () => {
  const text: { types?: (value: Buffer | null) => string } = decode("text");
  const nullable: { types?: (value: Buffer | null) => string | null } = decode("text", { nullValue: "pass" });
  // @ts-expect-error null can pass
  const wrong: { types?: (value: Buffer | null) => string } = decode("text", { nullValue: "pass" });
  // @ts-expect-error JSON is unknown until it is validated
  const json: { types?: (value: Buffer | null) => string } = decode("json");
  assert.deepEqual([text, nullable, wrong, json].length, 4);
});
