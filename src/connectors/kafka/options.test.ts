import assert from "node:assert/strict";
import { test } from "node:test";
import { kafka } from "./index.ts";
import { groupTimes } from "./options.ts";

const given = { topics: ["t"], group: "g" };

test("a member that would be silent for longer than its session is told when it is declared", () => {
  const cluster = kafka({ brokers: "127.0.0.1:9092" });
  const problemsWith = (times: object) => cluster.source({ ...given, ...times }).problems;
  for (const times of [
    { sessionTimeout: "6s", heartbeatInterval: "6s" },
    { heartbeatInterval: "31s" },
    { sessionTimeout: 100, heartbeatInterval: "1s" },
  ]) {
    assert.deepEqual(
      problemsWith(times).map(({ code }) => code),
      ["option-invalid"],
    );
    assert.match(problemsWith(times)[0]!.message, /"heartbeatInterval".*"sessionTimeout"/);
  }
  assert.deepEqual(problemsWith({ sessionTimeout: "6s", heartbeatInterval: "2s" }), []);
  assert.deepEqual(problemsWith({ sessionTimeout: "2s" }), [], "the usual interval follows a short session");
});

test("heartbeats come every 3 s, or three times in a shorter session", () => {
  assert.deepEqual(groupTimes(given), { sessionTimeout: 30_000, heartbeatInterval: 3_000 });
  assert.equal(groupTimes({ ...given, sessionTimeout: "6s" }).heartbeatInterval, 2_000);
  assert.equal(groupTimes({ ...given, sessionTimeout: 2 }).heartbeatInterval, 1);
});
