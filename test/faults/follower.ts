import { type ChildProcess, spawn } from "node:child_process";
import { findProgram } from "../brokers/program.ts";

/** Between two records: nothing that a record holds. */
const end = Buffer.from("\x1e-- next --\x1e");

/**
 * Follows a topic from its beginning through restarts of brokers, with kcat: a client that shares no code with what is
 * tested.
 */
export class Follower {
  readonly #args: readonly string[];
  readonly #onRecord: (partition: number, offset: number, rest: Buffer) => void;
  /** By partition: the next offset. */
  readonly #next = new Map<number, number>();
  readonly #kill = () => this.#child?.kill("SIGKILL");
  #child: ChildProcess | undefined;
  #over = false;

  /** @param format what to tell of a record besides its place, in kcat's words. */
  constructor(
    bootstrap: string,
    topic: string,
    format: string,
    onRecord: (partition: number, offset: number, rest: Buffer) => void,
  ) {
    const what = ["-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-q", "-u", "-E"];
    const settings = ["fetch.wait.max.ms=100", "reconnect.backoff.max.ms=500"].flatMap((one) => ["-X", one]);
    this.#args = [...what, ...settings, "-f", `%p %o ${format}${end.toString()}`];
    this.#onRecord = onRecord;
    process.once("exit", this.#kill);
    this.#follow();
  }

  async stop(): Promise<void> {
    this.#over = true;
    process.removeListener("exit", this.#kill);
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise((resolve) => {
      child.once("close", resolve);
      child.kill("SIGKILL");
    });
  }

  #follow(): void {
    const child = spawn(findProgram("kcat")!, this.#args, { stdio: ["ignore", "pipe", "ignore"] });
    this.#child = child;
    let rest: Buffer = Buffer.alloc(0);
    child.stdout.on("data", (bytes: Buffer) => {
      rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
      let from = 0;
      for (let at = rest.indexOf(end); at >= 0; at = rest.indexOf(end, from)) {
        this.#record(rest.subarray(from, at));
        from = at + end.length;
      }
      rest = rest.subarray(from);
    });
    child.once("close", () => {
      if (!this.#over) this.#follow();
    });
  }

  #record(record: Buffer): void {
    const [place, partition, offset] = /^(\d+) (\d+) /.exec(record.subarray(0, 40).toString("latin1"))!;
    // One that was started anew tells again what is known.
    if (Number(offset) < (this.#next.get(Number(partition)) ?? 0)) return;
    this.#next.set(Number(partition), Number(offset) + 1);
    this.#onRecord(Number(partition), Number(offset), record.subarray(place.length));
  }
}
