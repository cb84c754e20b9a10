import { MillraceError } from "millrace";

/** Identifiers that one pond may give out: from `first` to `last`, both among them. */
export interface Range {
  readonly first: number;
  readonly last: number;
}

/** Reads a message of the queue `pond-seq`. Throws `option-invalid`: whoever filled the queue made a mistake. */
export function parseRange(content: Buffer): Range {
  try {
    const { first, last } = JSON.parse(content.toString()) as Partial<Range>;
    if (isId(first) && isId(last) && first <= last) return { first, last };
  } catch {
    // Told below.
  }
  throw new MillraceError("option-invalid", "a message of pond-seq is no range", {
    remedy: 'remove it; a range is written as {"first":1,"last":1000000}',
  });
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}
