import type { Codec, Framing } from "./batch.ts";
import type { KeyColumn } from "./key-column.ts";
import type { Lane, LaneOrigin } from "./lane.ts";
import { Outcome, type Settler } from "./outcome.ts";
import { copyOf, type Headers, noHeaders, type PlainRecord, PlainRecords, type Records } from "./records.ts";

/** One message, made only where author code asks for one. Treat it as read-only: branches share its value. */
export interface Message<T = unknown> {
  readonly key: Buffer | null;
  readonly value: T;
  readonly headers: Headers;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly origin: LaneOrigin & { readonly position: number };
}

/** Stands for a message that no longer travels. */
const nothing: PlainRecord = { position: -1, key: null, value: null, headers: noHeaders, timestamp: 0 };

/** A message's value before `decode` and after `encode`: its bytes, or null for a tombstone. */
export type Bytes = Buffer | null;

/**
 * Messages of one lane travelling together, by column. A chunk belongs to whoever holds it: an operator writes
 * the columns in place and passes the same object on. `records` are the messages as fetched and are never
 * written; a column that is undefined means "as fetched".
 *
 * `state[i]` is 1 while message `i` travels with this chunk. An operator that settles it, rejects it or keeps
 * it back clears the state, and everyone downstream passes it by.
 */
export class Chunk<T = unknown> {
  readonly lane: Lane;
  readonly owner: Settler;
  /** The owner's number of message 0. */
  readonly first: number;
  readonly length: number;
  readonly records: Records;
  /** The index in `records` of message 0. */
  readonly from: number;
  readonly state: Uint8Array;
  /** Decoded values; without them the payload is the value. */
  values: T[] | undefined = undefined;
  /** Keys given by `key`. */
  keys: KeyColumn | undefined = undefined;
  /** Bytes to write, where they are no longer the fetched ones. */
  payloads: Bytes[] | undefined = undefined;
  /** Headers given on the way. */
  headerColumn: Headers[] | undefined = undefined;
  /** A step has changed decoded values, so that the payloads no longer say what they do. `encode` makes it false. */
  changed = false;
  /** What `compress` asks of the sink, where no `batch` step carries it. */
  codec: Codec = "none";
  framing: Framing = "record";
  #live: number;

  /** @param sharing another chunk whose state this one goes on with; without it every message travels. */
  constructor(
    lane: Lane,
    owner: Settler,
    first: number,
    length: number,
    records: Records,
    from: number,
    sharing?: Chunk,
  ) {
    this.lane = lane;
    this.owner = owner;
    this.first = first;
    this.length = length;
    this.records = records;
    this.from = from;
    this.state = sharing === undefined ? new Uint8Array(length).fill(1) : sharing.state;
    this.#live = sharing === undefined ? length : sharing.#live;
  }

  /** How many messages still travel with the chunk. */
  get live(): number {
    return this.#live;
  }

  value(index: number): T {
    return this.values === undefined ? (this.payload(index) as T) : (this.values[index] as T);
  }

  key(index: number): Buffer | null {
    return this.keys === undefined ? this.records.key(this.from + index) : this.keys.key(index);
  }

  /** The bytes a sink writes. */
  payload(index: number): Bytes {
    return this.payloads === undefined ? this.records.value(this.from + index) : this.payloads[index]!;
  }

  headers(index: number): Headers {
    return this.headerColumn === undefined
      ? this.records.headers(this.from + index)
      : this.headerColumn[index]!;
  }

  timestamp(index: number): number {
    return this.records.timestamp(this.from + index);
  }

  position(index: number): number {
    return this.records.position(this.from + index);
  }

  /** The key's length in bytes; −1: null. */
  keyLength(index: number): number {
    if (this.keys !== undefined) return this.keys.length(index);
    const { records } = this;
    if (records.keyLength !== undefined) return records.keyLength(this.from + index);
    return records.key(this.from + index)?.length ?? -1;
  }

  /** The payload's length in bytes; −1: null. */
  payloadLength(index: number): number {
    const { records } = this;
    if (this.payloads === undefined && records.valueLength !== undefined) {
      return records.valueLength(this.from + index);
    }
    return this.payload(index)?.length ?? -1;
  }

  /** The payload as UTF-8, with U+FFFD for what is none; "" for null. */
  payloadText(index: number): string {
    const { records } = this;
    if (this.payloads === undefined && records.text !== undefined) return records.text(this.from + index);
    return this.payload(index)?.toString("utf8") ?? "";
  }

  /** Bytes a sink would write for this message: key and payload, headers left out. */
  payloadSize(index: number): number {
    return Math.max(this.keyLength(index), 0) + Math.max(this.payloadLength(index), 0);
  }

  message(index: number): Message<T> {
    return {
      key: this.key(index),
      value: this.value(index),
      headers: this.headers(index),
      timestamp: this.timestamp(index),
      origin: { ...this.lane.origin, position: this.position(index) },
    };
  }

  /** The message no longer travels with this chunk; whoever took it out settles it later. */
  takeOut(index: number): void {
    if (this.state[index] === 0) return;
    this.state[index] = 0;
    this.#live--;
  }

  /** Its decoded value is not looked at again, and need not live as long as the message. */
  forgetValue(index: number): void {
    if (this.values !== undefined) this.values[index] = undefined as T;
  }

  /** Gives the message its outcome, and takes it out. */
  settle(index: number, outcome: Outcome): void {
    this.takeOut(index);
    this.owner.settle(this.first + index, outcome);
  }

