import type { Codec } from "../message/batch.ts";
import type { Headers } from "../message/records.ts";
import type { Compression } from "./codec.ts";

/** The header that says how a payload is compressed, as in HTTP (RFC 9110, 8.4): the codings in the order of use. */
export const encodingHeader = "content-encoding";
/** The header that says what a payload is. */
export const typeHeader = "content-type";

/**
 * Values that ask for nothing to be undone. The last ones are no encodings; AMQP clients such as kombu put the
 * character set into the property of that name.
 */
const nothing: ReadonlySet<string> = new Set([
  "",
  "none",
  "identity",
  "binary",
  "utf-8",
  "utf8",
  "us-ascii",
  "ascii",
]);

/** The codings of a message in the order in which they were applied, in lower case; those that do nothing left out. */
export function codingsOf(headers: Headers): readonly string[] {
  let codings: string[] | undefined;
  for (let i = 0; i < headers.length; i++) {
    const [name, value] = headers[i]!;
    if (!isNamed(name, encodingHeader)) continue;
    codings ??= [];
    for (const part of textOf(value).split(",")) {
      const coding = part.trim().toLowerCase();
      if (!nothing.has(coding)) codings.push(coding);
    }
  }
  return codings ?? none;
}

const none: readonly string[] = [];

/** The headers with a payload's codings replaced: without that header when there are none. */
export function withCodings(headers: Headers, codings: readonly string[]): Headers {
  const kept = headers.filter(([name]) => !isNamed(name, encodingHeader));
  if (codings.length > 0) kept.push([encodingHeader, codings.join(", ")]);
  return kept;
}

/** The headers of a payload after `codec` was applied to it. */
export function encodedWith(headers: Headers, codec: Codec): Headers {
  if (codec === "none") return headers;
  if (headers.length === 0) return alone[codec];
  return withCodings(headers, [...codingsOf(headers), codec]);
}

const alone: Readonly<Record<Compression, Headers>> = {
  gzip: [[encodingHeader, "gzip"]],
  snappy: [[encodingHeader, "snappy"]],
  lz4: [[encodingHeader, "lz4"]],
  zstd: [[encodingHeader, "zstd"]],
};

/** The media type that the headers name, without parameters and in lower case; "" when they name none. */
export function mediaTypeOf(headers: Headers): string {
  for (let i = headers.length - 1; i >= 0; i--) {
    const [name, value] = headers[i]!;
    if (isNamed(name, typeHeader)) return textOf(value).split(";", 1)[0]!.trim().toLowerCase();
  }
  return "";
}

function isNamed(name: string, wanted: string): boolean {
  return name === wanted || (name.length === wanted.length && name.toLowerCase() === wanted);
}

function textOf(value: Headers[number][1]): string {
  return value === null ? "" : String(value);
}
