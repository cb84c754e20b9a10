import assert from "node:assert/strict";
import { test } from "node:test";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Operator } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { map } from "./map.ts";
import type { SchemaValue } from "./schema-value.ts";
import { validate } from "./validate.ts";

const order = {
  type: "object",
  required: ["id", "lines"],
  properties: {
    id: { type: "string" },
    status: { enum: ["new", "paid"] },
    lines: {
      type: "array",
      items: { type: "object", required: ["qty"], properties: { qty: { type: "integer", minimum: 1 } } },
    },
  },
} as const;

function check(operator: Operator<never, unknown>, ...values: unknown[]) {
  const bed = new OperatorBed(operator);
  bed.sendValues(values);
  return {
    bed,
    passed: bed.emitted().map(({ value }) => value),
    failures: bed.rejected.map(({ failure }) => failure),
  };
}

test("what follows the schema passes unchanged; of the rest the first place and rule are told, and no value", () => {
  const good = { id: "a", lines: [{ qty: 1 }], more: true };
  const { passed, failures } = check(
    validate(order),
    good,
    { id: "a", lines: [{ qty: 1 }, { qty: 0 }] },
    { id: "a" },
    { id: "a", lines: [], status: "canary" },
    "text",
  );
  assert.deepEqual(passed, [good]);
  assert.deepEqual(
    failures.map(({ code, path, message }) => [code, path, message]),
    [
      ["schema-violation", "/lines/1/qty", "at /lines/1/qty: must be >= 1"],
      ["schema-violation", "", "the value must have required property 'lines'"],
      ["schema-violation", "/status", "at /status: is not one of the allowed values"],
      ["schema-violation", "", "the value must be object"],
    ],
  );
});

test("only own properties count", () => {
  const { failures } = check(validate<unknown>({ type: "object", required: ["toString", "__proto__"] }), {});
  assert.equal(failures.length, 1);
});

test("draft 2020-12 by its $schema; formats; and a schema that is none is a problem with its reason", () => {
  const tuple = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "array",
    prefixItems: [{ type: "string", format: "date" }],
    items: false,
  };
  const { passed } = check(validate<unknown>(tuple), ["2026-11-24"], ["no date"], ["2026-11-24", 1]);
  assert.deepEqual(passed, [["2026-11-24"]]);
  assert.match(validate({ type: "objekt" }).problems[0]!.message, /schema is not valid/);
  assert.match(validate({ typo: "object" }).problems[0]!.message, /unknown keyword: "typo"/);
  assert.match(validate({ $ref: "http://example.org/x.json" }).problems[0]!.message, /http:\/\/example\.org/);
});

const positive: StandardSchemaV1<unknown, { doubled: number }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) =>
      typeof value === "number" && value > 0
        ? { value: { doubled: value * 2 } }
        : { issues: [{ message: "must be a positive number", path: ["a/b", { key: 0 }] }] },
  },
};

test("a Standard Schema: its output goes on, its first issue is told", () => {
  const { passed, failures, bed } = check(validate(positive), 2, -1);
  assert.deepEqual(passed, [{ doubled: 4 }]);
  assert.deepEqual(
    [failures[0]!.path, failures[0]!.message],
    ["/a~1b/0", "at /a~1b/0: must be a positive number"],
  );
  assert.equal(bed.emitted()[0]!.payload, "2", "the bytes stay the original ones");
});

test("a Standard Schema that answers later or throws rejects the message as the author's error", () => {
  const later = { "~standard": { version: 1 as const, vendor: "t", validate: async () => ({ value: 1 }) } };
  const broken = {
    "~standard": {
      version: 1 as const,
      vendor: "t",
      validate: () => {
        throw new Error("broken");
      },
    },
  };
  for (const schema of [later, broken]) {
    assert.equal(check(validate(schema as StandardSchemaV1), 1).failures[0]!.code, "author-error");
  }
});

test("types flow: from a literal schema, from a Standard Schema, from a type parameter", () => {
  const pipe = <A, B, C>(_first: Operator<A, B>, _second: Operator<B, C>) => {};
  pipe(
    validate(order),
    map((o) => o.lines[0]?.qty),
  );
  pipe(
    validate(positive),
    map((p) => p.doubled),
  );
  pipe(
    validate<{ a: string }>({ type: "object" }),
    map((o) => o.a),
  );
  pipe(
    validate(order),
    // @ts-expect-error a wrong field is a compile error
    map((o) => o.lnes),
  );
  const value: SchemaValue<typeof order> = { id: "a", lines: [{ qty: 1 }], status: "paid" };
  // @ts-expect-error it is not among the allowed ones
  const wrong: SchemaValue<typeof order> = { id: "a", lines: [], status: "lost" };
  assert.ok(value && wrong);
});
