import { type Compression, compressTask } from "../../../../component/codec.ts";
import type { Batch, Codec } from "../../../../message/batch.ts";
import { type Headers, type HeaderValue, noHeaders, sizeOf } from "../../../../message/records.ts";
import type { EncodedBatch, TopicPartition } from "../../driver.ts";
import type { RecordColumns } from "./log.ts";

/** Header of a v2 record batch, base offset and length included. */
const batchOverhead = 61;

/**
 * A record batch as the embedded broker takes it: columns of references, with the size that the same records
 * would have on the wire. Compressing costs more than all the rest, and nobody reads the result, so a batch with
 * a codec is measured as compressed only when its uncompressed size would be refused.
 */
export class EmbeddedBatch implements EncodedBatch, RecordColumns {
  readonly topic: string;
  readonly partition: number;
  readonly count: number;
  readonly codec: Codec;
  readonly size: number;
  readonly keys: readonly (Buffer | null)[];
  readonly values: readonly (Buffer | null)[];
  readonly headers: readonly Headers[] | undefined;
  readonly timestamps: Float64Array;
  readonly sizes: Uint32Array;
  #stored: number | undefined;

  /** A record without a timestamp of its own (−1) gets `now`. */
  constructor({ topic, partition }: TopicPartition, batch: Batch, from: number, to: number, now: number) {
    const count = to - from;
    const keys: (Buffer | null)[] = [];
    const values: (Buffer | null)[] = [];
    const timestamps = new Float64Array(count);
    const sizes = new Uint32Array(count);
    let baseTimestamp = 0;
    let headers: Headers[] | undefined;
    let size = batchOverhead;
    for (let i = 0; i < count; i++) {
      const chunk = batch.chunk(from + i);
      const index = batch.index(from + i);
      const key = chunk.key(index);
      const value = chunk.payload(index);
      const own = chunk.timestamp(index);
      const timestamp = own >= 0 ? own : now;
      if (i === 0) baseTimestamp = timestamp;
      const given = chunk.headers(index);
      keys.push(key);
      values.push(value);
      timestamps[i] = timestamp;
      let headerBytes = 1;
      if (given.length > 0) {
        headers ??= new Array<Headers>(i).fill(noHeaders);
        const written = asWritten(given);
        headers.push(written);
        headerBytes = headerSize(written);
        sizes[i] = sizeOf(key, value, written);
      } else {
        headers?.push(noHeaders);
        sizes[i] = (key === null ? 0 : key.length) + (value === null ? 0 : value.length);
      }
      size += recordSize(key, value, headerBytes, timestamp - baseTimestamp, i);
    }
    this.topic = topic;
    this.partition = partition;
    this.count = count;
    this.codec = batch.codec;
    this.size = size;
    this.keys = keys;
    this.values = values;
    this.headers = headers;
    this.timestamps = timestamps;
    this.sizes = sizes;
  }

  get exact(): boolean {
    return this.codec === "none";
  }

  /** Bytes the broker would store. */
  get storedSize(): number {
    this.#stored ??= this.codec === "none" ? this.size : batchOverhead + compressedSize(this, this.codec);
    return this.#stored;
  }
}

/** Columns of messages that are already at hand one by one. */
export function columnsOf(
  messages: readonly {
    readonly key: Buffer | null;
    readonly value: Buffer | null;
    readonly headers: Headers;
    readonly timestamp: number;
  }[],
): RecordColumns {
  const headers = messages.some((message) => message.headers.length > 0)
    ? messages.map((message) => asWritten(message.headers))
    : undefined;
  return {
    count: messages.length,
    keys: messages.map((message) => message.key),
    values: messages.map((message) => message.value),
    headers,
    timestamps: Float64Array.from(messages, (message) => message.timestamp),
    sizes: Uint32Array.from(messages, (message, i) =>
      sizeOf(message.key, message.value, headers?.[i] ?? noHeaders),
    ),
  };
}

/** Kafka's headers are bytes or null: text, numbers and booleans are written as UTF-8. */
function asWritten(headers: Headers): Headers {
  if (headers.every(([, content]) => content === null || Buffer.isBuffer(content))) return headers;
  return headers.map(([name, content]) => [name, headerBytes(content)] as const);
}

function headerBytes(content: HeaderValue): Buffer | null {
  return content === null || Buffer.isBuffer(content) ? content : Buffer.from(String(content));
}

/** A record of a v2 batch: lengths and deltas are zigzag varints, and −1 stands for null. */
function recordSize(
  key: Buffer | null,
  value: Buffer | null,
  headerBytes: number,
  timestampDelta: number,
  offsetDelta: number,
): number {
  const body =
    1 + // attributes
    varintSize(timestampDelta) +
    varintSize(offsetDelta) +
    (key === null ? 1 : varintSize(key.length) + key.length) +
    (value === null ? 1 : varintSize(value.length) + value.length) +
    headerBytes;
  return varintSize(body) + body;
}

function headerSize(headers: Headers): number {
  let size = varintSize(headers.length);
  for (const [name, content] of headers) {
    const nameLength = Buffer.byteLength(name);
    const length = Buffer.isBuffer(content) ? content.length : 0;
    size += varintSize(nameLength) + nameLength + varintSize(content === null ? -1 : length) + length;
  }
  return size;
}

function varintSize(value: number): number {
  // Zigzag: 7 bits a byte, of which one holds the sign.
  let magnitude = value < 0 ? -value - 1 : value;
  let size = 1;
  while (magnitude >= 64) {
    magnitude /= 128;
    size++;
  }
  return size;
}

function compressedSize(columns: RecordColumns, codec: Compression): number {
  const parts: Buffer[] = [];
  // Lengths, deltas and attributes: about eight bytes a record, nearly the same in each.
  const framing = Buffer.from([0, 0, 2, 0, 0, 0, 0, 0]);
  for (let i = 0; i < columns.count; i++) {
    parts.push(framing);
    for (const part of [columns.keys[i], columns.values[i]]) if (part) parts.push(part);
    for (const [name, content] of columns.headers?.[i] ?? noHeaders) {
      parts.push(Buffer.from(name));
      if (Buffer.isBuffer(content)) parts.push(content);
    }
  }
  return compressTask(codec, Buffer.concat(parts), { snappy: "xerial" }).run().length;
}
