import { pause } from "../component/backoff.ts";
import type { Clock, Context, Logger, Random, Work } from "../component/context.ts";
import type { EmbeddedBrokers } from "../component/embedded.ts";
import type { OpenedOperator } from "../component/operator.ts";
import type { Sink, SinkSession } from "../component/sink.ts";
import type { SourceSession, WatchOptions } from "../component/source.ts";
import { MillraceError, messageOf } from "../errors.ts";
import type { OutcomeName } from "../message/outcome.ts";
import type { Plan, PlanNode } from "../topology/plan.ts";
import type { Conservation } from "./credit.ts";
import { DeadLetters } from "./dead-letter.ts";
import { LaneIntake } from "./intake.ts";
import { Pipeline } from "./pipeline.ts";
import type { SinkTarget } from "./sink-stage.ts";
import { SourceRun } from "./source-run.ts";
import type { RunMode, RunResult, RunStatus, SinkReport, SourceReport } from "./status.ts";
import { Watchdog } from "./watchdog.ts";

export interface RunOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly work: Work;
  readonly logger: Logger;
  /** In-process brokers instead of the real ones. */
  readonly embedded?: EmbeddedBrokers | undefined;
  /** Longest time in ms from {@link Run.drain} to the end. Default 30,000. */
  readonly drainTimeout?: number;
}

/** A plan being run. */
export interface Run {
  /** Resolves when every sink and source is open; rejects with a {@link MillraceError} when one cannot be. */
  readonly started: Promise<void>;
  status(): RunStatus;
  /** Stops intake, finishes what is in flight, acknowledges it, closes. Resolves as {@link finished} does. */
  drain(): Promise<RunResult>;
  /** Ends at once: nothing more is acknowledged. */
  abort(reason: Error): void;
  /** Every source is at its end and nothing is in flight, seen twice with no delivery between; windows are flushed for it. */
  untilIdle(): Promise<void>;
  /** Never rejects. */
  readonly finished: Promise<RunResult>;
}

/** Starts a plan. Stores are opened first, then sinks, then sources; a broker that is away is waited for. */
export function start(plan: Plan, options: RunOptions): Run {
  return new PlanRun(plan, options);
}

const drainTimeout = 30_000;
/** How long closing may take once everything else is done or given up, ms. */
const closeTimeout = 5_000;
/** Author code that keeps messages for so long with all input read is told of, ms. */
const keptTooLong = 5_000;
const neverLeft = "a stage must emit every message it was given, or give it up with message.drop()";
/** Between two looks at what is in flight while draining, ms. */
const drainTick = 5;
/** Without progress for so long a draining stream is completed early: author code may hold messages until then. */
const completeAfter = 1_000;

/**
 * One run of one plan. Modes: *starting* → *running* → *draining* → *done*; from any of them *failed*. The
 * mode is set by {@link PlanRun.#enter} alone.
 */
class PlanRun implements Run {
  readonly started: Promise<void>;
  readonly finished: Promise<RunResult>;
  readonly #plan: Plan;
  readonly #options: RunOptions;
  readonly #abort = new AbortController();
  readonly #startedAt: number;
  readonly #intakes = new Map<string, LaneIntake>();
  readonly #sources = new Map<string, SourceRun>();
  readonly #watchdogs = new Map<string, Watchdog>();
  readonly #sinkSessions = new Map<Sink, SinkSession>();
  /** Those with a store. */
  readonly #operators = new Map<string, OpenedOperator>();
  readonly #counters = new Map<string, number>();
  readonly #errors: { message: string; at: number; node: string }[] = [];
  #pipeline: Pipeline | undefined;
  #mode: RunMode = "starting";
  #cut = 0;
  #quietScheduled = false;
  #draining: Promise<RunResult> | undefined;
  #finish!: (result: RunResult) => void;

