import { type Headers, noHeaders, type Records } from "../../../../message/records.ts";

const firstBlock = 64;
const largestBlock = 8192;

/** What a producer hands over for one partition, by column. `headers` is undefined when no record has any. */
export interface RecordColumns {
  readonly count: number;
  readonly keys: readonly (Buffer | null)[];
  readonly values: readonly (Buffer | null)[];
  readonly headers: readonly Headers[] | undefined;
  /** Milliseconds since 1970. */
  readonly timestamps: Float64Array;
  /** Bytes that credit counts, for each record. */
  readonly sizes: Uint32Array;
}

/** A stretch of the log by column. It only ever grows, so that a slice of it stays valid without a copy. */
interface Block {
  readonly offsets: Float64Array;
  readonly timestamps: Float64Array;
  readonly sizes: Uint32Array;
  readonly keys: (Buffer | null)[];
  readonly values: (Buffer | null)[];
  /** Filled from the first record with headers on, so it may be shorter than the other columns. */
  readonly headers: Headers[];
  length: number;
}

/** What a reader finds at a position of the log. */
export type Found =
  /** The position is below the first offset or beyond the last. */
  | { readonly kind: "outOfRange" }
  | { readonly kind: "end" }
  /** Nothing visible below `next`. */
  | { readonly kind: "gap"; readonly next: number }
  | { readonly kind: "records"; readonly records: Records; readonly next: number };

/**
 * The log of one partition: append-only, with offsets that may have gaps. Records are kept as references to the
 * key and value buffers given, in columns, so that neither an append nor a fetch copies bytes or makes an
 * object for a message.
 */
export class PartitionLog {
  #blocks: Block[] = [];
  #start = 0;
  #end = 0;

  /** The first offset still there. */
  get start(): number {
    return this.#start;
  }

  /** The offset the next record gets. */
  get end(): number {
    return this.#end;
  }

  /** Appends all records, or none when it throws; returns the offset of the first. */
  append(columns: RecordColumns): number {
    const base = this.#end;
    for (let from = 0; from < columns.count; ) {
      const block = this.#writable();
      const to = Math.min(columns.count, from + block.offsets.length - block.length);
      copy(columns, from, to, block, this.#end);
      this.#end += to - from;
      from = to;
    }
    return base;
  }

  /** Offsets that no reader ever sees: control records, aborted or compacted ones. */
  skip(count: number): void {
    this.#end += count;
  }

  /** Forgets every record below `offset`. */
  deleteBefore(offset: number): void {
    this.#start = Math.max(this.#start, Math.min(offset, this.#end));
    const kept = this.#blocks.findIndex((block) => block.offsets[block.length - 1]! >= this.#start);
    this.#blocks = kept < 0 ? [] : this.#blocks.slice(kept);
  }

  /** What lies at `position`: at least one record if there is one, and up to `maxBytes` of them. */
  read(position: number, maxBytes: number): Found {
    if (position < this.#start || position > this.#end) return { kind: "outOfRange" };
    if (position === this.#end) return { kind: "end" };
    const block = this.#blocks[
      lowerBound(this.#blocks.length, (i) => {
        const candidate = this.#blocks[i]!;
        return candidate.offsets[candidate.length - 1]! >= position;
      })
    ] as Block | undefined;
    if (block === undefined) return { kind: "gap", next: this.#end };
    const from = lowerBound(block.length, (i) => block.offsets[i]! >= position);
    const first = block.offsets[from]!;
    if (first > position) return { kind: "gap", next: first };
    let to = from + 1;
    let bytes = block.sizes[from]!;
    while (to < block.length) {
      bytes += block.sizes[to]!;
      if (bytes > maxBytes) break;
      to++;
    }
    return {
      kind: "records",
      records: new LogSlice(block, from, to - from),
      next: block.offsets[to - 1]! + 1,
    };
  }

  #writable(): Block {
    const last = this.#blocks[this.#blocks.length - 1];
    if (last !== undefined && last.length < last.offsets.length) return last;
    const capacity = last === undefined ? firstBlock : Math.min(largestBlock, 2 * last.offsets.length);
    const block: Block = {
      offsets: new Float64Array(capacity),
      timestamps: new Float64Array(capacity),
      sizes: new Uint32Array(capacity),
      keys: [],
      values: [],
      headers: [],
      length: 0,
    };
    this.#blocks.push(block);
    return block;
  }
}

function copy(columns: RecordColumns, from: number, to: number, block: Block, offset: number): void {
  const { keys, values, headers, timestamps, sizes } = columns;
  const start = block.length;
  for (let i = from; i < to; i++) {
    const slot = start + i - from;
    block.offsets[slot] = offset + i - from;
    block.timestamps[slot] = timestamps[i]!;
    block.sizes[slot] = sizes[i]!;
    block.keys.push(keys[i]!);
    block.values.push(values[i]!);
  }
  if (headers !== undefined) {
    while (block.headers.length < start) block.headers.push(noHeaders);
    for (let i = from; i < to; i++) block.headers.push(headers[i]!);
  }
  block.length = start + to - from;
}

/** A view of records that lie together in one block. */
class LogSlice implements Records {
  readonly length: number;
  readonly #block: Block;
  readonly #from: number;

  constructor(block: Block, from: number, length: number) {
    this.#block = block;
    this.#from = from;
    this.length = length;
  }

  position(index: number): number {
    return this.#block.offsets[this.#from + index]!;
  }

  key(index: number): Buffer | null {
    return this.#block.keys[this.#from + index]!;
  }

  value(index: number): Buffer | null {
    return this.#block.values[this.#from + index]!;
  }

  headers(index: number): Headers {
    return this.#block.headers[this.#from + index] ?? noHeaders;
  }

  timestamp(index: number): number {
    return this.#block.timestamps[this.#from + index]!;
  }

  size(index: number): number {
    return this.#block.sizes[this.#from + index]!;
  }
}

/** The first of 0 … length−1 for which the monotone `reached` holds, or `length`. */
function lowerBound(length: number, reached: (index: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (reached(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
