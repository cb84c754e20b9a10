import assert from "node:assert/strict";
import { test } from "node:test";
import { Reader, Writer } from "@platformatic/kafka";
import { produceExchange } from "./produce-exchange.ts";

/** INVALID_TIMESTAMP */
const refusedTimestamp = 32;

interface Told {
  readonly error: number;
  /** By record of the batch. */
  readonly records?: readonly (string | null)[];
  readonly message?: string;
}

/** What a broker answers about the partitions of one topic, in their order. */
function answerOf(partitions: readonly Told[]): Reader {
  const writer = Writer.create()
    .appendArray([partitions], (topics, all) => {
      topics.appendString("t").appendArray(
        all.map((told, partition) => ({ ...told, partition })),
        (each, { partition, error, records = [], message = null }) => {
          each.appendInt32(partition).appendInt16(error).appendInt64(7n).appendInt64(-1n).appendInt64(0n);
          each.appendArray(
            records.map((text, index) => ({ text, index })),
            (record, { text, index }) => {
              record.appendInt32(index).appendString(text);
            },
          );
          each.appendString(message);
        },
      );
    })
    .appendInt32(40);
  return Reader.from(writer.buffer);
}

test("what a broker says about a record and about its batch is read, and what follows it too", () => {
  const { partitions, throttle } = produceExchange([], 1_000).read(
    answerOf([
      { error: refusedTimestamp, records: ["too far ahead", null], message: "records were rejected" },
      { error: refusedTimestamp, records: [null], message: "records were rejected" },
      { error: 0 },
    ]),
    9,
  );
  assert.deepEqual(
    partitions.map(({ partition, detail }) => [partition, detail]),
    [
      [0, "record 0: too far ahead"],
      [1, "records were rejected"],
      [2, null],
    ],
  );
  assert.equal(throttle, 40);
});
