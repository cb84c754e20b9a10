import { Outcome, type Settler } from "./outcome.ts";
import type { Records } from "./records.ts";

/** Where a lane's messages come from, in the words of the broker. */
export interface LaneOrigin {
  /** The source's name in the plan. */
  readonly source: string;
  /** Topic, queue or file. */
  readonly target: string;
  /** Kafka partition; undefined where the target has none. */
  readonly partition?: number;
}

/** Who keeps the books of a source flow: told of every message taken in and of every outcome. */
export interface Ledger {
  taken(lane: Lane, count: number, bytes: number): void;
  settled(lane: Lane, outcome: Outcome, bytes: number): void;
  /** A message goes on in `more` further parts (branches, children); negative as parts before the last one settle. */
  branched(lane: Lane, more: number): void;
}

export interface LaneOptions {
  readonly origin: LaneOrigin;
  /** Assignment number: a lane lives in one epoch and no longer. */
  readonly epoch: number;
  /**
   * How the broker is acknowledged. `cumulative`: by position, all below is done (Kafka). `individual`: each
   * message by itself (RabbitMQ), so settled slots stay in the ring until {@link Lane.collectAcks} took them.
   */
  readonly ack: "cumulative" | "individual";
  readonly ledger: Ledger;
  /** The position the lane starts at, which is its checkpoint until something settles. Default 0. */
  readonly start?: number;
  /** Called at the first settlement after {@link Lane.collectAcks} or {@link Lane.readCheckpoint}; must not throw, and defers its work. */
  readonly onProgress?: (lane: Lane) => void;
}

const ACKED = 0x80;

/**
 * The unit of intake and order: one Kafka partition, or one RabbitMQ consumer, in one assignment epoch.
 *
 * A lane numbers its messages 0, 1, 2 … as they are taken in. The outcomes are written into a ring over those
 * numbers, and the ring *is* the checkpoint: the head moves past a slot only once every slot before it is
 * settled, whatever the order in which outcomes arrive. Positions between two messages that the broker never
 * shows (control records, compacted offsets) thereby count as settled.
 *
 * ```
 *   released ≤ head ≤ tail
 *   [released, head)  settled, not yet acknowledged upstream (individual lanes only)
 *   [head, tail)      the span: what a crash would replay
 * ```
 */
export class Lane implements Settler {
  readonly origin: LaneOrigin;
  readonly epoch: number;
  readonly ledger: Ledger;
  /** "orders/3", "dicom-store": for logs, errors and status. */
  readonly name: string;
  /** Called inside the settlement that moves the checkpoint past a message; must not throw, and defers its work. */
  onHead: (() => void) | undefined = undefined;

  readonly #individual: boolean;
  readonly #onProgress: ((lane: Lane) => void) | undefined;
  #positions = new Float64Array(1024);
  #sizes = new Uint32Array(1024);
  #marks = new Uint8Array(1024);
  #mask = 1023;
  #released = 0;
  #head = 0;
  #tail = 0;
  #next: number;
  #inFlight = 0;
  #bytesInFlight = 0;
  /** Slots in [head, tail) that were handed out by themselves. */
  #ackedAbove = 0;
  #ended = false;
  #dirty = false;

  constructor(options: LaneOptions) {
    this.origin = options.origin;
    this.epoch = options.epoch;
    this.ledger = options.ledger;
    this.#individual = options.ack === "individual";
    this.#onProgress = options.onProgress;
    this.#next = options.start ?? 0;
    const { target, partition } = options.origin;
    this.name = partition === undefined ? target : `${target}/${partition}`;
  }

  /** True once the epoch is over: everything unsettled has been returned, and later settlements are ignored. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Messages taken in and not settled. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** Messages between the checkpoint and the newest: what a crash now would replay. */
  get span(): number {
    return this.#tail - this.#head;
  }

  /** The lowest position that is not yet settled, or the next one expected when all is: what may be committed. */
  get checkpoint(): number {
    return this.#head < this.#tail ? this.#positions[this.#head & this.#mask]! : this.#next;
  }

  /** The position after the newest message taken in, gaps skipped: where reading goes on. */
  get position(): number {
    return this.#next;
  }

  /** How many messages the checkpoint has passed: tells whether it moves. */
  get passed(): number {
    return this.#head;
  }

