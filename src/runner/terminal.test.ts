import assert from "node:assert/strict";
import { test } from "node:test";
import { Terminal } from "./terminal.ts";

/** What a terminal of one screenful shows after these writes: "\r" and "erase line" are all that is used. */
function shown(writes: readonly string[]): string[] {
  const lines: string[] = [];
  for (const [i, line] of writes.join("").split("\n").entries()) {
    lines[i] = line.split("\r\x1b[2K").at(-1)!;
  }
  return lines;
}

function terminal(columns = 40) {
  const writes: string[] = [];
  return { writes, terminal: new Terminal({ columns, write: (text) => writes.push(text) }) };
}

test("the progress line is rewritten in place, log lines scroll above it", () => {
  const { writes, terminal: screen } = terminal();
  screen.progress("one");
  screen.progress("two");
  screen.print("a log line");
  screen.progress("three");
  assert.deepEqual(shown(writes), ["a log line", "three"]);
  screen.finish();
  screen.print("after");
  assert.deepEqual(shown(writes), ["a log line", "three", "after", ""]);
});

test("a line never wraps and never carries control characters", () => {
  const { writes, terminal: screen } = terminal(11);
  screen.progress("0123456789ABC");
  assert.deepEqual(shown(writes), ["0123456789"]);
  screen.progress("a\x1b[2Jb\nc");
  assert.deepEqual(shown(writes), ["a [2Jb c"]);
});

test("a terminal that does not know its width has 80 columns", () => {
  const { writes, terminal: screen } = terminal(0);
  screen.progress("x".repeat(200));
  assert.deepEqual(shown(writes), ["x".repeat(79)]);
});

test("an unchanged line is not written again", () => {
  const { writes, terminal: screen } = terminal();
  screen.progress("same");
  screen.progress("same");
  assert.equal(writes.length, 1);
});
