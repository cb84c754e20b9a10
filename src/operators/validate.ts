import type { StandardSchemaV1 } from "@standard-schema/spec";
import { defineOperator } from "../component/define-operator.ts";
import type { Operator, OperatorContext } from "../component/operator.ts";
import type { OptionProblem, OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import type { Chunk } from "../message/chunk.ts";
import { isPromise, rejectPromise, rejectThrown } from "./author-function.ts";
import { brokenRule, compileSchema } from "./json-schema.ts";
import type { JsonSchema, SchemaValue } from "./schema-value.ts";

export interface ValidateOptions {
  /**
   * Allows patterns that have no form that is matched in linear time: those that look ahead or behind, or refer
   * back to a group. One long value can then hold up the process for as long as it likes. Only for patterns that
   * you know to be harmless.
   * @default false, such a pattern is a mistake of the topology
   */
  readonly trustPatterns?: boolean;
}

type Options = ValidateOptions & {
  /** A JSON Schema, or any Standard Schema (an object, or a function that has `~standard`). */
  readonly schema: object | boolean;
};

const optionsSchema: OptionsSchema = {
  type: "object",
  properties: {
    schema: {
      anyOf: [
        { type: ["object", "boolean"], description: "a JSON Schema" },
        { isFunction: true, description: "a Standard Schema" },
      ],
    },
    trustPatterns: { type: "boolean" },
  },
  required: ["schema"],
  additionalProperties: false,
};

export const validateDefinition = defineOperator<Options>({
  type: "validate",
  summary: "Rejects the messages whose value does not follow a schema.",
  guarantee:
    "Of a message that is rejected the dead letter names the place and the rule that is broken, and nothing of the " +
    "value, unless a Standard Schema's own words quote it. A JSON Schema (draft-07, or what `$schema` says: draft-06, 2019-09, 2020-12) looks at a value's own " +
    "properties, checks formats, and changes nothing: no defaults, no coercion. Its patterns are matched in time " +
    "proportional to the text; what it refers to must be in it, since nothing is fetched. It is compiled into code " +
    "when the topology is, so take it from your project only. The output of a Standard Schema is the value that the " +
    "next steps see, but a sink writes the bytes that were fetched unless an `encode` follows.",
  schema: optionsSchema,
  examples: [
    {
      title: "A JSON Schema",
      code: 'validate({ type: "object", required: ["id"], properties: { id: { type: "string" } } })',
      operator: () => validate({ type: "object", required: ["id"], properties: { id: { type: "string" } } }),
      given: [{ value: { id: "a" } }, { value: { id: 1 } }, { value: {} }],
      expect: [
        { value: { id: "a" } },
        { value: { id: 1 }, outcome: "deadLettered" },
        { value: {}, outcome: "deadLettered" },
      ],
    },
  ],
  effect: () => ({ takes: "value", leaves: "value" }),
  rejects: true,
  verify: ({ schema, trustPatterns }) =>
    isStandard(schema)
      ? standardProblems(schema)
      : compileSchema(schema, trustPatterns === true).problems.map(({ path, message, remedy }) => ({
          code: "option-invalid",
          message: `validate: in the schema${path === "" ? "" : ` at ${path}`}: ${message}`,
          remedy,
        })),
  build: ({ schema, trustPatterns }, context) => {
    if (isStandard(schema)) return perChunk(standardCheck(schema, context));
    return perChunk(jsonCheck(schema, trustPatterns === true, context));
  },
});

/**
 * Rejects the messages whose value does not follow a schema. The schema's type flows on: from a JSON Schema that
 * is written in place or `as const`, as far as {@link SchemaValue} can tell; from a Standard Schema its output; or
 * the one given as a type parameter.
 */
export function validate<const S extends StandardSchemaV1>(
  schema: S,
): Operator<unknown, StandardSchemaV1.InferOutput<S>>;
export function validate<const S extends JsonSchema>(
  schema: S,
  options?: ValidateOptions,
): Operator<unknown, SchemaValue<S>>;
export function validate<T>(schema: object | boolean, options?: ValidateOptions): Operator<unknown, T>;
export function validate(
  schema: object | boolean,
  options: ValidateOptions = {},
): Operator<unknown, unknown> {
  return validateDefinition.place({ ...options, schema });
}

function jsonCheck(
  schema: object | boolean,
  trusting: boolean,
  context: OperatorContext,
): (chunk: Chunk) => void {
  const follows = compileSchema(schema, trusting).validate!;
  return (chunk) => {
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      try {
        if (follows(chunk.value(i))) continue;
      } catch (error) {
        // Schemas that refer to themselves can go deeper than the stack.
        rejectThrown(context, chunk, i, "the schema", error);
        continue;
      }
      const { path, rule } = brokenRule(follows.errors);
      rejectViolation(context, chunk, i, path, rule);
    }
  };
}

function standardCheck(schema: StandardSchemaV1, context: OperatorContext): (chunk: Chunk) => void {
  const standard = schema["~standard"];
  return (chunk) => {
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const value = chunk.value(i);
      try {
        const result = standard.validate(value);
        if (isPromise(result)) {
          rejectPromise(context, chunk, i, "the schema", "it must answer at once; use mapAsync", result);
        } else if (result.issues !== undefined) {
          const [issue] = result.issues;
          rejectViolation(context, chunk, i, pointerOf(issue?.path), issue?.message ?? "is not valid");
        } else if (result.value !== value) {
          chunk.values ??= Array.from({ length: chunk.length }, (_, index) => chunk.value(index));
          chunk.values[i] = result.value;
          chunk.changed = true;
        }
      } catch (error) {
        rejectThrown(context, chunk, i, "the schema", error);
      }
    }
  };
}

function rejectViolation(
  context: OperatorContext,
  chunk: Chunk,
  index: number,
  path: string,
  rule: string,
): void {
  context.reject(chunk, index, {
    class: "business",
    code: "schema-violation",
    message: path === "" ? `the value ${rule}` : `at ${path}: ${rule}`,
    path,
  });
}

function isStandard(schema: object | boolean): schema is StandardSchemaV1 {
  return typeof schema !== "boolean" && "~standard" in schema;
}

function standardProblems(schema: StandardSchemaV1): OptionProblem[] {
  const standard: Partial<StandardSchemaV1["~standard"]> | undefined = schema["~standard"];
  if (standard?.version === 1 && typeof standard.validate === "function") return [];
  return [
    {
      code: "option-invalid",
      message: "validate: the schema has `~standard` and is no Standard Schema of version 1",
      remedy: "use a version of the schema library that implements it",
    },
  ];
}

function pointerOf(path: readonly (PropertyKey | StandardSchemaV1.PathSegment)[] | undefined): string {
  return (path ?? [])
    .map((segment) => (typeof segment === "object" ? segment.key : segment))
    .map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}
