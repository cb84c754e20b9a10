import type { RunMode, RunStatus } from "../runtime/status.ts";
import { totalConservation } from "./table.ts";

/** From the best to the worst: what is said of several together. */
const modes: readonly RunMode[] = ["done", "running", "starting", "draining", "failed"];
const mostErrors = 5;

/** The status of several topologies as if they were one; of one it is its own. */
export function totalStatus(statuses: readonly RunStatus[]): RunStatus {
  const counters = new Map<string, number>();
  for (const { counters: own } of statuses) {
    for (const [name, count] of Object.entries(own)) counters.set(name, (counters.get(name) ?? 0) + count);
  }
  const worst = Math.max(...statuses.map(({ mode }) => modes.indexOf(mode)));
  return {
    topology: statuses.map(({ topology }) => topology).join(", "),
    mode: modes[worst] ?? "starting",
    startedAt: statuses.length === 0 ? 0 : Math.min(...statuses.map(({ startedAt }) => startedAt)),
    ready: statuses.length > 0 && statuses.every(({ ready }) => ready),
    conservation: totalConservation(statuses.map(({ conservation }) => conservation)),
    sources: statuses.flatMap(({ sources }) => sources),
    sinks: statuses.flatMap(({ sinks }) => sinks),
    lastErrors: statuses
      .flatMap(({ lastErrors }) => lastErrors)
      .sort((a, b) => b.at - a.at)
      .slice(0, mostErrors),
    counters: Object.fromEntries(counters),
  };
}
