import { isUtf8 } from "node:buffer";
import { MillraceError } from "../errors.ts";
import type { Bytes } from "./chunk.ts";
import { type Headers, type HeaderValue, noHeaders, type Records, sizeOf } from "./records.ts";

/** What a frame is made of: a `Batch`, or a part of one. */
export interface FrameSource {
  readonly length: number;
  key(entry: number): Buffer | null;
  payload(entry: number): Bytes;
  headers(entry: number): Headers;
  timestamp(entry: number): number;
}

export interface FrameLimits {
  /** Most messages in a frame. Default {@link mostMessages}. */
  readonly messages?: number;
  /** Most bytes of a frame. Default: any. */
  readonly bytes?: number;
}

/** The media type of a frame. */
export const frameType = "application/vnd.millrace.frame";

/** Most messages a frame is read with: a hostile one of 16 MiB could otherwise make a million and a half. */
export const mostMessages = 65_536;

/** Most headers of one message in a frame. */
const mostHeaders = 65_536;

/** "MRF" and the version. */
const magic = Buffer.from([0x4d, 0x52, 0x46, 0x01]);
/** A message takes at least so much: timestamp, no key, no value, no headers. */
const leastSize = 11;
const valueType = { null: 0, bytes: 1, text: 2, number: 3, false: 4, true: 5 } as const;

/**
 * One payload that holds a whole batch of messages: keys, values, headers, timestamps, each exactly as it was.
 *
 * ```
 * frame   = magic "MRF" 0x01, count, message × count
 * message = timestamp (8 bytes, float, whole ms), key, value, headers
 * key, value = 0 for null, or length + 1 and the bytes
 * headers = count, (name, type, content) × count; the name a length and UTF-8
 * content = 0 null · 1 bytes · 2 text (each a length and the bytes) · 3 number (8 bytes, float) · 4 false · 5 true
 * ```
 * Counts and lengths are varints, 7 bits a byte, the lowest first. Numbers are big-endian.
 */
export function encodeFrame(source: FrameSource): Buffer {
  let size = magic.length + varintSize(source.length);
  for (let i = 0; i < source.length; i++) size += messageSize(source, i);
  const writer = new Writer(size);
  writer.raw(magic);
  writer.varint(source.length);
  for (let i = 0; i < source.length; i++) {
    writer.double(Math.round(source.timestamp(i)));
    writer.nullable(source.key(i));
    writer.nullable(source.payload(i));
    const headers = source.headers(i);
    writer.varint(headers.length);
    for (const [name, value] of headers) {
      writer.text(name);
      writer.header(value);
    }
  }
  return writer.buffer;
}

/** Bytes that one message takes in a frame. */
export function messageSize(source: FrameSource, entry: number): number {
  const headers = source.headers(entry);
  let size = 8 + nullableSize(source.key(entry)) + nullableSize(source.payload(entry));
  size += varintSize(headers.length);
  for (const [name, value] of headers) {
    size += textSize(name) + 1;
    if (typeof value === "string") size += textSize(value);
    else if (Buffer.isBuffer(value)) size += varintSize(value.length) + value.length;
    else if (typeof value === "number") size += 8;
  }
  return size;
}

/**
 * The messages of a frame, as slices of its buffer; every length is checked before anything is made of it. All
 * of them get `position`, that of the message they came in, since that is what can be looked up and read again.
 *
 * @throws MillraceError `compressed-invalid` when it is no frame, damaged, or followed by other bytes;
 *   `decompressed-too-large` when it exceeds the limits
 */
export function decodeFrame(buffer: Buffer, position = 0, limits: FrameLimits = {}): Records {
  const most = limits.messages ?? mostMessages;
  if (limits.bytes !== undefined && buffer.length > limits.bytes) {
    throw new MillraceError(
      "decompressed-too-large",
      `a frame of ${buffer.length} bytes is larger than ${limits.bytes}`,
    );
  }
  if (buffer.length < magic.length || magic.compare(buffer, 0, 3, 0, 3) !== 0) throw damaged("is not one");
  if (buffer[3] !== magic[3]) throw damaged(`has version ${buffer[3]}, which is unknown`);
  const reader = new Reader(buffer, magic.length);
  const count = reader.varint();
  if (count === 0) throw damaged("holds no message");
  if (count * leastSize > buffer.length) throw damaged("is shorter than its count of messages allows");
  if (count > most) {
    throw new MillraceError("decompressed-too-large", `a frame of ${count} messages has more than ${most}`);
  }
  const starts = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    starts[i] = reader.at;
    if (!Number.isSafeInteger(reader.double())) throw damaged("has a timestamp that is not a whole number");
    reader.nullable();
    reader.nullable();
    reader.headers();
  }
  if (reader.at !== buffer.length) throw damaged("is followed by other bytes");
  return new FramedRecords(buffer, starts, position);
}

