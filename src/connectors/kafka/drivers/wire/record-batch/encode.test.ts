import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import fc from "fast-check";
import { offloadFrom } from "../../../../../component/codec.ts";
import type { Task, Work } from "../../../../../component/context.ts";
import { Batch, codecs } from "../../../../../message/batch.ts";
import { Chunk } from "../../../../../message/chunk.ts";
import { Lane } from "../../../../../message/lane.ts";
import type { Headers, Records } from "../../../../../message/records.ts";
import { batchOf } from "../../conformance.ts";
import { registerCodecs } from "../../kafkajs/codecs.ts";
import { decodeRecords } from "./decode.ts";
import { encodeRecordBatch, stampProducer } from "./encode.ts";

// kafkajs' own protocol code, as a second opinion.
const require = createRequire(import.meta.url);
const protocol = "kafkajs/src/protocol";
const { RecordBatch } = require(`${protocol}/recordBatch/v0`) as {
  RecordBatch(batch: object): Promise<{ readonly buffer: Buffer }>;
};
const KafkaJsRecord = require(`${protocol}/recordBatch/record/v0`) as (record: object) => object;
const KafkaJsDecoder = require(`${protocol}/decoder`) as new (bytes: Buffer) => object;
const decodeByKafkaJs = require(`${protocol}/recordBatch/v0/decoder`) as (decoder: object) => Promise<{
  readonly producerId: string;
  readonly producerEpoch: number;
  readonly firstSequence: number;
  readonly maxTimestamp: string;
  readonly lastOffsetDelta: number;
  readonly records: {
    readonly offset: string;
    readonly timestamp: string;
    readonly key: Buffer | null;
    readonly value: Buffer | null;
    readonly headers: Readonly<Record<string, Buffer | Buffer[]>>;
  }[];
}>;

const here: Work = { run: async (task) => task.run() };
registerCodecs(here);
const plain = { codec: "none", now: 0, work: here } as const;

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const payload = fc.oneof(
  { weight: 5, arbitrary: bytes(300) },
  { weight: 1, arbitrary: fc.integer({ min: 8_000, max: 70_000 }).map((n) => Buffer.alloc(n, n)) },
);
/** kafkajs keeps headers in an object, where numbers come first and some names are taken. */
const headerName = fc.string({ unit: "grapheme", maxLength: 70 }).map((name) => `#${name}`);
const messages = (headerValue: fc.Arbitrary<Buffer | null>) =>
  fc.array(
    fc.record({
      key: fc.option(bytes(100)),
      value: fc.option(payload),
      timestamp: fc.oneof(fc.nat(2_000_000), fc.constantFrom(0, Number.MAX_SAFE_INTEGER)),
      headers: fc.uniqueArray(fc.tuple(headerName, headerValue), {
        maxLength: 4,
        selector: ([name]) => name,
      }),
    }),
    { minLength: 1, maxLength: 100 },
  );

/** CRC-32C bit by bit, as it is defined. */
function crc32cByDefinition(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

const encoded = async (...given: Parameters<typeof encodeRecordBatch>) => await encodeRecordBatch(...given);

test("a batch is written byte by byte as the protocol says", async () => {
  const batch = batchOf([
    { key: "k1", value: "value", timestamp: 1_700_000_000_000 },
    {
      key: null,
      value: null,
      timestamp: 1_699_999_999_999,
      headers: [
        ["ü", Buffer.of(7)],
        ["n", null],
      ],
    },
    { key: "", value: "", timestamp: 1_700_000_000_100, headers: [["", Buffer.alloc(0)]] },
  ]);
  const hex = [
    "0000000000000000", // base offset: the broker gives it
    "00000058", // length of what follows
    "ffffffff", // leader epoch: the broker gives it
    "02", // magic
    "", // checksum: below
    "0000", // attributes
    "00000002", // last offset delta
    "0000018bcfe56800", // base timestamp
    "0000018bcfe56864", // largest timestamp
    "ffffffffffffffff", // producer id
    "ffff", // producer epoch
    "ffffffff", // base sequence
    "00000003", // records
    // length, attributes, timestamp delta, offset delta, key, value, number of headers
    `1a 00 00 00 04${Buffer.from("k1").toString("hex")} 0a${Buffer.from("value").toString("hex")} 00`,
    `1c 00 01 02 01 01 04 04c3bc 0207 02${Buffer.from("n").toString("hex")} 01`,
    "12 00 c801 04 00 00 02 00 00",
  ].map((part) => part.replaceAll(" ", ""));
  hex[4] = crc32cByDefinition(Buffer.from(hex.slice(5).join(""), "hex"))
    .toString(16)
    .padStart(8, "0");
  assert.equal(hex[4], "9543a2a0");
  const bytes = await encoded(batch, 0, 3, plain);
  assert.equal(bytes.toString("hex"), hex.join(""));
});

test("an uncompressed batch is what kafkajs makes of the same messages", async () => {
  await fc.assert(
    fc.asyncProperty(messages(bytes(100)), async (given) => {
      const batch = batchOf(given);
      const firstTimestamp = given[0]!.timestamp;
      const expected = await RecordBatch({
        compression: 0,
        firstTimestamp,
        maxTimestamp: Math.max(...given.map(({ timestamp }) => timestamp)),
        partitionLeaderEpoch: -1,
        lastOffsetDelta: given.length - 1,
        producerId: 77,
        producerEpoch: 3,
        firstSequence: 2 ** 31 - 1,
        records: given.map(({ key, value, timestamp, headers }, offsetDelta) =>
          KafkaJsRecord({
            offsetDelta,
            timestampDelta: timestamp - firstTimestamp,
            key,
            value,
            headers: Object.fromEntries(headers),
          }),
        ),
      });
      const options = { ...plain, producerId: 77n, producerEpoch: 3, baseSequence: 2 ** 31 - 1 };
      assert.deepEqual(await encoded(batch, 0, batch.length, options), expected.buffer);
    }),
    { numRuns: 60 },
  );
});

test("kafkajs reads what was encoded, with every codec", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...codecs), messages(bytes(100)), async (codec, given) => {
      const batch = batchOf(given, codec);
      const whole = await encoded(batch, 0, batch.length, { ...plain, codec, producerId: 2 ** 40 });
      const read = await decodeByKafkaJs(new KafkaJsDecoder(whole));
      assert.equal(read.producerId, String(2 ** 40));
      assert.deepEqual(
        read.records.map(({ offset, timestamp, key, value, headers }) => ({
          offset: Number(offset),
          timestamp: Number(timestamp),
          key,
          value,
          headers: Object.entries(headers).sort(),
        })),
        given.map(({ timestamp, key, value, headers }, offset) => ({
          offset,
          timestamp,
          key,
          value,
          headers: [...headers].sort(),
        })),
      );
    }),
    { numRuns: 60 },
  );
});

