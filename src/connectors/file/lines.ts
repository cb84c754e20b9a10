import { type Headers, noHeaders, type Records } from "../../message/records.ts";

const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** A line is longer than allowed. What follows it cannot be told apart from it. */
export class LineTooLong extends Error {
  constructor(at: number, limit: number) {
    super(`the line at byte ${at} is longer than ${limit} bytes`);
    this.name = "LineTooLong";
  }
}

/**
 * Cuts bytes into lines, without copying them. The carriage return of CRLF does not belong to a line.
 *
 * A line's position is that of its last byte, the line feed. So the lowest position that is not settled, or the one
 * after the last, always lies in the line to be read next, whose beginning can be found again from there.
 */
export class LineSplitter {
  readonly #limit: number;
  /** Where the line at hand begins. */
  #start: number;
  #parts: Buffer[] = [];
  #length = 0;

  /** @param start position of the first byte, which begins a line. */
  constructor(start: number, limit: number) {
    this.#start = start;
    this.#limit = limit;
  }

  /** Bytes after the last line feed. */
  get rest(): number {
    return this.#length;
  }

  /** The lines that end in `bytes`; undefined when none does. Keeps the bytes. Throws {@link LineTooLong}. */
  push(bytes: Buffer, timestamp: number): Records | undefined {
    const last = bytes.lastIndexOf(lineFeed);
    if (last < 0) {
      this.#keep(bytes);
      return undefined;
    }
    const data = this.#length === 0 ? bytes : Buffer.concat([...this.#parts, bytes]);
    const end = this.#length + last;
    const lines = new Lines(data, this.#start, end + 1, timestamp, this.#limit);
    this.#parts = [];
    this.#length = 0;
    this.#start += end + 1;
    if (last + 1 < bytes.length) this.#keep(bytes.subarray(last + 1));
    return lines;
  }

  /** The end has come: what follows the last line feed is a line too. */
  end(timestamp: number): Records | undefined {
    if (this.#length === 0) return undefined;
    const lines = new Lines(Buffer.concat(this.#parts), this.#start, this.#length, timestamp, this.#limit);
    this.#start += this.#length;
    this.#parts = [];
    this.#length = 0;
    return lines;
  }

  #keep(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    // Its line feed, with a carriage return, may be yet to come.
    if (this.#length > this.#limit + 1) throw new LineTooLong(this.#start, this.#limit);
  }
}

/** Whole lines, as slices of the bytes that were read. */
class Lines implements Records {
  readonly length: number;
  readonly #data: Buffer;
  readonly #start: number;
  readonly #timestamp: number;
  /** Of each line the index after its last byte, line feed included. */
  readonly #ends: Uint32Array;

  constructor(data: Buffer, start: number, end: number, timestamp: number, limit: number) {
    this.#data = data;
    this.#start = start;
    this.#timestamp = timestamp;
    const ends: number[] = [];
    for (let from = 0; from < end; ) {
      const found = data.indexOf(lineFeed, from);
      const next = found < 0 || found >= end ? end : found + 1;
      ends.push(next);
      from = next;
    }
    this.#ends = Uint32Array.from(ends);
    this.length = ends.length;
    for (let i = 0; i < this.length; i++) {
      if (this.value(i).length > limit) throw new LineTooLong(start + (i === 0 ? 0 : ends[i - 1]!), limit);
    }
  }

  position(index: number): number {
    return this.#start + this.#ends[index]! - 1;
  }

  key(): null {
    return null;
  }

  value(index: number): Buffer {
    const from = index === 0 ? 0 : this.#ends[index - 1]!;
    let to = this.#ends[index]!;
    // The last line of a file may have no line feed, and then a carriage return is its own.
    if (this.#data[to - 1] === lineFeed) {
      to--;
      if (this.#data[to - 1] === carriageReturn) to--;
    }
    return this.#data.subarray(from, to);
  }

  headers(): Headers {
    return noHeaders;
  }

  timestamp(): number {
    return this.#timestamp;
  }

  size(index: number): number {
    return this.value(index).length;
  }
}
