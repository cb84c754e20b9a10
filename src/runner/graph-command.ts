import { type DrawingFormat, describePlan } from "../topology/describe.ts";
import { formatProblems } from "../topology/problem.ts";
import { ExitCode } from "./exit-code.ts";
import { loadTopologies } from "./loading.ts";
import { endOnUncaught } from "./signals.ts";

/** `millrace graph`: the drawing on standard output; mistakes, which leave nothing to draw, on standard error. */
export async function graphCommand(file: string, format: DrawingFormat): Promise<ExitCode> {
  endOnUncaught();
  const { plans, problems } = await loadTopologies([file]);
  if (problems.length > 0) process.stderr.write(`${formatProblems(problems, process.cwd())}\n`);
  if (plans === undefined) return ExitCode.configuration;
  process.stdout.write(`${plans.map((plan) => describePlan(plan, format).trimEnd()).join("\n\n")}\n`);
  return ExitCode.done;
}
