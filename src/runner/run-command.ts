import { createReadStream } from "node:fs";
import type { Connection } from "../component/connection.ts";
import type { Context, Logger } from "../component/context.ts";
import { makeFolder } from "../component/folder.ts";
import { PooledWork, systemClock, systemRandom } from "../component/system.ts";
import { messageOf } from "../errors.ts";
import { start } from "../runtime/run.ts";
import type { Plan } from "../topology/plan.ts";
import { formatLocation, formatProblems } from "../topology/problem.ts";
import { dump } from "./dump.ts";
import { RunEmbeddedBrokers } from "./embedded-brokers.ts";
import { embeddedTargets, findTarget, realBrokers } from "./embedded-targets.ts";
import { ExitCode, exitCodeOfError, exitCodeOfResult, UsageError, worst } from "./exit-code.ts";
import { type FeedOption, feed } from "./feed.ts";
import { type HttpAddress, type HttpEndpoint, openHttp } from "./http.ts";
import { loadTopologies } from "./loading.ts";
import { createLogger, inWords, type LogLevel } from "./logger.ts";
import { Progress } from "./progress.ts";
import { describeError, type Report, type ReportedProblem, reportJson, reportTables } from "./report.ts";
import { isCreatable, meetRequirements } from "./requirements.ts";
import { type Ending, Runs } from "./runs.ts";
import { listenToProcess } from "./signals.ts";
import { isConserved } from "./table.ts";
import { Terminal } from "./terminal.ts";
import { version } from "./version.ts";
import { logWarnings } from "./warnings.ts";
import { Worker } from "./worker.ts";
import { Workers } from "./workers.ts";

export interface RunCommandOptions {
  readonly embedded: boolean;
  readonly feed: readonly FeedOption[];
  readonly dump: string | undefined;
  readonly untilIdle: boolean;
  readonly create: boolean;
  readonly http: HttpAddress | undefined;
  /** Longest drain, ms. */
  readonly drain: number;
  readonly json: boolean;
  readonly logLevel: LogLevel;
  /** Processes that share the work; 1 is this one. */
  readonly workers: number;
  /** This process is one of several: its number, from 1 on. */
  readonly worker: number | undefined;
}

/** After an error that nobody caught the process ends within this time, ms, whatever still hangs. */
const crashTimeout = 8_000;

/**
 * `millrace run`: runs the topologies of some files until they end, are told to stop, or fail.
 *
 * @param load makes the plans, for a command that runs something else than what the files declare.
 */
export function runCommand(
  files: readonly string[],
  options: RunCommandOptions,
  load: typeof loadTopologies = loadTopologies,
): Promise<ExitCode> {
  return new RunCommand(files, options, load).run();
}

/** Phases: *loading* → *preparing* → *running* → *reporting*. A signal may come in any of them. */
class RunCommand {
  readonly #files: readonly string[];
  readonly #options: RunCommandOptions;
  readonly #loadPlans: typeof loadTopologies;
  readonly #terminal: Terminal | undefined;
  readonly #logger: Logger;
  readonly #clock = systemClock;
  readonly #work = new PooledWork();
  readonly #embedded: RunEmbeddedBrokers | undefined;
  /** Aborted by the first signal: ends preparations. */
  readonly #stopping = new AbortController();
  readonly #problems: ReportedProblem[] = [];
  /** Why a broker is waited for before the run. */
  #awaiting: string | undefined;
  #plans: readonly Plan[] = [];
  #phase: "loading" | "preparing" | "running" | "reporting" = "loading";
  #runs: Runs | Workers | undefined;
  #worker: Worker | undefined;
  #progress: Progress | undefined;
  #crashed = false;

  constructor(files: readonly string[], options: RunCommandOptions, load: typeof loadTopologies) {
    this.#files = files;
    this.#options = options;
    this.#loadPlans = load;
    // A worker's lines are JSON for its parent, which knows whether a person reads them.
    const person = options.worker === undefined && process.stderr.isTTY;
    this.#terminal = person ? new Terminal(process.stderr) : undefined;
    const fields = options.worker === undefined ? {} : { worker: options.worker };
    this.#logger = createLogger(options.logLevel, this.#terminal, fields);
    this.#embedded = options.embedded ? new RunEmbeddedBrokers() : undefined;
  }

