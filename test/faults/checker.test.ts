import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../../src/testing/context.ts";
import { check, type History } from "./checker.ts";
import { type Count, Counters, idOf, readCount } from "./counters.ts";

const counts = (text: string): Count[] =>
  text
    .split(" ")
    .filter(Boolean)
    .map((word) => ({
      key: word[0]!,
      seq: Number.parseInt(word.slice(1), 10),
      poison: word.endsWith("!"),
    }));

function verdict(input: string, output: string, dead = "") {
  const history: History = {
    input: counts(input),
    output: counts(output),
    dead: counts(dead),
    unordered: "u",
  };
  return check(history);
}

const fine = { lost: [], invented: [], misplaced: [], inversions: [], duplicates: 0 };

test("what went in and came out in each key's order is fine", () => {
  assert.deepEqual(verdict("a0 b0 a1 a2! b1", "b0 a0 a1 b1", "a2!"), fine);
});

test("a message that is nowhere is lost, poison too", () => {
  assert.deepEqual(verdict("a0 a1 a2!", "a0").lost, ["a:1", "a:2"]);
});

test("what comes again is a duplicate and no inversion, in the output and among the dead letters", () => {
  assert.deepEqual(verdict("a0 a1 a2! a3", "a0 a1 a0 a1 a3", "a2! a2!"), { ...fine, duplicates: 3 });
});

test("a first arrival behind a later one of its key is an inversion", () => {
  assert.deepEqual(verdict("a0 a1 a2 b0", "a0 a2 b0 a1").inversions, ["a:1 after a:2"]);
  assert.deepEqual(verdict("u0 u1", "u1 u0"), fine);
});

test("a message in the wrong place is misplaced, and one that nobody fed invented", () => {
  assert.deepEqual(verdict("a0 a1!", "a1!", "a0").misplaced, ["a:1", "a:0"]);
  assert.deepEqual(verdict("a0", "a0 a1").invented, ["a:1"]);
});

test("counters count up for each key, one in about a hundred is poison, and all of them can be read", () => {
  const counters = new Counters(seededRandom(3));
  const fed = [...counters.take(5_000, "k"), ...counters.take(5_000, "k")].map(({ key, value }) => {
    const count = readCount(value);
    assert.equal(count.key, key);
    assert.equal(count.poison, !isJson(value));
    return count;
  });
  assert.equal(new Set(fed.map(idOf)).size, 10_000);
  assert.deepEqual(
    check({
      input: fed,
      output: fed.filter(({ poison }) => !poison),
      dead: fed.filter(({ poison }) => poison),
      unordered: "u",
    }),
    fine,
  );
  const poison = fed.filter((count) => count.poison).length;
  assert.ok(poison > 50 && poison < 200, String(poison));
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
