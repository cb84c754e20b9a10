import type { StandardSchemaV1 } from "@standard-schema/spec";
import { Ajv, type AnySchema, type ErrorObject, type ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { defineOperator } from "../component/define-operator.ts";
import type { Operator } from "../component/operator.ts";
import type { OptionProblem, OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { messageOf } from "../errors.ts";
import type { Chunk } from "../message/chunk.ts";
import { isPromise, rejectPromise, rejectThrown } from "./author-function.ts";
import type { JsonSchema, SchemaValue } from "./schema-value.ts";

interface ValidateOptions {
  /** A JSON Schema (draft-07, or 2020-12 by its `$schema`), or any Standard Schema. */
  readonly schema: object | boolean;
}

const optionsSchema: OptionsSchema = {
  type: "object",
  properties: { schema: { type: ["object", "boolean"] } },
  required: ["schema"],
  additionalProperties: false,
};

export const validateDefinition = defineOperator<ValidateOptions>({
  type: "validate",
  summary: "Rejects the messages whose value does not follow a schema.",
  guarantee:
    "A message goes on only if its own properties follow the schema, and goes on unchanged: no defaults, no " +
    "coercion. Of one that does not, the dead letter names the first place and rule that it breaks, and nothing " +
    "of the value. A schema is code: it is compiled when the topology is, so take it from the project only, and " +
    "beware of patterns that backtrack (a repetition within a repetition): one long value can hold up the process.",
  schema: optionsSchema,
  examples: [
    {
      title: "A JSON Schema",
      code: 'validate({ type: "object", required: ["id"], properties: { id: { type: "string" } } })',
      operator: () =>
        validate<{ id: string }>({
          type: "object",
          required: ["id"],
          properties: { id: { type: "string" } },
        }),
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
  verify: ({ schema }) => (isStandard(schema) ? [] : schemaProblems(schema)),
  build: ({ schema }, context) => {
    if (isStandard(schema)) {
      const check = schema["~standard"].validate;
      return perChunk((chunk) => {
        for (let i = 0; i < chunk.length; i++) {
          if (chunk.state[i] === 0) continue;
          try {
            const result = check(chunk.value(i));
            if (isPromise(result)) {
              rejectPromise(context, chunk, i, "the schema", "it must answer at once; use mapAsync", result);
            } else if (result.issues !== undefined) {
              const [issue] = result.issues;
              context.reject(chunk, i, violation(pointerOf(issue?.path), issue?.message ?? "is not valid"));
            } else {
              setValue(chunk, i, result.value);
            }
          } catch (error) {
            rejectThrown(context, chunk, i, "the schema", error);
          }
        }
      });
    }
    const validateValue = compiled(schema);
    return perChunk((chunk) => {
      for (let i = 0; i < chunk.length; i++) {
        if (chunk.state[i] === 0 || validateValue(chunk.value(i))) continue;
        const error = validateValue.errors?.[0];
        context.reject(chunk, i, violation(error?.instancePath ?? "", textOf(error)));
      }
    });
  },
});

/**
 * Rejects the messages whose value does not follow a schema. The schema's type flows on: from a JSON Schema
 * written `as const`, from a Standard Schema its output, or as a type parameter.
 *
 * What a Standard Schema makes of a value is what the next steps see; the bytes that a sink writes stay the
 * original ones unless an `encode` follows.
 */
export function validate<const S extends StandardSchemaV1>(
  schema: S,
): Operator<unknown, StandardSchemaV1.InferOutput<S>>;
export function validate<const S extends JsonSchema>(schema: S): Operator<unknown, SchemaValue<S>>;
export function validate<T>(schema: object): Operator<unknown, T>;
export function validate(schema: object): Operator<unknown, unknown> {
  return validateDefinition.place<unknown, unknown>({ schema });
}

function violation(path: string, rule: string) {
  return {
    class: "business",
    code: "schema-violation",
    message: path === "" ? `the value ${rule}` : `at ${path}: ${rule}`,
    path,
  } as const;
}

/** What the rule asks, in ajv's words; they quote the schema and never the value. */
function textOf(error: ErrorObject | undefined): string {
  if (error === undefined) return "is not valid";
  if (error.keyword === "enum" || error.keyword === "const") return "is not one of the allowed values";
  return error.message ?? `breaks the rule "${error.keyword}"`;
}

function isStandard(schema: object | boolean): schema is StandardSchemaV1 {
  return typeof schema !== "boolean" && "~standard" in schema;
}

function pointerOf(path: readonly (PropertyKey | StandardSchemaV1.PathSegment)[] | undefined): string {
  return (path ?? [])
    .map((segment) => (typeof segment === "object" ? segment.key : segment))
    .map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}

function setValue(chunk: Chunk, index: number, value: unknown): void {
  if (chunk.values === undefined)
    chunk.values = Array.from({ length: chunk.length }, (_, i) => chunk.value(i));
  chunk.values[index] = value;
}

const compilations = new WeakMap<object, ValidateFunction>();

/** Compiled once, however often the topology is built. Throws when the schema is not one. */
function compiled(schema: object | boolean): ValidateFunction {
  const known = typeof schema === "object" ? compilations.get(schema) : undefined;
  if (known !== undefined) return known;
  const dialect = typeof schema === "object" ? (schema as { $schema?: unknown }).$schema : undefined;
  const Compiler = typeof dialect === "string" && dialect.includes("2020-12") ? Ajv2020 : Ajv;
  // Strict about words it does not know, which are mostly misspelt; not about style.
  const ajv = new Compiler({
    ownProperties: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    validateFormats: true,
  });
  addFormats.default(ajv);
  const validateValue = ajv.compile(schema as AnySchema);
  if (typeof schema === "object") compilations.set(schema, validateValue);
  return validateValue;
}

function schemaProblems(schema: object | boolean): OptionProblem[] {
  try {
    compiled(schema);
    return [];
  } catch (error) {
    return [
      {
        code: "option-invalid",
        message: `validate: the schema is not valid: ${messageOf(error)}`,
        remedy: "mend the schema; words it does not know are mistakes, as are references outside it",
      },
    ];
  }
}
