import type { RunMode, RunStatus } from "../runtime/status.ts";
import { totalConservation } from "./table.ts";

/** From the best to the worst: what is said of several together. */
const modes: readonly RunMode[] = ["done", "running", "starting", "draining", "failed"];
const mostErrors = 5;

/** The status of several topologies as if they were one; of one it is its own. */
export function totalStatus(statuses: readonly RunStatus[]): RunStatus {
  return {
    topology: statuses.map(({ topology }) => topology).join(", "),
    mode: worstMode(statuses),
    startedAt: statuses.length === 0 ? 0 : Math.min(...statuses.map(({ startedAt }) => startedAt)),
    ready: statuses.length > 0 && statuses.every(({ ready }) => ready),
    ...(statuses.some(({ bestEffort }) => bestEffort) ? { bestEffort: true } : {}),
    conservation: totalConservation(statuses.map(({ conservation }) => conservation)),
    sources: statuses.flatMap(({ sources }) => sources),
    sinks: statuses.flatMap(({ sinks }) => sinks),
    lastErrors: newestErrors(statuses),
    counters: sumCounters(statuses),
  };
}

export function worstMode(statuses: readonly RunStatus[]): RunMode {
  return modes[Math.max(...statuses.map(({ mode }) => modes.indexOf(mode)))] ?? "starting";
}

export function newestErrors(statuses: readonly RunStatus[]): RunStatus["lastErrors"] {
  return statuses
    .flatMap(({ lastErrors }) => lastErrors)
    .sort((a, b) => b.at - a.at)
    .slice(0, mostErrors);
}

export function sumCounters(statuses: readonly RunStatus[]): RunStatus["counters"] {
  const sums = new Map<string, number>();
  for (const { counters } of statuses) {
    for (const [name, count] of Object.entries(counters)) sums.set(name, (sums.get(name) ?? 0) + count);
  }
  return Object.fromEntries(sums);
}
