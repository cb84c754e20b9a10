import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { noHeaders } from "../../../../message/records.ts";
import { columnsOf } from "./batch.ts";
import { PartitionLog } from "./log.ts";

function append(log: PartitionLog, values: readonly string[], withHeaders = false): number {
  return log.append(
    columnsOf(
      values.map((value) => ({
        key: null,
        value: Buffer.from(value),
        headers: withHeaders ? [["h", Buffer.from(value)]] : noHeaders,
        timestamp: 7,
      })),
    ),
  );
}

function readAll(log: PartitionLog, from: number, maxBytes: number): [offset: number, value: string][] {
  const all: [number, string][] = [];
  for (let position = from; ; ) {
    const found = log.read(position, maxBytes);
    if (found.kind === "gap") position = found.next;
    else if (found.kind === "records") {
      for (let i = 0; i < found.records.length; i++) {
        all.push([found.records.position(i), found.records.value(i)!.toString()]);
      }
      position = found.next;
    } else return all;
  }
}

test("a position outside the log is out of range; its end is not", () => {
  const log = new PartitionLog();
  assert.equal(log.read(0, 1).kind, "end");
  assert.equal(log.read(1, 1).kind, "outOfRange");
  append(log, ["a", "b", "c"]);
  log.deleteBefore(2);
  assert.equal(log.read(1, 1).kind, "outOfRange");
  assert.equal(log.read(2, 1).kind, "records");
  assert.equal(log.read(3, 1).kind, "end");
  assert.deepEqual([log.start, log.end], [2, 3]);
});

test("a position at which nothing visible lies is told as a gap up to what comes next", () => {
  const log = new PartitionLog();
  log.skip(2);
  append(log, ["a"]);
  log.skip(3);
  assert.deepEqual(log.read(0, 1), { kind: "gap", next: 2 });
  assert.equal(log.read(2, 1).kind, "records");
  assert.deepEqual(log.read(4, 1), { kind: "gap", next: 6 });
});

test("a slice stays as it was when the log grows, is shortened, and gets its first headers", () => {
  const log = new PartitionLog();
  append(log, ["a", "b"]);
  const found = log.read(0, 1_000);
  assert.ok(found.kind === "records");
  append(log, ["c"], true);
  log.deleteBefore(3);
  assert.equal(found.records.length, 2);
  assert.deepEqual([found.records.value(0)?.toString(), found.records.value(1)?.toString()], ["a", "b"]);
  assert.deepEqual(found.records.headers(1), []);
  append(log, ["d"], true);
  const later = log.read(3, 1_000);
  assert.ok(later.kind === "records");
  assert.deepEqual(later.records.headers(0), [["h", Buffer.from("d")]]);
});

test("a read takes at least one record and no more bytes than allowed", () => {
  const log = new PartitionLog();
  append(log, ["aaaa", "bb", "cc", "d"]);
  const lengths = [1, 4, 6, 7, 9, 100].map((maxBytes) => {
    const found = log.read(0, maxBytes);
    return found.kind === "records" ? found.records.length : 0;
  });
  assert.deepEqual(lengths, [1, 1, 2, 2, 4, 4]);
});

test("whatever is appended, skipped and deleted, a reader sees what a list would hold", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("append" as const), count: fc.integer({ min: 1, max: 200 }) }),
    fc.record({ kind: fc.constant("skip" as const), count: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ kind: fc.constant("delete" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1, max: 500 }), (steps, maxBytes) => {
      const log = new PartitionLog();
      let model: [number, string][] = [];
      let start = 0;
      let end = 0;
      for (const step of steps) {
        if (step.kind === "append") {
          const values = Array.from({ length: step.count }, (_, i) => `v${end + i}`);
          assert.equal(append(log, values, step.count % 3 === 0), end);
          for (const value of values) model.push([end++, value]);
        } else if (step.kind === "skip") {
          log.skip(step.count);
          end += step.count;
        } else {
          start = Math.max(start, Math.floor(step.part * end));
          log.deleteBefore(start);
          model = model.filter(([offset]) => offset >= start);
        }
        assert.deepEqual([log.start, log.end], [start, end]);
      }
      assert.deepEqual(readAll(log, start, maxBytes), model);
    }),
  );
});
