import { type Count, readCount } from "./counters.ts";
import { Follower } from "./follower.ts";

/** Reads a topic of counters as it grows. */
export class Tail {
  /** By partition, in the order of the log. */
  readonly partitions: Count[][];
  readonly #follower: Follower;

  constructor(
    bootstrap: string,
    topic: string,
    partitions: number,
    onRecord: (count: Count) => void = () => {},
  ) {
    this.partitions = Array.from({ length: partitions }, () => []);
    this.#follower = new Follower(bootstrap, topic, "%s", (partition, offset, value) => {
      const records = this.partitions[partition]!;
      if (offset > records.length)
        throw new Error(`${topic}/${partition} goes on at ${offset} after ${records.length - 1}`);
      const count = readCount(value.toString());
      records.push(count);
      onRecord(count);
    });
  }

  /** Whether it has read each partition up to this offset. */
  reached(offsets: ReadonlyMap<number, number>): boolean {
    return [...offsets].every(([partition, offset]) => this.partitions[partition]!.length >= offset);
  }

  stop(): Promise<void> {
    return this.#follower.stop();
  }
}