  async run(): Promise<ExitCode> {
    logWarnings(this.#logger);
    listenToProcess({
      stop: (signal) => this.#stop(signal),
      stopNow: (signal) => this.#stopNow(signal),
      report: () => this.#say(reportTables({ runs: this.#runs?.endings() ?? [] }) || `${this.#phase}\n`),
      crash: (error) => this.#crash(error),
    });
    let http: HttpEndpoint | undefined;
    let code: ExitCode;
    try {
      if (!(await this.#unlessStopped(this.#load()))) return await this.#report(ExitCode.configuration);
      http = await this.#openHttp();
      if (!(await this.#prepare())) return await this.#report(ExitCode.configuration);
      code = this.#stopping.signal.aborted ? ExitCode.done : await this.#runAll();
    } catch (error) {
      // Being told to stop before the run is no failure; anything else is, whenever it comes.
      const stopped = error === this.#stopping.signal.reason && !this.#crashed;
      code = stopped ? ExitCode.done : this.#refuse(error);
    }
    await http?.close();
    return this.#report(code);
  }

  async #load(): Promise<boolean> {
    const { plans, problems } = await this.#loadPlans(this.#files, this.#stopping.signal);
    if (plans === undefined) {
      this.#say(`${formatProblems(problems, process.cwd())}\n`);
      this.#problems.push(...problems);
      return false;
    }
    for (const { code, message, remedy, location } of problems) {
      const at = location === undefined ? undefined : formatLocation(location, process.cwd());
      this.#logger.warn({ code, at, remedy }, message);
    }
    this.#plans = plans;
    return true;
  }

  async #openHttp(): Promise<HttpEndpoint | undefined> {
    if (this.#options.http === undefined) return undefined;
    const endpoint = await openHttp(this.#options.http, {
      scrape: () => ({
        version,
        statuses: this.#runs?.statuses() ?? [],
        ...(this.#runs instanceof Workers ? { processes: this.#runs.processes() } : {}),
      }),
      unready: () => this.#unready(),
    });
    this.#logger.info({ url: endpoint.url }, "listening for HTTP");
    return endpoint;
  }

  /** Checks the options against the plans, sees to what they require, and feeds. False when something is missing. */
  async #prepare(): Promise<boolean> {
    const { dump: folder, feed: feeds, json, create } = this.#options;
    this.#phase = "preparing";
    const contextFor = (connection: Connection) => this.#contextFor(connection);
    if (json && this.#writesToStdout()) {
      throw new UsageError(
        "--json: the topology writes to standard output itself; look at /status or the logs",
      );
    }
    this.#refuseWhatWorkersCannotShare();
    if (folder !== undefined) {
      const [real] = realBrokers(this.#plans, contextFor);
      if (real !== undefined) {
        throw new UsageError(`--dump shows embedded brokers only, and this is ${real}; add --embedded`);
      }
      try {
        makeFolder(folder);
      } catch (error) {
        throw new UsageError(
          `--dump ${folder}: ${messageOf(error)}; give a folder, or a path where one can be made`,
        );
      }
    }
    // Every target is looked up before anything is made or published.
    for (const one of feeds) this.#targetOf(one);
    const unmet = await this.#unlessStopped(
      meetRequirements(this.#plans, {
        create,
        wait: true,
        contextFor,
        onWait: (reason) => {
          this.#awaiting = reason;
        },
      }),
    );
    for (const { requirement, problem, remedy, code = "target-missing" } of unmet) {
      this.#say(`${requirement.at}: ${problem}; ${remedy}\n`);
      this.#problems.push({ code, message: `${requirement.at}: ${problem}`, remedy });
    }
    if (unmet.length > 0) {
      if (!create && unmet.some(isCreatable))
        this.#say(`to create what is missing: millrace run --create ${this.#files.join(" ")}\n`);
      return false;
    }
    for (const one of feeds) await this.#feed(one);
    return true;
  }

  /** Several processes can only share what a broker hands out to each in part. */
  #refuseWhatWorkersCannotShare(): void {
    if (this.#options.workers === 1) return;
    const own = this.#plans
      .flatMap(({ connections }) => connections)
      .some(({ connection }) => connection.embedded(this.#contextFor(connection)) !== undefined);
    if (own) {
      throw new UsageError("--workers: each process would have embedded brokers of its own; use real ones");
    }
    for (const { nodes, deadLetters } of this.#plans) {
      const sinks = nodes.flatMap((node) =>
        node.kind === "sink" ? [node.sink, node.audit ?? []].flat() : [],
      );
      const sources = nodes.flatMap((node) => (node.kind === "source" ? [node.source] : []));
      const alone = [
        ...sources.filter(({ capabilities }) => capabilities.competing !== true),
        ...[...sinks, deadLetters?.sink ?? []]
          .flat()
          .filter(({ capabilities }) => capabilities.exclusive === true),
      ][0];
      const [store] = nodes.flatMap((node) => (node.kind === "operator" ? (node.operator.store ?? []) : []));
      const what = alone === undefined ? store?.name : `${alone.type} ${alone.name}`;
      if (what !== undefined) {
        throw new UsageError(
          `--workers: ${what} is for one process alone; run this topology without --workers`,
        );
      }
    }
  }

  #targetOf({ target }: FeedOption) {
    const contextFor = (connection: Connection) => this.#contextFor(connection);
    const targets = embeddedTargets(this.#plans, contextFor);
    if (targets.length === 0) {
      const [real] = realBrokers(this.#plans, contextFor);
      throw new UsageError(
        real === undefined
          ? `--feed ${target}: the topology reads no topic and no queue`
          : `--feed publishes into embedded brokers only, and this is ${real}; add --embedded`,
      );
    }
    return findTarget(target, targets);
  }

  async #feed(option: FeedOption): Promise<void> {
    const { broker, name } = this.#targetOf(option);
    try {
      const { file } = option;
      const fed = await this.#unlessStopped(feed(broker, name, createReadStream(file)));
      this.#logger.info({ file, messages: fed.messages }, `fed ${name}`);
      if (fed.emptyLines > 0) {
        this.#logger.warn({ file, lines: fed.emptyLines }, `not fed to ${name}: lines that are empty`);
      }
      if (fed.nearlyRecords > 0) {
        const fields = { file, lines: fed.nearlyRecords, first: fed.firstNearly };
        this.#logger.warn(
          fields,
          `fed to ${name} as values: lines that have the members of the record form, and not its types`,
        );
      }
    } catch (error) {
      if (this.#stopping.signal.aborted) throw error;
      throw new UsageError(`--feed ${option.target}=${option.file}: ${messageOf(error)}`);
    }
  }

  async #runAll(): Promise<ExitCode> {
    const { drain, untilIdle } = this.#options;
    if (this.#options.workers > 1) return this.#runWorkers();
    const runs = new Runs(
      this.#plans.map((plan) =>
        start(plan, {
          clock: this.#clock,
          random: systemRandom,
          work: this.#work,
          logger: this.#logger,
          drainTimeout: drain,
          ...(this.#embedded === undefined ? {} : { embedded: this.#embedded }),
        }),
      ),
      ({ status, result }) => {
        if (result.how === "done") return;
        const { message, ...fields } = describeError(result.error);
        this.#logger.error({ topology: status.topology, how: result.how, ...fields }, message);
      },
    );
    this.#runs = runs;
    this.#phase = "running";
    if (this.#terminal !== undefined) {
      this.#progress = new Progress(this.#terminal, this.#clock, () => runs.statuses());
    }
    if (this.#options.worker !== undefined) {
      const { worker } = this.#options;
      this.#worker = new Worker(
        this.#clock,
        () => runs.statuses(),
        () => this.#stop(`the parent of worker ${worker}`),
      );
    }
    // A run waits for input even when nothing else keeps the process alive.
    const alive = setInterval(() => {}, 2 ** 30);
    if (untilIdle || this.#allEnd()) runs.untilIdle().then(() => runs.drain());
    runs.failTogether();
    const endings = await runs.finished;
    clearInterval(alive);
    this.#progress?.stop();
    await this.#worker?.end(endings);
    this.#dump();
    return this.#judge(endings);
  }

  /** Several processes instead of this one, which only watches them. */
  async #runWorkers(): Promise<ExitCode> {
    const { workers: count, untilIdle, drain, logLevel } = this.#options;
    const workers = new Workers(this.#plans, {
      count,
      args: [
        "run",
        ...this.#files,
        ...(untilIdle ? ["--until-idle"] : []),
        ...["--drain", `${drain}ms`, "--log-level", logLevel],
      ],
      clock: this.#clock,
      random: systemRandom,
      logger: this.#logger,
      onLine: (line) => this.#passOn(line),
    });
    this.#runs = workers;
    this.#phase = "running";
    this.#logger.info({ workers: count }, "workers started");
    if (this.#terminal !== undefined) {
      this.#progress = new Progress(this.#terminal, this.#clock, () => workers.statuses());
    }
    const endings = await workers.finished;
    this.#progress?.stop();
    return this.#judge(endings);
  }

  /** A worker's log line, for whoever reads this process's. */
  #passOn(line: string): void {
    if (this.#terminal === undefined) process.stderr.write(`${line}\n`);
    else this.#terminal.print(line.startsWith("{") ? inWords(line) : line);
  }

  #judge(endings: readonly Ending[]): ExitCode {
    const broken = endings.filter(({ status }) => !isConserved(status.conservation));
    for (const { status } of broken) {
      this.#logger.error(
        { topology: status.topology, code: "internal" },
        "accepted messages are unaccounted for: this is a mistake in Millrace, please report it",
      );
    }
    const codes = endings.map(({ result }) => exitCodeOfResult(result));
    if (this.#crashed || broken.length > 0) return ExitCode.failed;
    return worst(codes);
  }

  #dump(): void {
    const { dump: folder } = this.#options;
    if (folder === undefined) return;
    const files = dump(
      folder,
      embeddedTargets(this.#plans, (connection) => this.#contextFor(connection)),
    );
    this.#logger.info({ files: files.length }, `dumped to ${folder}`);
  }

  #stop(signal: string): void {
    this.#logger.info({ signal }, this.#phase === "running" ? "stopping: draining" : "stopping");
    this.#stopping.abort(new Error(`stopped by ${signal}`));
    this.#runs?.drain();
  }

