import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Batch, codecs, type Framing } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { decodeFrame, frameType, mostMessages } from "../message/frame.ts";
import { Lane } from "../message/lane.ts";
import { type Headers, type PlainRecord, PlainRecords } from "../message/records.ts";
import { type Compression, decompressTask, offloadAbove } from "./codec.ts";
import type { Task, Work } from "./context.ts";
import { type EncodedPayload, encodePayloads, isPlain } from "./payloads.ts";

/** Counts what goes to the pool, and finishes it in the opposite order. */
class CountingWork implements Work {
  sizes: number[] = [];
  #last: Promise<unknown> | undefined;

  async run<T>(task: Task<T>): Promise<T> {
    const result = task.run();
    const count = this.sizes.push(Buffer.isBuffer(result) ? result.length : 0);
    for (let turns = 50 - count; turns > 0; turns--) await this.#last;
    return result;
  }
}

type GivenMessage = Partial<Omit<PlainRecord, "position" | "value">> & {
  readonly value: Buffer | string | null;
};

function batchOf(messages: readonly GivenMessage[], codec: (typeof codecs)[number], framing: Framing): Batch {
  const ledger = { taken() {}, settled() {}, branched() {} };
  const lane = new Lane({ origin: { source: "s", target: "t" }, epoch: 1, ack: "cumulative", ledger });
  const records = new PlainRecords(
    messages.map(({ value, ...rest }, position) => ({
      key: null,
      headers: [],
      timestamp: 0,
      ...rest,
      position,
      value: typeof value === "string" ? Buffer.from(value) : value,
    })),
  );
  const chunk = new Chunk(lane, lane, lane.take(records, 0, records.length), records.length, records, 0);
  const batch = new Batch({ name: "out" }, 0);
  batch.codec = codec;
  batch.framing = framing;
  for (let i = 0; i < chunk.length; i++) batch.add(chunk, i);
  return batch;
}

function restored(codec: (typeof codecs)[number], { payload }: EncodedPayload): Buffer {
  if (codec === "none") return payload!;
  return decompressTask(codec as Compression, payload!, { maxBytes: 2 ** 26 }).run();
}

const given: readonly GivenMessage[] = [
  { key: Buffer.from("a"), value: "first", headers: [["h", "1"]], timestamp: 5 },
  { value: null, timestamp: 6 },
  { key: Buffer.alloc(0), value: "", timestamp: 7 },
  { value: Buffer.from([0, 255, 10]), headers: [["content-encoding", "br"]], timestamp: 8 },
];

describe("encodePayloads", () => {
  for (const codec of codecs) {
    test(`${codec}, each payload by itself`, async () => {
      const payloads = await encodePayloads(batchOf(given, codec, "record"), new CountingWork());
      assert.deepEqual(
        payloads.map(({ from, to, key, timestamp }) => ({ from, to, key, timestamp })),
        given.map(({ key = null, timestamp }, i) => ({ from: i, to: i + 1, key, timestamp })),
      );
      payloads.forEach((payload, i) => {
        const { value, headers = [] } = given[i]!;
        if (value === null || codec === "none") {
          assert.deepEqual(payload.payload, value === null ? null : Buffer.from(value));
          assert.deepEqual(payload.headers, headers);
          return;
        }
        assert.deepEqual(restored(codec, payload), Buffer.from(value));
        const before = headers.filter(([name]) => name !== "content-encoding");
        const coding = before.length === headers.length ? codec : `br, ${codec}`;
        assert.deepEqual(payload.headers, [...before, ["content-encoding", coding]]);
      });
    });

    test(`${codec}, one frame`, async () => {
      const payloads = await encodePayloads(batchOf(given, codec, "batch"), new CountingWork());
      assert.equal(payloads.length, 1);
      const { from, to, key, timestamp, headers } = payloads[0]!;
      assert.deepEqual({ from, to, key, timestamp }, { from: 0, to: given.length, key: null, timestamp: 5 });
      const expected: Headers = [["content-type", frameType]];
      assert.deepEqual(headers, codec === "none" ? expected : [...expected, ["content-encoding", codec]]);
      const records = decodeFrame(restored(codec, payloads[0]!));
      assert.deepEqual(
        given.map((_, i) => [records.key(i), records.value(i), records.headers(i), records.timestamp(i)]),
        given.map(({ key = null, value, headers = [], timestamp }) => [
          key,
          value === null ? null : Buffer.from(value),
          headers,
          timestamp,
        ]),
      );
    });
  }

  test("only what no codec and no frame touches is plain", () => {
    assert.equal(isPlain(batchOf(given, "none", "record")), true);
    assert.equal(isPlain(batchOf(given, "none", "batch")), false);
    assert.equal(isPlain(batchOf(given, "gzip", "record")), false);
  });

  test("large payloads go to the pool, small ones do not, and the order stays", async () => {
    const work = new CountingWork();
    const sizes = [10, offloadAbove + 1, offloadAbove, 20, offloadAbove + 2];
    const payloads = await encodePayloads(
      batchOf(
        sizes.map((size) => ({ value: Buffer.alloc(size, String(size)) })),
        "lz4",
        "record",
      ),
      work,
    );
    assert.equal(work.sizes.length, 2);
    payloads.forEach((payload, i) => {
      assert.deepEqual(restored("lz4", payload), Buffer.alloc(sizes[i]!, String(sizes[i]!)));
    });
    const frames = new CountingWork();
    await encodePayloads(batchOf([{ value: Buffer.alloc(offloadAbove) }], "lz4", "batch"), frames);
    await encodePayloads(batchOf([{ value: "small" }], "lz4", "batch"), frames);
    assert.equal(frames.sizes.length, 1);
  });

  test("after a MiB of small payloads the others go to the pool too", async () => {
    const work = new CountingWork();
    const size = 30 * 1024;
    const messages = Array.from({ length: 50 }, () => ({ value: Buffer.alloc(size) }));
    await encodePayloads(batchOf(messages, "snappy", "record"), work);
    assert.equal(50 - work.sizes.length, Math.ceil(2 ** 20 / size));
  });

  test("a frame has no more messages than a reader takes", async () => {
    const messages = Array.from({ length: mostMessages + 2 }, (_, i) => ({ value: String(i) }));
    const payloads = await encodePayloads(batchOf(messages, "none", "batch"), new CountingWork());
    assert.deepEqual(
      payloads.map(({ from, to, payload }) => [from, to, decodeFrame(payload!).length]),
      [
        [0, mostMessages, mostMessages],
        [mostMessages, mostMessages + 2, 2],
      ],
    );
  });

  test("a frame is no larger than a reader takes, except for one message", async () => {
    const MiB = 2 ** 20;
    const sizes = [3, 3, 3, 9, 1, 1];
    const messages = sizes.map((size) => ({ value: Buffer.alloc(size * MiB) }));
    const payloads = await encodePayloads(batchOf(messages, "none", "batch"), new CountingWork());
    assert.deepEqual(
      payloads.map(({ from, to }) => sizes.slice(from, to)),
      [[3, 3], [3], [9], [1, 1]],
    );
  });

  test("a failure of the pool is not swallowed", async () => {
    const broken: Work = {
      run: () => Promise.reject(new Error("the pool is gone")),
    };
    const batch = batchOf([{ value: Buffer.alloc(offloadAbove + 1) }, { value: "small" }], "zstd", "record");
    await assert.rejects(encodePayloads(batch, broken), /the pool is gone/);
  });
});
