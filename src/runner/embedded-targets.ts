import type { Connection } from "../component/connection.ts";
import type { Context } from "../component/context.ts";
import { nearest } from "../component/options.ts";
import type { Plan } from "../topology/plan.ts";
import type { DumpTarget } from "./dump.ts";
import { UsageError } from "./exit-code.ts";

/** Kinds of requirement that hold messages, of those that only a broker can meet. */
const holding = ["topic", "queue", "table"];
const brokered = [...holding, "exchange"];

/** Topics and queues of the embedded brokers that the plans use: those they name, and those the brokers hold. */
export function embeddedTargets(
  plans: readonly Plan[],
  contextFor: (connection: Connection) => Context,
): DumpTarget[] {
  const targets: DumpTarget[] = [];
  for (const { connection, requirements } of plans.flatMap((plan) => plan.connections)) {
    const broker = connection.embedded(contextFor(connection));
    if (broker === undefined) continue;
    const { connector, address } = connection;
    const named = requirements.filter(({ kind }) => holding.includes(kind)).map(({ name }) => name);
    for (const name of new Set([...named, ...broker.targets()])) {
      const known = targets.some((target) => target.broker === broker && target.name === name);
      if (!known) targets.push({ connector, address, broker, name });
    }
  }
  return targets.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Addresses of the brokers that a run would really reach. */
export function realBrokers(
  plans: readonly Plan[],
  contextFor: (connection: Connection) => Context,
): string[] {
  return plans
    .flatMap((plan) => plan.connections)
    .filter(({ requirements }) => requirements.some(({ kind }) => brokered.includes(kind)))
    .filter(({ connection }) => connection.embedded(contextFor(connection)) === undefined)
    .map(({ connection }) => `${connection.connector} at ${connection.address}`);
}

/**
 * The target that `--feed` names: by name, as `connector:name`, or as `connector:name@address`. Throws a
 * {@link UsageError}.
 */
export function findTarget(name: string, targets: readonly DumpTarget[]): DumpTarget {
  const long = (target: DumpTarget) => `${target.connector}:${target.name}`;
  const longest = (target: DumpTarget) => `${long(target)}@${target.address}`;
  for (const form of [(target: DumpTarget) => target.name, long, longest]) {
    const found = targets.filter((target) => form(target) === name);
    if (found.length === 1) return found[0]!;
    if (found.length === 0) continue;
    const unique = new Set(found.map(long)).size === found.length;
    const choices = found.map(unique ? long : longest);
    throw new UsageError(`--feed ${name}: several brokers have it; name one of them: ${choices.join(", ")}`);
  }
  const near = nearest(
    name,
    targets.map((target) => target.name),
  );
  const known = targets.map((target) => target.name).join(", ");
  throw new UsageError(
    `--feed ${name}: the topology has no such topic or queue; ${
      near === undefined ? `it has: ${known === "" ? "none" : known}` : `did you mean "${near}"?`
    }`,
  );
}