  /** A chunk of message `index` alone, travelling again by itself, with the columns it has now. */
  single(index: number): Chunk<T> {
    const alone = new Chunk<T>(this.lane, this.owner, this.first + index, 1, this.records, this.from + index);
    if (this.values !== undefined) alone.values = [this.values[index] as T];
    alone.keys = this.keys?.after(index);
    if (this.payloads !== undefined) alone.payloads = [this.payloads[index]!];
    if (this.headerColumn !== undefined) alone.headerColumn = [this.headerColumn[index]!];
    return alone.#likeWhole(this);
  }

  /**
   * The same messages with the same columns and state, nothing copied, but `owner` hears their outcomes, under
   * this chunk's indexes. They travel in the new chunk from now on; this one is done, and good only for
   * {@link single} of messages that were taken out before: a column that someone downstream replaces stays here.
   */
  handOver(owner: Settler): Chunk<T> {
    const next = new Chunk<T>(this.lane, owner, 0, this.length, this.records, this.from, this);
    next.values = this.values;
    next.keys = this.keys;
    next.payloads = this.payloads;
    next.headerColumn = this.headerColumn;
    return next.#likeWhole(this);
  }

  /**
   * The messages that still travel, over bytes of their own, so that a few that are kept for long do not hold
   * on to the whole fetch they came in. The others can no longer be read. This chunk is done.
   */
  detached(): Chunk<T> {
    const records: PlainRecord[] = new Array(this.length);
    for (let i = 0; i < this.length; i++) {
      records[i] = this.state[i] === 0 ? nothing : copyOf(this.records, this.from + i);
    }
    const next = new Chunk<T>(
      this.lane,
      this.owner,
      this.first,
      this.length,
      new PlainRecords(records),
      0,
      this,
    );
    next.values = this.#travelling(this.values);
    next.keys = this.keys?.travelling(this.state);
    next.payloads = this.#travelling(this.payloads);
    next.headerColumn = this.#travelling(this.headerColumn);
    return next.#likeWhole(this);
  }

  /** A copy of the column without what no longer travels. */
  #travelling<E>(column: E[] | undefined): E[] | undefined {
    if (column === undefined) return undefined;
    const kept: E[] = new Array(this.length);
    for (let i = 0; i < this.length; i++) if (this.state[i] !== 0) kept[i] = column[i]!;
    return kept;
  }

  /** A copy of the columns for one branch of a fan-out; `owner` hears its outcomes under this chunk's indexes. */
  branch(owner: Settler): Chunk<T> {
    return this.#copy(owner, 0);
  }

  /** A copy of the columns with the same owner, for a route: each message must go on in one of the copies only. */
  share(): Chunk<T> {
    return this.#copy(this.owner, this.first);
  }

  #copy(owner: Settler, first: number): Chunk<T> {
    const copy = new Chunk<T>(this.lane, owner, first, this.length, this.records, this.from);
    copy.state.set(this.state);
    copy.#live = this.#live;
    copy.values = this.values?.slice();
    copy.keys = this.keys;
    copy.payloads = this.payloads?.slice();
    copy.headerColumn = this.headerColumn?.slice();
    return copy.#likeWhole(this);
  }

  /** Takes over what is said of a chunk as a whole. */
  #likeWhole(other: Chunk<T>): Chunk<T> {
    this.changed = other.changed;
    this.codec = other.codec;
    this.framing = other.framing;
    return this;
  }
}

/**
 * Settles each message of a chunk once all its branches have, with the worst of their outcomes. The chunk's
 * copies for the branches come from {@link Fork.branch}.
 */
export class Fork {
  readonly #chunk: Chunk;
  readonly #open: Uint8Array;
  readonly #worst: Uint8Array;

  constructor(chunk: Chunk, branches: number) {
    this.#chunk = chunk;
    this.#open = new Uint8Array(chunk.length).fill(branches);
    this.#worst = new Uint8Array(chunk.length);
    chunk.lane.ledger.branched(chunk.lane, chunk.live * (branches - 1));
  }

  /** The chunk for the next branch. Each message of it counts once, however often it is settled. */
  branch(): Chunk {
    const told = new Uint8Array(this.#chunk.length);
    return this.#chunk.branch({
      settle: (index, outcome) => {
        if (told[index] !== 0) return;
        told[index] = 1;
        this.#settle(index, outcome);
      },
    });
  }

  #settle(index: number, outcome: Outcome): void {
    if (outcome > this.#worst[index]!) this.#worst[index] = outcome;
    if (--this.#open[index]! > 0) this.#chunk.lane.ledger.branched(this.#chunk.lane, -1);
    else this.#chunk.settle(index, this.#worst[index] as Outcome);
  }
}

/**
 * Settles a parent message once all its children have, with the worst of their outcomes. Child number `i`
 * belongs to the chunk it was made for, which has this as its owner.
 */
export class Split implements Settler {
  readonly #chunk: Chunk;
  readonly #parent: number;
  readonly #settled: Uint8Array;
  #open: number;
  #worst: Outcome = Outcome.filtered;

  constructor(chunk: Chunk, parent: number, children: number) {
    this.#chunk = chunk;
    this.#parent = parent;
    this.#open = children;
    this.#settled = new Uint8Array(children);
    chunk.lane.ledger.branched(chunk.lane, children - 1);
  }

  settle(child: number, outcome: Outcome): void {
    if (this.#settled[child] !== 0) return;
    this.#settled[child] = outcome;
    if (outcome > this.#worst) this.#worst = outcome;
    if (--this.#open > 0) this.#chunk.lane.ledger.branched(this.#chunk.lane, -1);
    else this.#chunk.settle(this.#parent, this.#worst);
  }
}
