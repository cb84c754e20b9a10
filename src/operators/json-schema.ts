import { Ajv, type AnySchema, type ErrorObject, type ValidateFunction } from "ajv";
import { Ajv2019 } from "ajv/dist/2019.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { nearest } from "../component/options.ts";
import { messageOf } from "../errors.ts";
import { LinearPattern, PatternRefusal } from "./linear-pattern.ts";
import { addUniqueItems } from "./unique-items.ts";

/** A mistake in a JSON Schema. */
export interface SchemaProblem {
  /** Where in the schema, as a JSON pointer; "" is the schema itself. */
  readonly path: string;
  readonly message: string;
  readonly remedy: string;
}

interface Dialect {
  readonly name: string;
  readonly uri: string;
  readonly Compiler: typeof Ajv | typeof Ajv2019 | typeof Ajv2020;
}

const draft07: Dialect = { name: "draft-07", uri: "http://json-schema.org/draft-07/schema", Compiler: Ajv };
const draft2019: Dialect = {
  name: "draft 2019-09",
  uri: "https://json-schema.org/draft/2019-09/schema",
  Compiler: Ajv2019,
};
const draft2020: Dialect = {
  name: "draft 2020-12",
  uri: "https://json-schema.org/draft/2020-12/schema",
  Compiler: Ajv2020,
};
const dialects = [draft07, draft2019, draft2020];

/** What draft-07 says of a schema holds for draft-06 too. */
const draft06 = "http://json-schema.org/draft-06/schema";

/** Longer texts are no URL to anyone; ajv's pattern for them takes time by the square of the length. */
const longestUrl = 2_048;

/** Words that other dialects and tools put into schemas, near to a known one and no misspelling of it. */
const foreignWords = new Set(["comment", "example", "id"]);

/** Formats of the specification that ajv-formats does not have, and which are therefore not checked. */
const uncheckedFormats = new Set(["idn-email", "idn-hostname", "iri", "iri-reference"]);

/** Words whose value is a schema. */
const holdOne = new Set([
  "additionalItems",
  "additionalProperties",
  "contains",
  "contentSchema",
  "else",
  "if",
  "items",
  "not",
  "propertyNames",
  "then",
  "unevaluatedItems",
  "unevaluatedProperties",
]);
/** Words whose value is a list of schemas. */
const holdList = new Set(["allOf", "anyOf", "items", "oneOf", "prefixItems"]);
/** Words whose value has schemas by name. */
const holdNamed = new Set([
  "$defs",
  "definitions",
  "dependencies",
  "dependentSchemas",
  "patternProperties",
  "properties",
]);

export interface CompiledSchema {
  /** Compiled code; undefined when there are problems. */
  readonly validate: ValidateFunction | undefined;
  readonly problems: readonly SchemaProblem[];
}

const compilations = new WeakMap<object, Map<boolean, CompiledSchema>>();

/**
 * Compiles a JSON Schema, once for each object: draft-07, or by its `$schema` draft-06, 2019-09 or 2020-12. Large
 * schemas take long (FHIR's 2 s), during which nothing else happens.
 *
 * @param trusting lets V8 match the patterns that have no linear form.
 */
export function compileSchema(schema: object | boolean, trusting: boolean): CompiledSchema {
  if (typeof schema === "boolean") return compile(schema, trusting);
  const known = compilations.get(schema) ?? new Map<boolean, CompiledSchema>();
  compilations.set(schema, known);
  const compiled = known.get(trusting) ?? compile(schema, trusting);
  known.set(trusting, compiled);
  return compiled;
}

