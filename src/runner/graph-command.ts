import { type DrawingFormat, describePlan } from "../topology/describe.ts";
import { compileFiles } from "../topology/load.ts";
import { formatProblems } from "../topology/problem.ts";
import { ExitCode } from "./exit-code.ts";

/** `millrace graph`: the drawing on standard output; mistakes, which leave nothing to draw, on standard error. */
export async function graphCommand(file: string, format: DrawingFormat): Promise<ExitCode> {
  const { plans, problems } = await compileFiles([file]);
  if (problems.length > 0) process.stderr.write(`${formatProblems(problems, process.cwd())}\n`);
  if (plans === undefined) return ExitCode.configuration;
  process.stdout.write(`${plans.map((plan) => describePlan(plan, format).trimEnd()).join("\n\n")}\n`);
  return ExitCode.done;
}