class FramedRecords implements Records {
  readonly length: number;
  readonly #reader: Reader;
  readonly #starts: Uint32Array;
  readonly #position: number;

  constructor(buffer: Buffer, starts: Uint32Array, position: number) {
    this.#reader = new Reader(buffer, 0);
    this.#starts = starts;
    this.#position = position;
    this.length = starts.length;
  }

  position(): number {
    return this.#position;
  }

  key(index: number): Buffer | null {
    this.#reader.at = this.#starts[index]! + 8;
    return this.#reader.nullable();
  }

  value(index: number): Buffer | null {
    this.key(index);
    return this.#reader.nullable();
  }

  headers(index: number): Headers {
    this.value(index);
    return this.#reader.headers();
  }

  timestamp(index: number): number {
    this.#reader.at = this.#starts[index]!;
    return this.#reader.double();
  }

  size(index: number): number {
    return sizeOf(this.key(index), this.value(index), this.headers(index));
  }
}

/** Reads on from `at`; everything is checked against the buffer's end. */
class Reader {
  at: number;
  readonly #buffer: Buffer;

  constructor(buffer: Buffer, at: number) {
    this.#buffer = buffer;
    this.at = at;
  }

  varint(): number {
    let value = 0;
    // Five bytes hold what a buffer can be long; a sixth would be a damaged length.
    for (let i = 0; i < 5; i++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw damaged("has a length that is too long");
  }

  double(): number {
    this.#need(8);
    const value = this.#buffer.readDoubleBE(this.at);
    this.at += 8;
    return value;
  }

  nullable(): Buffer | null {
    const length = this.varint();
    return length === 0 ? null : this.#bytes(length - 1);
  }

  headers(): Headers {
    const count = this.varint();
    if (count === 0) return noHeaders;
    if (count > mostHeaders) {
      throw new MillraceError("decompressed-too-large", `a message in a frame has ${count} headers`);
    }
    // A header takes at least two bytes.
    this.#need(count * 2);
    const headers: [string, HeaderValue][] = [];
    for (let i = 0; i < count; i++) headers.push([this.#text(), this.#header()]);
    return headers;
  }

  #header(): HeaderValue {
    switch (this.#byte()) {
      case valueType.null:
        return null;
      case valueType.bytes:
        return this.#bytes(this.varint());
      case valueType.text:
        return this.#text();
      case valueType.number:
        return this.double();
      case valueType.false:
        return false;
      case valueType.true:
        return true;
      default:
        throw damaged("has a header of an unknown type");
    }
  }

  #text(): string {
    const bytes = this.#bytes(this.varint());
    if (!isUtf8(bytes)) throw damaged("has a header that is not valid UTF-8");
    return bytes.toString("utf8");
  }

  #byte(): number {
    this.#need(1);
    return this.#buffer[this.at++]!;
  }

  #bytes(length: number): Buffer {
    this.#need(length);
    const bytes = this.#buffer.subarray(this.at, this.at + length);
    this.at += length;
    return bytes;
  }

  #need(length: number): void {
    if (this.at + length > this.#buffer.length) throw damaged("is cut short");
  }
}

/** Writes into a buffer of exactly the right size. */
class Writer {
  readonly buffer: Buffer;
  #at = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  raw(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.buffer[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.buffer[this.#at++] = rest;
  }

  double(value: number): void {
    this.#at = this.buffer.writeDoubleBE(value, this.#at);
  }

  nullable(bytes: Buffer | null): void {
    if (bytes === null) {
      this.varint(0);
      return;
    }
    this.varint(bytes.length + 1);
    this.raw(bytes);
  }

  text(text: string): void {
    this.varint(Buffer.byteLength(text));
    this.#at += this.buffer.write(text, this.#at);
  }

  header(value: HeaderValue): void {
    if (value === null) this.varint(valueType.null);
    else if (typeof value === "string") {
      this.varint(valueType.text);
      this.text(value);
    } else if (typeof value === "number") {
      this.varint(valueType.number);
      this.double(value);
    } else if (typeof value === "boolean") {
      this.varint(value ? valueType.true : valueType.false);
    } else {
      this.varint(valueType.bytes);
      this.varint(value.length);
      this.raw(value);
    }
  }
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

function nullableSize(bytes: Buffer | null): number {
  return bytes === null ? 1 : varintSize(bytes.length + 1) + bytes.length;
}

function textSize(text: string): number {
  const length = Buffer.byteLength(text);
  return varintSize(length) + length;
}

function damaged(what: string): MillraceError {
  return new MillraceError("compressed-invalid", `the frame ${what}`);
}
