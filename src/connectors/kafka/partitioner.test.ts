import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import fc from "fast-check";
import { crc32Partition, murmur2, murmur2Partition } from "./partitioner.ts";

const require = createRequire(import.meta.url);
const kafkajsMurmur2 = require("kafkajs/src/producer/partitioners/default/murmur2") as (
  key: Buffer,
) => number;

test("murmur2 gives the hashes of Kafka's own unit test", () => {
  const vectors: readonly [key: string, hash: number][] = [
    ["21", -973932308],
    ["foobar", -790332482],
    ["a-little-bit-long-string", -985981536],
    ["a-little-bit-longer-string", -1486304829],
    ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
    ["abc", 479470107],
  ];
  for (const [key, hash] of vectors) assert.equal(murmur2(Buffer.from(key)), hash, key);
});

test("a key within other bytes is hashed as it is alone", () => {
  const bytes = Buffer.from("before-key-after");
  for (const partitionOf of [murmur2Partition, crc32Partition]) {
    for (let to = 7; to < bytes.length; to++) {
      assert.equal(partitionOf(bytes, 1_009, 7, to), partitionOf(Buffer.from(bytes.subarray(7, to)), 1_009));
    }
  }
});

test("murmur2 agrees with kafkajs on any key", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), (bytes) => {
      const key = Buffer.from(bytes);
      assert.equal(murmur2(key), kafkajsMurmur2(key));
    }),
    { numRuns: 2_000 },
  );
});

test("a key whose hash is negative still gets a partition, as in Java", () => {
  // -973932308 & 0x7fffffff = 1173551340
  assert.equal(murmur2Partition(Buffer.from("21"), 7), 1_173_551_340 % 7);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 1_000 }), (bytes, partitions) => {
      const key = Buffer.from(bytes);
      for (const partition of [murmur2Partition(key, partitions), crc32Partition(key, partitions)]) {
        assert.ok(Number.isInteger(partition) && partition >= 0 && partition < partitions);
      }
    }),
  );
});

test("crc32Partition uses the unsigned CRC-32 of the key", () => {
  // The check value of CRC-32 (ISO-HDLC) is 0xcbf43926, which is negative as a signed number.
  assert.equal(crc32Partition(Buffer.from("123456789"), 1_000_003), 0xcbf43926 % 1_000_003);
  assert.equal(crc32Partition(Buffer.alloc(0), 16), 0);
});
