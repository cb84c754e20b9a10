import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { RunStatus } from "../src/runtime/status.ts";
import { until } from "./brokers/until.ts";

const bin = fileURLToPath(new URL("../bin/millrace.js", import.meta.url));

export interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The runner as a process of its own, started with Node itself so that signals reach it. */
export class Millrace {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  #stdout = "";
  #stderr = "";
  #over = false;

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}, nodeArgs: readonly string[] = []) {
    this.#child = spawn(process.execPath, [...nodeArgs, bin, ...args], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    this.ended = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => {
        this.#over = true;
        resolve({ code: code ?? signal, stdout: this.#stdout, stderr: this.#stderr });
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Whether the process has ended. */
  get over(): boolean {
    return this.#over;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Sends SIGKILL and waits for the end. */
  async kill(): Promise<Ended> {
    this.signal("SIGKILL");
    return this.ended;
  }

  /** Sends SIGTERM and waits for the end. */
  async stop(): Promise<Ended> {
    this.signal("SIGTERM");
    return this.ended;
  }

  /** Waits for a log line with this text. */
  async logged(text: string, within = 60_000): Promise<void> {
    await until(
      `the runner logs "${text}"`,
      () => {
        if (this.#over && !this.#stderr.includes(text))
          throw new Error(`the runner ended: ${this.#stderr.slice(-2_000)}`);
        return this.#stderr.includes(text);
      },
      within,
    );
  }

  /** The address of the HTTP server that `--http` opened. */
  async http(): Promise<string> {
    return until(
      "the runner says where its HTTP server is",
      () => /http:\/\/[\d.]+:\d+/.exec(this.#stderr)?.[0],
    );
  }

  /** What `/status` shows now. */
  async status(): Promise<RunStatus> {
    const response = await fetch(`${await this.http()}/status`);
    return (await response.json()) as RunStatus;
  }

  /** Resident memory now, in bytes. */
  async memory(): Promise<number> {
    const text = await readFile(`/proc/${this.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(text)?.[1] ?? 0) * 1_024;
  }
}

/** Starts the runner for one test; it is killed with the test if it still runs. */
export function millrace(
  t: TestContext,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  nodeArgs: readonly string[] = [],
): Millrace {
  const runner = new Millrace(args, env, nodeArgs);
  t.after(async () => {
    if (!runner.over) await runner.kill();
  });
  return runner;
}

/** Runs the runner to its end. */
export function runMillrace(
  t: TestContext,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Ended> {
  return millrace(t, args, env).ended;
}

/** An empty folder that goes with the test. */
export function freshFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "millrace-test-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** One line of a dump. */
export interface DumpedRecord {
  readonly partition: number;
  readonly offset: number;
  readonly key: string | null;
  readonly value: string | { readonly base64: string } | null;
  readonly headers: readonly (readonly [string, unknown])[];
  readonly timestamp: number;
}

/** The records of a dumped topic or queue. */
export async function dumped(folder: string, name: string): Promise<DumpedRecord[]> {
  const text = await readFile(join(folder, `${name}.ndjson`), "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as DumpedRecord);
}
