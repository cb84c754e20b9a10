import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunStatus } from "../runtime/status.ts";
import { fhirStatus } from "./fhir-status.ts";
import { totalStatus } from "./total-status.ts";

const at = Date.UTC(2025, 5, 24, 10, 0, 0, 137);
const errors = Array.from({ length: 7 }, (_, index) => ({
  message: `trouble ${7 - index}`,
  at: at + 1_000 * (7 - index),
  node: "sink",
}));

function status(more: Partial<RunStatus>): RunStatus {
  return {
    ...totalStatus([]),
    startedAt: at,
    conservation: {
      accepted: 12,
      delivered: 7,
      filtered: 0,
      duplicate: 0,
      deadLettered: 1,
      returned: 0,
      lost: 2,
      inFlight: 2,
    },
    ...more,
  };
}

const names = ({ parameter }: ReturnType<typeof fhirStatus>) => parameter.map(({ name }) => name);

test("seed 002.6: `$status` best effort: `startTimestamp` (UTC) `status` (always `active`) `messagesDelivered` `messagesInProcess` `messagesLost` `lastErrorDetail[≤5]{message,timestamp}`", () => {
  const answer = fhirStatus(status({ bestEffort: true, lastErrors: errors }));
  assert.equal(answer.resourceType, "Parameters");
  assert.deepEqual(names(answer), [
    "startTimestamp",
    "status",
    "messagesDelivered",
    "messagesInProcess",
    "messagesLost",
    ...new Array(5).fill("lastErrorDetail"),
  ]);
  assert.deepEqual(answer.parameter.slice(0, 5), [
    { name: "startTimestamp", valueDateTime: "2025-06-24T10:00:00.137Z" },
    { name: "status", valueString: "active" },
    { name: "messagesDelivered", valueDecimal: 7 },
    { name: "messagesInProcess", valueDecimal: 2 },
    { name: "messagesLost", valueString: "2" },
  ]);
});

test("seed 002.7: `$status` at least once: `messagesDelivered` `messagesDeliveryAttempts` (= FAILED attempts) `messagesInProcess` `messagesQueued` `startTimestamp` `status` `lastErrorDetail[≤5]`; no `messagesLost`", () => {
  const source = { name: "outbox", backlog: 3, queued: 40 } as RunStatus["sources"][number];
  const answer = fhirStatus(
    status({ sources: [source], counters: { write_retries_total: 4, reconnects_total: 9 } }),
  );
  assert.deepEqual(answer.parameter, [
    { name: "messagesDelivered", valueDecimal: 7 },
    { name: "messagesDeliveryAttempts", valueDecimal: 4 },
    { name: "messagesInProcess", valueDecimal: 2 },
    { name: "messagesQueued", valueDecimal: 43 },
    { name: "startTimestamp", valueDateTime: "2025-06-24T10:00:00.137Z" },
    { name: "status", valueString: "active" },
  ]);
});

test("seed 002.5: `$status` value types as documented: counts decimal (`messagesLost` string), times dateTime; zero to five `lastErrorDetail` parts, newest kept", () => {
  for (const bestEffort of [true, false]) {
    const details = (lastErrors: RunStatus["lastErrors"]) =>
      fhirStatus(status({ bestEffort, lastErrors })).parameter.filter(
        ({ name }) => name === "lastErrorDetail",
      );
    assert.deepEqual(details([]), []);
    assert.deepEqual(details(errors.slice(0, 1)), [
      {
        name: "lastErrorDetail",
        part: [
          { name: "message", valueString: "trouble 7" },
          { name: "timestamp", valueDateTime: "2025-06-24T10:00:07.137Z" },
        ],
      },
    ]);
    assert.deepEqual(
      details(errors).map(({ part }) => part![0]!.valueString),
      ["trouble 7", "trouble 6", "trouble 5", "trouble 4", "trouble 3"],
    );
    for (const { name, valueDecimal, valueString, valueDateTime } of fhirStatus(status({ bestEffort }))
      .parameter) {
      const type =
        name === "startTimestamp"
          ? valueDateTime
          : ["status", "messagesLost"].includes(name)
            ? valueString
            : valueDecimal;
      assert.notEqual(type, undefined, name);
    }
  }
});
