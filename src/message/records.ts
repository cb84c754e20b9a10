/**
 * A header value as a broker carries it. Kafka has bytes or null; AMQP field tables also have text, numbers
 * and booleans. Sinks translate: Kafka writes text, numbers and booleans as UTF-8; RabbitMQ writes bytes
 * that are valid UTF-8 as text.
 */
export type HeaderValue = Buffer | string | number | boolean | null;

/** Headers in the broker's order; a name may occur more than once. */
export type Headers = readonly (readonly [name: string, value: HeaderValue])[];

export const noHeaders: Headers = Object.freeze([]);

/**
 * Fetched messages, read-only and by column. A driver implements it over whatever it received: an array of
 * objects, or one buffer that is decoded only where someone looks. Indexes run from 0 to `length - 1`.
 */
export interface Records {
  readonly length: number;
  /** Kafka offset, RabbitMQ delivery tag, or byte position in a file. Strictly increasing. */
  position(index: number): number;
  /** null is "no key", which differs from a key of no bytes. */
  key(index: number): Buffer | null;
  /** null is a tombstone, which differs from a value of no bytes. */
  value(index: number): Buffer | null;
  headers(index: number): Headers;
  /** Milliseconds since 1970. */
  timestamp(index: number): number;
  /** Bytes that credit counts for this message: key, value and headers. */
  size(index: number): number;
  /**
   * The key's length in bytes, −1 for null.
   * @default that of the slice, for records that make none to know it
   */
  keyLength?(index: number): number;
  /** Likewise of the value. */
  valueLength?(index: number): number;
  /**
   * The value as UTF-8, with U+FFFD for what is none; "" for null.
   * @default that of the slice, for records that make none to read it
   */
  text?(index: number): string;
}

/** One message in full, for drivers and tests that hold messages as objects. */
export interface PlainRecord {
  readonly position: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Headers;
  readonly timestamp: number;
}

/** {@link Records} over an array of objects. */
export class PlainRecords implements Records {
  readonly length: number;
  readonly #records: readonly PlainRecord[];

  constructor(records: readonly PlainRecord[]) {
    this.#records = records;
    this.length = records.length;
  }

  position(index: number): number {
    return this.#records[index]!.position;
  }

  key(index: number): Buffer | null {
    return this.#records[index]!.key;
  }

  value(index: number): Buffer | null {
    return this.#records[index]!.value;
  }

  headers(index: number): Headers {
    return this.#records[index]!.headers;
  }

  timestamp(index: number): number {
    return this.#records[index]!.timestamp;
  }

  size(index: number): number {
    const { key, value, headers } = this.#records[index]!;
    return sizeOf(key, value, headers);
  }
}

/** One message with bytes of its own, apart from the fetch it came in. */
export function copyOf(records: Records, index: number): PlainRecord {
  const key = records.key(index);
  const value = records.value(index);
  return {
    position: records.position(index),
    key: key === null ? null : Buffer.from(key),
    value: value === null ? null : Buffer.from(value),
    headers: records
      .headers(index)
      .map(([name, content]) => [name, Buffer.isBuffer(content) ? Buffer.from(content) : content] as const),
    timestamp: records.timestamp(index),
  };
}

/** The size in bytes of one message as credit counts it. */
export function sizeOf(key: Buffer | null, value: Buffer | null, headers: Headers): number {
  let size = (key?.length ?? 0) + (value?.length ?? 0);
  for (let i = 0; i < headers.length; i++) {
    const [name, content] = headers[i]!;
    size += name.length + (typeof content === "string" || Buffer.isBuffer(content) ? content.length : 8);
  }
  return size;
}
