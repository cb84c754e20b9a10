import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunMode, RunStatus } from "../runtime/status.ts";
import { SimulatedClock } from "../testing/clock.ts";
import { Progress, progressLine } from "./progress.ts";
import { totalConservation } from "./table.ts";
import { Terminal } from "./terminal.ts";

function status(mode: RunMode, accepted: number, sinkReason?: string): RunStatus {
  return {
    topology: "orders",
    mode,
    startedAt: 0,
    ready: sinkReason === undefined,
    conservation: { ...totalConservation([]), accepted, delivered: accepted },
    sources: [],
    sinks: [
      {
        name: "out",
        type: "kafka",
        ready: sinkReason === undefined,
        reason: sinkReason,
        written: accepted,
        writing: 0,
        batches: 1,
      },
    ],
    lastErrors: [],
    counters: {},
  };
}

test("the line says mode, rate, what happened, and what is wrong", () => {
  assert.equal(
    progressLine([status("running", 12_500)], 1234.5),
    "orders running  1,235 msg/s  accepted 12,500  delivered 12,500  in flight 0",
  );
  const failing = status("running", 1, "reconnecting");
  const lost = { ...failing, conservation: { ...failing.conservation, lost: 2 } };
  assert.match(progressLine([lost], 0), / {2}lost 2 {2}out: reconnecting$/);
  assert.match(progressLine([status("done", 1, "closed")], 0), /in flight 0$/);
  assert.match(
    progressLine([status("running", 1), status("draining", 2)], 0),
    /^2 topologies running\/draining .* accepted 3 /,
  );
});

test("the line is rewritten as time goes on, with the rate of late, and stays at the end", () => {
  const clock = new SimulatedClock();
  const lines: string[] = [];
  const terminal = new Terminal({ columns: 200, write: (text) => lines.push(text) });
  let accepted = 0;
  const progress = new Progress(terminal, clock, () => [status("running", accepted)]);
  for (let i = 0; i < 50; i++) {
    accepted += 200;
    clock.advance(200);
  }
  assert.match(lines.at(-1)!, /orders running {2}1,000 msg\/s {2}accepted 10,000 /);
  accepted++;
  progress.stop();
  assert.match(lines.at(-2)!, /accepted 10,001 /);
  assert.equal(lines.at(-1), "\n");
  assert.equal(clock.pending, 0);
});
