import { type Headers, noHeaders, type Records } from "../../../../../message/records.ts";
import { smallestRecord } from "./format.ts";
import { end as afterVarint, readVarint, readVarlong } from "./varint.ts";

/** What is wrong with the records of a batch whose checksum is right. */
export class InvalidRecords extends Error {}

/** The part of a batch's header that its records are read with. */
export interface RecordFrame {
  readonly baseOffset: number;
  readonly lastOffsetDelta: number;
  readonly baseTimestamp: number;
  /** Stands for each record's own; undefined where they have their own. */
  readonly appendTimestamp: number | undefined;
  readonly count: number;
}

/** Columns of {@link FetchedRecords}' table, a row a record. */
const column = {
  /** Number of the source that the positions are in. */
  source: 0,
  key: 1,
  /** −1: null. */
  keyLength: 2,
  value: 3,
  valueLength: 4,
  /** Position of the number of headers; 0 when there are none. */
  headers: 5,
  end: 6,
  size: 7,
} as const;
const rowShift = 3;

/**
 * Fetched records over the bytes they came in: a table says where each key, value and list of headers lies, and
 * a slice is made only where someone looks.
 */
export class FetchedRecords implements Records {
  length = 0;
  /** Bytes of the visible records, with the framing between them. */
  visibleBytes = 0;
  readonly #sources: Buffer[] = [];
  #positions: Float64Array;
  #timestamps: Float64Array;
  #table: Int32Array;

  /** @param expected about how many records will be added. */
  constructor(expected: number) {
    this.#positions = new Float64Array(expected);
    this.#timestamps = new Float64Array(expected);
    this.#table = new Int32Array(expected << rowShift);
  }

  position(index: number): number {
    return this.#positions[index]!;
  }

  timestamp(index: number): number {
    return this.#timestamps[index]!;
  }

  size(index: number): number {
    return this.#table[(index << rowShift) + column.size]!;
  }

  key(index: number): Buffer | null {
    return this.#slice(index << rowShift, column.key);
  }

  value(index: number): Buffer | null {
    return this.#slice(index << rowShift, column.value);
  }

  keyLength(index: number): number {
    return this.#table[(index << rowShift) + column.keyLength]!;
  }

  valueLength(index: number): number {
    return this.#table[(index << rowShift) + column.valueLength]!;
  }

  text(index: number): string {
    const row = index << rowShift;
    const table = this.#table;
    const start = table[row + column.value]!;
    const length = Math.max(table[row + column.valueLength]!, 0);
    return this.#sources[table[row + column.source]!]!.toString("utf8", start, start + length);
  }

  headers(index: number): Headers {
    const row = index << rowShift;
    const start = this.#table[row + column.headers]!;
    if (start === 0) return noHeaders;
    const source = this.#sources[this.#table[row + column.source]!]!;
    const count = readVarint(source, start);
    const headers: (readonly [string, Buffer | null])[] = [];
    let at = afterVarint;
    for (let i = 0; i < count; i++) {
      const nameLength = readVarint(source, at);
      const name = afterVarint;
      const length = readVarint(source, name + nameLength);
      const value = afterVarint;
      at = length < 0 ? value : value + length;
      headers.push([
        source.toString("utf8", name, name + nameLength),
        length < 0 ? null : source.subarray(value, at),
      ]);
    }
    return headers;
  }

  /** The record's headers as they were encoded, their number first; undefined when there are none. */
  encodedHeaders(index: number): Buffer | undefined {
    const row = index << rowShift;
    const start = this.#table[row + column.headers]!;
    if (start === 0) return undefined;
    return this.#sources[this.#table[row + column.source]!]!.subarray(start, this.#table[row + column.end]!);
  }

  /** Bytes that live as long as these records. */
  get heldBytes(): number {
    let held = 0;
    const counted = new Set<ArrayBufferLike>();
    for (const { buffer } of this.#sources) {
      if (counted.has(buffer)) continue;
      counted.add(buffer);
      held += buffer.byteLength;
    }
    return held;
  }

