import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { EmbeddedBroker, StoredMessage } from "../component/embedded.ts";
import { makeFolder } from "../component/folder.ts";
import { readable, readableHeaders } from "../message/record-form.ts";
import { UsageError } from "./exit-code.ts";

/** A topic or queue to be written to a file. */
export interface DumpTarget {
  /** "kafka", "rabbitmq". */
  readonly connector: string;
  readonly address: string;
  readonly broker: EmbeddedBroker;
  readonly name: string;
}

/** The folder of `--dump`. Throws a {@link UsageError} when it has no name. */
export function parseDump(folder: string): string {
  if (folder === "") throw new UsageError("give a folder, as in --dump out");
  return folder;
}

/** Written to the file at a time, in characters. */
const pieceLength = 256 * 1024;

/**
 * Writes each topic and queue to `<folder>/<name>.ndjson`, one message a line: `{"partition","offset","key",
 * "value","headers","timestamp"}`. Text is a string where the bytes are valid UTF-8, else `{"base64": …}`; null
 * is null; headers are `[name, value]` pairs; the timestamp is in ms since 1970. An empty one makes an empty
 * file; a file of that name is replaced.
 *
 * @returns the files, in the order of the targets.
 */
export function dump(folder: string, targets: readonly DumpTarget[]): string[] {
  makeFolder(folder);
  return fileNames(targets).map((name, i) => {
    const { broker, name: target } = targets[i]!;
    const path = join(folder, name);
    const held = broker.targets().includes(target);
    writeLines(path, held ? broker.contents(target) : []);
    return path;
  });
}

function writeLines(path: string, messages: Iterable<StoredMessage>): void {
  const file = openSync(path, "w");
  try {
    let piece = "";
    for (const message of messages) {
      piece += `${recordForm(message)}\n`;
      if (piece.length < pieceLength) continue;
      writeAll(file, piece);
      piece = "";
    }
    writeAll(file, piece);
  } finally {
    closeSync(file);
  }
}

/** A write may take only a part. */
function writeAll(file: number, text: string): void {
  let left = Buffer.from(text);
  while (left.length > 0) left = left.subarray(writeSync(file, left));
}

/** One message as a line of JSON: the record form, which `--feed` reads again. */
export function recordForm(message: StoredMessage): string {
  return JSON.stringify({
    partition: message.partition,
    offset: message.position,
    key: readable(message.key),
    value: readable(message.value),
    headers: readableHeaders(message.headers),
    timestamp: message.timestamp,
  });
}

/**
 * A file name for each target, all different even where upper and lower case are one. A name that several
 * brokers use gets `@connector-address`, and what is still not unique a digest.
 */
export function fileNames(targets: readonly Omit<DumpTarget, "broker">[]): string[] {
  const plain = targets.map(({ name }) => safe(name));
  const placed = plain.map((name, i) => {
    if (isUnique(plain, name)) return name;
    const { connector, address } = targets[i]!;
    return `${name}@${connector}-${safe(address)}`;
  });
  return placed.map((name, i) => {
    if (isUnique(placed, name)) return `${name}.ndjson`;
    const { connector, address, name: target } = targets[i]!;
    return `${name}~${digest(JSON.stringify([connector, address, target]))}.ndjson`;
  });
}

function isUnique(names: readonly string[], name: string): boolean {
  return names.filter((other) => other.toLowerCase() === name.toLowerCase()).length === 1;
}

/** Most characters of a name in a file name, which may have 255 bytes. */
const longest = 100;

/** Letters, digits, ".", "_" and "-" stay; anything else, and a leading ".", becomes %XX. */
function safe(name: string): string {
  const encoded = name.replaceAll(/[^A-Za-z0-9._-]|^\./gu, (character) =>
    [...Buffer.from(character)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`)
      .join(""),
  );
  if (encoded === "") return "%";
  return encoded.length <= longest ? encoded : `${encoded.slice(0, longest)}~${digest(name)}`;
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 10);
}
