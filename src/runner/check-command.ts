import type { Connection } from "../component/connection.ts";
import type { Context } from "../component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../component/system.ts";
import type { Plan } from "../topology/plan.ts";
import { formatProblems, type Problem } from "../topology/problem.ts";
import { ExitCode } from "./exit-code.ts";
import { loadTopologies } from "./loading.ts";
import { createLogger } from "./logger.ts";
import { describeError } from "./report.ts";
import { isCreatable, meetRequirements, tellFailure } from "./requirements.ts";
import { endOnUncaught } from "./signals.ts";
import { printable } from "./terminal.ts";
import { logWarnings } from "./warnings.ts";

/**
 * `millrace check`: every mistake of all files on standard output, or a line that says ok for each topology.
 * Stores on this machine are looked at. Opens no socket unless it is to `connect`; then what the brokers lack is a
 * mistake as well.
 */
export async function checkCommand(
  files: readonly string[],
  { connect }: { readonly connect: boolean },
): Promise<ExitCode> {
  endOnUncaught();
  const { plans, problems } = await loadTopologies(files);
  if (problems.length > 0) process.stdout.write(`${formatProblems(problems, process.cwd())}\n`);
  if (plans === undefined) return ExitCode.configuration;
  let code: ExitCode = ExitCode.done;
  let missing = false;
  for (const plan of plans) {
    const stores = await storeProblems(plan);
    if (stores.length > 0) process.stdout.write(`${formatProblems(stores, process.cwd())}\n`);
    const found = connect ? await askBrokers(plan) : [];
    for (const { line } of found) process.stdout.write(`${printable(line)}\n`);
    missing ||= found.some(({ creatable }) => creatable);
    if (found.length > 0 || stores.some(({ severity }) => severity === "error"))
      code = ExitCode.configuration;
    else process.stdout.write(`ok  ${plan.name}${connect ? "  all that it needs exists" : ""}\n`);
  }
  if (missing) {
    process.stdout.write(`to create what is missing: millrace run --create ${files.join(" ")}\n`);
  }
  return code;
}

/** What keeps a run of the plan from using its stores. */
async function storeProblems({ nodes }: Plan): Promise<readonly Problem[]> {
  const found: Problem[] = [];
  for (const node of nodes) {
    if (node.kind !== "operator" || node.operator.store === undefined) continue;
    const { store } = node.operator;
    const location = store.location ?? node.location;
    found.push(...(await store.verify()).map((problem): Problem => ({ ...problem, location })));
  }
  return found;
}

/** What a plan's brokers lack, or why they cannot tell, each in one line. */
async function askBrokers(plan: Plan): Promise<{ readonly line: string; readonly creatable: boolean }[]> {
  const logger = createLogger("error", undefined);
  logWarnings(logger);
  const work = new PooledWork();
  const contextFor = (connection: Connection): Context => ({
    clock: systemClock,
    random: systemRandom,
    work,
    signal: new AbortController().signal,
    logger,
    meter: { count: () => {} },
    embedded: undefined,
    node: `${connection.connector} ${connection.address}`,
  });
  const found: { line: string; creatable: boolean }[] = [];
  for (const { connection, requirements } of plan.connections) {
    try {
      const unmet = await meetRequirements([{ connections: [{ connection, requirements }] }], {
        create: false,
        wait: false,
        contextFor,
      });
      for (const one of unmet) {
        const { requirement, problem, remedy, code = "target-missing" } = one;
        const line = `${requirement.at}  error  ${code}  ${problem}  → ${remedy}`;
        found.push({ line, creatable: isCreatable(one) });
      }
    } catch (error) {
      const { code = "connection-lost", remedy } = describeError(error);
      const line = [plan.name, "error", code, tellFailure(connection, error)].join("  ");
      found.push({ line: remedy === undefined ? line : `${line}  → ${remedy}`, creatable: false });
    }
  }
  return found;
}