  /** The tables are still written: it takes no time, and nobody could ask later. */
  #stopNow(signal: string): void {
    this.#logger.warn({ signal }, "stopped at once: what was in flight is not acknowledged");
    this.#progress?.stop();
    if (this.#runs instanceof Workers) this.#runs.abort();
    this.#exit(ExitCode.failed);
  }

  /** The state of the process is unknown: nothing more may be acknowledged. */
  #crash(error: unknown): void {
    const { message, ...fields } = describeError(error);
    this.#logger.error({ ...fields, stack: stackOf(error) }, `uncaught error: ${message}`);
    if (this.#crashed) return;
    this.#crashed = true;
    if (this.#runs === undefined || this.#phase === "reporting") this.#exit(ExitCode.failed);
    this.#runs.abort(error instanceof Error ? error : new Error(String(error)));
    this.#clock.after(crashTimeout, () => this.#exit(ExitCode.failed));
  }

  #exit(code: ExitCode): never {
    process.stdout.write(this.#reportText(code));
    process.exit(code);
  }

  #refuse(error: unknown): ExitCode {
    this.#progress?.stop();
    const other = error instanceof UsageError ? "usage" : "internal";
    const { code = other, message, remedy = "" } = describeError(error);
    this.#problems.push({ code, message, remedy });
    this.#say(`${message}${remedy === "" ? "" : `; ${remedy}`}\n`);
    return exitCodeOfError(error);
  }

