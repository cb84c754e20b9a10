import assert from "node:assert/strict";
import { test } from "node:test";
import { startError } from "../../errors.ts";
import { creationError } from "./errors.ts";

/** As kafkajs reports that topics could not be created. */
function refusal(...errors: { topic: string; type: string; message: string }[]): Error {
  return Object.assign(new Error("Topic creation errors"), {
    name: "KafkaJSAggregateError",
    errors: errors.map((error) => Object.assign(new Error(error.message), error)),
  });
}

const unable = { topic: "out", type: "INVALID_REPLICATION_FACTOR", message: "Replication-factor is invalid" };
const there = { topic: "in", type: "TOPIC_ALREADY_EXISTS", message: "Topic already exists" };
const away = { topic: "in", type: "NOT_CONTROLLER", message: "This is not the correct controller" };
const out = { topic: "out", partitions: -1, replicationFactor: 3 };
const other = { topic: "in", partitions: 4, replicationFactor: -1 };

test("a topic that cannot be created as it is wanted says why, and is not tried again", () => {
  for (const error of [refusal(unable), refusal(there, unable)]) {
    const told = creationError(error, [other, out]);
    assert.equal(told.code, "refused");
    assert.equal(told.message, 'cannot create topic "out" with 3 replicas: Replication-factor is invalid');
    const final = startError(told, "here:9092");
    assert.deepEqual([final?.code, final?.class], ["option-invalid", "application"]);
    assert.match(final!.message, /here:9092.*"out" with 3 replicas/);
  }
});

test("one reason that is final is enough; without one the request is made again", () => {
  assert.equal(creationError(refusal(away, unable), [other, out]).code, "refused");
  const told = creationError(refusal(away), [other, out]);
  assert.equal(told.code, "retry");
  assert.match(told.message, /"in" with 4 partitions: This is not the correct controller/);
  assert.equal(startError(told, "here:9092"), undefined);
  assert.equal(creationError(refusal(there), [other]).code, "retry", "it is looked for again");
  assert.equal(creationError(new Error("connection lost"), [out]).message, "connection lost");
});

test("a permission that is lacking is told as such", () => {
  const type = "TOPIC_AUTHORIZATION_FAILED";
  const told = creationError(refusal({ topic: "out", type, message: "Not authorized" }), [out]);
  assert.equal(startError(told, "here:9092")?.code, "access-refused");
});
