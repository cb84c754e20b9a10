import { Secret } from "./secret.ts";

type Schema = Readonly<Record<string, unknown>>;

/**
 * What a schema of options asks for, in words that follow "must be": "a whole number from 1 to 100", "a function or
 * a JSON pointer". Where a schema has a `description`, that is the word for it.
 */
export function wordingOf(schema: Schema): string {
  if (typeof schema.description === "string") return schema.description;
  const choices = (schema.anyOf ?? schema.oneOf) as readonly Schema[] | undefined;
  if (choices !== undefined) return either(choices.map(wordingOf));
  if (schema.enum !== undefined) return `one of ${(schema.enum as unknown[]).join(", ")}`;
  if (schema.isFunction === true) return "a function";
  if (schema.isDuration === true) return 'a duration such as "250ms", "10s", "5m"';
  if (schema.isSize === true) return 'a size such as "64KiB", "1MiB"';
  if (schema.isSecret === true) return "text or a secret";
  const types = [schema.type].flat().filter((type) => typeof type === "string");
  return either(types.map((type) => ofType(type, schema)));
}

function ofType(type: string, schema: Schema): string {
  switch (type) {
    case "string":
      return textWording(schema);
    case "integer":
      return `a whole number${range(schema)}`;
    case "number":
      return `a number${range(schema)}`;
    case "boolean":
      return "true or false";
    case "array":
      return listWording(schema);
    default:
      return "an object";
  }
}

function textWording({ minLength = 0, maxLength }: Schema): string {
  if (maxLength !== undefined) return `text of ${String(minLength)} to ${String(maxLength)} characters`;
  return Number(minLength) > 0 ? "non-empty text" : "text";
}

function listWording({ items, minItems = 0 }: Schema): string {
  const of = (items as Schema | undefined)?.type;
  const what = of === "string" ? "texts" : of === "object" ? "objects" : "entries";
  return `a list of ${Number(minItems) > 0 ? "one or more " : ""}${what}`;
}

function range({ minimum, maximum }: Schema): string {
  if (minimum !== undefined && maximum !== undefined) return ` from ${String(minimum)} to ${String(maximum)}`;
  if (minimum !== undefined) return ` of at least ${String(minimum)}`;
  return maximum === undefined ? "" : ` of at most ${String(maximum)}`;
}

/** "a", "a or b", "a, b or c". */
function either(words: readonly string[]): string {
  if (words.length < 2) return words[0] ?? "something else";
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)!}`;
}

/** What was given instead. Of text nothing is shown, nor of a number in place of text: either may be a password. */
export function givenInWords(given: unknown, schema: Schema): string {
  switch (typeof given) {
    case "string":
      if (given === "") return "empty text";
      return schema.maxLength === undefined ? "text" : `text of ${given.length} characters`;
    case "number":
    case "bigint":
      return schema.type === "string" ? "a number" : String(given);
    case "function":
      return "a function";
    case "object":
      if (given === null) return "null";
      if (given instanceof Secret) return "a secret";
      if (Array.isArray(given)) return given.length === 0 ? "an empty list" : "a list";
      return "an object";
    default:
      return String(given);
  }
}

/** What to give, in words that follow "give". */
export function adviceOf(schema: Schema): string {
  if (schema.type !== "object" || schema.properties === undefined) return wordingOf(schema);
  const required = (schema.required ?? []) as readonly string[];
  const others = Object.keys(schema.properties as object).filter((name) => !required.includes(name));
  if (required.length === 0) return `an object with any of ${others.join(", ")}`;
  const more = others.length === 0 ? "" : `, and if wanted ${others.join(", ")}`;
  return `an object with ${required.join(", ")}${more}`;
}