test("snappy is written as a xerial stream, as Java's producer does", async () => {
  const bytes = await encoded(batchOf([{ value: "v" }], "snappy"), 0, 1, { ...plain, codec: "snappy" });
  assert.deepEqual(bytes.subarray(61, 77), Buffer.from("82534e41505059000000000100000001", "hex"));
});

test("entries of a part of the batch are encoded as if there were no others", async () => {
  const all = Array.from({ length: 40 }, (_, i) => ({
    key: `k${i}`,
    // So unlike that no estimate for a part fits.
    value: Buffer.alloc(i === 7 ? 2_000_000 : i),
    timestamp: 1_000 + i,
  }));
  const batch = batchOf(all);
  for (const [from, to] of [
    [0, 7],
    [6, 8],
    [7, 40],
    [39, 40],
  ] as const) {
    const part = batchOf(all.slice(from, to));
    const bytes = await encoded(batch, from, to, plain);
    assert.deepEqual(bytes, await encoded(part, 0, to - from, plain), `${from} to ${to}`);
    assert.ok(bytes.buffer.byteLength < 2 * bytes.length + 70_000, "what was estimated too high is not kept");
  }
  assert.throws(() => encodeRecordBatch(batch, 4, 4, plain), RangeError);
});

test("records without a timestamp of their own get the time of encoding, and times are whole", async () => {
  const given = [-1, 0, Number.NaN, 12.9, 2 ** 63, -(2 ** 60), 2 ** 62];
  const batch = batchOf(given.map((timestamp) => ({ value: "", timestamp })));
  const bytes = await encoded(batch, 0, batch.length, { ...plain, now: 99.5 });
  const { records } = await decodeRecords(bytes, { topic: "t", partition: 0, from: 0, work: here });
  assert.deepEqual(
    given.map((_, i) => records.timestamp(i)),
    [99, 0, 99, 12, 99, 99, 2 ** 62],
  );
  assert.equal(bytes.readBigInt64BE(27), 99n);
  assert.equal(bytes.readBigInt64BE(35), 2n ** 62n);
});

test("header values that are text, numbers or booleans become UTF-8", async () => {
  const batch = batchOf([
    {
      value: "v",
      headers: [
        ["text", "grün"],
        ["number", -1.5],
        ["flag", true],
        ["bytes", Buffer.of(0xff)],
        ["none", null],
        ["text", ""],
      ],
    },
  ]);
  const bytes = await encoded(batch, 0, 1, plain);
  const { records } = await decodeRecords(bytes, { topic: "t", partition: 0, from: 0, work: here });
  assert.deepEqual(records.headers(0), [
    ["text", Buffer.from("grün")],
    ["number", Buffer.from("-1.5")],
    ["flag", Buffer.from("true")],
    ["bytes", Buffer.of(0xff)],
    ["none", null],
    ["text", Buffer.alloc(0)],
  ]);
});

