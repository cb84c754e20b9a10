import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  end,
  readVarint,
  readVarlong,
  varintSize,
  varlongSize,
  writeVarint,
  writeVarlong,
} from "./varint.ts";

const int32 = fc.oneof(
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  fc.integer({ min: -70_000, max: 70_000 }),
);
const whole = fc.oneof(fc.maxSafeInteger(), int32);

/** The encoding by its definition, in whole numbers of any size. */
function byDefinition(value: number): Buffer {
  let zigzag = value < 0 ? -BigInt(value) * 2n - 1n : BigInt(value) * 2n;
  const bytes: number[] = [];
  while (zigzag > 127n) {
    bytes.push(Number(zigzag % 128n) + 128);
    zigzag /= 128n;
  }
  return Buffer.from([...bytes, Number(zigzag)]);
}

test("numbers are written as the protocol's examples have them", () => {
  for (const [value, hex] of [
    [0, "00"],
    [-1, "01"],
    [1, "02"],
    [63, "7e"],
    [-64, "7f"],
    [64, "8001"],
    [-65, "8101"],
    [300, "d804"],
    [2 ** 31 - 1, "feffffff0f"],
    [-(2 ** 31), "ffffffff0f"],
  ] as const) {
    const bytes = Buffer.alloc(5);
    assert.equal(bytes.subarray(0, writeVarint(bytes, 0, value)).toString("hex"), hex, String(value));
    assert.equal(byDefinition(value).toString("hex"), hex);
  }
});

test("a number of 32 bits is written as defined, in as many bytes as foretold, and read again", () => {
  fc.assert(
    fc.property(int32, fc.nat(9), (value, start) => {
      const bytes = Buffer.alloc(16, 0xff);
      const after = writeVarint(bytes, start, value);
      assert.deepEqual(bytes.subarray(start, after), byDefinition(value));
      assert.equal(after - start, varintSize(value));
      assert.equal(readVarint(bytes, start), value);
      assert.equal(end, after);
    }),
  );
});

test("so is every whole number that JavaScript holds", () => {
  const extremes = [0, -1, 1, 2 ** 31, -(2 ** 31) - 1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER];
  fc.assert(
    fc.property(fc.oneof(whole, fc.constantFrom(...extremes)), fc.nat(9), (value, start) => {
      const bytes = Buffer.alloc(24, 0xff);
      const after = writeVarlong(bytes, start, value);
      assert.deepEqual(bytes.subarray(start, after), byDefinition(value));
      assert.equal(after - start, varlongSize(value));
      assert.equal(readVarlong(bytes, start), value);
      assert.equal(end, after);
    }),
  );
});

test("the extremes of 64 bits are read, rounded", () => {
  assert.equal(readVarlong(Buffer.from("feffffffffffffffff01", "hex"), 0), 2 ** 63);
  assert.equal(readVarlong(Buffer.from("ffffffffffffffffff01", "hex"), 0), -(2 ** 63));
  assert.equal(end, 10);
});

test("a number that does not stop is damaged, and one that the bytes end in is read as if zeros followed", () => {
  const endless = Buffer.alloc(32, 0xff);
  assert.equal(readVarint(endless, 1), -(2 ** 31));
  assert.equal(end, 6);
  assert.ok(Number.isNaN(readVarlong(endless, 1)));
  assert.equal(end, 11);
  assert.equal(readVarint(Buffer.from("808080808000", "hex"), 0), -(2 ** 31), "six bytes");
  assert.ok(Number.isNaN(readVarlong(Buffer.from("8080808080808080808000", "hex"), 0)), "eleven bytes");
  assert.equal(readVarint(endless, 30), -(2 ** 13));
  assert.equal(end, 33);
  assert.equal(readVarint(endless, 99), 0);
});
