import assert from "node:assert/strict";
import { test } from "node:test";
import { percentiles, sampleOf } from "./sample.ts";

test("the whole counts from the start of the process, the steady part between a quarter and 95 % of the output", () => {
  // Two seconds of start-up, then 100 messages a second; the last five take a second more.
  const points = [
    { at: 3_000, count: 0, cpu: 1_000_000 },
    { at: 3_250, count: 25, cpu: 1_000_500 },
    { at: 3_950, count: 95, cpu: 1_001_200 },
    { at: 5_000, count: 100, cpu: 1_002_000 },
  ];
  const sample = sampleOf(1_000, points, 1, 64);
  assert.equal(sample.whole, 25);
  assert.equal(sample.steady, 100);
  assert.equal(sample.cpu, 10_020);
  assert.equal(sample.steadyCpu, 10);
  assert.equal(sample.peakMiB, 64);
});

test("duplicates in the input count as messages", () => {
  const points = [
    { at: 0, count: 25, cpu: 0 },
    { at: 1_000, count: 95, cpu: 140 },
    { at: 1_000, count: 100, cpu: 200 },
  ];
  const sample = sampleOf(0, points, 2, 1);
  assert.equal(sample.whole, 200);
  assert.equal(sample.steady, 140);
  assert.equal(sample.cpu, 1);
  assert.equal(sample.steadyCpu, 1);
});

test("an output that comes in one leap has a rate all the same", () => {
  const sample = sampleOf(0, [{ at: 500, count: 100, cpu: 100 }], 1, 1);
  assert.equal(sample.steady, 200);
  assert.throws(() => sampleOf(0, [], 1, 1), /nothing was written/);
});

test("percentiles are those of the sorted latencies", () => {
  const latencies = Float64Array.from({ length: 1_000 }, (_, i) => 1_000 - i);
  assert.deepEqual(percentiles(5_000, latencies), { rate: 5_000, p50: 500, p99: 990, p999: 999 });
});
