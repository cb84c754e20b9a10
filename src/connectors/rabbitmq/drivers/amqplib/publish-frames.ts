import type { FieldTable, FieldValue, PublishSettings } from "../../driver.ts";
import { sizeOfField } from "../../properties.ts";

const methodFrame = 1;
const headerFrame = 2;
const bodyFrame = 3;
const frameEnd = 0xce;
/** Type, channel and size before a frame's payload, and its end. */
const frameOverhead = 8;
const basicClass = 60;
const publishMethod = 40;
/** The basic properties in the order of their flags, the highest first; `table` and `number` say how they are written. */
const flags = {
  contentType: 0x8000,
  contentEncoding: 0x4000,
  headers: 0x2000,
  deliveryMode: 0x1000,
  priority: 0x0800,
  correlationId: 0x0400,
  replyTo: 0x0200,
  expiration: 0x0100,
  messageId: 0x0080,
  timestamp: 0x0040,
  type: 0x0020,
  userId: 0x0010,
  appId: 0x0008,
} as const;

/** Room for everything of a message but names, table and content: fixed fields, nine short strings, three frames. */
const room = 10 * 256 + 64;
/** Of a buffer, unless a message needs more. */
const typical = 64 * 1_024;

/**
 * Publishes written as AMQP frames, many to a buffer. amqplib makes three buffers of each message, which pass through
 * two streams and reach the socket one by one; here what is published in one turn of the event loop is one write.
 */
export class PublishFrames {
  readonly #channel: number;
  readonly #frameMax: number;
  /** Whole frames, ready to go. */
  #full: Buffer[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  /** What was taken already ends here; the rest of the buffer is for what comes next. */
  #from = 0;
  #at = 0;
  #method: { exchange: string; routingKey: string; mandatory: boolean; bytes: Buffer } | undefined;

  /** @param frameMax most bytes of a frame, as agreed with the broker; 0 for no limit */
  constructor(channel: number, frameMax: number) {
    this.#channel = channel;
    this.#frameMax = frameMax === 0 ? Number.POSITIVE_INFINITY : frameMax;
  }

  /** Throws, and adds nothing, when AMQP has no way to write a property or a header. */
  add(exchange: string, routingKey: string, content: Buffer, settings: PublishSettings): void {
    const method = this.#methodOf(exchange, routingKey, settings.mandatory);
    const frames = Math.ceil(content.length / (this.#frameMax - frameOverhead)) || 1;
    let tableSize = 0;
    for (const name in settings.headers) tableSize += 256 + sizeOfField(settings.headers[name]!);
    this.#reserve(method.length + room + tableSize + content.length + frames * frameOverhead);
    const start = this.#at;
    try {
      this.#at += method.copy(this.#bytes, this.#at);
      this.#header(content.length, settings);
      this.#body(content);
    } catch (error) {
      this.#at = start;
      throw error;
    }
  }

  /** What was added since the last time, as whole frames. */
  take(): readonly Buffer[] {
    this.#cut();
    const all = this.#full;
    this.#full = [];
    return all;
  }

  #reserve(size: number): void {
    if (this.#bytes.length - this.#at >= size) return;
    this.#cut();
    // Frames that wait for their socket keep a buffer whole. They fill it one after another, so little is kept in vain.
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(size, typical));
    this.#from = 0;
    this.#at = 0;
  }

  #cut(): void {
    if (this.#at > this.#from) this.#full.push(this.#bytes.subarray(this.#from, this.#at));
    this.#from = this.#at;
  }

  /** Most often the same again. */
  #methodOf(exchange: string, routingKey: string, mandatory: boolean): Buffer {
    const known = this.#method;
    if (
      known !== undefined &&
      known.exchange === exchange &&
      known.routingKey === routingKey &&
      known.mandatory === mandatory
    ) {
      return known.bytes;
    }
    const [exchangeBytes, keyBytes] = [shortText("exchange", exchange), shortText("routing key", routingKey)];
    const size = 4 + 2 + exchangeBytes.length + keyBytes.length + 1;
    const bytes = Buffer.alloc(frameOverhead + size);
    let at = this.#frameHead(bytes, 0, methodFrame, size);
    at = bytes.writeUInt16BE(basicClass, at);
    at = bytes.writeUInt16BE(publishMethod, at);
    // A field that means nothing any more.
    at = bytes.writeUInt16BE(0, at);
    at += exchangeBytes.copy(bytes, at);
    at += keyBytes.copy(bytes, at);
    at = bytes.writeUInt8(mandatory ? 1 : 0, at);
    bytes[at] = frameEnd;
    this.#method = { exchange, routingKey, mandatory, bytes };
    return bytes;
  }

