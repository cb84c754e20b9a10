import assert from "node:assert/strict";
import { test } from "node:test";
import { SimulatedClock } from "../../../../testing/clock.ts";
import { murmur2Partition } from "../../partitioner.ts";
import { EmbeddedKafka } from "./index.ts";

test("keys are fed to the partition that Java chooses, messages without one to each partition in turn", () => {
  const clock = new SimulatedClock();
  const cluster = new EmbeddedKafka(clock);
  const keys = ["a", "b", "c", "d", "e", ""];
  cluster.feed(
    "in",
    keys.map((key) => ({ key: Buffer.from(key), value: null })),
  );
  for (const { key, partition } of cluster.contents("in")) assert.equal(partition, murmur2Partition(key!, 4));
  cluster.feed(
    "turns",
    [1, 2, 3].map((i) => ({ value: Buffer.from([i]) })),
  );
  cluster.feed(
    "turns",
    [4, 5].map((i) => ({ value: Buffer.from([i]) })),
  );
  assert.deepEqual(
    [...cluster.contents("turns")].map(({ partition, position, value }) => [partition, position, value![0]]),
    [
      [0, 0, 1],
      [0, 1, 5],
      [1, 0, 2],
      [2, 0, 3],
      [3, 0, 4],
    ],
  );
});

test("contents has everything of a message, by partition and offset, and nothing of gaps or deleted records", () => {
  const clock = new SimulatedClock(1_000);
  const cluster = new EmbeddedKafka(clock, { partitions: 2 });
  const headers = [["h", Buffer.from("x")]] as const;
  cluster.feed("t", [
    { value: Buffer.from("gone"), partition: 1 },
    { value: Buffer.from("kept"), key: Buffer.alloc(0), headers, timestamp: 5, partition: 1 },
  ]);
  cluster.faults.gap("t", 1, 2);
  cluster.feed("t", [{ value: null, partition: 1 }]);
  cluster.faults.deleteRecords("t", 1, 1);
  assert.deepEqual(
    [...cluster.contents("t")],
    [
      { partition: 1, position: 1, key: Buffer.alloc(0), value: Buffer.from("kept"), headers, timestamp: 5 },
      { partition: 1, position: 4, key: null, value: null, headers: [], timestamp: 1_000 },
    ],
  );
  assert.deepEqual([...cluster.contents("nothing")], []);
});

test("topics are named in order, keep their settings, and a message for a missing partition is an error", () => {
  const cluster = new EmbeddedKafka(new SimulatedClock());
  cluster.create([
    { topic: "b", partitions: 3 },
    { topic: "a", partitions: -1 },
  ]);
  cluster.create([{ topic: "b", partitions: 9 }]);
  assert.deepEqual(cluster.targets(), ["a", "b"]);
  assert.deepEqual(cluster.describe("a"), { partitions: 4, maxMessageBytes: 1_048_588 });
  assert.deepEqual(cluster.describe("b"), { partitions: 3, maxMessageBytes: 1_048_588 });
  assert.throws(() => cluster.feed("b", [{ value: null, partition: 3 }]), RangeError);
});
