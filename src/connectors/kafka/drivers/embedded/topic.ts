import { PartitionLog, type RecordColumns } from "./log.ts";

/** What a broker has unless told otherwise: 1 MiB and the overhead of a batch. */
export const defaultMaxMessageBytes = 1_048_588;

/** A topic of the embedded cluster: its partitions' logs and its settings. */
export class Topic {
  readonly name: string;
  readonly logs: PartitionLog[] = [];
  /** `max.message.bytes`: the largest record batch it takes, as stored. */
  maxMessageBytes: number;
  /** Partitions that have no leader until a time of the monotonic clock. */
  readonly leaderlessUntil = new Map<number, number>();
  /** Messages without a key that were fed so far: each goes to the next partition. */
  fedWithoutKey = 0;
  /** Called when there may be more to read, for readers that wait at the end. */
  readonly watchers = new Set<() => void>();

  constructor(name: string, partitions: number, maxMessageBytes: number) {
    this.name = name;
    this.maxMessageBytes = maxMessageBytes;
    this.grow(partitions);
  }

  append(partition: number, columns: RecordColumns): number {
    const offset = this.logs[partition]!.append(columns);
    this.changed();
    return offset;
  }

  grow(partitions: number): void {
    while (this.logs.length < partitions) this.logs.push(new PartitionLog());
  }

  /** Deleted and made anew under its name: the logs begin at 0 again. */
  recreate(partitions: number): void {
    this.logs.length = 0;
    this.leaderlessUntil.clear();
    this.grow(partitions);
    this.changed();
  }

  /** Wakes whoever waits for something to read. */
  changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}
