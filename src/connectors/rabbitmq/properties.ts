import { isUtf8 } from "node:buffer";
import type { Failure } from "../../component/failure.ts";
import { type Headers, type HeaderValue, noHeaders, type Records } from "../../message/records.ts";
import {
  type Delivery,
  type FieldTable,
  type FieldValue,
  type Properties,
  type PublishSettings,
  tagHeader,
} from "./driver.ts";

/**
 * How AMQP's properties and a message's headers stand for each other. From RabbitMQ to RabbitMQ nothing is lost
 * but what would do harm:
 *
 * | AMQP | header | back |
 * | --- | --- | --- |
 * | content-type, content-encoding | the same | yes |
 * | message-id, correlation-id, reply-to, type, app-id | `amqp-message-id` … | yes |
 * | priority | `amqp-priority` (number) | yes |
 * | expiration, user-id | `amqp-expiration`, `amqp-user-id` | as headers: a copy would expire, or be refused for another's name |
 * | timestamp (seconds) | the message's timestamp (ms) | yes |
 * | exchange, routing key, redelivered | `amqp-exchange`, `amqp-routing-key` (not for the default exchange), `amqp-redelivered` (where true) | no: they tell of this delivery |
 * | headers table | by name; tables and lists as JSON text, timestamps as numbers (seconds) | text |
 *
 * A key travels in the header `millrace-key`; a null value as an empty body with `millrace-tombstone: true`.
 * A header name that occurs more than once becomes one list. `CC` and `BCC` are not written: the broker would
 * route copies by them.
 */
const textProperties = [
  ["content-type", "contentType"],
  ["content-encoding", "contentEncoding"],
  ["amqp-message-id", "messageId"],
  ["amqp-correlation-id", "correlationId"],
  ["amqp-reply-to", "replyTo"],
  ["amqp-type", "type"],
  ["amqp-app-id", "appId"],
] as const;

const informationOnly = [
  ["amqp-expiration", "expiration"],
  ["amqp-user-id", "userId"],
] as const;

const propertyOf: ReadonlyMap<string, (typeof textProperties)[number][1]> = new Map(textProperties);

const priorityHeader = "amqp-priority";
const routingKeyHeader = "amqp-routing-key";
const exchangeHeader = "amqp-exchange";
const redeliveredHeader = "amqp-redelivered";
const keyHeader = "millrace-key";
const tombstoneHeader = "millrace-tombstone";

/** Never written: they tell of an earlier delivery, are made anew, or are orders to the broker. */
const unwritten: ReadonlySet<string> = new Set([
  routingKeyHeader,
  exchangeHeader,
  redeliveredHeader,
  keyHeader,
  tombstoneHeader,
  tagHeader,
  "CC",
  "BCC",
]);

/** Beyond this a timestamp is taken for milliseconds, as some publishers write it: in seconds it is the year 5138. */
const latestSeconds = 100_000_000_000;

/** Deliveries of one consumer, with headers read only where someone looks. */
export class Deliveries implements Records {
  readonly length: number;
  readonly #deliveries: readonly Delivery[];
  readonly #receivedAt: number;
  readonly #keyFromRoutingKey: boolean;
  #headers: (Headers | undefined)[] | undefined;

  /** @param receivedAt wall clock, for messages that have no timestamp. */
  constructor(deliveries: readonly Delivery[], receivedAt: number, keyFromRoutingKey: boolean) {
    this.#deliveries = deliveries;
    this.#receivedAt = receivedAt;
    this.#keyFromRoutingKey = keyFromRoutingKey;
    this.length = deliveries.length;
  }

  position(index: number): number {
    return this.#deliveries[index]!.fields.deliveryTag;
  }

  key(index: number): Buffer | null {
    const { fields, properties } = this.#deliveries[index]!;
    return this.#keyFromRoutingKey ? Buffer.from(fields.routingKey) : keyOf(properties);
  }

  value(index: number): Buffer | null {
    const { properties, content } = this.#deliveries[index]!;
    return contentOf(properties, content);
  }

