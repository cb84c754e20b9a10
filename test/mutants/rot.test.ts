import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { mutants } from "./mutants.ts";
import { rotOf } from "./rot.ts";

const root = join(import.meta.dirname, "../..");

test("every mutant can be made, and has a killer", () => {
  const rotten = mutants.flatMap((mutant) => rotOf(mutant) ?? []);
  assert.deepEqual(rotten, []);
  const orphans = mutants.filter(({ killer }) => !existsSync(join(root, killer.file)));
  assert.deepEqual(orphans, []);
});

test("a text that is not there, or there twice, is told", () => {
  const [mutant] = mutants;
  assert.match(rotOf({ ...mutant!, text: "no such text" })!, /is 0 times/);
  assert.match(rotOf({ ...mutant!, text: "\n" })!, /is \d{2,} times/);
  assert.match(rotOf({ ...mutant!, becomes: mutant!.text })!, /changes nothing/);
});
