/** What README.md says of the simulation is so: its events can happen, its tests are there, its anomalies have names. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { event } from "./world.ts";

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
const rows = read("README.md")
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"))
  .slice(1)
  .map((line) => line.split("|").map((cell) => cell.trim()))
  .map(([, manner, provoked, shows]) => ({ manner: manner!, provoked: provoked!, shows: shows! }));
const quoted = (text: string) => [...text.matchAll(/`(\w[\w-]*)`/g)].map(([, word]) => word!);

test("its events are all that a schedule can hold", () => {
  const possible = new Set(fc.sample(event, { numRuns: 20_000, seed: 1 }).map(({ kind }) => kind as string));
  const named = new Set(rows.flatMap(({ provoked }) => quoted(provoked.replaceAll(/\[.*?\]\(.*?\)/g, ""))));
  assert.deepEqual([...named].sort(), [...possible].sort());
});

test("its tests are where it says", () => {
  let links = 0;
  for (const { provoked } of rows) {
    for (const [, name, file] of provoked.matchAll(/\["(.*?)"\]\((.*?)\)/g)) {
      links++;
      assert.ok(read(file!).includes(name!), `${file} has no test "${name}"`);
    }
  }
  assert.ok(links > 20);
});

test("its anomalies are those that a history can show", () => {
  const kinds = new Set([...read("history.ts").matchAll(/\| "([\w-]+)"/g)].map(([, kind]) => kind));
  for (const { manner, shows } of rows) {
    const words = quoted(shows);
    assert.ok(words.length > 0 || /^(assertion|any)$/.test(shows), `what shows ${manner}?`);
    for (const word of words) assert.ok(kinds.has(word), `no history shows "${word}"`);
  }
});
