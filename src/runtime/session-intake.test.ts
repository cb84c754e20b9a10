import assert from "node:assert/strict";
import { test } from "node:test";
import { Chunk } from "../message/chunk.ts";
import { PlainRecords } from "../message/records.ts";
import { SimulatedClock } from "../testing/clock.ts";
import { LaneIntake } from "./intake.ts";
import { SessionIntake } from "./session-intake.ts";

const settings = { origin: { target: "in", partition: 0 }, epoch: 1, ack: "cumulative" } as const;

function setup() {
  const credit = { messages: 100, bytes: 1e6, span: 400, chunk: 10 };
  const intake = new LaneIntake("source", credit, new SimulatedClock(), () => {});
  const taken: string[] = [];
  let over = false;
  intake.stream.subscribe({
    next: (item) => {
      if (item instanceof Chunk) taken.push(String(item.payload(0)));
    },
    error: () => {
      over = true;
    },
    complete: () => {
      over = true;
    },
  });
  const session = (firstEpoch: number) => new SessionIntake(intake, firstEpoch);
  const records = (value: string) =>
    new PlainRecords([{ position: 0, key: null, value: Buffer.from(value), headers: [], timestamp: 0 }]);
  return { intake, taken, session, records, isOver: () => over };
}

test("a session that is fenced puts nothing in, ends its lanes, and ends the stream for nobody", () => {
  const { intake, taken, session, records, isOver } = setup();
  const old = session(0);
  const lane = old.open(settings);
  old.offer(lane, records("before"));
  old.fence();
  assert.ok(lane.ended);
  assert.equal(intake.credit.conservation().returned, 1);
  old.offer(lane, records("late"));
  const late = old.open({ ...settings, epoch: 2 });
  assert.ok(late.ended, "a lane that it still opens is over at once");
  old.offer(late, records("later"));
  old.complete();
  old.fail(new Error("too late to matter"));
  assert.deepEqual(taken, ["before"]);
  assert.equal(isOver(), false);
  assert.deepEqual(intake.lanes, []);
});

test("the next session's epochs come after those of the last, and its lanes are its own", () => {
  const { intake, taken, session, records } = setup();
  const old = session(0);
  old.open({ ...settings, epoch: 3 });
  const next = session(old.lastEpoch);
  old.fence();
  const lane = next.open(settings);
  assert.equal(lane.epoch, 4);
  old.stop();
  next.offer(lane, records("after"));
  assert.deepEqual(taken, ["after"]);
  assert.deepEqual([old.lanes, next.lanes], [[], [lane]]);
  next.stop();
  next.offer(next.open({ ...settings, epoch: 2 }), records("stopped"));
  assert.deepEqual(
    taken,
    ["after"],
    "one that is stopped takes in nothing, of lanes that come later neither",
  );
  assert.equal(intake.lanes.length, 2);
});
