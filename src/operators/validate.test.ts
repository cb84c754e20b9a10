import assert from "node:assert/strict";
import { test } from "node:test";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Operator } from "../component/operator.ts";
import type { Chunk } from "../message/chunk.ts";
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

test("every mistake of a schema is a problem, with its place and what to do", () => {
  const { problems } = validate({
    type: "objekt",
    properties: { id: { type: "string", requird: ["x"], pattern: "(?=a)b" } },
  });
  assert.deepEqual(
    problems.map(({ code, message, remedy }) => [code, message, remedy.split(";")[0]]),
    [
      [
        "option-invalid",
        "validate: in the schema at /type: must be one of array, boolean, integer, null, number, object, string",
        'did you mean "object"?',
      ],
      [
        "option-invalid",
        'validate: in the schema at /properties/id: "requird" is no word of draft-07',
        'did you mean "required"?',
      ],
      [
        "option-invalid",
        'validate: in the schema at /properties/id/pattern: the pattern "(?=a)b" could take endless time: it looks ahead or behind',
        "write it without, or as several patterns in allOf",
      ],
    ],
  );
  assert.match(validate("x" as never).problems[0]!.message, /schema/);
  assert.match(validate((() => true) as never).problems[0]!.message, /must be object,boolean/);
  assert.match(
    validate({ type: "object" }, { trust: true } as never).problems[0]!.message,
    /no option "trust"/,
  );
});

test("a slow pattern is none, and one that has to be trusted can be", () => {
  const slow = validate<string>({ pattern: "^(\\s*([0-9a-zA-Z\\+/=]){4}\\s*)+$" });
  const { passed, failures } = check(slow, "QUJD REVG", `${"AAAA  ".repeat(10_000)}!`);
  assert.deepEqual(passed, ["QUJD REVG"]);
  assert.match(failures[0]!.message, /must match pattern/);
  const trusted = validate<string>({ pattern: "^(?=.*[0-9]).{3,}$" }, { trustPatterns: true });
  assert.deepEqual(trusted.problems, []);
  assert.deepEqual(check(trusted, "ab1", "abc").passed, ["ab1"]);
});

test("a value that goes deeper than the stack costs its message only", () => {
  const tree = validate<unknown>({ items: { $ref: "#" }, type: ["array", "number"] });
  const deep = Array.from({ length: 100_000 }).reduce<unknown>((inner) => [inner], 0);
  const { passed, failures } = check(tree, [1], deep, [[2]]);
  assert.deepEqual(passed, [[1], [[2]]]);
  assert.deepEqual(failures[0]!.code, "author-error");
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
  assert.equal((bed.output[0] as Chunk).changed, true, "and are no longer taken for the value's");
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

test("a Standard Schema may be a function, as those of some libraries are", () => {
  const callable = Object.assign(() => true, positive);
  assert.deepEqual(check(validate(callable), 3).passed, [{ doubled: 6 }]);
  const old = { "~standard": { version: 0, vendor: "t", validate: () => ({ value: 1 }) } };
  assert.match(validate(old as never).problems[0]!.message, /version 1/);
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
  type Event = SchemaValue<{
    readonly type: "object";
    readonly required: readonly ["id"];
    readonly properties: { readonly id: { readonly type: "string" } };
    readonly oneOf: readonly [
      {
        readonly type: "object";
        readonly required: readonly ["kind", "at"];
        readonly properties: {
          readonly kind: { readonly const: "open" };
          readonly at: { readonly type: "number" };
        };
      },
      {
        readonly type: "object";
        readonly required: readonly ["kind"];
        readonly properties: { readonly kind: { readonly const: "closed" } };
      },
    ];
    readonly allOf: readonly [
      { readonly type: "object"; readonly properties: { readonly note: { readonly type: "string" } } },
    ];
  }>;
  const event = (e: Event): [string, number, string | undefined] => [
    e.id,
    e.kind === "open" ? e.at : 0,
    e.note,
  ];
  // @ts-expect-error no such field
  const misspelt = (e: Event) => e.idd;
  // @ts-expect-error only an open one has it
  const closed = (e: Event) => e.at;
  assert.equal([event, misspelt, closed].length, 3);
  const value: SchemaValue<typeof order> = { id: "a", lines: [{ qty: 1 }], status: "paid" };
  // @ts-expect-error it is not among the allowed ones
  const wrong: SchemaValue<typeof order> = { id: "a", lines: [], status: "lost" };
  assert.ok(value && wrong);
});
