import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import fc from "fast-check";
import { codecs } from "../../../../message/batch.ts";
import { noHeaders } from "../../../../message/records.ts";
import { batchOf } from "../conformance.ts";
import { EmbeddedBatch } from "./batch.ts";

// kafkajs's own encoder of record batches, as a second opinion on their size.
const require = createRequire(import.meta.url);
interface Encoder {
  readonly buffer: Buffer;
}
const { RecordBatch } = require("kafkajs/src/protocol/recordBatch/v0") as {
  RecordBatch(batch: object): Promise<Encoder>;
};
const Record = require("kafkajs/src/protocol/recordBatch/record/v0") as (record: object) => object;

const target = { topic: "t", partition: 0 };
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

test("an uncompressed batch has exactly the size that kafkajs encodes it to", async () => {
  const message = fc.record({
    key: fc.option(bytes(200)),
    value: fc.option(
      fc.oneof(
        bytes(300),
        fc.integer({ min: 8_000, max: 9_000 }).map((n) => Buffer.alloc(n)),
      ),
    ),
    timestamp: fc.integer({ min: 1, max: 2_000_000_000_000 }),
    headers: fc.uniqueArray(
      fc.tuple(fc.string({ unit: "grapheme", minLength: 1, maxLength: 80 }), bytes(100)),
      {
        maxLength: 4,
        selector: ([name]) => name,
      },
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 80 }), async (messages) => {
      const batch = batchOf(messages);
      const encoded = new EmbeddedBatch(target, batch, 0, batch.length, 0);
      const firstTimestamp = messages[0]!.timestamp;
      const expected = await RecordBatch({
        compression: 0,
        firstTimestamp,
        maxTimestamp: firstTimestamp,
        partitionLeaderEpoch: 0,
        lastOffsetDelta: messages.length - 1,
        records: messages.map((message, offsetDelta) =>
          Record({
            offsetDelta,
            timestampDelta: message.timestamp - firstTimestamp,
            key: message.key,
            value: message.value,
            headers: Object.fromEntries(message.headers),
          }),
        ),
      });
      assert.equal(encoded.size, expected.buffer.length);
      assert.ok(encoded.exact);
      assert.equal(encoded.storedSize, encoded.size);
    }),
    { numRuns: 60 },
  );
});

test("a compressed batch counts as compressed, and its size says so only as an upper estimate", () => {
  const messages = Array.from({ length: 100 }, (_, i) => ({ value: `${i} ${"lorem ipsum ".repeat(20)}` }));
  for (const codec of codecs) {
    if (codec === "none") continue;
    const batch = batchOf(messages, codec);
    const encoded = new EmbeddedBatch(target, batch, 0, batch.length, 0);
    assert.equal(encoded.exact, false);
    assert.ok(encoded.storedSize > 61 && encoded.storedSize < encoded.size / 4, codec);
  }
});

test("headers become bytes, and a record without a timestamp gets the time of encoding", () => {
  const batch = batchOf([
    { value: "a", timestamp: -1 },
    {
      value: "b",
      timestamp: 5,
      headers: [
        ["n", 1],
        ["t", "ü"],
        ["x", null],
        ["y", true],
      ],
    },
  ]);
  const encoded = new EmbeddedBatch(target, batch, 0, 2, 99);
  assert.deepEqual([...encoded.timestamps], [99, 5]);
  assert.deepEqual(encoded.headers, [
    noHeaders,
    [
      ["n", Buffer.from("1")],
      ["t", Buffer.from("ü")],
      ["x", null],
      ["y", Buffer.from("true")],
    ],
  ]);
});