  headers(index: number): Headers {
    this.#headers ??= new Array(this.length);
    const known = this.#headers[index];
    if (known !== undefined) return known;
    const headers = headersOf(this.#deliveries[index]!);
    this.#headers[index] = headers;
    return headers;
  }

  timestamp(index: number): number {
    return timestampOf(this.#deliveries[index]!.properties, this.#receivedAt);
  }

  size(index: number): number {
    const { properties, content, fields } = this.#deliveries[index]!;
    let size = content.length + (this.#keyFromRoutingKey ? fields.routingKey.length : 0);
    const table = properties.headers;
    if (table !== undefined) for (const name in table) size += name.length + sizeOfField(table[name]!);
    return size;
  }
}

export function keyOf(properties: Properties): Buffer | null {
  const key = properties.headers?.[keyHeader];
  if (typeof key === "string") return Buffer.from(key);
  return Buffer.isBuffer(key) ? key : null;
}

export function contentOf(properties: Properties, content: Buffer): Buffer | null {
  return content.length === 0 && properties.headers?.[tombstoneHeader] === true ? null : content;
}

export function timestampOf(properties: Properties, otherwise: number): number {
  const { timestamp } = properties;
  if (timestamp === undefined || !(timestamp >= 0)) return otherwise;
  return timestamp > latestSeconds ? timestamp : timestamp * 1_000;
}

export function headersOf({ fields, properties }: Omit<Delivery, "content">): Headers {
  const headers: [string, HeaderValue][] = [];
  for (const [name, property] of textProperties) {
    const value = properties[property];
    if (value !== undefined) headers.push([name, value]);
  }
  for (const [name, property] of informationOnly) {
    const value = properties[property];
    if (value !== undefined) headers.push([name, value]);
  }
  if (properties.priority !== undefined) headers.push([priorityHeader, properties.priority]);
  if (fields.exchange !== "") {
    headers.push([exchangeHeader, fields.exchange], [routingKeyHeader, fields.routingKey]);
  }
  if (fields.redelivered) headers.push([redeliveredHeader, true]);
  const table = properties.headers;
  if (table !== undefined) {
    for (const name of Object.keys(table)) {
      if (name === keyHeader || name === tombstoneHeader || name === tagHeader) continue;
      headers.push([name, plainField(table[name]!)]);
    }
  }
  return headers.length === 0 ? noHeaders : headers;
}

function plainField(value: FieldValue): HeaderValue {
  const json = jsonField(value);
  if (Buffer.isBuffer(value) || typeof json !== "object" || json === null) {
    return Buffer.isBuffer(value) ? value : (json as string | number | boolean | null);
  }
  return JSON.stringify(json);
}

/** A field as JSON has it: bytes as text where they are text, else as `{"base64": …}`. */
function jsonField(value: FieldValue): unknown {
  if (value === null || typeof value !== "object") return value;
  if (Buffer.isBuffer(value)) return isUtf8(value) ? value.toString() : { base64: value.toString("base64") };
  if (Array.isArray(value)) return value.map(jsonField);
  const table = value as FieldTable;
  if (table["!"] === "timestamp") return table.value;
  if (table["!"] === "decimal") {
    const { places, digits } = table.value as { places: number; digits: number };
    return digits / 10 ** places;
  }
  return Object.fromEntries(Object.entries(table).map(([name, field]) => [name, jsonField(field)]));
}

/** The message as AMQP is to carry it. */
export interface Outgoing {
  readonly key: Buffer | null;
  readonly headers: Headers;
  /** Of a null value. */
  readonly tombstone: boolean;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly persistent: boolean;
  readonly mandatory: boolean;
}

/** Room in the client's and the broker's buffer for the table of headers, in bytes. */
const tableLimit = 60 * 1024;

/** Properties of a message to publish, or why AMQP cannot carry it. */
export function propertiesOf(message: Outgoing): PublishSettings | Failure {
  const { key, headers, timestamp } = message;
  // No prototype, so that a header may have any name, "__proto__" too.
  const table: Record<string, FieldValue> = Object.create(null);
  const settings: PublishSettings = {
    headers: table,
    mandatory: message.mandatory,
    deliveryMode: message.persistent ? 2 : 1,
  };
  if (timestamp >= 0) settings.timestamp = Math.floor(timestamp / 1_000);
  let room = tableLimit;
  for (let i = 0; i < headers.length; i++) {
    const [name, value] = headers[i]!;
    if (unwritten.has(name)) continue;
    const field = fieldOf(value);
    const property = propertyOf.get(name);
    if (property !== undefined && settings[property] === undefined) {
      if (typeof field === "string" && Buffer.byteLength(field) <= 255) {
        settings[property] = field;
        continue;
      }
    } else if (name === priorityHeader && settings.priority === undefined) {
      const priority = Number(field);
      if (Number.isInteger(priority) && priority >= 0 && priority <= 255) {
        settings.priority = priority;
        continue;
      }
    }
    const length = Buffer.byteLength(name);
    if (length > 255)
      return refused("record-refused", `the name of a header has ${length} bytes; AMQP allows 255`);
    room -= length + 1 + sizeOfField(field);
    const earlier = table[name];
    if (earlier === undefined) table[name] = field;
    else if (Array.isArray(earlier)) earlier.push(field);
    else table[name] = [earlier, field];
  }
  if (key !== null) {
    table[keyHeader] = isUtf8(key) ? key.toString() : key;
    room -= keyHeader.length + key.length;
  }
  if (message.tombstone) table[tombstoneHeader] = true;
  if (room < 0) {
    return refused(
      "record-too-large",
      `key and headers have ${tableLimit - room} bytes; AMQP has room for ${tableLimit}`,
    );
  }
  return settings;
}

function refused(code: "record-refused" | "record-too-large", message: string): Failure {
  return { class: "business", code, message };
}

/** Bytes that are text are written as text; numbers that AMQP has no type for, too. */
function fieldOf(value: HeaderValue): FieldValue {
  if (Buffer.isBuffer(value)) return isUtf8(value) ? value.toString() : value;
  if (typeof value !== "number") return value;
  return Number.isFinite(value) && value > -(2 ** 63) ? value : String(value);
}

/** Upper bound of the bytes of a field as AMQP writes it. */
export function sizeOfField(value: FieldValue): number {
  if (typeof value === "string") return 5 + Buffer.byteLength(value);
  if (value === null || typeof value !== "object") return 9;
  if (Buffer.isBuffer(value)) return 5 + value.length;
  let size = 5;
  if (Array.isArray(value)) {
    for (const item of value) size += sizeOfField(item);
  } else {
    const table = value as FieldTable;
    for (const name of Object.keys(table)) size += 1 + Buffer.byteLength(name) + sizeOfField(table[name]!);
  }
  return size;
}
