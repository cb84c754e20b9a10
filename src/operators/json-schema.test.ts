import assert from "node:assert/strict";
import { test } from "node:test";
import { brokenRule, compileSchema } from "./json-schema.ts";

const draft2019 = "https://json-schema.org/draft/2019-09/schema";
const draft2020 = "https://json-schema.org/draft/2020-12/schema";

/** Whether the value follows the schema, which must have no mistake. */
function follows(schema: object | boolean, value: unknown): boolean {
  const { validate, problems } = compileSchema(schema, false);
  assert.deepEqual(problems, []);
  return validate!(value) === true;
}
const problemsOf = (schema: object) =>
  compileSchema(schema, false).problems.map(({ path, message, remedy }) => `${path} ${message}: ${remedy}`);

test("the dialect is what $schema says, draft-07 without it", () => {
  const tuple = [{ type: "string" }];
  assert.equal(follows({ items: tuple, additionalItems: false }, ["a", 1]), false);
  assert.equal(follows({ $schema: draft2020, prefixItems: tuple, items: false }, ["a", 1]), false);
  assert.equal(follows({ $schema: draft2020, prefixItems: tuple }, ["a", 1]), true);
  assert.equal(follows({ $schema: draft2019, dependentRequired: { a: ["b"] } }, { a: 1 }), false);
  for (const uri of [
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema#",
  ]) {
    assert.equal(follows({ $schema: uri, id: "http://example.org/x", const: 1 }, 1), true, uri);
  }
  assert.match(
    problemsOf({ $schema: "http://json-schema.org/draft-04/schema#" })[0]!,
    /^\/\$schema "http.*draft-04/,
  );
  assert.match(
    problemsOf({ prefixItems: tuple })[0]!,
    /^ "prefixItems" is no word of draft-07: it is one of draft 2019-09|2020-12/,
  );
  assert.match(problemsOf({ prefixItems: tuple })[0]!, /draft\/2020-12\/schema/);
});

test("booleans are schemas", () => {
  assert.equal(follows(true, 1), true);
  assert.equal(follows(false, 1), false);
});

test("words that nobody knows are ignored; those that look misspelt are told, wherever a schema stands", () => {
  const fine = {
    "x-owner": "sales",
    discriminator: { propertyName: "type" },
    example: 1,
    id: "order",
    comment: "none",
    properties: { requierd: { type: "string" }, pattern: true },
    default: { typ: 1 },
    enum: [{ itmes: 1 }],
  };
  assert.deepEqual(problemsOf(fine), []);
  assert.deepEqual(
    problemsOf({
      definitions: { "a/b": { minlenght: 1 } },
      allOf: [{ not: { propertis: {} } }],
      items: [{ Type: "string" }],
      properties: {
        day: { format: "datetime" },
        at: { format: "date-tme" },
        to: { format: "emial" },
        other: { format: "colour" },
      },
    }),
    [
      '/definitions/a~1b "minlenght" is no word of draft-07: did you mean "minLength"?',
      '/allOf/0/not "propertis" is no word of draft-07: did you mean "properties"?',
      '/items/0 "Type" is no word of draft-07: did you mean "type"?',
      '/properties/day/format "datetime" is no known format: did you mean "date-time"?',
      '/properties/at/format "date-tme" is no known format: did you mean "date-time"?',
      '/properties/to/format "emial" is no known format: did you mean "email"?',
    ],
  );
});

test("patterns are checked where they stand", () => {
  const problems = problemsOf({
    properties: { a: { pattern: "(" } },
    patternProperties: { "(a)\\1": true },
  });
  assert.match(problems[1]!, /^\/properties\/a\/pattern Invalid regular expression/);
  assert.match(problems[0]!, /^\/patternProperties the pattern .* refers back/);
  assert.equal(follows({ patternProperties: { "^[a-z]+$": { type: "number" } } }, { abc: "1" }), false);
});

test("references within are followed, those beyond are never fetched", () => {
  assert.equal(
    follows({ definitions: { n: { type: "number" } }, items: { $ref: "#/definitions/n" } }, ["a"]),
    false,
  );
  assert.match(
    problemsOf({ $ref: "http://127.0.0.1:1/x.json" })[0]!,
    /can't resolve reference.*nothing is fetched/,
  );
  assert.match(
    problemsOf({ $ref: "#/definitions/none" })[0]!,
    /can't resolve reference #\/definitions\/none/,
  );
});

test("only own properties count, numbers are finite, a schema that would answer later is none", () => {
  assert.equal(follows({ required: ["toString", "__proto__"] }, {}), false);
  assert.equal(follows({ type: "number" }, Number.POSITIVE_INFINITY), false);
  assert.match(problemsOf({ $async: true })[0]!, /\$async/);
});

test("a text much longer than any URL is none, at once", () => {
  const url = { format: "url" };
  assert.equal(follows(url, "https://example.org/a"), true);
  assert.equal(follows(url, `http://${":".repeat(1_000_000)}`), false);
});

test("a schema is compiled once for each object", () => {
  const schema = { type: "number" };
  assert.equal(compileSchema(schema, false), compileSchema(schema, false));
  assert.notEqual(compileSchema(schema, false), compileSchema(schema, true));
});

test("of a broken choice the whole is told, of a condition the part that is broken, and no value ever", () => {
  const broken = (schema: object, value: unknown) => {
    const { validate } = compileSchema(schema, false);
    assert.equal(validate!(value), false);
    return brokenRule(validate!.errors);
  };
  const qty = { required: ["qty"] };
  assert.deepEqual(broken({ properties: { a: { anyOf: [{ type: "string" }, qty] } } }, { a: {} }), {
    path: "/a",
    rule: "follows none of the schemas in anyOf",
  });
  const conditional = { if: false, else: qty };
  assert.deepEqual(broken(conditional, {}), { path: "", rule: "must have required property 'qty'" });
  const secret = "hunter2";
  for (const schema of [
    { const: 1 },
    { enum: ["a"] },
    { pattern: "^a" },
    { maxLength: 2 },
    { format: "date" },
    { type: "number" },
    { not: {} },
    { oneOf: [{}, {}] },
  ]) {
    assert.doesNotMatch(broken(schema, secret).rule, /hunter/);
  }
  assert.doesNotMatch(broken({ additionalProperties: false }, { [secret]: 1 }).rule, /hunter/);
  assert.doesNotMatch(broken({ propertyNames: { maxLength: 2 } }, { [secret]: 1 }).rule, /hunter/);
});
