import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { findProgram } from "../brokers/program.ts";
import { type Count, readCount } from "./counters.ts";

/**
 * Follows a topic from its beginning with kcat, a client that shares no code with what is tested, through
 * restarts of brokers.
 */
export class Tail {
  /** By partition, in the order of the log. */
  readonly partitions: Count[][];
  readonly #bootstrap: string;
  readonly #topic: string;
  readonly #onRecord: (count: Count) => void;
  readonly #kill = () => this.#child?.kill("SIGKILL");
  #child: ChildProcess | undefined;
  #over = false;

  constructor(
    bootstrap: string,
    topic: string,
    partitions: number,
    onRecord: (count: Count) => void = () => {},
  ) {
    this.#bootstrap = bootstrap;
    this.#topic = topic;
    this.#onRecord = onRecord;
    this.partitions = Array.from({ length: partitions }, () => []);
    process.once("exit", this.#kill);
    this.#follow();
  }

  /** Whether it has read each partition up to this offset. */
  reached(offsets: ReadonlyMap<number, number>): boolean {
    return [...offsets].every(([partition, offset]) => this.partitions[partition]!.length >= offset);
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
    const settings = ["fetch.wait.max.ms=100", "reconnect.backoff.max.ms=500"].flatMap((one) => ["-X", one]);
    const what = ["-b", this.#bootstrap, "-C", "-t", this.#topic, "-o", "beginning"];
    const child = spawn(findProgram("kcat")!, [...what, ...settings, "-q", "-u", "-E", "-f", "%p %o %s\n"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, partition, offset, value] = /^(\d+) (\d+) (.*)$/.exec(line)!;
      const records = this.partitions[Number(partition)]!;
      // One that was started anew tells again what is known.
      if (Number(offset) < records.length) return;
      if (Number(offset) > records.length) {
        throw new Error(`${this.#topic}/${partition} goes on at ${offset} after ${records.length - 1}`);
      }
      const count = readCount(value!);
      records.push(count);
      this.#onRecord(count);
    });
    child.once("close", () => {
      if (!this.#over) this.#follow();
    });
  }
}