  /**
   * Adds the records between `start` and `end` of the source, except those below `from`. Nothing of them is kept
   * when one is invalid.
   *
   * @throws InvalidRecords
   */
  append(source: Buffer, start: number, end: number, frame: RecordFrame, from: number): void {
    const { baseOffset, lastOffsetDelta, baseTimestamp, appendTimestamp, count } = frame;
    // Before anything is allocated on the word of the header.
    if (count > (end - start) / smallestRecord) {
      throw new InvalidRecords(`it has ${count} records in ${end - start} bytes`);
    }
    this.#reserve(this.length + count);
    const positions = this.#positions;
    const timestamps = this.#timestamps;
    const table = this.#table;
    const number = this.#sources.length;
    let index = this.length;
    let lastDelta = -1;
    let at = start;
    for (let i = 0; i < count; i++) {
      const recordLength = readVarint(source, at);
      const recordEnd = afterVarint + recordLength;
      if (recordLength < 0 || recordEnd > end) throw invalidRecord(i, count);
      // One byte of attributes, which are not in use.
      const timestampDelta = readVarlong(source, afterVarint + 1);
      const offsetDelta = readVarint(source, afterVarint);
      const keyLength = readVarint(source, afterVarint);
      const key = afterVarint;
      const valueLength = readVarint(source, keyLength > 0 ? key + keyLength : key);
      const value = afterVarint;
      const headers = valueLength > 0 ? value + valueLength : value;
      const headerCount = readVarint(source, headers);
      let size = Math.max(keyLength, 0) + Math.max(valueLength, 0);
      let next = afterVarint;
      if (headerCount !== 0) {
        if (headerCount < 0) throw invalidRecord(i, count);
        for (let j = 0; j < headerCount; j++) {
          const nameLength = readVarint(source, next);
          const length = readVarint(source, afterVarint + nameLength);
          if (nameLength < 0 || length < -1) throw invalidRecord(i, count);
          size += nameLength + (length < 0 ? 8 : length);
          next = length < 0 ? afterVarint : afterVarint + length;
          // The number of headers may be anything.
          if (next > recordEnd) throw invalidRecord(i, count);
        }
      }
      // Positions only grow, so one that went astray anywhere is not at the end here.
      if (next !== recordEnd || keyLength < -1 || valueLength < -1) throw invalidRecord(i, count);
      if (offsetDelta <= lastDelta || offsetDelta > lastOffsetDelta) {
        throw new InvalidRecords(
          `record ${i + 1} of ${count} has an offset that is not between its neighbours`,
        );
      }
      if (Number.isNaN(timestampDelta)) throw invalidRecord(i, count);
      lastDelta = offsetDelta;
      at = next;
      const offset = baseOffset + offsetDelta;
      if (offset < from) continue;
      const row = index << rowShift;
      table[row + column.source] = number;
      table[row + column.key] = key;
      table[row + column.keyLength] = keyLength;
      table[row + column.value] = value;
      table[row + column.valueLength] = valueLength;
      table[row + column.headers] = headerCount === 0 ? 0 : headers;
      table[row + column.end] = next;
      table[row + column.size] = size;
      positions[index] = offset;
      timestamps[index] = appendTimestamp ?? baseTimestamp + timestampDelta;
      index++;
    }
    if (at !== end) throw new InvalidRecords(`${end - at} bytes follow its last record`);
    if (index === this.length) return;
    this.visibleBytes += end - table[(this.length << rowShift) + column.key]!;
    this.length = index;
    this.#sources.push(source);
  }

  /** Copies the visible records out of their sources and lets go of these. */
  detach(): void {
    const table = this.#table;
    const copy = Buffer.allocUnsafeSlow(this.visibleBytes);
    let filled = 0;
    for (let index = 0; index < this.length; ) {
      // What is visible of a source is its last records, one after the other.
      const number = table[(index << rowShift) + column.source]!;
      const start = table[(index << rowShift) + column.key]!;
      const shift = filled - start;
      let end = start;
      for (; index < this.length; index++) {
        const row = index << rowShift;
        if (table[row + column.source] !== number) break;
        end = table[row + column.end]!;
        table[row + column.source] = 0;
        table[row + column.key]! += shift;
        table[row + column.value]! += shift;
        if (table[row + column.headers] !== 0) table[row + column.headers]! += shift;
        table[row + column.end] = end + shift;
      }
      copy.set(this.#sources[number]!.subarray(start, end), filled);
      filled += end - start;
    }
    this.#sources.length = 0;
    this.#sources.push(copy);
  }

  #slice(row: number, start: number): Buffer | null {
    const table = this.#table;
    const length = table[row + start + 1]!;
    if (length < 0) return null;
    const position = table[row + start]!;
    return this.#sources[table[row + column.source]!]!.subarray(position, position + length);
  }

  #reserve(capacity: number): void {
    if (capacity <= this.#positions.length) return;
    const grown = Math.max(capacity, 2 * this.#positions.length);
    const positions = new Float64Array(grown);
    const timestamps = new Float64Array(grown);
    const table = new Int32Array(grown << rowShift);
    positions.set(this.#positions);
    timestamps.set(this.#timestamps);
    table.set(this.#table);
    this.#positions = positions;
    this.#timestamps = timestamps;
    this.#table = table;
  }
}

function invalidRecord(index: number, count: number): InvalidRecords {
  return new InvalidRecords(`the parts of record ${index + 1} of ${count} do not fill its length`);
}
