import type { Bytes, Chunk } from "./chunk.ts";
import type { Lane } from "./lane.ts";
import { Outcome } from "./outcome.ts";
import type { Headers } from "./records.ts";

/** What a batch goes to: a Kafka partition, an exchange and routing key, a file. One object per destination, compared by identity. */
export interface Destination {
  /** For logs, errors and status: "orders.accepted/3". */
  readonly name: string;
}

export const codecs = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
export type Codec = (typeof codecs)[number];

/**
 * How a sink without a batch format of its own applies a codec: to each payload by itself, or to one payload
 * that frames the whole batch. Kafka ignores it: its record batch is compressed as one.
 */
export type Framing = "record" | "batch";

/**
 * Messages of any lanes that a sink writes together to one destination, in order. They have been taken out of
 * their chunks; the batch answers for their outcomes.
 */
export class Batch {
  readonly destination: Destination;
  /** Opened at this time of the monotonic clock (ms), when its first message came. */
  readonly openedAt: number;
  codec: Codec = "none";
  framing: Framing = "record";
  #chunks: Chunk[] = [];
  #indexes: number[] = [];
  #bytes = 0;
  #deferred: Uint8Array | undefined;
  #lost = 0;
  readonly #stored: { first: number; count: number }[] = [];

  constructor(destination: Destination, openedAt: number) {
    this.destination = destination;
    this.openedAt = openedAt;
  }

  get length(): number {
    return this.#chunks.length;
  }

  /** Messages that the sink has given up. */
  get lost(): number {
    return this.#lost;
  }

  /** Keys and payloads, in bytes, before compression. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes message `index`, of `size` bytes of key and payload, out of its chunk and adds it here. */
  add(chunk: Chunk, index: number, size = chunk.payloadSize(index)): void {
    chunk.takeOut(index);
    this.#chunks.push(chunk);
    this.#indexes.push(index);
    this.#bytes += size;
  }

  /** Calls `visit` for each run of entries that came from one chunk. */
  eachRun(visit: (lane: Lane, count: number) => void): void {
    const chunks = this.#chunks;
    for (let start = 0, end = 0; start < chunks.length; start = end) {
      const chunk = chunks[start]!;
      while (end < chunks.length && chunks[end] === chunk) end++;
      visit(chunk.lane, end - start);
    }
  }

  /**
   * The same entries in batches of one destination each: in order within each, and the batches in the order of
   * their first entries. This one is done.
   */
  byDestination(destinationOf: (chunk: Chunk, index: number) => Destination): Batch[] {
    const parts = new Map<Destination, Batch>();
    for (let entry = 0; entry < this.#chunks.length; entry++) {
      const chunk = this.#chunks[entry]!;
      const index = this.#indexes[entry]!;
      const destination = destinationOf(chunk, index);
      let part = parts.get(destination);
      if (part === undefined) {
        part = new Batch(destination, this.openedAt);
        part.codec = this.codec;
        part.framing = this.framing;
        parts.set(destination, part);
      }
      part.add(chunk, index);
    }
    return [...parts.values()];
  }

  chunk(entry: number): Chunk {
    return this.#chunks[entry]!;
  }

  /** The entry's index in its chunk. */
  index(entry: number): number {
    return this.#indexes[entry]!;
  }

  key(entry: number): Buffer | null {
    return this.#chunks[entry]!.key(this.#indexes[entry]!);
  }

  value(entry: number): unknown {
    return this.#chunks[entry]!.value(this.#indexes[entry]!);
  }

  payload(entry: number): Bytes {
    return this.#chunks[entry]!.payload(this.#indexes[entry]!);
  }

  headers(entry: number): Headers {
    return this.#chunks[entry]!.headers(this.#indexes[entry]!);
  }

  timestamp(entry: number): number {
    return this.#chunks[entry]!.timestamp(this.#indexes[entry]!);
  }

  /**
   * Notes for an audit that `count` messages stand at the destination from offset `first` on. Sinks whose brokers
   * give offsets call it as they are acknowledged.
   */
  storedAt(first: number, count: number): void {
    const last = this.#stored.at(-1);
    if (last !== undefined && last.first + last.count === first) last.count += count;
    else this.#stored.push({ first, count });
  }

  get stored(): readonly { readonly first: number; readonly count: number }[] {
    return this.#stored;
  }

  settle(entry: number, outcome: Outcome): void {
    if (this.#deferred !== undefined && this.#deferred[entry] !== 0) return;
    if (outcome === Outcome.lost) this.#lost++;
    if (this.#deferred !== undefined) this.#deferred[entry] = outcome;
    else this.#chunks[entry]!.settle(this.#indexes[entry]!, outcome);
  }

  settleAll(outcome: Outcome): void {
    for (let entry = 0; entry < this.#chunks.length; entry++) this.settle(entry, outcome);
  }

  /** Keeps outcomes back until {@link release}, for a caller that must do something durable first. */
  defer(): void {
    this.#deferred ??= new Uint8Array(this.#chunks.length);
  }

  /** Passes on the outcomes kept back by {@link defer}. */
  release(): void {
    const outcomes = this.#deferred;
    if (outcomes === undefined) return;
    this.#deferred = undefined;
    for (let entry = 0; entry < outcomes.length; entry++) {
      const outcome = outcomes[entry]!;
      if (outcome !== 0) this.#chunks[entry]!.settle(this.#indexes[entry]!, outcome as Outcome);
    }
  }

  /**
   * Lets go of a lane whose epoch has ended; returns how many entries went. Its messages are `returned` already.
   * Not between {@link defer} and {@link release}, which go by entry.
   */
  drop(gone: (chunk: Chunk) => boolean): number {
    if (!this.#chunks.some(gone)) return 0;
    const chunks: Chunk[] = [];
    const indexes: number[] = [];
    let bytes = 0;
    for (let entry = 0; entry < this.#chunks.length; entry++) {
      const chunk = this.#chunks[entry]!;
      if (gone(chunk)) continue;
      chunks.push(chunk);
      indexes.push(this.#indexes[entry]!);
      bytes += chunk.payloadSize(this.#indexes[entry]!);
    }
    const dropped = this.#chunks.length - chunks.length;
    this.#chunks = chunks;
    this.#indexes = indexes;
    this.#bytes = bytes;
    return dropped;
  }
}
