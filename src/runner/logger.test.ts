import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { createLogger, inWords } from "./logger.ts";
import { Terminal } from "./terminal.ts";

test("for a person a log line is time, level, component, text and fields", () => {
  const line = JSON.stringify({
    level: "warn",
    time: "2026-01-01T12:30:01.250Z",
    pid: 1,
    node: "orders.accepted",
    attempt: 3,
    msg: "connection lost",
  });
  assert.equal(
    stripVTControlCharacters(inWords(line)),
    "12:30:01.250 WARN  orders.accepted: connection lost  attempt=3",
  );
});

test("a broker's text cannot move the cursor", () => {
  const line = JSON.stringify({
    level: "error",
    time: "2026-01-01T12:30:01.250Z",
    pid: 1,
    msg: "a\x1b[2J\nb",
  });
  assert.match(stripVTControlCharacters(inWords(line)), /ERROR a \[2J b$/);
});

test("lines below the level are not written", () => {
  const written: string[] = [];
  const terminal = new Terminal({ write: (text) => written.push(stripVTControlCharacters(text)) });
  const logger = createLogger("warn", terminal);
  logger.debug({}, "no");
  logger.info({}, "no");
  logger.warn({ node: "in" }, "careful");
  logger.error({ code: "gave-up" }, "over");
  assert.deepEqual(
    written.map((text) => text.slice(13)),
    ["WARN  in: careful\n", "ERROR over  code=gave-up\n"],
  );
});
