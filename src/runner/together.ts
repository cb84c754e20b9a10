import type { RunMode, RunStatus, SinkReport, SourceReport } from "../runtime/status.ts";
import { totalConservation } from "./table.ts";
import { newestErrors, sumCounters, worstMode } from "./total-status.ts";

/** One topology as several processes run it, as if it were one run: at least one status. */
export function together(statuses: readonly RunStatus[]): RunStatus {
  const [first] = statuses as [RunStatus, ...RunStatus[]];
  if (statuses.length === 1) return first;
  const deadLetters = statuses.flatMap((status) => status.deadLetters ?? []);
  return {
    ...first,
    mode: modeOf(statuses),
    startedAt: Math.min(...statuses.map(({ startedAt }) => startedAt)),
    ready: statuses.every(({ ready }) => ready),
    conservation: totalConservation(statuses.map(({ conservation }) => conservation)),
    sources: byName(statuses.flatMap(({ sources }) => sources)).map(sourceOf),
    sinks: byName(statuses.flatMap(({ sinks }) => sinks)).map(sinkOf),
    ...(deadLetters.length === 0 ? {} : { deadLetters: { ...deadLetters[0]!, ...readiness(deadLetters) } }),
    lastErrors: newestErrors(statuses),
    counters: sumCounters(statuses),
  };
}

/** What is left of a process that died: what it had in flight comes again, to another one. */
export function returned(status: RunStatus): RunStatus {
  const back = <T extends Pick<RunStatus, "conservation">>(part: T): T["conservation"] => ({
    ...part.conservation,
    returned: part.conservation.returned + part.conservation.inFlight,
    inFlight: 0,
  });
  return {
    ...status,
    mode: "done",
    ready: true,
    conservation: back(status),
    sources: status.sources.map((source) => ({
      ...source,
      ready: true,
      stall: undefined,
      conservation: back(source),
      lanes: [],
      backlog: 0,
      held: 0,
      waiting: 0,
      creditMessages: 0,
      creditBytes: 0,
      bytesInFlight: 0,
    })),
    sinks: status.sinks.map((sink) => ({ ...sink, ready: true, writing: 0 })),
  };
}

/** While any of them goes on, what has ended says nothing. */
function modeOf(statuses: readonly RunStatus[]): RunMode {
  const going = statuses.filter(({ mode }) => mode !== "done");
  return worstMode(going.length === 0 ? statuses : going);
}

function byName<T extends { readonly name: string }>(reports: readonly T[]): [T, ...T[]][] {
  return [...Map.groupBy(reports, ({ name }) => name).values()] as [T, ...T[]][];
}

function sourceOf(reports: [SourceReport, ...SourceReport[]]): SourceReport {
  return {
    ...reports[0],
    ...readiness(reports),
    conservation: totalConservation(reports.map(({ conservation }) => conservation)),
    stall: reports.find(({ stall }) => stall !== undefined)?.stall,
    lanes: reports.flatMap(({ lanes }) => lanes),
    backlog: sum(reports, "backlog"),
    held: sum(reports, "held"),
    waiting: sum(reports, "waiting"),
    creditMessages: sum(reports, "creditMessages"),
    creditBytes: sum(reports, "creditBytes"),
    bytesInFlight: sum(reports, "bytesInFlight"),
  };
}

function sinkOf(reports: [SinkReport, ...SinkReport[]]): SinkReport {
  return {
    ...reports[0],
    ...readiness(reports),
    written: sum(reports, "written"),
    writing: sum(reports, "writing"),
    batches: sum(reports, "batches"),
  };
}

type Wellness = Pick<SinkReport, "ready" | "reason" | "notes">;

function readiness(parts: readonly Wellness[]): Wellness {
  const unready = parts.find(({ ready }) => !ready);
  const notes = [...new Set(parts.flatMap((part) => part.notes ?? []))];
  return {
    ready: unready === undefined,
    reason: unready?.reason,
    ...(notes.length === 0 ? {} : { notes }),
  };
}

function sum<Name extends string>(parts: readonly Record<Name, number>[], name: Name): number {
  return parts.reduce((total, part) => total + part[name], 0);
}
