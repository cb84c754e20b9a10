import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Home } from "./home.ts";
import { until } from "./until.ts";

export interface Command {
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Whom it runs as. Default: whoever runs this. */
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * One server process in a process group of its own, so that signals reach its children too and a Ctrl-C in the
 * terminal does not. It never keeps this process alive. Output goes to a file: a pipe would block the server
 * whenever the test's event loop is busy.
 */
export class Server {
  readonly #home: Home;
  readonly #command: Command;
  readonly #log: string;
  readonly #pidFile: string;
  #child: ChildProcess | undefined;
  #logStart = 0;

  constructor(home: Home, command: Command) {
    this.#home = home;
    this.#command = command;
    this.#log = join(home.path, `${command.name}.log`);
    this.#pidFile = join(home.path, `${command.name}.pid`);
  }

  get running(): boolean {
    const child = this.#child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (!this.running || pid === undefined) throw new Error(`${this.#command.name} does not run`);
    return pid;
  }

  /** Starts the process and waits until `ready` answers true. Throws with the end of its log if it dies first. */
  async start(ready: () => boolean | Promise<boolean>, within = 90_000): Promise<void> {
    if (this.running) throw new Error(`${this.#command.name} runs already`);
    const log = openSync(this.#log, "a");
    this.#logStart = statSync(this.#log).size;
    const { name: _, file, args, ...rest } = this.#command;
    const child = spawn(file, args, {
      detached: true,
      cwd: this.#home.path,
      ...rest,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    let failure: Error | undefined;
    child.once("error", (error) => {
      failure = error;
    });
    if (child.pid !== undefined) writeFileSync(this.#pidFile, `${child.pid}\n`);
    child.unref();
    this.#child = child;
    const up = async () => failure !== undefined || !this.running || (await ready());
    try {
      await until(`${this.#command.name} is ready`, up, within);
    } catch (error) {
      await this.kill();
      throw new Error(this.#complaint("was not ready in time"), { cause: error });
    }
    if (failure !== undefined || !this.running) {
      throw new Error(this.#complaint("ended while starting"), { cause: failure });
    }
  }

  /** Asks it to end in good order (SIGTERM), and insists after `within` milliseconds. */
  async stop(within = 30_000): Promise<void> {
    if (!this.running) return;
    const insist = setTimeout(() => this.#signal("SIGKILL"), within);
    await this.#end("SIGTERM");
    clearTimeout(insist);
  }

  /** kill -9; returns when the process is gone. */
  async kill(): Promise<void> {
    if (this.running) await this.#end("SIGKILL");
  }

  /** SIGSTOP: connections stay open and nothing is answered. Returns when every thread has stopped. */
  pause(): void {
    this.#signal("SIGSTOP");
    const tasks = `/proc/${this.pid}/task`;
    // A busy machine takes a while to tell all of them, and one that still runs could answer.
    const isStopped = (task: string) =>
      /^\d+ \(.*\) [Tt] /s.test(readFileSync(`${tasks}/${task}/stat`, "utf8"));
    for (const until = Date.now() + 30_000; !readdirSync(tasks).every(isStopped); ) {
      if (Date.now() > until) throw new Error(`${this.#command.name} does not stop`);
    }
  }

  resume(): void {
    this.#signal("SIGCONT");
  }

  /** What it printed since it was last started. */
  output(): string {
    return readFileSync(this.#log).subarray(this.#logStart).toString("utf8");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child!;
    child.ref();
    const exit = once(child, "exit");
    this.#signal(signal);
    await exit;
    rmSync(this.#pidFile, { force: true });
  }

  #signal(signal: NodeJS.Signals): void {
    process.kill(-this.pid, signal);
  }

  #complaint(what: string): string {
    return `${this.#command.name} ${what}; the end of its log:\n${this.output().slice(-3_000)}`;
  }
}
