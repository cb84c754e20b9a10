import { Ajv, type ErrorObject } from "ajv";
import type { ErrorCode } from "../errors.ts";
import { isUnset } from "./environment.ts";
import { adviceOf, givenInWords, wordingOf } from "./option-wording.ts";
import { Secret } from "./secret.ts";

/**
 * JSON Schema (draft-07) of a component's options. Keywords beyond the draft: `isFunction`, `isDuration`, `isSize`
 * and `isSecret` (text or a {@link Secret}), each with the value `true`. A `description` is the word for what is
 * asked for, in what is told of a mistake: "must be a JSON pointer".
 */
export type OptionsSchema = Readonly<Record<string, unknown>>;

/** One mistake in the options of a component. */
export interface OptionProblem {
  readonly code: ErrorCode;
  /** What is wrong, naming the option. */
  readonly message: string;
  /** What to do. */
  readonly remedy: string;
}

// `verbose` puts the refused value and its schema into each error, from which the remedy is made.
const ajv = new Ajv({
  allErrors: true,
  strict: true,
  ownProperties: true,
  allowUnionTypes: true,
  verbose: true,
});
ajv.addKeyword({
  keyword: "isFunction",
  validate: (wanted: boolean, value: unknown) => (typeof value === "function") === wanted,
});
ajv.addKeyword({
  keyword: "isDuration",
  schemaType: "boolean",
  validate: (_: boolean, value: unknown) => parseDuration(value) !== undefined,
});
ajv.addKeyword({
  keyword: "isSize",
  schemaType: "boolean",
  validate: (_: boolean, value: unknown) => parseSize(value) !== undefined,
});
ajv.addKeyword({
  keyword: "isSecret",
  schemaType: "boolean",
  validate: (_: boolean, value: unknown) =>
    value instanceof Secret || (typeof value === "string" && value !== ""),
});
const compiled = new WeakMap<OptionsSchema, ReturnType<typeof ajv.compile>>();

/**
 * Checks options against their schema; returns every mistake, an empty array when there is none. A value that
 * stands for an unset environment variable is no second mistake: {@link env} has reported it.
 */
export function optionProblems(owner: string, schema: OptionsSchema, options: unknown): OptionProblem[] {
  let validate = compiled.get(schema);
  if (validate === undefined) {
    validate = ajv.compile(schema);
    compiled.set(schema, validate);
  }
  if (validate(options)) return [];
  const errors = mistakesIn(validate.errors ?? []);
  const misspelt = misspeltOptions(schema, errors);
  const problems = errors
    .filter((error) => !(error.keyword === "required" && misspelt.has(missingOption(error))))
    .map((error) => describe(owner, schema, error));
  return dedupe(problems);
}

/** Errors about what an object has or lacks: there may be several of one object. */
const structural = new Set(["required", "additionalProperties", "dependencies"]);

/** Of the validator's errors those that are mistakes of the author: it tells one for each part of a choice, and one for the whole. */
function mistakesIn(all: readonly ErrorObject[]): ErrorObject[] {
  let errors = [...all];
  for (const choice of all) {
    if (choice.keyword !== "anyOf" && choice.keyword !== "oneOf") continue;
    if (!errors.includes(choice)) continue;
    const parts = errors.filter((error) => isPartOf(choice, error));
    const meant = meantBranch(choice, parts);
    // Where one of the choices was plainly meant, its own mistakes say more than what the choices are.
    const dropped = new Set(meant === undefined ? parts : parts.filter((part) => !meant.includes(part)));
    if (meant !== undefined || parts.some(({ data }) => isUnset(data))) dropped.add(choice);
    errors = errors.filter((error) => !dropped.has(error));
  }
  const places = new Set<string>();
  return errors.filter((error) => {
    if (isUnset(error.data)) return false;
    if (structural.has(error.keyword)) return true;
    if (places.has(error.instancePath)) return false;
    places.add(error.instancePath);
    return true;
  });
}

function isPartOf(choice: ErrorObject, error: ErrorObject): boolean {
  const { schemaPath, instancePath } = error;
  return schemaPath.startsWith(`${choice.schemaPath}/`) && instancePath.startsWith(choice.instancePath);
}

/** The errors of the choice whose kind of value was given, if they are about what is in that value. */
function meantBranch(choice: ErrorObject, parts: readonly ErrorObject[]): ErrorObject[] | undefined {
  const branches = new Map<string, ErrorObject[]>();
  for (const part of parts) {
    const branch = part.schemaPath.slice(choice.schemaPath.length + 1).split("/", 1)[0]!;
    branches.set(branch, [...(branches.get(branch) ?? []), part]);
  }
  return [...branches.values()].find((errors) =>
    errors.every(
      ({ keyword, instancePath }) => structural.has(keyword) || instancePath !== choice.instancePath,
    ),
  );
}

/** Required options that are there under a name near theirs: told as unknown, they need not be told as missing. */
function misspeltOptions(schema: OptionsSchema, errors: readonly ErrorObject[]): ReadonlySet<string> {
  const missing = new Set(errors.filter(({ keyword }) => keyword === "required").map(missingOption));
  return new Set(
    errors
      .filter(({ keyword }) => keyword === "additionalProperties")
      .map((error) => `${error.instancePath}/${nearestOption(schema, error)}`)
      .filter((path) => missing.has(path)),
  );
}

function missingOption(error: ErrorObject): string {
  return `${error.instancePath}/${String((error.params as Record<string, unknown>).missingProperty)}`;
}

function nearestOption(schema: OptionsSchema, error: ErrorObject): string | undefined {
  const unknown = String((error.params as Record<string, unknown>).additionalProperty);
  return nearest(unknown, knownOptions(schema, error));
}

