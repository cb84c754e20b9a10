import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Chunk } from "../message/chunk.ts";
import { Lane } from "../message/lane.ts";
import { PlainRecords } from "../message/records.ts";
import { identityOf, keyOf, unsafeAndChanged, unsafeAsWritten } from "./identity.ts";
import { JsonPointer, pointerProblem } from "./json-pointer.ts";

const ledger = { taken: () => {}, settled: () => {}, branched: () => {} };

function decoded(text: string): Chunk {
  const value = Buffer.from(text);
  const records = new PlainRecords([{ position: 0, key: null, value, headers: [], timestamp: 0 }]);
  const lane = new Lane({ origin: { source: "s", target: "t" }, epoch: 1, ack: "cumulative", ledger });
  const chunk = new Chunk(lane, lane, 0, 1, records, 0);
  chunk.values = [JSON.parse(text)];
  return chunk;
}
const exactly = (text: string, pointer: string) => new JsonPointer(pointer).readExactly(decoded(text), 0);

test("reads own fields and elements, and nothing that is inherited", () => {
  const value = { "a/b": 1, "m~n": 2, "": 3, lines: [{ qty: 4 }], é: 5, nothing: null };
  const read = (pointer: string) => new JsonPointer(pointer).read(value);
  assert.equal(read(""), value);
  assert.deepEqual(["/a~1b", "/m~0n", "/", "/lines/0/qty", "/é", "/nothing"].map(read), [
    1,
    2,
    3,
    4,
    5,
    null,
  ]);
  for (const pointer of [
    "/x",
    "/toString",
    "/__proto__",
    "/lines/length",
    "/lines/00",
    "/lines/-",
    "/lines/1",
    "/a~1b/x",
  ]) {
    assert.equal(read(pointer), undefined, pointer);
  }
});

test("says what is wrong with a pointer", () => {
  assert.match(pointerProblem("customer") ?? "", /did you mean "\/customer"/);
  assert.match(pointerProblem("/a~b") ?? "", /~0/);
  assert.equal(pointerProblem("/a~0b~1c"), undefined);
  assert.throws(() => new JsonPointer("x"), SyntaxError);
});

test("a whole number beyond 2^53 is read from the bytes, digit by digit", () => {
  assert.equal(exactly('{"id":9007199254740993}', "/id"), 9007199254740993n);
  assert.equal(
    exactly(' { "x" : [ "]" , {"id":1} , -12345678901234567890 ] } ', "/x/2"),
    -12345678901234567890n,
  );
  assert.equal(exactly("9007199254740993", ""), 9007199254740993n);
  assert.equal(exactly('{"\\u0069d":9007199254740993}', "/id"), 9007199254740993n);
  assert.equal(exactly('{"a\\"}":{},"id":9007199254740993}', "/id"), 9007199254740993n);
  assert.equal(exactly(`{"id":${"9".repeat(400)}}`, "/id"), BigInt("9".repeat(400)));
});

test("of members with one name the last counts, as for JSON.parse", () => {
  assert.equal(exactly('{"id":9007199254740995,"id":9007199254740993}', "/id"), 9007199254740993n);
  assert.equal(
    exactly('{"a":{"id":9007199254740995},"a":{"id":9007199254740993}}', "/a/id"),
    9007199254740993n,
  );
  assert.equal(exactly('{"id":9007199254740995,"id":"x"}', "/id"), "x");
});

test("what has no exact whole number is a fault that says why, and advises what was not done yet", () => {
  for (const written of ["1e20", "1e21", "12345678901234567894.0", "1.2345678901234567894e19", "1e400"]) {
    assert.equal(exactly(`{"id":${written}}`, "/id"), unsafeAsWritten, written);
  }
  assert.equal(exactly('{"id":1.5}', "/id"), 1.5);
  assert.equal(exactly('{"id":1e3}', "/id"), 1000);
  assert.equal(exactly(`{"id":${"9".repeat(2_000)}}`, "/id"), unsafeAsWritten);
  for (const fault of [unsafeAsWritten, unsafeAndChanged]) {
    assert.equal(keyOf(fault), fault);
    assert.equal(identityOf(fault), fault);
    assert.equal(identityOf(["a", fault]), fault);
    assert.doesNotMatch(fault.reason, /pointer/);
  }
  const changed = decoded('{"id":9007199254740993}');
  changed.changed = true;
  assert.equal(new JsonPointer("/id").readExactly(changed, 0), unsafeAndChanged);
});

test("finds in the bytes exactly what JSON.parse finds", () => {
  const big = fc.bigInt({ min: 2n ** 53n + 1n, max: 2n ** 70n }).map((n) => `${n}`);
  // Every number in the text is unsafe, and written so that its digits tell which one it is.
  const { json } = fc.letrec<{ json: string }>((tie) => ({
    json: fc.oneof(
      { maxDepth: 4 },
      big,
      fc.string({ unit: "binary" }).map((s) => JSON.stringify(s)),
      fc.constantFrom("true", "null", "[ ]", "{\t}"),
      fc.array(tie("json")).map((parts) => `[ ${parts.join(" ,\n")}]`),
      fc
        .array(fc.tuple(fc.constantFrom('"a"', '"\\u0061"', '"b\\\\"', '"é"', '"0"', '""'), tie("json")))
        .map((parts) => `{${parts.map(([name, part]) => `${name} :${part}`).join(", ")}}`),
    ),
  }));
  fc.assert(
    fc.property(json, fc.array(fc.constantFrom("a", "b\\", "é", "0", "1", "")), (text, steps) => {
      const pointer = steps.map((step) => `/${step}`).join("");
      const found = exactly(text, pointer);
      const texts: unknown = JSON.parse(text, (_key, value, context?: { source?: string }) =>
        typeof value === "number" ? `exact ${context?.source}` : value,
      );
      const expected = new JsonPointer(pointer).read(texts);
      if (typeof expected === "string" && expected.startsWith("exact ")) {
        assert.equal(`exact ${found}`, expected);
      } else assert.deepEqual(typeof found, typeof expected);
    }),
    { numRuns: 2_000 },
  );
});
