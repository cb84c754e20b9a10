import assert from "node:assert/strict";
import { test } from "node:test";
import { SimulatedClock } from "../../../../testing/clock.ts";
import { DriverError, type TopicPartition } from "../../driver.ts";
import { type Assignment, Group, type RebalanceManner } from "./group.ts";

/** The coordinator's books alone, for a topic of four partitions. */
class Bed {
  readonly clock = new SimulatedClock();
  readonly group = new Group("g", this.clock, (topic) => (topic === "t" ? 4 : 0));
  readonly answers = new Map<string, Assignment>();

  join(id: string, manner: RebalanceManner = "eager", topics = ["t"]): void {
    const options = { topics, sessionTimeout: 10_000, rebalanceTimeout: 20_000 };
    const answer = {
      result: (assignment: Assignment) => this.answers.set(id, assignment),
      fail: (error: DriverError) => assert.fail(error),
    };
    this.group.join(id, options, manner, answer);
  }

  generation(id: string): number {
    return this.answers.get(id)!.generation;
  }

  partitions(id: string): number[] {
    return this.answers.get(id)!.partitions.map(({ partition }) => partition);
  }

  commit(id: string, generation: number, partition: number, offset: number): void {
    this.group.commit(id, generation, [{ topic: "t", partition, offset }]);
  }
}

const fenced = (error: unknown) => error instanceof DriverError && error.code === "fenced";

test("a commit counts in the member's generation, also while others join, and in no other", () => {
  const bed = new Bed();
  bed.join("a");
  const first = bed.generation("a");
  bed.commit("a", first, 0, 1);
  bed.join("b");
  assert.equal(bed.answers.has("b"), false, "waits for the others to rejoin");
  assert.equal(bed.group.heartbeat("a", first, []), "rejoin");
  bed.commit("a", first, 0, 2);
  bed.join("a");
  assert.equal(bed.generation("a"), bed.generation("b"));
  assert.throws(() => bed.commit("a", first, 0, 3), fenced);
  assert.throws(() => bed.commit("stranger", bed.generation("a"), 0, 3), fenced);
  assert.equal(bed.group.committed("t").get(0), 2);
  assert.equal(bed.group.heartbeat("a", bed.generation("a"), []), "ok");
  assert.equal(bed.group.heartbeat("a", first, []), "fenced");
  assert.equal(bed.group.heartbeat("stranger", 1, []), "fenced");
});

test("within its generation a member may commit backward, and for what others own, but not for nothing", () => {
  const bed = new Bed();
  bed.join("a");
  bed.join("b");
  bed.join("a");
  const foreign = bed.partitions("b")[0]!;
  bed.commit("a", bed.generation("a"), foreign, 9);
  bed.commit("a", bed.generation("a"), foreign, 3);
  assert.equal(bed.group.committed("t").get(foreign), 3);
  assert.throws(() => bed.commit("a", bed.generation("a"), 4, 1), /there is no t\/4/);
});

test("partitions are dealt out evenly, to readers of the topic only, and move with the generations", () => {
  const bed = new Bed();
  const seen = new Set<string>();
  bed.join("a");
  bed.join("b");
  bed.join("other", "eager", ["elsewhere"]);
  for (let round = 0; round < 4; round++) {
    for (const id of ["a", "b"]) bed.join(id);
    bed.join("other", "eager", ["elsewhere"]);
    assert.deepEqual([...bed.partitions("a"), ...bed.partitions("b")].sort(), [0, 1, 2, 3]);
    assert.equal(bed.partitions("a").length, 2);
    assert.deepEqual(bed.partitions("other"), []);
    seen.add(bed.partitions("a").join());
    bed.group.rebalance();
  }
  assert.equal(seen.size, 2);
});

test("a member that is silent for its session time-out is out; heartbeats and commits keep it in", () => {
  const bed = new Bed();
  bed.join("a");
  bed.clock.advance(9_000);
  bed.group.heartbeat("a", 1, []);
  bed.clock.advance(9_000);
  bed.commit("a", 1, 0, 1);
  bed.clock.advance(9_000);
  assert.deepEqual([...bed.group.members.keys()], ["a"]);
  bed.clock.advance(1_500);
  assert.deepEqual([...bed.group.members.keys()], []);
  assert.equal(bed.clock.pending, 0);
});

test("a heartbeat that waits behind a pause of the whole process still counts", () => {
  // Both are due at one time: the session's end, and the turn on which the heartbeat comes in.
  const bed = new Bed();
  bed.clock.after(10_000, () => bed.clock.defer(() => bed.group.heartbeat("a", 1, [])));
  bed.join("a");
  bed.clock.advance(10_001);
  assert.deepEqual([...bed.group.members.keys()], ["a"]);
});

test("incremental: a partition has a new owner only when the old one has reported it gone", () => {
  const bed = new Bed();
  bed.join("a", "incremental");
  assert.deepEqual(bed.partitions("a"), [0, 1, 2, 3]);
  let owned: readonly TopicPartition[] = bed.answers.get("a")!.partitions;
  bed.join("b", "incremental");
  assert.deepEqual(bed.partitions("b"), []);
  const asked = bed.group.heartbeat("a", bed.generation("a"), owned) as Assignment;
  assert.deepEqual(
    asked.partitions.map(({ partition }) => partition),
    [0, 1],
  );
  assert.equal(asked.generation, bed.generation("a"), "its commits still count");
  bed.commit("a", asked.generation, 3, 5);
  assert.equal(bed.group.heartbeat("b", bed.generation("b"), []), "ok");
  assert.equal(bed.group.stable, false);
  owned = asked.partitions;
  const reported = bed.group.heartbeat("a", asked.generation, owned) as Assignment;
  assert.ok(reported.generation > asked.generation);
  const given = bed.group.heartbeat("b", bed.generation("b"), []) as Assignment;
  assert.deepEqual(
    given.partitions.map(({ partition }) => partition),
    [2, 3],
  );
  assert.throws(() => bed.commit("a", asked.generation, 0, 1), fenced);
  assert.ok(bed.group.stable);
});