test("a producer's stamp changes its three fields and the checksum, as if encoded with them", async () => {
  const given = [{ key: "k", value: "v" }, { value: "w".repeat(1_000) }];
  for (const codec of codecs) {
    const batch = batchOf(given, codec);
    const stamped = await encoded(batch, 0, 2, { ...plain, codec });
    stampProducer(stamped, 2n ** 62n, 32_767, 5);
    const options = { ...plain, codec, producerId: 2n ** 62n, producerEpoch: 32_767, baseSequence: 5 };
    assert.deepEqual(stamped, await encoded(batch, 0, 2, options));
    assert.equal(stamped.readUInt32BE(17), crc32cByDefinition(stamped.subarray(21)));
    const { producerId, producerEpoch, firstSequence } = await decodeByKafkaJs(new KafkaJsDecoder(stamped));
    assert.deepEqual([producerId, producerEpoch, firstSequence], [String(2n ** 62n), 32_767, 5]);
  }
});

test("a large batch is compressed off the event loop, each codec from its own size on, a small or uncompressed one at once", async () => {
  const tasks: Task<unknown>[] = [];
  const work: Work = {
    run: (task) => {
      tasks.push(task);
      return task.offload();
    },
  };
  for (const codec of codecs) {
    // Headers count too, and a record takes a few bytes beside its value.
    const from = codec === "none" ? 32 * 1024 : offloadFrom[codec].compress;
    for (const [length, offloaded] of [
      [from - 100, false],
      [from, true],
    ] as const) {
      const batch = batchOf([{ value: Buffer.alloc(length, codec) }], codec);
      const bytes = encodeRecordBatch(batch, 0, 1, { codec, now: 0, work });
      assert.equal(bytes instanceof Promise, offloaded && codec !== "none", codec);
      assert.equal(tasks.splice(0).length, offloaded && codec !== "none" ? 1 : 0);
      assert.deepEqual(await bytes, await encoded(batch, 0, 1, { codec, now: 0, work: here }));
    }
  }
});

test("batches that are being compressed at the same time do not mix", async () => {
  const waiting: (() => void)[] = [];
  const work: Work = {
    run: (task) =>
      new Promise((resolve) => {
        waiting.push(() => resolve(task.run()));
      }),
  };
  const batches = ["a", "b", "c", "d"].map((text) => batchOf([{ value: text.repeat(100_000) }], "lz4"));
  const options = { codec: "lz4", now: 0 } as const;
  const first = batches.slice(0, 2).map((batch) => encodeRecordBatch(batch, 0, 1, { ...options, work }));
  // One between that is done at once.
  const small = batchOf([{ value: "small" }], "lz4");
  const smallBytes = await encoded(small, 0, 1, { ...options, work });
  const later = batches.slice(2).map((batch) => encodeRecordBatch(batch, 0, 1, { ...options, work }));
  for (const go of waiting.toReversed()) go();
  const results = await Promise.all([...first, ...later]);
  for (const [i, bytes] of [...results, smallBytes].entries()) {
    const { records } = await decodeRecords(bytes, { topic: "t", partition: 0, from: 0, work: here });
    assert.deepEqual(records.value(0), [...batches, small][i]!.payload(0));
  }
});

test("headers that came from Kafka and were not touched go out as the same bytes", async () => {
  const source = batchOf([
    { value: "a", headers: [["h\u0000x", "1"]] },
    { value: "b" },
    { value: "c", headers: [["h", "2"]] },
  ]);
  const fetched = await encoded(source, 0, 3, plain);
  // A name that is no UTF-8: as text it would be another one.
  const name = fetched.indexOf("h\u0000x");
  fetched[name + 1] = 0xff;
  fetched.writeUInt32BE(crc32cByDefinition(fetched.subarray(21)), 17);
  const { records } = await decodeRecords(fetched, { topic: "t", partition: 0, from: 0, work: here });

  const again = batchOver(records);
  assert.deepEqual(await encoded(again, 0, 3, plain), fetched);

  const given: Headers[] = [[["new", "x"]], [], [["h", null]]];
  const changed = batchOver(records, given);
  const { records: read } = await decodeRecords(await encoded(changed, 0, 3, plain), {
    topic: "t",
    partition: 0,
    from: 0,
    work: here,
  });
  assert.deepEqual(
    [0, 1, 2].map((i) => read.headers(i)),
    [[["new", Buffer.from("x")]], [], [["h", null]]],
  );
});

/** A batch of all records, with headers given on the way if any. */
function batchOver(records: Records, headers?: Headers[]): Batch {
  const lane = new Lane({
    origin: { source: "test", target: "t" },
    epoch: 1,
    ack: "cumulative",
    ledger: { taken() {}, settled() {}, branched() {} },
  });
  const chunk = new Chunk(lane, lane, lane.take(records, 0, records.length), records.length, records, 0);
  chunk.headerColumn = headers;
  const batch = new Batch({ name: "test" }, 0);
  for (let i = 0; i < records.length; i++) batch.add(chunk, i);
  return batch;
}