  /** Takes in `count` records from index `from`; returns the lane's number for the first of them. */
  take(records: Records, from: number, count: number): number {
    const first = this.#tail;
    if (first + count - this.#released > this.#marks.length) this.#grow(first + count - this.#released);
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const slot = (first + i) & this.#mask;
      const size = records.size(from + i);
      this.#positions[slot] = records.position(from + i);
      this.#sizes[slot] = size;
      this.#marks[slot] = 0;
      bytes += size;
    }
    this.#tail = first + count;
    this.#next = records.position(from + count - 1) + 1;
    this.#inFlight += count;
    this.#bytesInFlight += bytes;
    this.ledger.taken(this, count, bytes);
    return first;
  }

  /** Declares every position below `position` seen: the broker has nothing visible there. */
  skipTo(position: number): void {
    if (position <= this.#next) return;
    this.#next = position;
    if (this.#head === this.#tail) this.#progress();
  }

  /** Gives message `sequence` its outcome. A second outcome, or one after the epoch's end, is ignored. */
  settle(sequence: number, outcome: Outcome): void {
    if (this.#ended || sequence < this.#head) return;
    const slot = sequence & this.#mask;
    if (this.#marks[slot] !== 0) return;
    const size = this.#sizes[slot]!;
    this.#marks[slot] = outcome;
    this.#inFlight--;
    this.#bytesInFlight -= size;
    this.ledger.settled(this, outcome, size);
    if (sequence === this.#head) this.#advance();
    else if (this.#individual) this.#progress();
  }

  /** The checkpoint, once for each time it has moved: undefined when nothing was settled since the last call. */
  readCheckpoint(): number | undefined {
    if (!this.#dirty) return undefined;
    this.#dirty = false;
    return this.checkpoint;
  }

  /**
   * Hands out what an individual lane may acknowledge: first the contiguous settled part as one
   * acknowledgement (`multiple`), then, when `aboveHoles`, each settled message above an unsettled one.
   * A position is handed out once. RabbitMQ closes the channel on a tag it does not know, so the one given
   * with `multiple` is always one that was not handed out by itself before.
   */
  collectAcks(aboveHoles: boolean, ack: (position: number, multiple: boolean) => void): void {
    this.#dirty = false;
    let last = -1;
    for (let sequence = this.#released; sequence < this.#head; sequence++) {
      if ((this.#marks[sequence & this.#mask]! & ACKED) === 0) last = sequence;
    }
    this.#released = this.#head;
    if (last >= 0) ack(this.#positions[last & this.#mask]!, true);
    if (!aboveHoles) return;
    for (let sequence = this.#head; sequence < this.#tail; sequence++) {
      const slot = sequence & this.#mask;
      const mark = this.#marks[slot]!;
      if (mark === 0 || (mark & ACKED) !== 0) continue;
      this.#marks[slot] = mark | ACKED;
      this.#ackedAbove++;
      ack(this.#positions[slot]!, false);
    }
  }

  /** Settled messages of an individual lane that are not yet acknowledged because an earlier one is open. */
  get settledAboveHole(): number {
    return this.#tail - this.#head - this.#inFlight - this.#ackedAbove;
  }

  /** Ends the epoch: what is unsettled is `returned`, the checkpoint stands still, later settlements do nothing. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (let sequence = this.#head; sequence < this.#tail; sequence++) {
      const slot = sequence & this.#mask;
      if (this.#marks[slot] === 0) this.ledger.settled(this, Outcome.returned, this.#sizes[slot]!);
    }
    this.#inFlight = 0;
    this.#bytesInFlight = 0;
  }

  #advance(): void {
    let head = this.#head;
    for (; head < this.#tail && this.#marks[head & this.#mask] !== 0; head++) {
      if ((this.#marks[head & this.#mask]! & ACKED) !== 0) this.#ackedAbove--;
    }
    this.#head = head;
    if (!this.#individual) this.#released = head;
    this.#progress();
    this.onHead?.();
  }

  #progress(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    this.#onProgress?.(this);
  }

  #grow(needed: number): void {
    let capacity = this.#marks.length;
    while (capacity < needed) capacity *= 2;
    const positions = new Float64Array(capacity);
    const sizes = new Uint32Array(capacity);
    const marks = new Uint8Array(capacity);
    const mask = capacity - 1;
    for (let sequence = this.#released; sequence < this.#tail; sequence++) {
      positions[sequence & mask] = this.#positions[sequence & this.#mask]!;
      sizes[sequence & mask] = this.#sizes[sequence & this.#mask]!;
      marks[sequence & mask] = this.#marks[sequence & this.#mask]!;
    }
    this.#positions = positions;
    this.#sizes = sizes;
    this.#marks = marks;
    this.#mask = mask;
  }
}
