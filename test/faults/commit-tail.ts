import { Follower } from "./follower.ts";

/** Who commits nothing for so long has nothing to commit, or cannot, ms. */
const pause = 100;

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
  readonly #group: string;
  readonly #topic: string;
  readonly #follower: Follower;
  readonly #committed = new Map<number, { readonly offset: number; readonly at: number }>();
  /** By partition: most messages between two commits. */
  readonly #admitted = new Map<number, number>();

  /** @param log where the broker keeps commits. */
  constructor(bootstrap: string, group: string, topic: string, log = "__consumer_offsets") {
    this.#group = group;
    this.#topic = topic;
    this.#follower = new Follower(bootstrap, log, "%T %K %k%s", (_partition, _offset, record) =>
      this.#record(record),
    );
  }

  /** Most messages between two commits, all partitions together; pauses in committing do not count. */
  get admitted(): number {
    return [...this.#admitted.values()].reduce((sum, step) => sum + step, 0);
  }

  stop(): Promise<void> {
    return this.#follower.stop();
  }

  #record(record: Buffer): void {
    const [head, time, keyLength] = /^(-?\d+) (-?\d+) /.exec(record.subarray(0, 40).toString("latin1"))!;
    const key = record.subarray(head.length, head.length + Number(keyLength));
    const value = record.subarray(head.length + Number(keyLength));
    // Versions 0 and 1 of a key are commits, higher ones tell of the group; without a value it is forgotten.
    if (key.length < 4 || key.readInt16BE(0) > 1 || value.length < 10) return;
    const groupLength = key.readInt16BE(2);
    const group = key.toString("utf8", 4, 4 + groupLength);
    const topicLength = key.readInt16BE(4 + groupLength);
    const nameAt = 6 + groupLength;
    const name = key.toString("utf8", nameAt, nameAt + topicLength);
    if (group !== this.#group || name !== this.#topic) return;
    this.#commit(key.readInt32BE(nameAt + topicLength), Number(value.readBigInt64BE(2)), Number(time));
  }

  #commit(partition: number, offset: number, at: number): void {
    const before = this.#committed.get(partition);
    this.#committed.set(partition, { offset, at });
    this.count++;
    if (before === undefined) return;
    if (offset < before.offset)
      this.regressions.push(`${this.#topic}/${partition}: ${before.offset} to ${offset}`);
    if (at - before.at > pause) return;
    this.#admitted.set(partition, Math.max(offset - before.offset, this.#admitted.get(partition) ?? 0));
  }
}