  constructor(plan: Plan, options: RunOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#startedAt = options.clock.wall();
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.started = this.#start();
    this.started.catch((error) => {
      // Told to stop while starting, it gives up by itself: that is no failure.
      if (this.#mode === "draining") return;
      this.#fail("start", error instanceof Error ? error : new Error(String(error)));
    });
  }

  async #start(): Promise<void> {
    const { deadLetters, nodes } = this.#plan;
    // Before any socket: what is wrong with a store is no broker's business.
    for (const node of nodes) {
      if (node.kind !== "operator" || node.operator.open === undefined) continue;
      const opening = node.operator.open(this.#contextFor(node.name));
      this.#operators.set(node.name, await this.#unlessOver(opening));
    }
    const sinks = new Set<Sink>();
    for (const node of nodes) {
      if (node.kind !== "sink") continue;
      sinks.add(node.sink);
      if (node.audit !== undefined) sinks.add(node.audit);
    }
    if (deadLetters !== undefined) sinks.add(deadLetters.sink);
    await Promise.all(
      [...sinks].map(async (sink) => {
        const name = nodes.find((node) => node.kind === "sink" && node.sink === sink)?.name ?? sink.name;
        this.#sinkSessions.set(sink, await this.#unlessOver(sink.open(this.#contextFor(name))));
      }),
    );
    const targets = new Map<string, SinkTarget>();
    for (const node of nodes) {
      if (node.kind === "source") {
        this.#intakes.set(
          node.name,
          new LaneIntake(
            node.name,
            node.source.credit,
            this.#options.clock,
            () => this.#checkStarved(),
            () => this.#flush(),
          ),
        );
      } else if (node.kind === "sink") {
        targets.set(node.name, {
          name: node.sink.targets[0] ?? node.name,
          session: this.#sinkSessions.get(node.sink)!,
          audit: node.audit === undefined ? undefined : this.#sinkSessions.get(node.audit)!,
          stopAtFirst: node.stopAtFirst === true,
        });
      }
    }
    const letters = deadLetters === undefined ? undefined : this.#sinkSessions.get(deadLetters.sink);
    const fail = (error: Error) => this.#fail("pipeline", error);
    this.#pipeline = new Pipeline(
      this.#plan,
      this.#intakes,
      targets,
      new DeadLetters(this.#contextFor("dead letters"), letters, fail),
      {
        fail,
        contextFor: (node) => this.#contextFor(node),
        opened: (node) => this.#operators.get(node),
      },
    );
    await Promise.all(
      nodes.map(async (node) => {
        if (node.kind !== "source") return;
        const intake = this.#intakes.get(node.name)!;
        const { source } = node;
        const context = this.#contextFor(node.name);
        const running = new SourceRun({
          source,
          intake,
          context,
          downstream: () => this.#troubleBelow(node.name),
        });
        await this.#unlessOver(running.open());
        this.#sources.set(node.name, running);
        if (source.watch !== undefined && running.session?.lag !== undefined) {
          this.#watch(node.name, running, intake, source.watch);
        }
      }),
    );
    if (this.#mode === "starting") this.#enter("running");
  }

  #watch(node: string, source: SourceRun, intake: LaneIntake, options: WatchOptions): void {
    const watchdog = new Watchdog({
      context: this.#contextFor(node),
      options,
      intake,
      session: () => (this.#mode === "running" && !source.isRestarting ? source.session : undefined),
      restart: () => source.restart(),
      downstream: () => this.#awaited(node),
    });
    this.#watchdogs.set(node, watchdog);
    watchdog.start();
  }

  /** A session that is open only when the run is over is closed here: nobody else would. */
  async #unlessOver<S extends SourceSession | SinkSession | OpenedOperator>(opening: Promise<S>): Promise<S> {
    const session = await opening;
    if (this.#mode === "starting") return session;
    await session.close(this.#options.clock.now() + closeTimeout);
    throw new MillraceError("gave-up", "the run is over");
  }

  status(): RunStatus {
    const sources = this.#plan.nodes
      .filter((node) => node.kind === "source")
      .map((node) => this.#sourceReport(node));
    const sinks = this.#plan.nodes
      .filter((node) => node.kind === "sink")
      .map((node) => this.#sinkReport(node));
    const letters = this.#plan.deadLetters?.sink;
    const deadLetters = letters === undefined ? [] : [this.#readiness(letters, letters.name)];
    return {
      topology: this.#plan.name,
      mode: this.#mode,
      startedAt: this.#startedAt,
      ready: this.#mode === "running" && [...sources, ...sinks, ...deadLetters].every(({ ready }) => ready),
      ...(this.#plan.nodes.some(mayLose) ? { bestEffort: true } : {}),
      conservation: total(sources.map(({ conservation }) => conservation)),
      sources,
      sinks,
      ...(deadLetters[0] === undefined ? {} : { deadLetters: deadLetters[0] }),
      lastErrors: this.#lastErrors(),
      counters: Object.fromEntries([...this.#counters].sort(([a], [b]) => (a < b ? -1 : 1))),
    };
  }

  drain(): Promise<RunResult> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  abort(reason: Error): void {
    this.#fail("run", reason);
  }

  async untilIdle(): Promise<void> {
    await this.started;
    let seen = -1;
    let keptSince: number | undefined;
    for (let wait = 10; this.#mode === "running"; wait = Math.min(200, wait * 1.5)) {
      await pause(this.#waiting(), wait);
      const before = this.#accepted();
      if (!(await this.#allAtEnd())) {
        seen = -1;
        continue;
      }
      if (this.#inFlight() > 0) {
        this.#flush();
        wait = 10;
        seen = -1;
        keptSince = this.#tellKept(keptSince);
      } else if (this.#accepted() === before && seen === before) {
        return;
      } else {
        // Once more, soon: two looks alike are the end.
        wait = 10;
        seen = before;
      }
    }
  }

  async #drain(): Promise<RunResult> {
    const { clock, drainTimeout: limit = drainTimeout } = this.#options;
    if (this.#mode === "failed" || this.#mode === "done") return this.finished;
    const deadline = clock.now() + limit;
    const early = this.#mode === "starting";
    this.#enter("draining");
    // Some sources may be open and others not yet: none takes anything in from now on.
    for (const intake of this.#intakes.values()) intake.stop();
    const given = this.#stopRestarts();
    for (const session of this.#sessions()) session.stopIntake();
    if (!(await this.#emptied(deadline)) || !(await this.#before(deadline, given)))
      return this.#drainTimedOut();
    for (const intake of this.#intakes.values()) intake.complete();
    if (!(await this.#before(deadline, this.#commitAll()))) return this.#drainTimedOut();
    // A commit that failed has ended the run, as what it is.
    if (this.#mode !== "draining") return this.finished;
    if (early) {
      this.#abort.abort(new MillraceError("gave-up", "the run was stopped while starting"));
      // What cannot be interrupted is closed when it has opened.
      await this.#before(deadline, this.started);
    }
    return this.#close({ how: "done" });
  }

  /** Flushes until nothing is in flight; false when the deadline or a failure came first. */
  async #emptied(deadline: number): Promise<boolean> {
    const { clock } = this.#options;
    let last = this.#inFlight();
    let movedAt = clock.now();
    while (this.#inFlight() > 0) {
      if (this.#mode !== "draining" || clock.now() >= deadline) return false;
      this.#flush();
      await pause(this.#waiting(), drainTick).catch(() => {});
      if (this.#inFlight() !== last || this.#pipeline!.underWay > 0) {
        last = this.#inFlight();
        movedAt = clock.now();
      } else if (clock.now() - movedAt > completeAfter) {
        for (const intake of this.#intakes.values()) intake.complete();
      }
    }
    return this.#mode === "draining";
  }

  /** Acknowledges what every source may; where one fails, the others' are done first. Never rejects. */
  async #commitAll(): Promise<void> {
    const refused: { readonly node: string; readonly error: unknown }[] = [];
    await Promise.all(
      [...this.#sources].map(([node, { session }]) =>
        session?.commit().catch((error: unknown) => refused.push({ node, error })),
      ),
    );
    const [first] = refused;
    if (first === undefined || this.#mode !== "draining") return;
    this.#fail(first.node, first.error instanceof Error ? first.error : new Error(messageOf(first.error)));
  }

  #drainTimedOut(): Promise<RunResult> {
    if (this.#mode === "failed") return this.finished;
    const left = this.#inFlight();
    const kept = this.#kept();
    const unacknowledged =
      left === 0
        ? "all messages were done, and acknowledging them was not"
        : `${left} message${left === 1 ? "" : "s"} still in flight were not acknowledged`;
    return this.#close({
      how: "drain-timeout",
      error: new MillraceError(
        "drain-timeout",
        `the drain did not finish in time: ${unacknowledged}${kept === undefined ? "" : ` (${kept})`}`,
        {
          remedy:
            kept === undefined
              ? "they will be read again; look at the sinks' status, or give --drain more time"
              : neverLeft,
        },
      ),
    });
  }

  /** Warns once of author code that keeps messages though all input is read; returns since when it has. */
  #tellKept(since: number | undefined): number | undefined {
    const now = this.#options.clock.now();
    const kept = this.#pipeline!.underWay > 0 ? undefined : this.#kept();
    if (kept === undefined) return undefined;
    if (since !== undefined && now - since >= keptTooLong) {
      this.#options.logger.warn(
        { topology: this.#plan.name, kept, remedy: neverLeft },
        "all input is read, and messages do not come out of the topology's own code",
      );
      return Number.POSITIVE_INFINITY;
    }
    return since ?? now;
  }

  /** "stage-1 keeps 11": what author code has not let go of; undefined when there is nothing of the kind. */
  #kept(): string | undefined {
    const kept = this.#pipeline?.kept ?? [];
    return kept.length === 0 ? undefined : kept.map(({ node, count }) => `${node} keeps ${count}`).join(", ");
  }

  async #close(result: RunResult): Promise<RunResult> {
    const { clock } = this.#options;
    if (result.how !== "done") {
      this.#abort.abort(result.error);
      this.#enter("failed");
    }
    const deadline = clock.now() + closeTimeout;
    if (result.how === "drain-timeout") {
      await this.#before(deadline, Promise.allSettled(this.#sessions().map((session) => session.commit())));
    }
    await this.#before(
      deadline,
      Promise.allSettled([...this.#sources.values()].map((source) => source.close(deadline))).then(() =>
        Promise.allSettled([...this.#sinkSessions.values()].map((session) => session.close(deadline))),
      ),
    );
    await this.#before(
      clock.now() + closeTimeout,
      Promise.allSettled([...this.#operators.values()].map((operator) => operator.close(deadline))),
    );
    for (const intake of this.#intakes.values()) {
      for (const lane of intake.lanes) intake.end(lane);
      intake.complete();
    }
    if (result.how === "done") this.#enter("done");
    this.#finish(result);
    return result;
  }

  /** Class system: nothing more is acknowledged, everything is closed. */
  #fail(node: string, error: Error): void {
    if (this.#mode === "failed" || this.#mode === "done") return;
    this.#errors.unshift({ message: messageOf(error), at: this.#options.clock.wall(), node });
    for (const intake of this.#intakes.values()) intake.stop();
    this.#stopRestarts();
    for (const session of this.#sessions()) session.stopIntake();
    this.#close({ how: "failed", error });
  }

  #sessions(): SourceSession[] {
    return [...this.#sources.values()].flatMap(({ session }) => session ?? []);
  }

  async #stopRestarts(): Promise<void> {
    for (const watchdog of this.#watchdogs.values()) watchdog.stop();
    await Promise.all([...this.#sources.values()].map((source) => source.stopRestarts()));
  }

  #enter(mode: RunMode): void {
    if (this.#mode === mode) return;
    this.#mode = mode;
    this.#options.logger.info({ topology: this.#plan.name, mode }, `topology ${mode}`);
  }

  #flush(): void {
    this.#cut++;
    for (const intake of this.#intakes.values()) intake.send({ kind: "flush", cut: this.#cut });
  }

  #checkStarved(): void {
    if (this.#quietScheduled) return;
    this.#quietScheduled = true;
    this.#options.clock.defer(() => {
      this.#quietScheduled = false;
      for (const intake of this.#intakes.values()) {
        if (!intake.credit.starved) continue;
        this.#count("starvation_flushes_total", 1);
        // The oldest may have been another flow's, and nothing of this one in it: then the next one is opened.
        if (this.#pipeline?.flushOldest()) this.#checkStarved();
        return;
      }
    });
  }

  async #allAtEnd(): Promise<boolean> {
    for (const [name, { session }] of this.#sources) {
      if (session === undefined || (this.#intakes.get(name)?.waitingCount ?? 0) > 0) return false;
      try {
        if (!(await session.atEnd())) return false;
      } catch (error) {
        this.#options.logger.debug(
          { node: name, error: messageOf(error) },
          "cannot tell whether the source is at its end",
        );
        return false;
      }
    }
    return true;
  }

  #inFlight(): number {
    let count = 0;
    for (const intake of this.#intakes.values()) count += intake.credit.inFlight;
    return count;
  }

  #accepted(): number {
    let count = 0;
    for (const intake of this.#intakes.values()) count += intake.credit.conservation().accepted;
    return count;
  }

  /** True when the promise gives true before the deadline. */
  async #before(deadline: number, promise: Promise<unknown>): Promise<boolean> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const timer = clock.after(Math.max(0, deadline - clock.now()), () => resolve(false));
      promise.then(
        (value) => {
          timer.cancel();
          resolve(value !== false);
        },
        () => {
          timer.cancel();
          resolve(false);
        },
      );
    });
  }

  #waiting(): Pick<Context, "clock" | "signal"> {
    return { clock: this.#options.clock, signal: this.#abort.signal };
  }

  #contextFor(node: string): Context {
    const { clock, random, work, logger, embedded } = this.#options;
    return {
      clock,
      random,
      work,
      logger,
      embedded,
      node,
      signal: this.#abort.signal,
      meter: { count: (name, by = 1) => this.#count(name, by) },
    };
  }

  #count(name: string, by: number): void {
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + by);
  }

  #sourceReport(node: PlanNode & { kind: "source" }): SourceReport {
    const intake = this.#intakes.get(node.name);
    const status = this.#sources.get(node.name)?.status();
    const stall = this.#watchdogs.get(node.name)?.stall;
    const { credit } = node.source;
    return {
      name: node.name,
      type: node.source.type,
      ready: status?.ready === true && stall === undefined,
      reason: status === undefined ? "connecting" : (stall?.reason ?? status.reason),
      stall,
      notes: status?.notes,
      conservation: intake?.credit.conservation() ?? total([]),
      lanes: (intake?.lanes ?? []).map((lane) => ({
        name: lane.name,
        epoch: lane.epoch,
        inFlight: lane.inFlight,
        span: lane.span,
        checkpoint: lane.checkpoint,
      })),
      backlog: intake?.waitingCount ?? 0,
      ...(status?.queued === undefined ? {} : { queued: status.queued }),
      held: intake?.credit.held ?? 0,
      waiting: intake?.credit.waiting ?? 0,
      creditMessages: credit.messages,
      creditBytes: credit.bytes,
      bytesInFlight: intake?.credit.bytesInFlight ?? 0,
    };
  }

  #readiness(sink: Sink, name: string): Pick<SinkReport, "name" | "type" | "ready" | "reason"> {
    const status = this.#sinkSessions.get(sink)?.status();
    return {
      name,
      type: sink.type,
      ready: status?.ready ?? false,
      reason: status === undefined ? "connecting" : status.reason,
    };
  }

  /** The first of the sinks that a node's messages come to, or the dead letters, that is not ready, and why. */
  #troubleBelow(name: string): string | undefined {
    const parts: Pick<SinkReport, "name" | "ready" | "reason">[] = [];
    for (const node of this.#sinksBelow(name)) {
      parts.push(this.#readiness(node.sink, node.name));
      if (node.audit !== undefined) parts.push(this.#readiness(node.audit, node.audit.name));
    }
    const letters = this.#plan.deadLetters?.sink;
    if (letters !== undefined) parts.push(this.#readiness(letters, letters.name));
    const unready = parts.find(({ ready }) => !ready);
    return unready === undefined ? undefined : `${unready.name}: ${unready.reason ?? "not ready"}`;
  }

  #sinksBelow(name: string): (PlanNode & { kind: "sink" })[] {
    const below = new Set([name]);
    // Nodes stand after those that feed them.
    return this.#plan.nodes.filter((node) => {
      if (!node.inputs.some((input) => below.has(input.node))) return false;
      below.add(node.name);
      return node.kind === "sink";
    }) as (PlanNode & { kind: "sink" })[];
  }

  /** What keeps a node's messages in flight, as far as it can be told: a sink that is not ready, or else is writing. */
  #awaited(name: string): string {
    const trouble = this.#troubleBelow(name);
    if (trouble !== undefined) return `the sink ${trouble}`;
    const below = this.#sinksBelow(name);
    const writing = this.#pipeline!.sinks.flatMap(({ node, stage }) =>
      stage.writing > 0 && below.includes(node) ? [node.name] : [],
    );
    if (writing.length > 0) return `the sink ${writing.join(", ")}`;
    return this.#kept() ?? "the topology's own code";
  }

  #sinkReport(node: PlanNode & { kind: "sink" }): SinkReport {
    const stage = this.#pipeline?.sinks.find((sink) => sink.node === node)?.stage;
    return {
      ...this.#readiness(node.sink, node.name),
      notes: this.#sinkSessions.get(node.sink)?.status().notes,
      written: stage?.written ?? 0,
      writing: stage?.writing ?? 0,
      batches: stage?.batches ?? 0,
    };
  }

  #lastErrors(): RunStatus["lastErrors"] {
    const all = [...this.#errors];
    for (const [node, source] of this.#sources) {
      all.push(...(source.status()?.lastErrors ?? []).map((error) => ({ ...error, node })));
    }
    for (const [sink, session] of this.#sinkSessions) {
      all.push(...session.status().lastErrors.map((error) => ({ ...error, node: sink.name })));
    }
    return all.sort((a, b) => b.at - a.at).slice(0, 5);
  }
}

function total(parts: readonly Conservation[]): Conservation {
  const sum: Conservation = {
    accepted: 0,
    delivered: 0,
    filtered: 0,
    duplicate: 0,
    deadLettered: 0,
    returned: 0,
    lost: 0,
    inFlight: 0,
  };
  for (const part of parts) {
    for (const name of Object.keys(sum) as (OutcomeName | "accepted" | "inFlight")[]) sum[name] += part[name];
  }
  return sum;
}

function mayLose(node: PlanNode): boolean {
  if (node.kind === "source") return !node.source.capabilities.replays;
  return node.kind === "sink" && node.sink.capabilities.loses === true;
}
