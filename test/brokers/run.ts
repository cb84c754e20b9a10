import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";

export interface RunOptions {
  /** Default: this process's. */
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly stdin?: string | Uint8Array;
  /** Milliseconds after which the program is killed and the run fails. Default 60,000. */
  readonly within?: number;
  /** Whom it runs as. Default: whoever runs this. */
  readonly uid?: number;
  readonly gid?: number;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Throws with its output if it exits other than 0, or never comes to an end. */
export async function run(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { stdin = "", within = 60_000, ...rest } = options;
  const child = spawn(file, args, { ...rest, timeout: within, killSignal: "SIGKILL" });
  const exit = new Promise<string | undefined>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code === 0 ? undefined : (signal ?? `exit code ${code}`)));
  });
  // A program may end without reading all of its input; its exit code tells, not the broken pipe.
  child.stdin.once("error", () => {});
  child.stdin.end(stdin);
  const [stdout, stderr, failure] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
  if (failure !== undefined) {
    throw new Error(`${[file, ...args].join(" ")}: ${failure}\n${stdout}${stderr}`.slice(0, 8_000));
  }
  return { stdout, stderr };
}
