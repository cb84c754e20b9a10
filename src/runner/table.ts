import type { Conservation } from "../runtime/credit.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";

const outcomes = [
  ["delivered", "delivered"],
  ["duplicate", "duplicate"],
  ["filtered", "filtered"],
  ["deadLettered", "deadLettered"],
  ["returned", "returned"],
  ["lost", "lost"],
  ["inFlight", "in flight"],
] as const satisfies readonly (readonly [keyof Conservation, string])[];

/**
 * The conservation table of one topology: where every accepted message is. One block without empty lines,
 * which ends with the equation.
 */
export function conservationTable(status: RunStatus, result?: RunResult): string {
  const { conservation, sources, sinks } = status;
  const blocks = [
    [`${status.topology}: ${ending(status, result)}`],
    aligned([
      ["outcome", "messages"],
      ["accepted", String(conservation.accepted)],
      ...outcomes.map(([name, label]) => [label, String(conservation[name])]),
    ]),
    sources.length < 2
      ? []
      : aligned([
          ["source", "accepted", ...outcomes.map(([, label]) => label)],
          ...sources.map(({ name, conservation: own }) => [
            name,
            String(own.accepted),
            ...outcomes.map(([outcome]) => String(own[outcome])),
          ]),
        ]),
    sinks.length === 0
      ? []
      : aligned([
          ["sink", "written", "batches"],
          ...sinks.map(({ name, written, batches }) => [name, String(written), String(batches)]),
        ]),
    [equation(conservation)],
  ];
  return blocks.flat().join("\n");
}

/** "accepted 5473 = delivered 564 + duplicate 4909": terms of 0 left out. "≠" would be a mistake in Millrace itself. */
export function equation(conservation: Conservation): string {
  const terms = outcomes.filter(([name]) => conservation[name] !== 0);
  const sum = terms.map(([name, label]) => `${label} ${conservation[name]}`).join(" + ");
  return `accepted ${conservation.accepted} ${isConserved(conservation) ? "=" : "≠"} ${sum === "" ? "0" : sum}`;
}

/** Every accepted message has exactly one outcome or is in flight. */
export function isConserved(conservation: Conservation): boolean {
  return outcomes.reduce((sum, [name]) => sum + conservation[name], 0) === conservation.accepted;
}

/** Of several topologies together. */
export function totalConservation(parts: readonly Conservation[]): Conservation {
  const sum = { accepted: 0 } as Conservation;
  for (const [name] of outcomes) sum[name] = 0;
  for (const part of parts) {
    sum.accepted += part.accepted;
    for (const [name] of outcomes) sum[name] += part[name];
  }
  return sum;
}

function ending(status: RunStatus, result: RunResult | undefined): string {
  if (result === undefined) return status.mode;
  return result.how === "drain-timeout" ? "drain timed out" : result.how;
}

/** Columns two spaces apart: the first to the left, numbers to the right. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join("  "),
  );
}
