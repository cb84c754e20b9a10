import { type ErrorCode, MillraceError, messageOf } from "../errors.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";
import type { ExitCode } from "./exit-code.ts";
import { conservationTable } from "./table.ts";
import { totalStatus } from "./total-status.ts";

export interface ReportedProblem {
  /** From the table in errors.ts, or "usage" for wrong arguments. */
  readonly code: ErrorCode | "usage";
  readonly message: string;
  readonly remedy: string;
}

/** Everything that a run of the process has to say at its end. */
export interface Report {
  readonly exitCode: ExitCode;
  readonly runs: readonly { readonly status: RunStatus; readonly result: RunResult | undefined }[];
  /** Why nothing, or not everything, ran. */
  readonly problems: readonly ReportedProblem[];
}

/** The conservation tables, an empty line between two; empty when nothing ran. */
export function reportTables({ runs }: Pick<Report, "runs">): string {
  return runs.map(({ status, result }) => `${conservationTable(status, result)}\n`).join("\n");
}

/** One JSON object on one line. */
export function reportJson({ exitCode, runs, problems }: Report): string {
  return `${JSON.stringify({
    exitCode,
    ...totalStatus(runs.map(({ status }) => status)),
    topologies: runs.map(({ status, result }) => ({
      ...status,
      result: result === undefined ? { how: "cut-short" } : describeResult(result),
    })),
    problems,
  })}\n`;
}

function describeResult(result: RunResult): object {
  return result.how === "done"
    ? { how: result.how }
    : { how: result.how, error: describeError(result.error) };
}

/** What may be told of an error: nothing of its stack, and no credentials. */
export function describeError(error: unknown): {
  readonly code?: ErrorCode;
  readonly message: string;
  readonly remedy?: string;
} {
  const message = messageOf(error);
  if (!(error instanceof MillraceError)) return { message };
  return { code: error.code, message, ...(error.remedy === undefined ? {} : { remedy: error.remedy }) };
}
