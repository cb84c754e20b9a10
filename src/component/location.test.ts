import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { callerLocation, errorLocation } from "./location.ts";

test("the caller is the first place outside of the package", () => {
  const here = callerLocation();
  const line = readFileSync(import.meta.filename, "utf8")
    .split("\n")
    .findIndex((text) => text.includes("= callerLocation()"));
  assert.deepEqual(here, { file: import.meta.filename, line: line + 1, column: 16 });
});

const located = (stack: string) => {
  const error = new Error("x");
  error.stack = `Error: x\n${stack}`;
  const location = errorLocation(error);
  return location && [location.file, location.line, location.column];
};

test("an error is placed in the author's code, under whatever name its file has", () => {
  const own = new URL("../operators/key.ts", import.meta.url).href;
  assert.deepEqual(
    located(`    at key (${own}:1:2)
    at Array.map (<anonymous>)
    at compile (file:///app/node_modules/ajv/dist/ajv.js:3:4)
    at process.processTicksAndRejections (node:internal/process/task_queues:104:5)
    at declare (file:///app/orders.ts:5:6)
    at file:///app/later.ts:7:8`),
    ["/app/orders.ts", 5, 6],
  );
  assert.deepEqual(located("    at file:///my%20app%20(1)/a.ts?x=1:7:8"), ["/my app (1)/a.ts", 7, 8]);
  assert.deepEqual(located("    at async declare (file:///my%20app%20(1)/a.ts:7:8)"), [
    "/my app (1)/a.ts",
    7,
    8,
  ]);
  assert.deepEqual(located("    at new Order (/my app (1)/a.cjs:7:8)"), ["/my app (1)/a.cjs", 7, 8]);
  assert.deepEqual(located("    at async file:///a.ts:7:8"), ["/a.ts", 7, 8]);
});

test("with no author's code the package that threw is named; with nothing, nothing", () => {
  assert.deepEqual(located("    at f (file:///app/node_modules/a/b.js:3:4)"), [
    "/app/node_modules/a/b.js",
    3,
    4,
  ]);
  assert.equal(
    located("    at f (node:internal/process:3:4)\n    at async Promise.all (index 0)"),
    undefined,
  );
  assert.equal(located("a message of two lines that names /etc/x:1:2"), undefined);
  for (const thrown of [undefined, null, "text", { stack: "at /a:1:2" }])
    assert.equal(errorLocation(thrown), undefined);
});
