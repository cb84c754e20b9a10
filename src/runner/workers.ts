import { type ChildProcess, fork } from "node:child_process";
import { createInterface } from "node:readline";
import { Backoff } from "../component/backoff.ts";
import type { Clock, Logger, Random } from "../component/context.ts";
import { MillraceError } from "../errors.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";
import type { Plan } from "../topology/plan.ts";
import { ExitCode } from "./exit-code.ts";
import type { Ending } from "./runs.ts";
import { totalConservation } from "./table.ts";
import { returned, together } from "./together.ts";
import { type FromWorker, resultOf, type WorkerReport } from "./worker.ts";

/** A worker that lasted for so long (ms) is started again without delay when it dies. */
const steady = 60_000;
/** Longest wait before a worker is started again, ms. */
const longestWait = 10_000;

export interface WorkersOptions {
  readonly count: number;
  /** Command line of a worker, without the runner's own path: "run", the files, and its flags. */
  readonly args: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** A line that a worker has written on its standard error. */
  readonly onLine: (line: string) => void;
}

/**
 * Several processes that run the same plans and share what the brokers hand out: members of one consumer group,
 * consumers of one queue. This one watches them, and speaks for all.
 *
 * A worker that dies is started again; what it had in flight was not acknowledged and goes to the others, so nothing
 * is lost. What a dead worker had counted since its last report, a quarter of a second at most, is not in the sums;
 * what it had in flight counts as returned. A worker whose run *fails* drains all: as in one process, half of a
 * system is a state that nobody notices.
 */
export class Workers {
  readonly finished: Promise<readonly Ending[]>;
  readonly #plans: readonly Plan[];
  readonly #options: WorkersOptions;
  readonly #all: Place[];
  readonly #stopped = new AbortController();
  /** What dead workers had done, by topology. */
  readonly #gone = new Map<string, RunStatus[]>();
  #restarts = 0;

  constructor(plans: readonly Plan[], options: WorkersOptions) {
    this.#plans = plans;
    this.#options = options;
    this.#all = Array.from({ length: options.count }, (_, i) => new Place(i + 1));
    this.finished = Promise.all(this.#all.map((place) => this.#keep(place))).then(() => this.#endings());
  }

  statuses(): RunStatus[] {
    return this.#plans.map(({ name }, i) =>
      together([
        ...this.#all.map((place) => place.report?.statuses[i] ?? unborn(name, this.#options.clock.wall())),
        ...(this.#gone.get(name) ?? []),
      ]),
    );
  }

  /** How each topology stands now; one that goes on in any worker has no result. */
  endings(): { readonly status: RunStatus; readonly result: RunResult | undefined }[] {
    return this.statuses().map((status, i) => ({ status, result: this.#resultOf(i) }));
  }

  /** Memory and CPU time of each worker, and how often one was started again. */
  processes(): { readonly restarts: number; readonly workers: readonly WorkerUse[] } {
    const workers = this.#all.map(({ number, report }) => ({
      worker: number,
      memory: report?.memory ?? 0,
      cpu: report?.cpu ?? 0,
    }));
    return { restarts: this.#restarts, workers };
  }

  drain(): void {
    this.#stopped.abort();
    for (const { child } of this.#all) if (child?.connected) child.send("drain");
  }

  /** Ends all at once: nothing more is acknowledged. */
  abort(): void {
    this.#stopped.abort();
    for (const { child } of this.#all) child?.kill("SIGKILL");
  }

  /** Runs one worker, and another in its place as often as it dies, until one has ended by itself. */
  async #keep(place: Place): Promise<void> {
    const { clock, random, logger } = this.#options;
    const { signal } = this.#stopped;
    const backoff = new Backoff({ clock, random, signal }, { initial: 200, max: longestWait });
    while (!signal.aborted) {
      const startedAt = clock.now();
      const how = await this.#runOne(place);
      if (how === ExitCode.configuration || how === ExitCode.usage) {
        // The next one would say the same.
        const error = new MillraceError(
          "worker-refused",
          `worker ${place.number} refused to start: it has said why`,
        );
        logger.error({ worker: place.number, code: error.code }, error.message);
        place.results = this.#plans.map(() => ({ how: "failed", error }));
      }
      if (place.results !== undefined) {
        if (place.results.some((result) => result.how !== "done")) this.drain();
        return;
      }
      for (const status of place.report?.statuses ?? []) {
        const gone = this.#gone.get(status.topology) ?? [];
        // One sum for all that are gone, however many there are.
        this.#gone.set(status.topology, [together([...gone, returned(status)])]);
      }
      place.report = undefined;
      if (signal.aborted) return;
      this.#restarts++;
      logger.error(
        { worker: place.number, how: typeof how === "number" ? `exit code ${how}` : how },
        "a worker died: what it had in flight goes to the others, and it is started again",
      );
      if (clock.now() - startedAt > steady) backoff.reset();
      await backoff.wait().catch(() => {});
    }
  }

  /** Starts a worker; resolves when it is gone, to its exit code, or what ended it. */
  #runOne(place: Place): Promise<number | string> {
    const { args, onLine } = this.#options;
    return new Promise((resolve) => {
      const child = fork(process.argv[1]!, [...args, "--worker", String(place.number)], {
        stdio: ["ignore", "inherit", "pipe", "ipc"],
      });
      place.child = child;
      createInterface({ input: child.stderr! }).on("line", onLine);
      child.on("message", ({ report, results }: FromWorker) => {
        place.report = report;
        if (results !== undefined) place.results = results.map(resultOf);
      });
      child.once("error", (error) => resolve(error.message));
      child.once("close", (code, killedBy) => resolve(killedBy ?? code!));
    });
  }

  #endings(): readonly Ending[] {
    return this.endings().map(({ status, result }) => ({ status, result: result ?? unfinished() }));
  }

  /** The worst of the workers' results for one topology; undefined while one goes on. */
  #resultOf(index: number): RunResult | undefined {
    const results = this.#all.map((place) => place.results?.[index]);
    const bad = results.find((result) => result !== undefined && result.how !== "done");
    return bad ?? (results.includes(undefined) ? undefined : results[0]);
  }
}

export interface WorkerUse {
  readonly worker: number;
  /** Resident memory, bytes. */
  readonly memory: number;
  /** CPU time in seconds. */
  readonly cpu: number;
}

/** One worker and those that come after it. */
class Place {
  /** From 1 on. */
  readonly number: number;
  child: ChildProcess | undefined;
  report: WorkerReport | undefined;
  results: readonly RunResult[] | undefined;

  constructor(number: number) {
    this.number = number;
  }
}

/** A worker that ended without a word while all were stopping. */
function unfinished(): RunResult {
  return {
    how: "failed",
    error: new Error("a worker died while it was draining; what it had in flight comes again"),
  };
}

/** Of a worker that has not reported yet. */
function unborn(topology: string, now: number): RunStatus {
  return {
    topology,
    mode: "starting",
    startedAt: now,
    ready: false,
    conservation: totalConservation([]),
    sources: [],
    sinks: [],
    lastErrors: [],
    counters: {},
  };
}
