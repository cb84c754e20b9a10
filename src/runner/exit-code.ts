import { classify } from "../errors.ts";
import type { RunResult } from "../runtime/status.ts";

/**
 * What the process tells whoever started it. `configuration` (EX_CONFIG) means that starting it again will
 * not help before somebody changes something: a supervisor need not try.
 */
export const ExitCode = {
  done: 0,
  /** Failed while running, or a drain that did not finish in time, or was cut short. */
  failed: 1,
  /** Wrong arguments. */
  usage: 2,
  /** Wrong topology or configuration; also a Node that is too old. */
  configuration: 78,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** Arguments that cannot be followed: exit 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export function exitCodeOfResult(result: RunResult): ExitCode {
  if (result.how === "done") return ExitCode.done;
  return result.how === "failed" ? exitCodeOfError(result.error) : ExitCode.failed;
}

/** An error of class application is one that only a person can mend, whenever it is met. */
export function exitCodeOfError(error: unknown): ExitCode {
  if (error instanceof UsageError) return ExitCode.usage;
  return classify(error, "component") === "application" ? ExitCode.configuration : ExitCode.failed;
}

/** Of several topologies in one process the worst ending counts: 78 before 2 before 1 before 0. */
export function worst(codes: readonly ExitCode[]): ExitCode {
  return [...codes].sort((a, b) => b - a)[0] ?? ExitCode.done;
}
