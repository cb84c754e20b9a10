import { type ChildProcess, spawn } from "node:child_process";
import { findProgram } from "../brokers/program.ts";

/** Between two records: nothing that a record holds. */
const end = Buffer.from("\x1e-- next --\x1e");

/**
 * Follows what a group commits for one topic, in the broker's own log, and notes where an offset goes back.
 *
 * Asking the coordinator would not do: one that has just taken over answers from what it knows to be replicated, which
 * for a moment is less than its predecessor had answered.
 */
export class CommitTail {
  /** "in/3: 120 to 90" */
  readonly regressions: string[] = [];
  /** Commits read. */
  count = 0;
  readonly #bootstrap: string;
  readonly #group: string;
  readonly #topic: string;
  readonly #log: string;
  /** By partition of the log: the next offset. */
  readonly #next = new Map<number, number>();
  readonly #committed = new Map<number, number>();
  readonly #kill = () => this.#child?.kill("SIGKILL");
  #child: ChildProcess | undefined;
  #rest: Buffer = Buffer.alloc(0);
  #over = false;

  /** @param log where the broker keeps commits. */
  constructor(bootstrap: string, group: string, topic: string, log = "__consumer_offsets") {
    this.#bootstrap = bootstrap;
    this.#group = group;
    this.#topic = topic;
    this.#log = log;
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
    const what = ["-b", this.#bootstrap, "-C", "-t", this.#log, "-o", "beginning", "-q", "-u", "-E"];
    const settings = ["-X", "reconnect.backoff.max.ms=500"];
    const format = ["-f", `%p %o %K %k%s${end.toString()}`];
    this.#rest = Buffer.alloc(0);
    const child = spawn(findProgram("kcat")!, [...what, ...settings, ...format], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    child.stdout.on("data", (bytes: Buffer) => this.#read(bytes));
    child.once("close", () => {
      if (!this.#over) this.#follow();
    });
  }

  #read(bytes: Buffer): void {
    let rest = Buffer.concat([this.#rest, bytes]);
    for (let at = rest.indexOf(end); at >= 0; at = rest.indexOf(end)) {
      this.#record(rest.subarray(0, at));
      rest = rest.subarray(at + end.length);
    }
    this.#rest = rest;
  }

  #record(record: Buffer): void {
    const [head, logPartition, offset, keyLength] = /^(\d+) (\d+) (-?\d+) /.exec(
      record.subarray(0, 60).toString("latin1"),
    )!;
    // One that was started anew tells again what is known.
    if (Number(offset) < (this.#next.get(Number(logPartition)) ?? 0)) return;
    this.#next.set(Number(logPartition), Number(offset) + 1);
    const key = record.subarray(head.length, head.length + Number(keyLength));
    const value = record.subarray(head.length + Number(keyLength));
    // Versions 0 and 1 of a key are commits, higher ones tell of the group; without a value it is forgotten.
    if (key.length < 4 || key.readInt16BE(0) > 1 || value.length < 10) return;
    const groupLength = key.readInt16BE(2);
    const group = key.toString("utf8", 4, 4 + groupLength);
    const topicLength = key.readInt16BE(4 + groupLength);
    const at = 6 + groupLength;
    const name = key.toString("utf8", at, at + topicLength);
    if (group !== this.#group || name !== this.#topic) return;
    const partition = key.readInt32BE(at + topicLength);
    const committed = Number(value.readBigInt64BE(2));
    const before = this.#committed.get(partition) ?? 0;
    if (committed < before) this.regressions.push(`${name}/${partition}: ${before} to ${committed}`);
    this.#committed.set(partition, committed);
    this.count++;
  }
}
