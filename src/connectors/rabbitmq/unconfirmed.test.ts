import assert from "node:assert/strict";
import { test } from "node:test";
import { Unconfirmed } from "./unconfirmed.ts";
import type { Write } from "./write.ts";

const write = {} as Write;

function sent(count: number) {
  const unconfirmed = new Unconfirmed();
  const answered: string[] = [];
  const answer = (_write: Write, unit: number, returned: boolean) =>
    void answered.push(returned ? `${unit} returned` : `${unit}`);
  for (let unit = 0; unit < count; unit++) unconfirmed.add(write, unit, 10);
  return { unconfirmed, answered, answer };
}

test("a confirm answers for one message, or with multiple for all up to it, and for each once", () => {
  const { unconfirmed, answered, answer } = sent(6);
  unconfirmed.confirm(3, false, answer);
  assert.deepEqual(answered, ["2"]);
  unconfirmed.confirm(4, true, answer);
  assert.deepEqual(answered, ["2", "0", "1", "3"]);
  unconfirmed.confirm(4, true, answer);
  unconfirmed.confirm(2, false, answer);
  assert.equal(answered.length, 4);
  assert.deepEqual([unconfirmed.count, unconfirmed.bytes], [2, 20]);
});

test("a return belongs to its tag, and is told with its confirm", () => {
  const { unconfirmed, answered, answer } = sent(3);
  unconfirmed.markReturned(2);
  unconfirmed.confirm(3, true, answer);
  assert.deepEqual(answered, ["0", "1 returned", "2"]);
});

test("what is left comes out in the order it was sent, and tags begin again, however many there were", () => {
  const { unconfirmed, answered, answer } = sent(5_000);
  unconfirmed.confirm(4_990, true, answer);
  answered.length = 0;
  unconfirmed.confirm(4_992, false, answer);
  unconfirmed.takeAll(answer);
  assert.deepEqual(answered, ["4991", "4990", ...Array.from({ length: 8 }, (_, i) => String(4_992 + i))]);
  assert.deepEqual([unconfirmed.count, unconfirmed.bytes], [0, 0]);
  unconfirmed.add(write, 7, 10);
  unconfirmed.confirm(1, false, answer);
  assert.equal(answered.at(-1), "7");
});
