import type { EmbeddedBroker, FedMessage } from "../component/embedded.ts";
import type { HeaderValue } from "../message/records.ts";
import { UsageError } from "./exit-code.ts";

/** `--feed <target>=<file>`: the lines of a file go into a topic or queue before the run. */
export interface FeedOption {
  /** Topic or queue; `connector:name`, or `connector:name@address`, where several brokers have one of that name. */
  readonly target: string;
  readonly file: string;
}

/** Splits at the first "=". Throws a {@link UsageError} when a part is missing. */
export function parseFeed(text: string): FeedOption {
  const split = text.indexOf("=");
  if (split < 1 || split === text.length - 1) {
    throw new UsageError(`--feed ${text}: give <topic or queue>=<file>, as in --feed orders=orders.ndjson`);
  }
  return { target: text.slice(0, split), file: text.slice(split + 1) };
}

/** Messages handed to the broker at a time. */
const portion = 1_000;
const longestLine = 64 * 2 ** 20;
const newline = 10;
const carriageReturn = 13;

/** What became of the lines of a file. */
export interface Fed {
  /** How many were published. */
  readonly messages: number;
  /** How many were passed over because nothing is in them. */
  readonly emptyLines: number;
  /** Of the messages those whose line has the members of the record form and was taken as a value nevertheless. */
  readonly nearlyRecords: number;
  /** The first of these, counted from 1 among the lines of the file; undefined when there is none. */
  readonly firstNearly: number | undefined;
}

/**
 * Publishes each line of a file into a topic or queue: the line itself as the value, byte for byte, or what
 * the record form says (see {@link fedMessage}). Empty lines are passed over, "\r" before the end of a line and
 * a byte order mark at the start of the file are not part of a line. Reads on while it publishes.
 */
export async function feed(
  broker: EmbeddedBroker,
  target: string,
  content: AsyncIterable<Buffer>,
): Promise<Fed> {
  let count = 0;
  let emptyLines = 0;
  let nearlyRecords = 0;
  let firstNearly: number | undefined;
  let messages: FedMessage[] = [];
  for await (const line of linesOf(content)) {
    if (line.length === 0) {
      emptyLines++;
      continue;
    }
    const record = recordOf(line);
    if (record === "nearly") {
      nearlyRecords++;
      firstNearly ??= count + emptyLines + 1;
    }
    messages.push(typeof record === "object" ? record : { value: line });
    count++;
    if (messages.length < portion) continue;
    broker.feed(target, messages);
    messages = [];
  }
  if (messages.length > 0) broker.feed(target, messages);
  return { messages: count, emptyLines, nearlyRecords, firstNearly };
}

/** The lines of a file, as bytes of their own. Throws a {@link UsageError} for one beyond 64 MiB. */
export async function* linesOf(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  let first = true;
  const take = (rest: Buffer): Buffer => {
    let line = Buffer.concat([...parts, rest]);
    parts = [];
    length = 0;
    if (first && line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf) line = line.subarray(3);
    first = false;
    return line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
  };
  for await (const piece of content) {
    let from = 0;
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, from)) {
      yield take(piece.subarray(from, end));
      from = end + 1;
    }
    const rest = piece.subarray(from);
    length += rest.length;
    if (length > longestLine) throw new UsageError(`a line is longer than ${longestLine / 2 ** 20} MiB`);
    parts.push(rest);
  }
  // What comes after the last line feed is a line only if there is something.
  const line = take(Buffer.alloc(0));
  if (line.length > 0) yield line;
}

const members = ["partition", "offset", "key", "headers", "timestamp"];

/**
 * The message that a line stands for. A line is the record form when it is a JSON object with `value`, at least
 * one of `partition`, `offset`, `key`, `headers`, `timestamp`, nothing else, and each of these as `--dump`
 * writes it; `offset` is the broker's and is passed over. Any other line is itself the value. So a value that
 * looks like the record form must be fed in the record form.
 */
export function fedMessage(line: Buffer): FedMessage {
  const record = recordOf(line);
  return typeof record === "object" ? record : { value: line };
}

/** Undefined when the line is something else; "nearly" when it only has a member that is not as `--dump` writes it. */
function recordOf(line: Buffer): FedMessage | "nearly" | undefined {
  if (line[0] !== 0x7b || !line.includes('"value"')) return undefined;
  let record: unknown;
  try {
    record = JSON.parse(line.toString("utf8"));
  } catch {
    return undefined;
  }
  const fields = new Map(Object.entries(record as object));
  const given = fields.get("value");
  const value = bytesOf(given);
  fields.delete("value");
  // A value that is a number or an object is a payload of its own kind: {"value":21.5,"timestamp":1700000000000}.
  const isOther = value === undefined && !isBase64Form(given);
  if (isOther || fields.size === 0) return undefined;
  if ([...fields.keys()].some((name) => !members.includes(name))) return undefined;
  const partition = fields.get("partition");
  const offset = fields.get("offset");
  const timestamp = fields.get("timestamp");
  if (![partition, offset].every((field) => field === undefined || isWhole(field))) return "nearly";
  if (timestamp !== undefined && !Number.isSafeInteger(timestamp)) return "nearly";
  const key = fields.has("key") ? bytesOf(fields.get("key")) : null;
  const headers = headersOf(fields.get("headers"));
  if (value === undefined || key === undefined || headers === undefined) return "nearly";
  return {
    value,
    ...(fields.has("key") ? { key } : {}),
    ...(headers.length > 0 ? { headers } : {}),
    ...(partition === undefined ? {} : { partition: partition as number }),
    ...(timestamp === undefined ? {} : { timestamp: timestamp as number }),
  };
}

/** Undefined when it is none of null, text, or bytes in base64. */
function bytesOf(field: unknown): Buffer | null | undefined {
  if (field === null) return null;
  if (typeof field === "string") return field.isWellFormed() ? Buffer.from(field) : undefined;
  return base64Of(field);
}

function headersOf(field: unknown): (readonly [string, HeaderValue])[] | undefined {
  if (field === undefined) return [];
  if (!Array.isArray(field)) return undefined;
  const headers: (readonly [string, HeaderValue])[] = [];
  for (const pair of field as unknown[]) {
    if (!Array.isArray(pair) || pair.length !== 2) return undefined;
    const [name, given] = pair as [unknown, unknown];
    const value = isPlain(given) ? given : base64Of(given);
    if (typeof name !== "string" || value === undefined) return undefined;
    headers.push([name, value]);
  }
  return headers;
}

function isPlain(field: unknown): field is string | number | boolean | null {
  return field === null || ["string", "number", "boolean"].includes(typeof field);
}

function isWhole(field: unknown): boolean {
  return Number.isSafeInteger(field) && (field as number) >= 0;
}

function isBase64Form(field: unknown): field is { readonly base64: string } {
  if (typeof field !== "object" || field === null || Object.keys(field).length !== 1) return false;
  return typeof (field as { base64?: unknown }).base64 === "string";
}

function base64Of(field: unknown): Buffer | undefined {
  if (!isBase64Form(field)) return undefined;
  const { base64 } = field;
  const bytes = Buffer.from(base64, "base64");
  return bytes.toString("base64") === base64 ? bytes : undefined;
}
