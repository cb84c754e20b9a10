import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { lineNumbers, linesNamedBy } from "./checklist.ts";

const root = join(import.meta.dirname, "../..");

test("every line of the checklist is named by a test, and no test names a line that is not there", () => {
  const named = new Set<string>();
  for (const file of globSync("{src,topologies,test}/**/*.test.ts", {
    cwd: root,
    exclude: ["test/seeds/**"],
  })) {
    const text = readFileSync(join(root, file), "utf8");
    for (const [, title] of text.matchAll(/["`](seeds? \d{3}\.[^"]*?)["`],/g)) {
      const numbers = linesNamedBy(title!);
      assert.ok(numbers.length > 0, `${file}: "${title}" names no line`);
      for (const number of numbers) {
        assert.ok(lineNumbers.includes(number), `${file}: there is no line ${number}`);
        named.add(number);
      }
    }
  }
  assert.deepEqual(
    lineNumbers.filter((number) => !named.has(number)),
    [],
  );
});

test("a title names one line or several", () => {
  assert.deepEqual(linesNamedBy("seed 000.5, 000.6: keys"), ["000.5", "000.6"]);
  assert.deepEqual(linesNamedBy("seed 000.5"), []);
  assert.deepEqual(linesNamedBy("about seed 000.5: keys"), []);
});
