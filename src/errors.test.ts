import assert from "node:assert/strict";
import { test } from "node:test";
import { classify, type ErrorCode, errorTable, MillraceError } from "./errors.ts";

test("every error of ours has the class of its code, wherever it arises", () => {
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const error = new MillraceError(code, "x");
    assert.equal(classify(error, "author"), errorTable[code].class);
    assert.equal(classify(error, "component"), errorTable[code].class);
  }
});

test("an unknown error of an author's function is the author's; one of a component blames no message", () => {
  for (const thrown of [
    new Error("x"),
    new TypeError("x"),
    "text",
    null,
    undefined,
    { code: "ECONNRESET" },
  ]) {
    assert.equal(classify(thrown, "author"), "application");
    assert.equal(classify(thrown, "component"), "network");
  }
});

test("out of disk, memory or handles is the process's, and a thing that cannot be looked at has a class too", () => {
  for (const code of ["ENOSPC", "EMFILE", "ENFILE", "ENOMEM", "ERR_WORKER_OUT_OF_MEMORY"]) {
    const error = Object.assign(new Error("x"), { code });
    assert.deepEqual([classify(error, "author"), classify(error, "component")], ["system", "system"]);
  }
  const sealed = new Proxy(
    {},
    {
      get() {
        throw new Error("do not look");
      },
    },
  );
  assert.deepEqual([classify(sealed, "author"), classify(sealed, "component")], ["application", "network"]);
});
