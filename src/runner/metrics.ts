import { Counter, Gauge, openMetricsContentType, Registry } from "prom-client";
import { outcomeNames } from "../message/outcome.ts";
import type { RunStatus } from "../runtime/status.ts";
import type { WorkerUse } from "./workers.ts";

/** What a scrape is given: status at this moment, and the process. */
export interface Scrape {
  readonly version: string;
  readonly statuses: readonly RunStatus[];
  /** Where several processes share the work: each of them, by its number. */
  readonly processes?: { readonly restarts: number; readonly workers: readonly WorkerUse[] };
}

export const metricsContentType = openMetricsContentType;

/**
 * The OpenMetrics text of this moment. A registry is made for each scrape: every number is already kept by the
 * runs, and nothing of a topology that is over lingers. The number of series is fixed by the topologies, but for
 * lanes, which come and go with assignments.
 */
export function openMetrics({ version, statuses, processes }: Scrape): Promise<string> {
  const registry = new Registry<typeof openMetricsContentType>();
  registry.setContentType(openMetricsContentType);
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Counter({ name: `millrace_${name}_total`, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Gauge({ name: `millrace_${name}`, help, labelNames, registers });

  const of = ["topology", "source"] as const;
  const accepted = counter("accepted", "Messages taken in", of);
  const messages = counter("messages", "Messages by the one way each ended", [...of, "outcome"]);
  const inFlight = gauge("in_flight", "Messages taken in and not yet settled", of);
  const bytesInFlight = gauge("in_flight_bytes", "Bytes of the messages in flight, before decoding", of);
  const credit = gauge("credit", "Most messages that may be in flight", of);
  const held = gauge("held", "Messages in flight that a window holds", of);
  const waiting = gauge("waiting", "Messages in flight that wait for their twin's outcome", of);
  const backlog = gauge("backlog", "Messages fetched that wait for credit", of);
  const sourceReady = gauge("source_ready", "1 when the source is connected and assigned", of);
  const stalled = gauge(
    "source_stalled",
    "1 while nothing moves though there is something to read, or to settle",
    [...of, "awaiting"],
  );
  const lane = [...of, "lane"] as const;
  const span = gauge("span", "Messages of the lane that a crash would replay", lane);
  const checkpoint = gauge("checkpoint", "Position below which all of the lane is settled", lane);
  const to = ["topology", "sink"] as const;
  const written = counter("sink_written", "Messages acknowledged by the destination", to);
  const batches = counter("sink_batches", "Batches acknowledged by the destination", to);
  const writing = gauge("sink_writing", "Batches under way", to);
  const sinkReady = gauge("sink_ready", "1 when the sink is connected", to);
  const ready = gauge("ready", "1 when the topology is ready", ["topology"]);
  const started = gauge("start_time_seconds", "Start of the run, in seconds since 1970", ["topology"]);

  for (const { topology, sources, sinks, ...status } of statuses) {
    ready.set({ topology }, Number(status.ready));
    started.set({ topology }, status.startedAt / 1000);
    for (const { name: source, conservation, lanes, ...report } of sources) {
      const labels = { topology, source };
      accepted.inc(labels, conservation.accepted);
      for (const outcome of outcomeNames) {
        if (outcome !== "inFlight") messages.inc({ ...labels, outcome }, conservation[outcome]);
      }
      inFlight.set(labels, conservation.inFlight);
      bytesInFlight.set(labels, report.bytesInFlight);
      credit.set(labels, report.creditMessages);
      held.set(labels, report.held);
      waiting.set(labels, report.waiting);
      backlog.set(labels, report.backlog);
      sourceReady.set(labels, Number(report.ready));
      for (const awaiting of ["source", "sink"]) {
        stalled.set({ ...labels, awaiting }, Number(report.stall?.awaiting === awaiting));
      }
      for (const one of lanes) {
        span.inc({ ...labels, lane: one.name }, one.span);
        checkpoint.set({ ...labels, lane: one.name }, one.checkpoint);
      }
    }
    for (const { name: sink, ...report } of sinks) {
      const labels = { topology, sink };
      written.inc(labels, report.written);
      batches.inc(labels, report.batches);
      writing.set(labels, report.writing);
      sinkReady.set(labels, Number(report.ready));
    }
  }
  for (const [name, counts] of componentCounters(statuses)) {
    const taken = registry.getSingleMetric(`millrace_${name}_total`) !== undefined;
    const own = counter(taken ? `component_${name}` : name, "Counted by the components", ["topology"]);
    for (const [topology, count] of counts) own.inc({ topology }, count);
  }
  gauge("info", "The runner", ["version", "node"]).set({ version, node: process.version }, 1);
  processMetrics(registers);
  if (processes !== undefined) {
    const memory = gauge("worker_resident_memory_bytes", "Resident memory of a worker", ["worker"]);
    const cpu = gauge("worker_cpu_seconds", "CPU time of a worker since it was last started", ["worker"]);
    for (const { worker, ...use } of processes.workers) {
      memory.set({ worker }, use.memory);
      cpu.set({ worker }, use.cpu);
    }
    counter("worker_restarts", "Workers started again after they had died", []).inc(processes.restarts);
  }
  return registry.metrics();
}

/** Counters by metric name without prefix and `_total`, each by topology. */
function componentCounters(statuses: readonly RunStatus[]): Map<string, Map<string, number>> {
  const all = new Map<string, Map<string, number>>();
  for (const { topology, counters } of statuses) {
    for (const [given, count] of Object.entries(counters)) {
      const name = given.replace(/_total$/, "").replaceAll(/[^A-Za-z0-9_]/g, "_");
      const counts = all.get(name) ?? new Map<string, number>();
      counts.set(topology, (counts.get(topology) ?? 0) + count);
      all.set(name, counts);
    }
  }
  return all;
}

function processMetrics(registers: Registry<typeof openMetricsContentType>[]): void {
  const memory = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  new Gauge({ name: "process_resident_memory_bytes", help: "Resident memory", registers }).set(memory.rss);
  new Gauge({ name: "nodejs_heap_used_bytes", help: "Heap in use", registers }).set(memory.heapUsed);
  new Gauge({ name: "nodejs_external_memory_bytes", help: "Memory of buffers", registers }).set(
    memory.external,
  );
  new Counter({ name: "process_cpu_seconds_total", help: "CPU time, user and system", registers }).inc(
    (user + system) / 1e6,
  );
}
