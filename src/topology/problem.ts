import { relative } from "node:path";
import type { Location } from "../component/location.ts";
import type { OptionProblem } from "../component/options.ts";
import { type ErrorCode, messageOf } from "../errors.ts";

/** A mistake or a warning about a topology file. */
export interface Problem {
  readonly severity: "error" | "warning";
  readonly code: ErrorCode;
  /** What is wrong. */
  readonly message: string;
  /** What to do. */
  readonly remedy: string;
  /** The line it is about; undefined where there is none, as for a topology made outside of a file. */
  readonly location: Location | undefined;
}

/** Gathers problems; what is found twice is one. */
export class ProblemList {
  readonly #problems = new Map<string, Problem>();

  constructor(problems: readonly Problem[] = []) {
    this.addAll(problems);
  }

  add(problem: Problem): void {
    const { code, message, location } = problem;
    const key = JSON.stringify([code, message, location?.file, location?.line, location?.column]);
    this.#problems.set(key, Object.freeze(problem));
  }

  addAll(problems: readonly Problem[]): void {
    for (const problem of problems) this.add(problem);
  }

  error(code: ErrorCode, message: string, remedy: string, location: Location | undefined): void {
    this.add({ severity: "error", code, message, remedy, location });
  }

  warn(code: ErrorCode, message: string, remedy: string, location: Location | undefined): void {
    this.add({ severity: "warning", code, message, remedy, location });
  }

  options(problems: readonly OptionProblem[], location: Location | undefined): void {
    for (const { code, message, remedy } of problems) this.error(code, message, remedy, location);
  }

  get failed(): boolean {
    return [...this.#problems.values()].some(({ severity }) => severity === "error");
  }

  /** By file and line; what has no place comes first. */
  get sorted(): readonly Problem[] {
    return [...this.#problems.values()].sort(byPlace);
  }
}

function byPlace({ location: a }: Problem, { location: b }: Problem): number {
  if (a === undefined || b === undefined) return Number(a !== undefined) - Number(b !== undefined);
  if (a.file !== b.file) return a.file < b.file ? -1 : 1;
  return a.line - b.line || a.column - b.column;
}

/**
 * Problems for a person, one a line, by file and line:
 *
 * ```
 * orders.ts:12:5  error  option-unknown  batch has no option "cuont"  → did you mean "count"?
 * ```
 *
 * @param folder files inside it are named relative to it; others by their absolute path
 */
export function formatProblems(problems: readonly Problem[], folder: string): string {
  return [...problems]
    .sort(byPlace)
    .map(({ severity, code, message, remedy, location }) => {
      const place = location === undefined ? [] : [formatLocation(location, folder)];
      return [...place, severity, code, `${oneLine(message)}  → ${oneLine(remedy)}`].join("  ");
    })
    .join("\n");
}

/** "orders.ts:12:5". */
export function formatLocation({ file, line, column }: Location, folder: string): string {
  const inside = relative(folder, file);
  const path = inside === "" || inside.startsWith("..") ? file : inside;
  return `${path}:${line}:${column}`;
}

/** Messages hold text of authors and of other libraries: no credentials, no line breaks, no control characters. */
function oneLine(text: string): string {
  return messageOf(text).replaceAll(/[\s\p{Cc}]+/gu, " ");
}
