import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../../src/testing/context.ts";
import { add, isClean, type Result, table } from "./result.ts";
import { profiles, type Step, schedule } from "./schedule.ts";

const clean: Result = {
  name: "A → B",
  messages: 1_000,
  faults: { kills: 2 },
  samples: 3,
  anomalies: {
    lost: 0,
    inversions: 0,
    "early acks": 0,
    misplaced: 0,
    "commits back": 0,
    died: 0,
    stuck: 0,
  },
  examples: [],
  duplicates: 5,
  bound: 10,
  memory: 50 * 2 ** 20,
  memoryLimit: 100 * 2 ** 20,
  recovery: 1_500,
};

test("only duplicates within their bound are forgiven", () => {
  assert.equal(isClean(clean), true);
  for (const name of Object.keys(clean.anomalies)) {
    assert.equal(isClean({ ...clean, anomalies: { ...clean.anomalies, [name]: 1 } }), false, name);
  }
  assert.equal(isClean({ ...clean, duplicates: 11 }), false);
  assert.equal(isClean({ ...clean, memory: 101 * 2 ** 20 }), false);
  // Early acks that nobody looked for prove nothing.
  assert.equal(isClean({ ...clean, samples: 0 }), false);
});

test("rounds add up: counts are summed, the worst memory and the longest recovery stay", () => {
  const worse: Result = {
    ...clean,
    faults: { kills: 1, cuts: 4 },
    anomalies: { ...clean.anomalies, lost: 2 },
    examples: ["lost: k:1"],
    memory: 60 * 2 ** 20,
    recovery: 900,
  };
  const sum = add(clean, worse);
  assert.deepEqual(sum, {
    ...clean,
    messages: 2_000,
    faults: { kills: 3, cuts: 4 },
    samples: 6,
    anomalies: { ...clean.anomalies, lost: 2 },
    examples: ["lost: k:1"],
    duplicates: 10,
    bound: 20,
    memory: 60 * 2 ** 20,
    recovery: 1_500,
  });
});

test("the table has a column for each result and a verdict", () => {
  const lines = table([clean, { ...clean, name: "C → D", faults: { cuts: 7 }, duplicates: 20 }]).split("\n");
  const cells = lines.map((line) => line.trim().split(/ {2,}/));
  assert.deepEqual(cells[0], ["A → B", "C → D"]);
  assert.deepEqual(
    cells.find(([name]) => name === "kills"),
    ["kills", "2", "-"],
  );
  assert.deepEqual(
    cells.find(([name]) => name === "cuts"),
    ["cuts", "-", "7"],
  );
  assert.deepEqual(cells.at(-1), ["verdict", "good", "BAD"]);
});

test("a schedule holds what its profile says, in an order that its seed decides", () => {
  const troubles = { "leaders moved": async () => {}, "disk alarm": async () => {} };
  const make = (seed: number) => schedule(profiles.ci, { troubles }, seededRandom(seed));
  const count = (is: (step: Step) => boolean) => make(1).filter(is).length;
  assert.equal(
    count(({ fault }) => fault === "kill"),
    20,
  );
  assert.equal(
    count((step) => step.fault === "restart" && step.how === "kill"),
    5,
  );
  assert.equal(
    count(({ fault }) => fault === "restart"),
    10,
  );
  assert.equal(
    count((step) => step.fault === "cut" && step.side === "reply"),
    25,
  );
  assert.equal(
    count(({ fault }) => fault === "cut"),
    50,
  );
  assert.equal(
    count((step) => step.fault === "trouble" && step.name === "disk alarm"),
    1,
  );
  assert.deepEqual(make(1), make(1));
  assert.notDeepEqual(make(1), make(2));
  assert.equal(profiles.release.rounds * profiles.release.kills, 200);
  assert.equal(profiles.release.rounds * profiles.release.restarts, 100);
  assert.equal(profiles.release.rounds * profiles.release.cuts, 500);
  assert.ok(profiles.release.rounds * profiles.release.messages >= 1_000_000);
});
