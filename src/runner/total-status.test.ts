import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunStatus } from "../runtime/status.ts";
import { totalConservation } from "./table.ts";
import { totalStatus } from "./total-status.ts";

const one: RunStatus = {
  topology: "one",
  mode: "running",
  startedAt: 20,
  ready: true,
  conservation: { ...totalConservation([]), accepted: 2, delivered: 2 },
  sources: [],
  sinks: [{ name: "out", type: "kafka", ready: true, reason: undefined, written: 2, writing: 0, batches: 1 }],
  lastErrors: [{ message: "late", at: 9, node: "out" }],
  counters: { retries_total: 1 },
};

const two: RunStatus = {
  ...one,
  topology: "two",
  mode: "failed",
  startedAt: 10,
  ready: false,
  lastErrors: [1, 2, 3, 4, 10].map((at) => ({ message: "early", at, node: "out" })),
  counters: { retries_total: 2, reconnects_total: 1 },
};

test("the status of one topology is its own", () => {
  assert.deepEqual(totalStatus([one]), one);
});

test("several together: sums, the worst mode, the newest errors", () => {
  const total = totalStatus([one, two]);
  assert.equal(total.topology, "one, two");
  assert.equal(total.mode, "failed");
  assert.equal(total.startedAt, 10);
  assert.equal(total.ready, false);
  assert.equal(total.conservation.accepted, 4);
  assert.equal(total.sinks.length, 2);
  assert.deepEqual(
    total.lastErrors.map(({ at }) => at),
    [10, 9, 4, 3, 2],
  );
  assert.deepEqual(total.counters, { retries_total: 3, reconnects_total: 1 });
});

test("of none it is starting, and not ready", () => {
  const { mode, ready, conservation } = totalStatus([]);
  assert.deepEqual([mode, ready, conservation.accepted], ["starting", false, 0]);
});