  /** The last thing written: nothing may follow it on standard output. */
  async #report(code: ExitCode): Promise<ExitCode> {
    this.#phase = "reporting";
    if (this.#options.worker !== undefined) return code;
    const text = this.#reportText(code);
    const out = this.#writesToStdout() ? process.stderr : process.stdout;
    await new Promise<void>((resolve) => out.write(text, () => resolve()));
    return code;
  }

  #reportText(exitCode: ExitCode): string {
    const report: Report = { exitCode, runs: this.#runs?.endings() ?? [], problems: this.#problems };
    return this.#options.json ? reportJson(report) : reportTables(report);
  }

  #unready(): readonly string[] {
    if (this.#phase !== "running") return [this.#phase, this.#awaiting ?? []].flat();
    return (this.#runs?.statuses() ?? []).flatMap(
      ({ topology, mode, ready, sources, sinks, deadLetters }) => {
        if (ready) return [];
        const parts = [...sources, ...sinks, ...(deadLetters === undefined ? [] : [deadLetters])]
          .filter((part) => !part.ready)
          .map(({ name, reason }) => `${topology}: ${name}: ${reason ?? "not ready"}`);
        return [`${topology}: ${mode}`, ...parts];
      },
    );
  }

  /** Every input has an end: there is nothing to wait for beyond it. */
  #allEnd(): boolean {
    return this.#plans.every(({ nodes }) =>
      nodes.every((node) => node.kind !== "source" || node.source.capabilities.ends === true),
    );
  }

  /** A topology that writes its messages to standard output leaves no room there for a table. */
  #writesToStdout(): boolean {
    return this.#plans.some(({ nodes, deadLetters }) => {
      const sinks = nodes.flatMap((node) => (node.kind === "sink" ? [node.sink, node.audit] : []));
      return [...sinks, deadLetters?.sink].some((sink) => sink?.type === "stdout");
    });
  }

  async #unlessStopped<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#stopping;
    signal.throwIfAborted();
    let abort = () => {};
    const stopped = new Promise<never>((_, reject) => {
      abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
    });
    try {
      return await Promise.race([work, stopped]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  #contextFor(connection: Connection): Context {
    return {
      clock: this.#clock,
      random: systemRandom,
      work: this.#work,
      signal: this.#stopping.signal,
      logger: this.#logger,
      meter: { count: () => {} },
      embedded: this.#embedded,
      node: `${connection.connector} ${connection.address}`,
    };
  }

  /** Words for a person on standard error, above the progress line. */
  #say(text: string): void {
    if (this.#terminal === undefined) process.stderr.write(text);
    else this.#terminal.print(text.trimEnd());
  }
}

function stackOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  return messageOf(error.stack);
}
