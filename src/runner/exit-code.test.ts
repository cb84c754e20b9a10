import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../errors.ts";
import { ExitCode, exitCodeOfError, exitCodeOfResult, UsageError, worst } from "./exit-code.ts";

test("an error that only a person can mend is a matter of configuration, any other a failure", () => {
  assert.equal(exitCodeOfError(new MillraceError("access-refused", "no")), ExitCode.configuration);
  assert.equal(exitCodeOfError(new MillraceError("target-missing", "no")), ExitCode.configuration);
  assert.equal(exitCodeOfError(new MillraceError("dead-letter-impossible", "no")), ExitCode.failed);
  assert.equal(exitCodeOfError(new MillraceError("connection-lost", "no")), ExitCode.failed);
  assert.equal(exitCodeOfError(new Error("?")), ExitCode.failed);
  assert.equal(exitCodeOfError("?"), ExitCode.failed);
  assert.equal(exitCodeOfError(new UsageError("?")), ExitCode.usage);
});

test("a drain that timed out is a failure", () => {
  assert.equal(exitCodeOfResult({ how: "done" }), 0);
  assert.equal(exitCodeOfResult({ how: "drain-timeout", error: new MillraceError("drain-timeout", "") }), 1);
  assert.equal(exitCodeOfResult({ how: "failed", error: new MillraceError("target-missing", "") }), 78);
});

test("the worst of several endings counts", () => {
  assert.equal(worst([]), 0);
  assert.equal(worst([0, 1, 0]), 1);
  assert.equal(worst([1, 78, 0]), 78);
});
