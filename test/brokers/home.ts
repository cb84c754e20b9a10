import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Reads its standard input, which ends when this process ends in whatever way, kill -9 included. Then it kills
 * the process groups named in the folder's *.pid files and removes the folder. So nothing is left running.
 */
const GUARD = `
  while read -r line; do :; done
  for file in "$1"/*.pid; do
    [ -s "$file" ] && read -r pid <"$file" && kill -s KILL -- "-$pid" 2>/dev/null
  done
  for try in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" 2>/dev/null && exit 0
    sleep 0.2
  done`;

/** The temporary folder in which a broker lives: configuration, data, logs. Gone after {@link remove}. */
export class Home {
  readonly path: string;
  readonly #guard: ChildProcess;

  constructor(name: string) {
    this.path = mkdtempSync(join(tmpdir(), `millrace-${name}-`));
    this.#guard = spawn("sh", ["-c", GUARD, "guard", this.path], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    });
    this.#guard.unref();
    unrefStdin(this.#guard);
  }

  /** Ends what still runs here and removes the folder. Idempotent. */
  async remove(): Promise<void> {
    if (this.#guard.exitCode === null && this.#guard.signalCode === null) {
      this.#guard.ref();
      const exit = once(this.#guard, "exit");
      this.#guard.stdin?.end();
      await exit;
    }
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Node keeps a process alive for the pipe too; at run time it is a socket, which its type does not say. */
function unrefStdin(child: ChildProcess): void {
  const { stdin } = child;
  if (stdin && "unref" in stdin && typeof stdin.unref === "function") stdin.unref();
}
