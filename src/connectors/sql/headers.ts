import { type Headers, type HeaderValue, noHeaders } from "../../message/records.ts";

/** Headers as an outbox has them, a JSON object. A name that is there twice keeps its last value. */
export function headersText(headers: Headers): string | null {
  if (headers.length === 0) return null;
  return JSON.stringify(
    Object.fromEntries(
      headers.map(([name, value]) => [name, Buffer.isBuffer(value) ? value.toString() : value]),
    ),
  );
}

/**
 * Headers of a row. What is no object has none, and what is no text, number or boolean in it is given as JSON: a row
 * that an application wrote must go on, whatever it says here.
 */
export function headersOf(cell: unknown): Headers {
  if (cell === null || cell === undefined) return noHeaders;
  let parsed: unknown;
  try {
    parsed = JSON.parse(String(cell));
  } catch {
    return noHeaders;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return noHeaders;
  return Object.entries(parsed).map(([name, value]): [string, HeaderValue] => [
    name,
    value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean"
      ? value
      : JSON.stringify(value),
  ]);
}