  #header(contentLength: number, settings: PublishSettings): void {
    const bytes = this.#bytes;
    const start = this.#at;
    let at = start + 7;
    at = bytes.writeUInt16BE(basicClass, at);
    at = bytes.writeUInt16BE(0, at);
    at = bytes.writeUInt32BE(Math.floor(contentLength / 2 ** 32), at);
    at = bytes.writeUInt32BE(contentLength % 2 ** 32, at);
    const flagsAt = at;
    at += 2;
    let present = flags.headers;
    this.#at = at;
    const text = (value: string | undefined, name: keyof typeof flags) => {
      if (value === undefined) return;
      present |= flags[name];
      this.#shortText(name, value);
    };
    text(settings.contentType, "contentType");
    text(settings.contentEncoding, "contentEncoding");
    this.#table(settings.headers);
    if (settings.deliveryMode !== undefined) {
      present |= flags.deliveryMode;
      bytes[this.#at++] = settings.deliveryMode;
    }
    if (settings.priority !== undefined) {
      present |= flags.priority;
      bytes[this.#at++] = settings.priority;
    }
    text(settings.correlationId, "correlationId");
    text(settings.replyTo, "replyTo");
    text(settings.expiration, "expiration");
    text(settings.messageId, "messageId");
    if (settings.timestamp !== undefined) {
      present |= flags.timestamp;
      this.#at = bytes.writeBigUInt64BE(BigInt(settings.timestamp), this.#at);
    }
    text(settings.type, "type");
    text(settings.userId, "userId");
    text(settings.appId, "appId");
    bytes.writeUInt16BE(present, flagsAt);
    this.#frameHead(bytes, start, headerFrame, this.#at - start - 7);
    bytes[this.#at++] = frameEnd;
  }

  /** Nothing for a message without content. */
  #body(content: Buffer): void {
    const most = this.#frameMax - frameOverhead;
    for (let from = 0; from < content.length; from += most) {
      const size = Math.min(most, content.length - from);
      this.#at = this.#frameHead(this.#bytes, this.#at, bodyFrame, size);
      this.#at += content.copy(this.#bytes, this.#at, from, from + size);
      this.#bytes[this.#at++] = frameEnd;
    }
  }

  /** Returns where the frame's payload begins. */
  #frameHead(bytes: Buffer, at: number, type: number, size: number): number {
    bytes[at] = type;
    bytes.writeUInt16BE(this.#channel, at + 1);
    return bytes.writeUInt32BE(size, at + 3);
  }

  #shortText(what: string, value: string): void {
    const length = Buffer.byteLength(value);
    if (length > 255) throw tooLong(what, length);
    this.#bytes[this.#at] = length;
    this.#at += 1 + this.#bytes.write(value, this.#at + 1, "utf8");
  }

  #table(table: FieldTable): void {
    const start = this.#at;
    this.#at += 4;
    // Names that the table inherits would not be the message's.
    for (const name of Object.keys(table)) {
      this.#shortText("name of a header", name);
      this.#field(table[name]!);
    }
    this.#bytes.writeUInt32BE(this.#at - start - 4, start);
  }

  #tag(type: string): void {
    this.#bytes[this.#at++] = type.charCodeAt(0);
  }

  #field(value: FieldValue): void {
    const bytes = this.#bytes;
    if (typeof value === "string") {
      this.#tag("S");
      const length = bytes.write(value, this.#at + 4, "utf8");
      bytes.writeUInt32BE(length, this.#at);
      this.#at += 4 + length;
    } else if (typeof value === "number") this.#number(value);
    else if (typeof value === "boolean") {
      this.#tag("t");
      bytes[this.#at++] = value ? 1 : 0;
    } else if (value === null) this.#tag("V");
    else if (Buffer.isBuffer(value)) {
      this.#tag("x");
      this.#at = bytes.writeUInt32BE(value.length, this.#at);
      this.#at += value.copy(bytes, this.#at);
    } else if (Array.isArray(value)) {
      this.#tag("A");
      const start = this.#at;
      this.#at += 4;
      for (const item of value as readonly FieldValue[]) this.#field(item);
      bytes.writeUInt32BE(this.#at - start - 4, start);
    } else if (typeof value === "object") this.#object(value as FieldTable);
    else throw new TypeError(`a header cannot be a ${typeof value}`);
  }

  /** A table, or what stands for a type that JavaScript lacks. */
  #object(value: FieldTable): void {
    if (value["!"] === "timestamp") {
      this.#tag("T");
      this.#at = this.#bytes.writeBigUInt64BE(BigInt(value.value as number), this.#at);
    } else if (value["!"] === "decimal") {
      const { places, digits } = value.value as unknown as { places: number; digits: number };
      this.#tag("D");
      this.#at = this.#bytes.writeUInt8(places, this.#at);
      this.#at = this.#bytes.writeUInt32BE(digits, this.#at);
    } else {
      this.#tag("F");
      this.#table(value);
    }
  }

  /** The smallest type that holds it: whole numbers beyond 2⁵⁰ too, where fractions have come to an end. */
  #number(value: number): void {
    const bytes = this.#bytes;
    if (!Number.isInteger(value) || value >= 2 ** 63 || value < -(2 ** 63)) {
      this.#tag("d");
      this.#at = bytes.writeDoubleBE(value, this.#at);
    } else if (value >= -0x80 && value < 0x80) {
      this.#tag("b");
      this.#at = bytes.writeInt8(value, this.#at);
    } else if (value >= -0x8000 && value < 0x8000) {
      this.#tag("s");
      this.#at = bytes.writeInt16BE(value, this.#at);
    } else if (value >= -0x8000_0000 && value < 0x8000_0000) {
      this.#tag("I");
      this.#at = bytes.writeInt32BE(value, this.#at);
    } else {
      this.#tag("l");
      this.#at = bytes.writeBigInt64BE(BigInt(value), this.#at);
    }
  }
}

function shortText(what: string, value: string): Buffer {
  const text = Buffer.from(value, "utf8");
  if (text.length > 255) throw tooLong(what, text.length);
  return Buffer.concat([Buffer.of(text.length), text]);
}

function tooLong(what: string, length: number): RangeError {
  return new RangeError(`${what} has ${length} bytes; AMQP allows 255`);
}