function compile(schema: object | boolean, trusting: boolean): CompiledSchema {
  const declared = typeof schema === "object" ? (schema as { $schema?: unknown }).$schema : undefined;
  const dialect = dialectOf(declared);
  if (dialect === undefined) {
    const problem = {
      path: "/$schema",
      message: `${JSON.stringify(declared)} is a dialect of JSON Schema that is not known here`,
      remedy: `use one of: ${dialects.map(({ uri }) => uri).join(", ")}`,
    };
    return { validate: undefined, problems: [problem] };
  }
  const ajv = new dialect.Compiler({
    // Words that nobody knows are ignored, as the specification says; those that look misspelt are found below.
    strict: false,
    strictNumbers: true,
    ownProperties: true,
    validateSchema: false,
    logger: false,
    code: { regExp: Object.assign((source: string) => matcher(source, trusting), { code: "" }) },
  });
  // ajv throws at draft-04's `id`, which later drafts ignore.
  ajv.removeKeyword("id");
  addUniqueItems(ajv);
  addFormats.default(ajv);
  const url = ajv.formats.url;
  if (url instanceof RegExp) ajv.addFormat("url", (text) => text.length <= longestUrl && url.test(text));
  const problems = [...shapeProblems(schema, dialect), ...wordProblems(schema, dialect, ajv, trusting)];
  if (problems.length > 0) return { validate: undefined, problems };
  try {
    const validate = ajv.compile(schema as AnySchema);
    if (!("$async" in validate)) return { validate, problems };
    return { validate: undefined, problems: [{ path: "/$async", ...noAsync }] };
  } catch (error) {
    const remedy = "put what it refers to into its own definitions: nothing is fetched";
    return { validate: undefined, problems: [{ path: "", message: messageOf(error), remedy }] };
  }
}

const noAsync = {
  message: "a schema with $async answers later",
  remedy: "leave $async out, and ask other systems in a mapAsync after it",
};

