import type { Chunk } from "../message/chunk.ts";

/** The column of values, to be written: made of the fetched bytes where there is none. */
export function valuesOf(chunk: Chunk): unknown[] {
  chunk.values ??= Array.from({ length: chunk.length }, (_, i) => chunk.value(i));
  return chunk.values;
}
