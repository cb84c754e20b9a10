import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Conservation } from "../runtime/credit.ts";
import type { RunStatus } from "../runtime/status.ts";
import { conservationTable, equation, isConserved, totalConservation } from "./table.ts";

export const nothing: Conservation = {
  accepted: 0,
  delivered: 0,
  filtered: 0,
  duplicate: 0,
  deadLettered: 0,
  returned: 0,
  lost: 0,
  inFlight: 0,
};

const quakes: Conservation = { ...nothing, accepted: 5473, delivered: 564, duplicate: 4909 };

function source(name: string, conservation: Conservation): RunStatus["sources"][number] {
  return {
    name,
    type: "kafka",
    ready: true,
    reason: undefined,
    conservation,
    lanes: [],
    backlog: 0,
    held: 0,
    waiting: 0,
    creditMessages: 10,
    creditBytes: 10,
    bytesInFlight: 0,
  };
}

function status(sources: RunStatus["sources"]): RunStatus {
  return {
    topology: "quakes",
    mode: "done",
    startedAt: 0,
    ready: false,
    conservation: totalConservation(sources.map(({ conservation }) => conservation)),
    sources,
    sinks: [
      {
        name: "quakes.versions",
        type: "kafka",
        ready: true,
        reason: undefined,
        written: 564,
        writing: 0,
        batches: 3,
      },
    ],
    lastErrors: [],
    counters: {},
  };
}

test("the equation leaves out terms of 0 and holds", () => {
  assert.equal(equation(quakes), "accepted 5473 = delivered 564 + duplicate 4909");
  assert.equal(equation(nothing), "accepted 0 = 0");
  assert.equal(equation({ ...nothing, accepted: 3, inFlight: 3 }), "accepted 3 = in flight 3");
});

test("a message unaccounted for is shown, not hidden", () => {
  const broken = { ...nothing, accepted: 2, delivered: 1 };
  assert.equal(isConserved(broken), false);
  assert.equal(equation(broken), "accepted 2 ≠ delivered 1");
});

test("the table of one source lists every outcome and every sink and ends with the equation", () => {
  assert.equal(
    conservationTable(status([source("quakes.polls", quakes)]), { how: "done" }),
    [
      "quakes: done",
      "outcome       messages",
      "accepted          5473",
      "delivered          564",
      "duplicate         4909",
      "filtered             0",
      "deadLettered         0",
      "returned             0",
      "lost                 0",
      "in flight            0",
      "sink             written  batches",
      "quakes.versions      564        3",
      "accepted 5473 = delivered 564 + duplicate 4909",
    ].join("\n"),
  );
});

test("several sources have a row each", () => {
  const rows = conservationTable(
    status([source("store", quakes), source("image", { ...nothing, accepted: 2, lost: 2 })]),
  ).split("\n");
  assert.deepEqual(
    rows.filter((row) => /^(source|store|image) /.test(row)),
    [
      "source  accepted  delivered  duplicate  filtered  deadLettered  returned  lost  in flight",
      "store       5473        564       4909         0             0         0     0          0",
      "image          2          0          0         0             0         0     2          0",
    ],
  );
  assert.equal(rows.at(-1), "accepted 5475 = delivered 564 + duplicate 4909 + lost 2");
});

test("a sum of conserved parts is conserved, whatever the parts", () => {
  const counts = fc.record({
    delivered: fc.nat(1000),
    filtered: fc.nat(1000),
    duplicate: fc.nat(1000),
    deadLettered: fc.nat(1000),
    returned: fc.nat(1000),
    lost: fc.nat(1000),
    inFlight: fc.nat(1000),
  });
  fc.assert(
    fc.property(fc.array(counts, { maxLength: 4 }), (parts) => {
      const conserved = parts.map((part) => ({
        ...part,
        accepted: Object.values(part).reduce((a, b) => a + b, 0),
      }));
      const total = totalConservation(conserved);
      assert.ok(isConserved(total));
      const [left, right] = equation(total).split(" = ");
      const sum = [...right!.matchAll(/\d+/g)].reduce((a, [digits]) => a + Number(digits), 0);
      assert.equal(left, `accepted ${sum}`);
    }),
  );
});