function dialectOf(declared: unknown): Dialect | undefined {
  if (declared === undefined) return draft07;
  const uri = String(declared)
    .replace(/#$/, "")
    .replace(/^https?:/, "");
  if (uri === draft06.slice("http:".length)) return draft07;
  return dialects.find((dialect) => dialect.uri.replace(/^https?:/, "") === uri);
}

function matcher(source: string, trusting: boolean): LinearPattern | RegExp {
  try {
    return new LinearPattern(source);
  } catch (error) {
    if (trusting && error instanceof PatternRefusal) return new RegExp(source, "u");
    throw error;
  }
}

const metaSchemas = new Map<Dialect, ValidateFunction>();

/** What the dialect's own schema finds wrong, once for each place. */
function shapeProblems(schema: object | boolean, dialect: Dialect): SchemaProblem[] {
  let check = metaSchemas.get(dialect);
  if (check === undefined) {
    check = new dialect.Compiler({ allErrors: true, strict: false, logger: false }).getSchema(dialect.uri)!;
    metaSchemas.set(dialect, check);
  }
  if (check(schema) === true) return [];
  const byPlace = new Map<string, ErrorObject>();
  for (const error of check.errors ?? []) {
    const other = byPlace.get(error.instancePath);
    if (other === undefined || (other.keyword !== "enum" && error.keyword === "enum")) {
      byPlace.set(error.instancePath, error);
    }
  }
  return [...byPlace.values()].map((error) => {
    const allowed = (error.params as { allowedValues?: readonly unknown[] }).allowedValues?.map(String);
    const value = valueAt(schema, error.instancePath);
    const near = typeof value === "string" && allowed !== undefined ? nearest(value, allowed) : undefined;
    return {
      path: error.instancePath,
      message:
        allowed === undefined ? (error.message ?? "is not valid") : `must be one of ${allowed.join(", ")}`,
      remedy:
        near === undefined ? `see ${dialect.name} of JSON Schema` : `did you mean ${JSON.stringify(near)}?`,
    };
  });
}

function valueAt(schema: unknown, path: string): unknown {
  return path
    .split("/")
    .slice(1)
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce<unknown>((value, step) => (value as Record<string, unknown> | undefined)?.[step], schema);
}

/** Words that look misspelt or belong to another dialect, formats alike, and patterns that cannot be used. */
function wordProblems(
  schema: object | boolean,
  dialect: Dialect,
  ajv: Ajv,
  trusting: boolean,
): SchemaProblem[] {
  const problems: SchemaProblem[] = [];
  const words = Object.keys(ajv.RULES.keywords);
  for (const [place, path] of placesIn(schema, "", new Set())) {
    for (const [word, value] of Object.entries(place)) {
      if (!words.includes(word)) {
        const remedy = remedyForWord(word, words, dialect);
        if (remedy !== undefined) {
          problems.push({ path, message: `${JSON.stringify(word)} is no word of ${dialect.name}`, remedy });
        }
      } else if (word === "format" && typeof value === "string" && !(value in ajv.formats)) {
        const near = nearest(value, Object.keys(ajv.formats), 1);
        if (near === undefined || uncheckedFormats.has(value)) continue;
        const message = `${JSON.stringify(value)} is no known format`;
        problems.push({ path: `${path}/format`, message, remedy: `did you mean ${JSON.stringify(near)}?` });
      } else if (word === "pattern" && typeof value === "string") {
        problems.push(...patternProblems(value, `${path}/pattern`, trusting));
      } else if (word === "patternProperties" && typeof value === "object" && value !== null) {
        for (const name of Object.keys(value)) {
          problems.push(...patternProblems(name, `${path}/patternProperties`, trusting));
        }
      }
    }
  }
  return problems;
}

function remedyForWord(word: string, words: readonly string[], dialect: Dialect): string | undefined {
  if (foreignWords.has(word)) return undefined;
  const other = dialects.find((other) => other !== dialect && wordsOf(other).has(word));
  if (other !== undefined) return `it is one of ${other.name}: add "$schema": "${other.uri}"`;
  if (word.length < 4) return undefined;
  const near = nearest(word, words, word.length < 8 ? 1 : 2);
  return near === undefined ? undefined : `did you mean ${JSON.stringify(near)}?`;
}

const dialectWords = new Map<Dialect, Set<string>>();

function wordsOf(dialect: Dialect): Set<string> {
  let words = dialectWords.get(dialect);
  if (words === undefined) {
    words = new Set(Object.keys(new dialect.Compiler().RULES.keywords));
    dialectWords.set(dialect, words);
  }
  return words;
}

function patternProblems(source: string, path: string, trusting: boolean): SchemaProblem[] {
  try {
    matcher(source, trusting);
    return [];
  } catch (error) {
    if (!(error instanceof PatternRefusal)) {
      return [{ path, message: messageOf(error), remedy: "write it as ECMAScript does with the flag u" }];
    }
    return [
      {
        path,
        message: `the pattern ${JSON.stringify(source)} could take endless time: ${error.message}`,
        remedy:
          "write it without, or as several patterns in allOf; or trust it: validate(schema, { trustPatterns: true })",
      },
    ];
  }
}

/** Every schema in a schema that is an object, with its place. */
function* placesIn(schema: unknown, path: string, seen: Set<object>): Generator<[object, string]> {
  if (typeof schema !== "object" || schema === null || Array.isArray(schema) || seen.has(schema)) return;
  seen.add(schema);
  yield [schema, path];
  for (const [word, value] of Object.entries(schema)) {
    if (Array.isArray(value)) {
      if (!holdList.has(word)) continue;
      for (const [i, one] of value.entries()) yield* placesIn(one, `${path}/${word}/${i}`, seen);
    } else if (holdOne.has(word)) {
      yield* placesIn(value, `${path}/${word}`, seen);
    } else if (holdNamed.has(word) && typeof value === "object" && value !== null) {
      for (const [name, one] of Object.entries(value)) {
        yield* placesIn(one, `${path}/${word}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`, seen);
      }
    }
  }
}

/** What a value breaks: where, as a JSON pointer, and the rule in ajv's words, which quote the schema and no value. */
export function brokenRule(errors: readonly ErrorObject[] | null | undefined): {
  path: string;
  rule: string;
} {
  // The last one is about the whole of a choice, the others about its parts; only "if" says less than its part.
  const error = errors?.findLast(({ keyword }) => keyword !== "if");
  if (error === undefined) return { path: "", rule: "is not valid" };
  return { path: error.instancePath, rule: wordingOf(error) };
}

function wordingOf({ keyword, message }: ErrorObject): string {
  switch (keyword) {
    case "enum":
      return "is not one of the allowed values";
    case "const":
      return "is not the allowed value";
    case "anyOf":
      return "follows none of the schemas in anyOf";
    case "false schema":
      return "is not allowed";
    default:
      return message ?? `breaks the rule "${keyword}"`;
  }
}
