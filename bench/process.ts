import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Longest that a process may take to end after it was told to, ms. */
const patience = 30_000;
/** The kernel counts processor time in ticks of a hundredth of a second on every Linux that Node runs on. */
const tickMicros = 10_000;

/** A process with its children, in a process group of its own, whose processor time and memory are read off the kernel's books. */
export class MeasuredProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #command: Command;
  #stderr = "";
  #peakMiB = 0;
  #over: string | undefined;

  constructor(command: Command) {
    this.#command = command;
    this.#child = spawn(command.file, command.args, {
      detached: true,
      env: { ...process.env, ...command.env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-4_000);
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once("error", (error) => {
        this.#over = error.message;
        resolve();
      });
      this.#child.once("close", (code, signal) => {
        this.#over ??= code === null ? `ended by ${signal}` : `ended with ${code}`;
        resolve();
      });
    });
  }

  /** Throws, with what it last said, if the process has ended. */
  assertRuns(): void {
    if (this.#over !== undefined) {
      const { file, args } = this.#command;
      throw new Error(`${file} ${args.join(" ")}: ${this.#over}\n${this.#stderr}`);
    }
  }

  /** Looks at the books: processor time so far, of children that have ended too, µs. */
  cpu(): number {
    const all = this.#processes();
    // A child that has ended takes its own highest along; the sum of those that run was seen before.
    this.#peakMiB = Math.max(
      this.#peakMiB,
      all.reduce((sum, pid) => sum + memoryOf(pid, "VmHWM"), 0),
    );
    return all.reduce((sum, pid) => sum + cpuOf(pid), 0);
  }

  /** Highest resident memory at any look: each process's own highest, added up. */
  get peakMiB(): number {
    return this.#peakMiB;
  }

  /** Resident memory at this moment, MiB. */
  residentMiB(): number {
    return this.#processes().reduce((sum, pid) => sum + memoryOf(pid, "VmRSS"), 0);
  }

  /** Tells it to end in good order, and insists after a while. */
  async stop(): Promise<void> {
    if (this.#over === undefined) this.#signal("SIGTERM");
    const insist = setTimeout(() => this.#signal("SIGKILL"), patience);
    await this.#ended;
    clearTimeout(insist);
  }

  /** How it ended: "ended with 0". */
  get end(): string | undefined {
    return this.#over;
  }

  #processes(): number[] {
    const all = this.#child.pid === undefined ? [] : [this.#child.pid];
    // Grows while it is walked through.
    for (const pid of all) all.push(...childrenOf(pid));
    return all;
  }

  #signal(name: NodeJS.Signals): void {
    try {
      process.kill(-this.#child.pid!, constants.signals[name]);
    } catch {
      // It is gone already.
    }
  }
}

function childrenOf(pid: number): number[] {
  return proc(`${pid}/task/${pid}/children`).split(" ").filter(Boolean).map(Number);
}

function cpuOf(pid: number): number {
  const text = proc(`${pid}/stat`);
  // The name, in parentheses, may contain anything; then come state, ppid … utime, stime, cutime, cstime.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return [11, 12, 13, 14].reduce((sum, field) => sum + Number(fields[field] ?? 0), 0) * tickMicros;
}

/** MiB: resident now, or its highest so far. */
function memoryOf(pid: number, field: "VmRSS" | "VmHWM"): number {
  const line = proc(`${pid}/status`)
    .split("\n")
    .find((text) => text.startsWith(field));
  return Number(/\d+/.exec(line ?? "")?.[0] ?? 0) / 1_024;
}

/** Empty for a process that is gone. */
function proc(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, "utf8");
  } catch {
    return "";
  }
}
