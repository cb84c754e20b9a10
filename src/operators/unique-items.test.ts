import assert from "node:assert/strict";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { brokenRule, compileSchema } from "./json-schema.ts";

const { validate } = compileSchema({ uniqueItems: true }, false);

test("equal as JSON is equal: numbers by value, members in any order, text never a number", () => {
  const unique = (...items: unknown[]) => validate!(items) === true;
  assert.ok(unique(1, "1", true, null, [1], { a: 1 }, '{"a":1}', "[1]", "null"));
  assert.ok(!unique(0, -0));
  assert.ok(!unique({ a: 1, b: [{ c: null, d: 2 }] }, { b: [{ d: 2, c: null }], a: 1 }));
  assert.ok(unique([1, 2], [2, 1]));
  assert.ok(unique({ a: "b,c" }, { a: "b", c: "" }));
  assert.equal(compileSchema({ uniqueItems: false }, false).validate!([1, 1]), true);
});

test("the rule that is broken is told in ajv's words, with where", () => {
  const { validate: nested } = compileSchema({ properties: { list: { uniqueItems: true } } }, false);
  assert.equal(nested!({ list: [{ a: 1 }, 2, { a: 1 }] }), false);
  assert.deepEqual(brokenRule(nested!.errors), {
    path: "/list",
    rule: "must NOT have duplicate items (items ## 0 and 2 are identical)",
  });
});

test("property: a list is unique exactly if no two of its items are equal", () => {
  // Few different values, so that equal ones are common. 0 and -0 are one number.
  const item = fc
    .jsonValue({ maxDepth: 2, depthSize: "small" })
    .map((value) => JSON.parse(JSON.stringify(value)));
  fc.assert(
    fc.property(
      fc.array(fc.oneof(item, fc.constantFrom(1, "1", null, {}, [])), { maxLength: 8 }),
      (items) => {
        const twice = items.some((one, i) =>
          items.slice(i + 1).some((other) => isDeepStrictEqual(one, other)),
        );
        assert.equal(validate!(items), !twice);
      },
    ),
  );
});

test("each member is read once, however many items there are", () => {
  let reads = 0;
  const items = Array.from({ length: 1_000 }, (_, id) => ({
    get id() {
      reads++;
      return id;
    },
  }));
  assert.equal(validate!(items), true);
  assert.equal(reads, 1_000);
});