function knownOptions(schema: OptionsSchema, error: ErrorObject): string[] {
  return Object.keys((error.parentSchema?.properties ?? schema.properties ?? {}) as object);
}

function dedupe(problems: readonly OptionProblem[]): OptionProblem[] {
  const seen = new Map(problems.map((problem) => [problem.message, problem]));
  return [...seen.values()];
}

function describe(owner: string, schema: OptionsSchema, error: ErrorObject): OptionProblem {
  const path = error.instancePath.slice(1).replaceAll("/", ".");
  const params = error.params as Record<string, unknown>;
  if (error.keyword === "additionalProperties") {
    const unknown = String(params.additionalProperty);
    const near = nearestOption(schema, error);
    return {
      code: "option-unknown",
      message: `${owner} has no option "${path === "" ? "" : `${path}.`}${unknown}"`,
      remedy:
        near === undefined
          ? `use one of: ${knownOptions(schema, error).join(", ")}`
          : `did you mean "${near}"?`,
    };
  }
  if (error.keyword === "required") {
    const missing = `${path === "" ? "" : `${path}.`}${String(params.missingProperty)}`;
    return {
      code: "option-missing",
      message: `${owner} needs the option "${missing}"`,
      remedy: `add ${missing}`,
    };
  }
  if (error.keyword === "dependencies") {
    const [given, missing] = [params.property, params.missingProperty].map((option) =>
      [path, option].filter((part) => part !== "").join("."),
    );
    return {
      code: "option-missing",
      message: `${owner} needs the option "${missing!}" with "${given!}"`,
      remedy: `add ${missing!}, or leave out ${given!}`,
    };
  }
  const about = path === "" ? `${owner}: the options` : `${owner}: "${path}"`;
  const asked = (error.parentSchema ?? {}) as OptionsSchema;
  switch (error.keyword) {
    case "isFunction":
      return { code: "option-invalid", message: `${about} must be a function`, remedy: "give a function" };
    case "isDuration":
      return {
        code: "option-invalid",
        message: `${about} is not a duration`,
        remedy: 'give milliseconds or text such as "250ms", "10s", "5m", "2h"; at most 24 days',
      };
    case "isSecret":
      return {
        code: "option-invalid",
        message: `${about} must be text or a secret`,
        remedy: 'give text, or secret(env("NAME")) so that it is never printed',
      };
    case "isSize":
      return {
        code: "option-invalid",
        message: `${about} is not a size in bytes`,
        remedy: 'give a whole number of bytes or text such as "64KiB", "1MiB"',
      };
    case "enum": {
      const allowed = (params.allowedValues as unknown[]).map(String);
      const near = typeof error.data === "string" ? nearest(error.data, allowed) : undefined;
      return {
        code: "option-invalid",
        message: `${about} must be one of ${allowed.join(", ")}`,
        remedy: near === undefined ? `use one of: ${allowed.join(", ")}` : `did you mean "${near}"?`,
      };
    }
    case "uniqueItems": {
      const [first, second] = [params.i, params.j].map((index) => Number(index) + 1);
      return {
        code: "option-invalid",
        message: `${about} has the same entry twice, as number ${first!} and ${second!}`,
        remedy: "remove one of them",
      };
    }
    default:
      return {
        code: "option-invalid",
        message: `${about} must be ${wordingOf(asked)}, not ${givenInWords(error.data, asked)}`,
        remedy: `give ${adviceOf(asked)}`,
      };
  }
}

/** The known name that `word` was most likely meant to be, if any is at most `furthest` edits away. */
export function nearest(
  word: string,
  known: readonly string[],
  furthest = Math.max(2, Math.floor(word.length / 3)),
): string | undefined {
  let best: string | undefined;
  let bestDistance = furthest + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Letters to add, remove or replace; two neighbours that changed places count once. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const edits = [row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)];
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) edits.push(before[j - 2]! + 1);
      next.push(Math.min(...edits));
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

/** Milliseconds, or text with a unit: "250ms", "10s", "5m", "2h", "7d". */
export type Duration = number | string;

/** Longer than this a Node timer fires at once (2³¹−1 ms, 24.8 days). */
const longestDuration = 2 ** 31 - 1;
const durationUnits = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A duration in milliseconds, or undefined when it is none or longer than a timer can wait. */
export function parseDuration(duration: unknown): number | undefined {
  let value = Number.NaN;
  if (typeof duration === "number") value = duration;
  else if (typeof duration === "string") {
    const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(duration.trim());
    if (match !== null) value = Number(match[1]) * durationUnits[match[2] as keyof typeof durationUnits];
  }
  return value >= 0 && value <= longestDuration ? value : undefined;
}

/** Bytes, or text with a unit: "512B", "64KiB", "1MiB", "1GiB" (powers of 1024) or "64kB", "1MB" (powers of 1000). */
export type Size = number | string;

const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** A size in bytes, or undefined when it is none. */
export function parseSize(size: unknown): number | undefined {
  let value = Number.NaN;
  if (typeof size === "number") value = size;
  else if (typeof size === "string") {
    const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]+)$/.exec(size.trim());
    if (match !== null) value = Number(match[1]) * (sizeUnits[match[2]!] ?? Number.NaN);
  }
  return Number.isSafeInteger(Math.round(value)) && value >= 0 ? Math.round(value) : undefined;
}

/** A duration that was checked before: milliseconds, or `fallback` when it is undefined. */
export function milliseconds(duration: Duration | undefined, fallback: number): number {
  return duration === undefined ? fallback : (parseDuration(duration) ?? fallback);
}

/** A size that was checked before: bytes, or `fallback` when it is undefined. */
export function byteCount(size: Size | undefined, fallback: number): number {
  return size === undefined ? fallback : (parseSize(size) ?? fallback);
}
