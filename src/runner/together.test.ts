import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conservation } from "../runtime/credit.ts";
import type { RunMode, RunStatus } from "../runtime/status.ts";
import { isConserved, totalConservation } from "./table.ts";
import { returned, together } from "./together.ts";

function status(worker: number, mode: RunMode, counts: Partial<Conservation>, ready = true): RunStatus {
  const conservation = { ...totalConservation([]), ...counts };
  return {
    topology: "orders",
    mode,
    startedAt: 100 + worker,
    ready,
    conservation,
    sources: [
      {
        name: "in",
        type: "kafka",
        ready,
        reason: ready ? undefined : `worker ${worker} is not assigned`,
        notes: ["it grew", `worker ${worker} says so`],
        conservation,
        lanes: [{ name: `in/${worker}`, epoch: 1, inFlight: conservation.inFlight, span: 2, checkpoint: 3 }],
        backlog: 1,
        held: 2,
        waiting: 3,
        creditMessages: 10,
        creditBytes: 20,
        bytesInFlight: 30,
      },
    ],
    sinks: [
      { name: "out", type: "kafka", ready: true, reason: undefined, written: 5, writing: 1, batches: 2 },
    ],
    deadLetters: { name: "dead", type: "kafka", ready, reason: undefined },
    lastErrors: [{ message: `e${worker}`, at: worker, node: "out" }],
    counters: { retries_total: worker },
  };
}

test("several processes are one status: numbers add up, lanes stand side by side, the worst readiness counts", () => {
  const one = status(1, "running", { accepted: 5, delivered: 4, inFlight: 1 });
  const other = status(2, "running", { accepted: 7, delivered: 7 }, false);
  const all = together([one, other]);
  assert.equal(all.ready, false);
  assert.equal(all.startedAt, 101);
  assert.deepEqual(all.conservation, { ...totalConservation([]), accepted: 12, delivered: 11, inFlight: 1 });
  const [source, ...more] = all.sources;
  assert.deepEqual(more, []);
  assert.deepEqual(
    [source!.ready, source!.reason, source!.backlog, source!.held, source!.waiting, source!.creditMessages],
    [false, "worker 2 is not assigned", 2, 4, 6, 20],
  );
  assert.deepEqual(
    source!.lanes.map(({ name }) => name),
    ["in/1", "in/2"],
  );
  assert.deepEqual(source!.notes, ["it grew", "worker 1 says so", "worker 2 says so"]);
  assert.deepEqual([all.sinks[0]!.written, all.sinks[0]!.writing, all.sinks[0]!.batches], [10, 2, 4]);
  assert.equal(all.deadLetters!.ready, false);
  assert.deepEqual(
    all.lastErrors.map(({ message }) => message),
    ["e2", "e1"],
  );
  assert.deepEqual(all.counters, { retries_total: 3 });
});

test("what has ended does not hide that others go on, and a failure is never hidden", () => {
  const modes = (...all: RunMode[]) => together(all.map((mode, i) => status(i, mode, {}))).mode;
  assert.equal(modes("done", "running"), "running");
  assert.equal(modes("done", "done"), "done");
  assert.equal(modes("running", "starting"), "starting");
  assert.equal(modes("running", "failed", "done"), "failed");
});

test("a dead process's messages in flight count as returned, and nothing of it is left over", () => {
  const gone = returned(status(1, "running", { accepted: 5, delivered: 2, inFlight: 3 }, false));
  assert.deepEqual(gone.conservation, { ...totalConservation([]), accepted: 5, delivered: 2, returned: 3 });
  assert.ok(isConserved(gone.sources[0]!.conservation));
  assert.deepEqual(gone.sources[0]!.lanes, []);
  assert.equal(gone.ready, true);
  const all = together([status(2, "running", { accepted: 1, delivered: 1 }), gone]);
  assert.equal(all.ready, true);
  assert.deepEqual(
    [all.sources[0]!.creditMessages, all.sinks[0]!.writing, all.sinks[0]!.written],
    [10, 1, 10],
  );
});
