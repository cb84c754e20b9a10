import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Records } from "../../message/records.ts";
import { LineSplitter, LineTooLong } from "./lines.ts";

interface Line {
  readonly value: string;
  readonly position: number;
}

function collect(into: Line[], records: Records | undefined): void {
  for (let i = 0; i < (records?.length ?? 0); i++) {
    into.push({ value: records!.value(i)!.toString("latin1"), position: records!.position(i) });
  }
}

/** The lines of `content` when it is read in pieces that end at `cuts`. */
function split(content: Buffer, cuts: readonly number[], start = 0, limit = 1_000): Line[] {
  const splitter = new LineSplitter(start, limit);
  const lines: Line[] = [];
  const ends = [...new Set(cuts.map((cut) => cut % (content.length + 1)))].sort((a, b) => a - b);
  let from = 0;
  for (const end of [...ends, content.length]) {
    if (end > from) collect(lines, splitter.push(content.subarray(from, end), 5));
    from = end;
  }
  collect(lines, splitter.end(5));
  return lines;
}

const contents = fc
  .array(fc.constantFrom("a", "bc", "\n", "\r\n", "\r", "\n\n"), { maxLength: 40 })
  .map((parts) => Buffer.from(parts.join("")));

describe("LineSplitter", () => {
  test("finds the lines that a plain split finds, however the bytes come", () => {
    fc.assert(
      fc.property(contents, fc.array(fc.nat(), { maxLength: 6 }), fc.nat(1_000), (content, cuts, start) => {
        const expected: Line[] = [];
        let at = 0;
        const parts = content.toString("latin1").split("\n");
        parts.forEach((part, i) => {
          const last = i === parts.length - 1;
          if (last && part === "") return;
          const value = last ? part : part.replace(/\r$/, "");
          at += part.length + (last ? 0 : 1);
          expected.push({ value, position: start + at - 1 });
        });
        assert.deepEqual(split(content, cuts, start), expected);
      }),
    );
  });

  test("the limit counts a line without its end, and names where it begins", () => {
    const lines = (text: string, cuts: number[] = []) => split(Buffer.from(text), cuts, 100, 3);
    assert.deepEqual(
      lines("abc\r\nabc\nabc").map(({ value }) => value),
      ["abc", "abc", "abc"],
    );
    for (const [text, at] of [
      ["ab\nabcd\n", 103],
      ["ab\nabcd", 103],
      ["abcd\r\n", 100],
      ["ab\nabcdefgh", 103],
    ] as const) {
      for (const cuts of [[], [1], [4], [5], [6], [1, 2, 3, 4, 5, 6, 7]]) {
        assert.throws(
          () => lines(text, cuts),
          (error) => error instanceof LineTooLong && error.message.includes(`byte ${at} `),
          `${JSON.stringify(text)} ${cuts}`,
        );
      }
    }
  });

  test("an endless line is given up soon after the limit", () => {
    const splitter = new LineSplitter(0, 1_000);
    assert.throws(() => {
      for (let i = 0; i < 5; i++) splitter.push(Buffer.alloc(300, "x"), 0);
    }, LineTooLong);
    assert.ok(splitter.rest <= 1_300);
  });

  test("keeps no copy of whole lines, and shows what records show", () => {
    const bytes = Buffer.from("one\ntwo\n");
    const records = new LineSplitter(0, 100).push(bytes, 77)!;
    assert.equal(records.value(1)!.buffer, bytes.buffer);
    assert.deepEqual(
      [records.key(0), records.headers(0), records.timestamp(0), records.size(0)],
      [null, [], 77, 3],
    );
  });
});
