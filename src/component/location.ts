import { fileURLToPath } from "node:url";

/** A place in a topology file. */
export interface Location {
  /** Absolute. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly column: number;
}

/** The folder this package's code runs from: frames inside it are ours, not the author's. */
const own = new URL("../", import.meta.url).href;
const frame = /^at (?:.* \(|async )?((?:file:\/\/|\/|[A-Za-z]:\\).+?):(\d+):(\d+)\)?$/;

/**
 * The first place on the call stack that is neither in this package, nor in another one, nor in Node: the line of the
 * topology file that called. Undefined when there is none. Tests of the package itself count as callers.
 */
export function callerLocation(): Location | undefined {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 30;
  const location = errorLocation(new Error());
  Error.stackTraceLimit = limit;
  return location;
}

/** The line of the author's code that an error came from or through, found as {@link callerLocation} does. */
export function errorLocation(error: unknown): Location | undefined {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  let inPackage: Location | undefined;
  for (const line of stack.split("\n").slice(1)) {
    const match = frame.exec(line.trim());
    if (match === null) continue;
    const [, place, row, column] = match;
    const url = place!.startsWith("file:") ? place! : `file://${place!}`;
    if (url.startsWith(own) && !url.includes(".test.ts")) continue;
    const location = { file: fileURLToPath(url.split("?")[0]!), line: Number(row), column: Number(column) };
    if (!url.includes("/node_modules/")) return location;
    inPackage ??= location;
  }
  return inPackage;
}
