import { isUtf8 } from "node:buffer";
import type { Headers, HeaderValue } from "./records.ts";

/** Bytes as JSON shows them: text where they are valid UTF-8. */
export type ReadableValue = Exclude<HeaderValue, Buffer> | { readonly base64: string };

/** A value for JSON: bytes that are valid UTF-8 as text, others as `{"base64": …}`, anything else as it is. */
export function readable(value: HeaderValue): ReadableValue {
  if (!Buffer.isBuffer(value)) return value;
  return isUtf8(value) ? value.toString("utf8") : { base64: value.toString("base64") };
}

/** Headers for JSON, as a list: a name may occur more than once. */
export function readableHeaders(headers: Headers): [name: string, value: ReadableValue][] {
  return headers.map(([name, value]) => [name, readable(value)]);
}
