import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { crc32c } from "@node-rs/crc32";
import fc from "fast-check";
import { compressTask } from "../../../../../component/codec.ts";
import type { Work } from "../../../../../component/context.ts";
import { type Codec, codecs } from "../../../../../message/batch.ts";
import { type Headers, type Records, sizeOf } from "../../../../../message/records.ts";
import { seededRandom } from "../../../../../testing/context.ts";
import { DriverError } from "../../../driver.ts";
import { batchOf } from "../../conformance.ts";
import { registerCodecs } from "../../kafkajs/codecs.ts";
import { type AbortedTransaction, type DecodedRecords, decodeRecords } from "./decode.ts";
import { encodeRecordBatch } from "./encode.ts";

// kafkajs' own encoder, as a second opinion.
const require = createRequire(import.meta.url);
const { RecordBatch } = require("kafkajs/src/protocol/recordBatch/v0") as {
  RecordBatch(batch: object): Promise<{ readonly buffer: Buffer }>;
};
const KafkaJsRecord = require("kafkajs/src/protocol/recordBatch/record/v0") as (record: object) => object;

const here: Work = { run: async (task) => task.run() };
registerCodecs(here);

interface GivenRecord {
  readonly offset: number;
  readonly key?: Buffer | null;
  readonly value?: Buffer | null;
  readonly headers?: Headers;
  /** Less the batch's base. */
  readonly time?: number;
}

/** What a test says of a batch; the rest is usual. */
interface GivenBatch {
  readonly records: readonly GivenRecord[];
  readonly base?: number;
  readonly last?: number;
  readonly codec?: Codec;
  /** Attributes beside the codec. */
  readonly flags?: number;
  readonly producer?: number;
  readonly baseTime?: number;
  readonly maxTime?: number;
  /** Instead of the number of records. */
  readonly count?: number;
  /** Instead of the encoded records. */
  readonly content?: Buffer;
  /** Instead of compressing by the codec. */
  readonly payload?: Buffer;
}

const logAppendTime = 0x08;
const transactional = 0x10;
const control = 0x20;

/** A batch as the protocol describes it, written without regard to speed. */
function batchBytes(given: GivenBatch): Buffer {
  const { records, codec = "none" } = given;
  const base = given.base ?? records[0]?.offset ?? 0;
  const content = given.content ?? Buffer.concat(records.map((record) => recordBytes(record, base)));
  const payload =
    given.payload ?? (codec === "none" ? content : compressTask(codec, content, { snappy: "xerial" }).run());
  const bytes = Buffer.alloc(61 + payload.length);
  bytes.writeBigInt64BE(BigInt(base), 0);
  bytes.writeInt32BE(bytes.length - 12, 8);
  bytes.writeInt32BE(9, 12);
  bytes.writeInt8(2, 16);
  bytes.writeInt16BE(codecs.indexOf(codec) | (given.flags ?? 0), 21);
  bytes.writeInt32BE((given.last ?? records.at(-1)?.offset ?? base) - base, 23);
  bytes.writeBigInt64BE(BigInt(given.baseTime ?? 1_000), 27);
  bytes.writeBigInt64BE(BigInt(given.maxTime ?? 5_000), 35);
  bytes.writeBigInt64BE(BigInt(given.producer ?? -1), 43);
  bytes.writeInt16BE(0, 51);
  bytes.writeInt32BE(0, 53);
  bytes.writeInt32BE(given.count ?? records.length, 57);
  payload.copy(bytes, 61);
  return withChecksum(bytes);
}

function recordBytes(record: GivenRecord, base: number): Buffer {
  const { offset, key = null, value = null, headers = [], time = 0 } = record;
  const part = (bytes: Buffer | null): Buffer[] =>
    bytes === null ? [varint(-1)] : [varint(bytes.length), bytes];
  const body = Buffer.concat([
    Buffer.of(0),
    varint(time),
    varint(offset - base),
    ...part(key),
    ...part(value),
    varint(headers.length),
    ...headers.flatMap(([name, content]) => [...part(Buffer.from(name)), ...part(content as Buffer | null)]),
  ]);
  return Buffer.concat([varint(body.length), body]);
}

function varint(value: number): Buffer {
  let rest = value < 0 ? -BigInt(value) * 2n - 1n : BigInt(value) * 2n;
  const bytes: number[] = [];
  for (; rest > 127n; rest /= 128n) bytes.push(Number(rest % 128n) + 128);
  return Buffer.from([...bytes, Number(rest)]);
}

function withChecksum(batch: Buffer): Buffer {
  batch.writeUInt32BE(crc32c(batch.subarray(21)), 17);
  return batch;
}

const marker = (base: number, producer: number, type: "abort" | "commit", flags = 0): GivenBatch => ({
  records: [{ offset: base, key: Buffer.of(0, 0, 0, type === "abort" ? 0 : 1), value: Buffer.alloc(6) }],
  producer,
  flags: control | transactional | flags,
});

const options = { topic: "orders", partition: 3, from: 0, work: here };

async function decoded(
  batches: readonly (GivenBatch | Buffer)[],
  more: { from?: number; aborted?: readonly AbortedTransaction[]; maxBytes?: number; work?: Work } = {},
): Promise<DecodedRecords> {
  const parts = batches.map((batch) => (Buffer.isBuffer(batch) ? batch : batchBytes(batch)));
  return await decodeRecords(Buffer.concat(parts), { ...options, ...more });
}

function listed(records: Records) {
  for (let i = 0; i < records.length; i++) {
    assert.equal(records.keyLength?.(i), records.key(i)?.length ?? -1);
    assert.equal(records.valueLength?.(i), records.value(i)?.length ?? -1);
    assert.equal(records.text?.(i), records.value(i)?.toString("utf8") ?? "");
  }
  return Array.from({ length: records.length }, (_, i) => ({
    offset: records.position(i),
    key: records.key(i),
    value: records.value(i),
    headers: [...records.headers(i)],
    time: records.timestamp(i),
  }));
}

const offsetsOf = ({ records }: DecodedRecords) =>
  Array.from({ length: records.length }, (_, i) => records.position(i));

const value = (text: string) => Buffer.from(text);
/** Too large, and too disordered, to be compressed below the size from which gzip and zstd go to the thread pool. */
const noise = (seed: number) => {
  const random = seededRandom(seed);
  return Buffer.from(Array.from({ length: 64 * 1024 }, () => random.next() * 256));
};
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const codec = fc.constantFrom(...codecs);
const content = {
  key: fc.option(bytes(80)),
  value: fc.option(
    fc.oneof(
      { weight: 8, arbitrary: bytes(300) },
      { weight: 1, arbitrary: fc.integer({ min: 8_000, max: 70_000 }).map((n) => Buffer.alloc(n, n)) },
    ),
  ),
  headers: fc.array(fc.tuple(fc.string({ unit: "grapheme", maxLength: 70 }), fc.option(bytes(100))), {
    maxLength: 3,
  }),
  time: fc.oneof(fc.integer({ min: -100, max: 10_000 }), fc.constantFrom(2 ** 40, -(2 ** 40))),
};

/** Batches of one partition as compaction may leave them: with gaps between and within, and without records. */
const log = fc
  .array(
    fc.record({
      codec,
      gapBefore: fc.nat(3),
      gapAfter: fc.nat(3),
      append: fc.boolean(),
      baseTime: fc.oneof(fc.nat(2 ** 41), fc.constantFrom(-1, 0, -(2 ** 41))),
      records: fc.array(fc.record({ gap: fc.nat(100), ...content }), { maxLength: 40 }),
    }),
    { maxLength: 6 },
  )
  .map((batches) => {
    let offset = 0;
    return batches.map(({ codec, gapBefore, gapAfter, append, baseTime, records }): GivenBatch => {
      const base = offset + gapBefore;
      offset = base;
      const placed = records.map(({ gap, ...record }, i) => {
        offset += i === 0 ? gap : gap + 1;
        return { ...record, offset };
      });
      const last = offset + gapAfter;
      offset = last + 1;
      return { codec, base, last, baseTime, maxTime: 77, flags: append ? logAppendTime : 0, records: placed };
    });
  });

test("every shape of record comes back from every codec, from the offset that was asked for", async () => {
  await fc.assert(
    fc.asyncProperty(log, fc.nat(400), async (batches, from) => {
      const result = await decoded(batches, { from });
      const expected = batches.flatMap(({ records, flags, baseTime, maxTime }) =>
        records
          .filter(({ offset }) => offset >= from)
          .map(({ offset, key, value, headers, time }) => ({
            offset,
            key,
            value,
            headers,
            time: flags === logAppendTime ? maxTime : baseTime! + time!,
          })),
      );
      assert.deepEqual(listed(result.records), expected);
      assert.equal(result.next, Math.max(from, (batches.at(-1)?.last ?? -1) + 1));
      assert.equal(result.incomplete, 0);
    }),
    { numRuns: 150 },
  );
});

test("a record's size is what credit counts for it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record(content), { minLength: 1, maxLength: 20 }), async (given) => {
      const { records } = await decoded([
        { records: given.map((record, offset) => ({ ...record, offset })) },
      ]);
      for (const [i, { key, value, headers }] of given.entries()) {
        // Names are counted in bytes.
        const names = headers.map(
          ([name, content]) => [Buffer.from(name).toString("latin1"), content] as const,
        );
        assert.equal(records.size(i), sizeOf(key, value, names));
      }
    }),
    { numRuns: 60 },
  );
});

test("what kafkajs encodes is read, with every codec", async () => {
  const message = fc.record({
    key: content.key,
    value: content.value,
    timestamp: fc.integer({ min: 1, max: 2 ** 41 }),
    // kafkajs keeps headers in an object, where numbers come first and some names are taken.
    headers: fc.uniqueArray(
      fc.tuple(
        fc.string({ unit: "grapheme", maxLength: 70 }).map((name) => `#${name}`),
        bytes(100),
      ),
      { maxLength: 3, selector: ([name]) => name },
    ),
  });
  await fc.assert(
    fc.asyncProperty(codec, fc.array(message, { minLength: 1, maxLength: 60 }), async (codec, given) => {
      const firstTimestamp = given[0]!.timestamp;
      const { buffer } = await RecordBatch({
        compression: codecs.indexOf(codec),
        firstTimestamp,
        maxTimestamp: Math.max(...given.map(({ timestamp }) => timestamp)),
        lastOffsetDelta: given.length - 1,
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
      const { records } = await decoded([buffer]);
      assert.deepEqual(
        listed(records),
        given.map(({ key, value, timestamp, headers }, offset) => ({
          offset,
          key,
          value,
          time: timestamp,
          headers,
        })),
      );
    }),
    { numRuns: 60 },
  );
});

test("what we encode is read again, and both kinds of snappy are", async () => {
  for (const codec of codecs) {
    const batch = batchOf(
      Array.from({ length: 500 }, (_, i) => ({
        key: i % 3 === 0 ? null : `k${i}`,
        value: `v${i}`,
        timestamp: i,
      })),
      codec,
    );
    const bytes = await encodeRecordBatch(batch, 0, batch.length, { codec, now: 0, work: here });
    const { records, next } = await decoded([bytes]);
    assert.equal(next, 500);
    for (let i = 0; i < 500; i++) {
      assert.deepEqual(
        [records.position(i), records.key(i), records.value(i), records.timestamp(i)],
        [i, batch.key(i), batch.payload(i), i],
      );
    }
  }
  const raw = compressTask("snappy", recordBytes({ offset: 0, value: value("raw") }, 0)).run();
  const { records } = await decoded([{ records: [{ offset: 0 }], codec: "snappy", payload: raw }]);
  assert.deepEqual(records.value(0), value("raw"));
});

test("a batch is read byte by byte as the protocol says", async () => {
  const hex = [
    "00000000000186a0", // base offset 100,000
    "00000045", // length of what follows
    "00000005", // leader epoch
    "02", // magic
    "", // checksum: below
    "0008", // attributes: the broker's time
    "00000064", // last offset delta: the last records were compacted away
    "0000018bcfe56800", // base timestamp
    "0000018bcfe568ff", // largest timestamp, here the broker's
    "ffffffffffffffff",
    "ffff",
    "ffffffff",
    "00000001", // records
    // Length, attributes, timestamp delta 1, offset delta 64, key, value, number of headers, "ü".
    "26 00 02 8001 04 6b31 06 76616c 02 04 c3bc 06 010203".replaceAll(" ", ""),
  ];
  hex[4] = crc32c(Buffer.from(hex.slice(5).join(""), "hex"))
    .toString(16)
    .padStart(8, "0");
  assert.equal(hex[4], "c3090de8");
  const result = await decoded([Buffer.from(hex.join(""), "hex")]);
  assert.deepEqual(listed(result.records), [
    {
      offset: 100_064,
      key: value("k1"),
      value: value("val"),
      headers: [["ü", Buffer.of(1, 2, 3)]],
      time: 0x18bcfe568ff,
    },
  ]);
  assert.equal(result.next, 100_101);
});

test("where a batch is cut off, what came before it is read, and its size is told", async () => {
  const first = batchBytes({ records: [{ offset: 5, value: value("a") }] });
  const second = batchBytes({ records: [{ offset: 6, value: Buffer.alloc(500) }] });
  const both = Buffer.concat([first, second]);
  for (let length = 0; length < both.length; length++) {
    const { records, next, incomplete } = await decoded([both.subarray(0, length)], { from: 5 });
    const whole = length >= first.length ? 1 : 0;
    assert.equal(records.length, whole, `${length} bytes`);
    assert.equal(next, 5 + whole);
    const left = length - whole * first.length;
    const size = whole === 0 ? first.length : second.length;
    assert.equal(incomplete, left === 0 ? 0 : left < 12 ? 61 : size);
  }
});

test("a batch larger than was asked for is read", async () => {
  const { records } = await decoded([{ records: [{ offset: 0, value: Buffer.alloc(20_000_000, 1) }] }]);
  assert.equal(records.value(0)!.length, 20_000_000);
});

test("a message format other than 2 is an error, also where it is cut off", async () => {
  for (const magic of [0, 1, 3]) {
    // Offset, size, checksum, magic, attributes, key, value: the old formats have magic at the same place.
    const old = Buffer.concat([
      Buffer.from([0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 14, 0, 0, 0, 0, magic]),
      Buffer.alloc(9),
    ]);
    for (const bytes of [old, old.subarray(0, 17)]) {
      await assert.rejects(decoded([bytes]), refusal("unsupported", /offset 12 is in message format/));
    }
    const good = batchBytes({ records: [{ offset: 11, value: value("x") }] });
    const { records, next } = await decoded([good, old]);
    assert.deepEqual([records.length, next], [1, 12], "what is readable before it is read");
  }
});

test("control records are left out, with a list of aborted transactions and without", async () => {
  const batches = [
    { records: [{ offset: 0, value: value("a") }], producer: 1, flags: transactional },
    marker(1, 1, "commit"),
    { records: [{ offset: 2, value: value("b") }] },
    marker(3, 2, "abort"),
  ];
  for (const aborted of [undefined, []]) {
    const result = await decoded(batches, aborted === undefined ? {} : { aborted });
    assert.deepEqual(offsetsOf(result), [0, 2]);
    assert.equal(result.next, 4);
  }
  const nothing = await decoded([marker(7, 1, "commit"), { records: [], base: 8, last: 12 }], { from: 7 });
  assert.deepEqual([nothing.records.length, nothing.next], [0, 13]);
});

test("of aborted transactions nothing is seen, of all others everything", async () => {
  const step = fc.record({
    producer: fc.integer({ min: 1, max: 3 }),
    what: fc.constantFrom("write", "write", "write", "abort", "commit", "plain"),
    records: fc.integer({ min: 1, max: 3 }),
    codec,
  });
  let telling = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 40, size: "max" }),
      fc.nat(60),
      fc.boolean(),
      fc.boolean(),
      async (given, wanted, asBigInt, ended) => {
        const last = [1, 2, 3].map((producer) => ({
          producer,
          what: "abort",
          records: 0,
          codec: "none" as const,
        }));
        const steps = ended ? [...given, ...last] : given;
        // The log as a broker would have it, and its index of aborted transactions.
        const batches: (GivenBatch & { base: number; last: number })[] = [];
        const open = new Map<number, number[]>();
        const index: { producerId: number; firstOffset: number; lastOffset: number }[] = [];
        const visible = new Set<number>();
        let offset = 0;

        for (const { producer, what, records, codec } of steps) {
          const base = offset;
          if (what === "abort" || what === "commit") {
            const written = open.get(producer);
            if (written === undefined) continue;
            if (what === "commit") for (const one of written) visible.add(one);
            else index.push({ producerId: producer, firstOffset: written[0]!, lastOffset: base });
            open.delete(producer);
            batches.push({ ...marker(base, producer, what), base, last: base });
            offset++;
            continue;
          }
          const offsets = Array.from({ length: records }, (_, i) => base + i);
          const batch = {
            records: offsets.map((offset) => ({ offset })),
            base,
            last: base + records - 1,
            codec,
          };
          if (what === "write") {
            open.set(producer, [...(open.get(producer) ?? []), ...offsets]);
            batches.push({ ...batch, producer, flags: transactional });
          } else {
            // An idempotent producer without a transaction has an id too.
            for (const one of offsets) visible.add(one);
            batches.push({ ...batch, producer });
          }
          offset += records;
        }
        // A reader gets nothing from the first open transaction on.
        const stable = Math.min(offset, ...[...open.values()].map(([first]) => first!));
        const from = Math.min(wanted, stable);
        const response = batches.filter(({ base, last }) => last >= from && base < stable);
        const aborted = index
          .filter(({ lastOffset, firstOffset }) => lastOffset >= from && firstOffset < stable)
          .map(({ producerId, firstOffset }) =>
            asBigInt
              ? { producerId: BigInt(producerId), firstOffset: BigInt(firstOffset) }
              : { producerId, firstOffset },
          );
        const result = await decoded(response, { from, aborted: aborted.toReversed() });
        const expected = [...visible].filter((one) => one >= from && one < stable).sort((a, b) => a - b);
        assert.deepEqual(offsetsOf(result), expected);
        assert.equal(result.next, stable);
        if (aborted.length > 1 && expected.length > 1) telling++;
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(telling > 30, `${telling} logs with aborted transactions among what is seen`);
});

test("a transaction that is aborted twice by one producer, with one committed between", async () => {
  const written = (offset: number): GivenBatch => ({
    records: [{ offset }],
    producer: 4,
    flags: transactional,
  });
  const batches = [
    written(10),
    marker(11, 4, "abort"),
    written(12),
    marker(13, 4, "commit"),
    written(14),
    marker(15, 4, "abort"),
    written(16),
    marker(17, 4, "commit"),
  ];
  const aborted = [
    { producerId: 4, firstOffset: 10 },
    { producerId: 4, firstOffset: 14 },
  ];
  assert.deepEqual(offsetsOf(await decoded(batches, { from: 10, aborted })), [12, 16]);
  // The reader may begin within a transaction, whose first offset is then below what it asked for.
  assert.deepEqual(offsetsOf(await decoded(batches.slice(1), { from: 11, aborted })), [12, 16]);
  assert.deepEqual(offsetsOf(await decoded(batches, { from: 10 })), [10, 12, 14, 16]);
});

test("damage is found: every flipped bit of what the checksum covers, and of the checksum", async () => {
  for (const codec of codecs) {
    const whole = batchBytes({
      records: [
        { offset: 40, key: value("k"), value: value("some value"), headers: [["h", null]] },
        { offset: 41, value: value("some value") },
      ],
      codec,
    });
    for (let bit = 17 * 8; bit < whole.length * 8; bit++) {
      const damaged = Buffer.from(whole);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      await assert.rejects(
        decoded([damaged]),
        refusal(
          "retry",
          /^orders\/3: the record batch at offset 40 is damaged: its checksum does not match$/,
        ),
      );
    }
  }
});

test("damage that the checksum does not cover is an error, or the result is one that could be", async () => {
  const whole = batchBytes({ records: [{ offset: 40, value: value("some value") }] });
  for (let bit = 0; bit < 17 * 8; bit++) {
    const damaged = Buffer.from(whole);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const result = await decoded([damaged]).catch((error: unknown) => error);
    if (result instanceof DriverError) continue;
    const { records, next, incomplete } = result as DecodedRecords;
    if (records.length === 0) assert.ok(incomplete > whole.length && next === 0, "it seems to be cut off");
    else assert.deepEqual(records.value(0), value("some value"));
    // Of the offset and the leader's epoch.
    if (records.length > 0) assert.ok(bit < 64 || (bit >= 96 && bit < 128));
  }
});

test("content that is wrong under a right checksum is an error, or is read; never a crash, and soon", async () => {
  const good = batchBytes({
    records: Array.from({ length: 5 }, (_, i) => ({
      offset: i,
      key: value(`k${i}`),
      value: Buffer.alloc(i * 40, "v"),
      headers: [["name", value("content")]] as Headers,
      time: i * 100,
    })),
  });
  const edit = fc.tuple(
    fc.integer({ min: 21, max: good.length - 1 }),
    fc.constantFrom(0, 1, 0x7f, 0x80, 0xff),
  );
  const edits = fc.array(
    fc.oneof(
      edit,
      fc.tuple(
        edit.map(([at]) => at),
        fc.nat(255),
      ),
    ),
    { minLength: 1, maxLength: 4 },
  );
  const seen = { read: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(edits, fc.nat(30), async (edits, cut) => {
      const wrong = Buffer.from(good.subarray(0, good.length - cut));
      for (const [at, byte] of edits) if (at < wrong.length) wrong[at] = byte;
      wrong.writeInt32BE(wrong.length - 12, 8);
      const result = await decoded([withChecksum(wrong)]).catch((error: unknown) => error);
      if (result instanceof Error) {
        assert.ok(result instanceof DriverError, result.stack);
        assert.match(result.message, /^orders\/3: the record batch at offset 0 /);
        seen.refused++;
        return;
      }
      seen.read++;
      const { records } = result as DecodedRecords;
      // All that is given out lies within the batch.
      for (const { offset, key, value, headers } of listed(records)) {
        assert.ok(offset >= 0 && (key?.length ?? 0) + (value?.length ?? 0) <= wrong.length);
        for (const [, content] of headers)
          assert.ok(((content as Buffer | null)?.length ?? 0) <= wrong.length);
      }
    }),
    { numRuns: 3_000 },
  );
  assert.ok(seen.read > 50 && seen.refused > 500, JSON.stringify(seen));
});

test("records that break the format are an error that says which and how", async () => {
  const one = recordBytes({ offset: 0, value: value("v") }, 0);
  // Length, attributes, timestamp delta, offset delta, and what a case has.
  const made = (...parts: (number | string)[]) => {
    const body = Buffer.concat(
      [0, 0, 0, ...parts].map((part) => (typeof part === "string" ? Buffer.from(part, "hex") : varint(part))),
    );
    return Buffer.concat([varint(body.length), body]);
  };
  const endlessTimestamp = Buffer.from(`1e 00 ${"80".repeat(10)} 00 01 01 00`.replaceAll(" ", ""), "hex");
  const nowhere = /the parts of record 1 of 1 do not fill its length/;
  const cases: [string, GivenBatch, RegExp][] = [
    [
      "more records than bytes",
      { records: [], count: 2 ** 31 - 1, content: one },
      /2147483647 records in \d+ bytes/,
    ],
    [
      "fewer than said",
      { records: [], count: 2, content: Buffer.concat([one, Buffer.alloc(20)]) },
      /record 2 of 2/,
    ],
    [
      "bytes after the last",
      { records: [], count: 1, content: Buffer.concat([one, one]) },
      /bytes follow its last/,
    ],
    ["a negative count", { records: [], count: -1 }, /negative number of records/],
    ["a last offset below the first", { records: [{ offset: 5 }], last: 4 }, /negative number of records/],
    [
      "an offset beyond the last",
      { records: [{ offset: 5 }, { offset: 9 }], last: 8 },
      /not between its neighbours/,
    ],
    ["an offset twice", { records: [{ offset: 5 }, { offset: 5 }], last: 8 }, /record 2 of 2 has an offset/],
    [
      "an offset below the first",
      { records: [{ offset: 4 }], base: 5, last: 8 },
      /not between its neighbours/,
    ],
    ["a key of length −2", { records: [], count: 1, content: made(-2, -1, 0) }, nowhere],
    ["a value of length −2", { records: [], count: 1, content: made(-1, -2, 0) }, nowhere],
    ["a key too long", { records: [], count: 1, content: made(2 ** 31 - 1, -1, 0) }, nowhere],
    ["a value too long", { records: [], count: 1, content: made(-1, 2 ** 31 - 1, 0) }, nowhere],
    ["a length that does not stop", { records: [], count: 1, content: made("ffffffffff", -1, 0) }, nowhere],
    ["headers beyond number", { records: [], count: 1, content: made(-1, -1, 2 ** 31 - 1) }, nowhere],
    ["−1 headers", { records: [], count: 1, content: made(-1, -1, -1) }, nowhere],
    ["a header without a name", { records: [], count: 1, content: made(-1, -1, 1, -1, -1) }, nowhere],
    ["a header's name of length −1", { records: [], count: 1, content: made(-1, -1, 1, -1) }, nowhere],
    ["a header's value of length −2", { records: [], count: 1, content: made(-1, -1, 1, 0, -2) }, nowhere],
    ["a header too long", { records: [], count: 1, content: made(-1, -1, 1, 2 ** 30, -1) }, nowhere],
    ["a record of length −1", { records: [], count: 1, content: Buffer.concat([varint(-1), one]) }, nowhere],
    ["a record beyond the batch", { records: [], count: 1, content: one.subarray(0, -1) }, nowhere],
    ["a timestamp that does not stop", { records: [], count: 1, content: endlessTimestamp }, nowhere],
    [
      "a control record without a type",
      { records: [{ offset: 0, key: Buffer.of(0, 0) }], flags: control },
      /no type/,
    ],
  ];
  for (const [what, batch, message] of cases) {
    await assert.rejects(
      decoded([{ last: 100, ...batch }], { aborted: [] }),
      (error: unknown) => refusal("invalid", message)(error),
      what,
    );
  }
  await assert.rejects(
    decoded([{ records: [{ offset: 0 }], base: 2 ** 60, last: 2 ** 60 + 4 }]),
    refusal("invalid", /beyond 2\^53/),
  );
  const behind = await decoded([{ records: [{ offset: 5 }] }, { records: [{ offset: 5 }] }]);
  assert.deepEqual(offsetsOf(behind), [5]);
  await assert.rejects(decoded([{ records: [{ offset: 0 }], flags: 6 }]), refusal("unsupported", /codec 6/));
  const tiny = batchBytes({ records: [] });
  tiny.writeInt32BE(48, 8);
  await assert.rejects(decoded([tiny]), refusal("retry", /60 bytes are less than its header/));
});

test("a compressed batch that is damaged inside, or too large, is an error", async () => {
  const batch = { records: [{ offset: 3, value: Buffer.alloc(100_000) }] };
  for (const codec of codecs) {
    if (codec === "none") continue;
    const content = recordBytes(batch.records[0]!, 3);
    const good = compressTask(codec, content, { snappy: "xerial" }).run();
    const cut = { ...batch, codec, payload: good.subarray(0, -3) };
    await assert.rejects(decoded([cut]), refusal("invalid", /offset 3 cannot be decompressed/), codec);
    const bomb = { ...batch, codec };
    await assert.rejects(
      decoded([bomb], { maxBytes: content.length - 1 }),
      refusal("unsupported", /more than/),
    );
    assert.equal((await decoded([bomb], { maxBytes: content.length })).records.length, 1);
    // Those beyond the threshold go another way.
    const large = { records: [{ offset: 3, value: noise(1) }], codec };
    await assert.rejects(decoded([large], { maxBytes: 1_000 }), refusal("unsupported", /more than/), codec);
  }
});

test("a batch that cannot be read ends the result before it, and is the error of the next fetch", async () => {
  const damaged = batchBytes({ records: [{ offset: 2, value: value("x") }] });
  damaged[65]! ^= 1;
  const wrong: GivenBatch = { records: [{ offset: 2 }, { offset: 3 }], count: 3 };
  const bomb: GivenBatch = { records: [{ offset: 2, value: Buffer.alloc(10_000) }], codec: "zstd" };
  for (const bad of [damaged, wrong, bomb]) {
    const good: GivenBatch = { records: [{ offset: 0, value: value("a") }, { offset: 1 }] };
    const after: GivenBatch = { records: [{ offset: 4 }] };
    const result = await decoded([good, bad, after], { maxBytes: 1_000 });
    assert.deepEqual(offsetsOf(result), [0, 1]);
    assert.equal(result.next, 2);
    await assert.rejects(decoded([bad, after], { from: 2, maxBytes: 1_000 }), DriverError);
    // An offset within the batch that precedes it.
    assert.equal((await decoded([good, bad], { from: 1, maxBytes: 1_000 })).next, 2);
  }
});

test("when much was decompressed the rest is left to the next fetch", async () => {
  const batches = Array.from(
    { length: 12 },
    (_, offset): GivenBatch => ({ records: [{ offset, value: Buffer.alloc(4_000_000) }], codec: "zstd" }),
  );
  const { records, next } = await decoded(batches);
  assert.equal(records.length, next);
  assert.ok(next >= 8 && next < 12, `${next} batches`);
  assert.equal((await decoded(batches.slice(next), { from: next })).next, 12);
});

test("large compressed batches are decompressed off the event loop, in order", async () => {
  const batches: GivenBatch[] = [
    { records: [{ offset: 0, value: value("first") }], codec: "lz4" },
    { records: [{ offset: 1, value: noise(2) }], codec: "zstd" },
    { records: [{ offset: 2, value: value("uncompressed") }] },
    { records: [{ offset: 3, value: noise(3) }], codec: "gzip" },
    { records: [{ offset: 4, value: value("last") }], codec: "snappy" },
  ];
  let offloaded = 0;
  const work: Work = {
    run: (task) => {
      offloaded++;
      return task.offload();
    },
  };
  const result = await decoded(batches, { work });
  assert.equal(offloaded, 2);
  assert.deepEqual(
    listed(result.records).map(({ value }) => value),
    batches.map(({ records }) => records[0]!.value),
  );
  const small = decodeRecords(batchBytes(batches[0]!), { ...options, work });
  assert.ok(!(small instanceof Promise));
  await assert.rejects(
    decoded([batches[1]!], { work: { run: () => Promise.reject(new Error("no threads")) } }),
    /no threads/,
  );
});

test("what is below the offset that was asked for is not decompressed", async () => {
  const skipped: GivenBatch = { records: [{ offset: 0 }], codec: "zstd", payload: Buffer.of(1, 2, 3) };
  const result = await decoded([skipped, { records: [{ offset: 1 }] }], { from: 1 });
  assert.deepEqual(offsetsOf(result), [1]);
  const aborted = [{ producerId: 8, firstOffset: 0 }];
  const hidden = { ...skipped, producer: 8, flags: transactional };
  assert.deepEqual(offsetsOf(await decoded([hidden, { records: [{ offset: 1 }] }], { aborted })), [1]);
});

test("slices refer to the fetched bytes, unless these would be kept for few of them", async () => {
  const records = Array.from({ length: 100 }, (_, offset) => ({
    offset,
    key: value(`key ${offset}`),
    value: Buffer.alloc(1_000, offset),
    headers: [["h", offset % 2 === 0 ? null : value(`${offset}`)]] as Headers,
  }));
  const batch = batchBytes({ records });
  const large = Buffer.allocUnsafeSlow(400_000);
  batch.copy(large, 1_000);
  const part = large.subarray(1_000, 1_000 + batch.length);
  const { records: many } = await decodeRecords(part, { ...options, from: 40 });
  assert.ok(many.value(0)!.buffer === part.buffer, "most of a batch that is a fourth of the response");
  const small = Array.from({ length: 20 }, (_, offset) =>
    batchBytes({ records: [{ offset, value: noise(offset) }] }),
  );
  const response = Buffer.concat(small);
  const { records: all } = await decodeRecords(response, options);
  assert.ok(all.value(0)!.buffer === response.buffer, "all of many batches");
  const { records: few } = await decodeRecords(part, { ...options, from: 97 });
  assert.ok(few.value(0)!.buffer.byteLength < 4_000, "three records of a hundred");

  // Of several batches, one of them compressed, and one between them that is not visible.
  const compressed = batchBytes({
    records: records.map((record) => ({ ...record, offset: record.offset + 200 })),
    codec: "lz4",
  });
  const hidden = batchBytes({ records: [{ offset: 150 }], producer: 1, flags: transactional });
  const several = Buffer.concat([batch, hidden, compressed, Buffer.alloc(3_000_000)]);
  const { records: mixed } = await decodeRecords(several.subarray(0, several.length - 3_000_000), {
    ...options,
    from: 98,
    aborted: [{ producerId: 1, firstOffset: 150 }],
  });
  assert.equal(mixed.length, 102);
  assert.ok(mixed.value(0)!.buffer === mixed.value(101)!.buffer);
  assert.ok(mixed.value(0)!.buffer.byteLength < 110_000, "a small part of a large response");

  for (const read of [many, few, mixed]) {
    for (const { offset, key, value, headers } of listed(read)) {
      const original = records[offset % 200]!;
      assert.deepEqual([key, value, headers], [original.key, original.value, original.headers]);
    }
  }
});

function refusal(code: string, message: RegExp) {
  return (error: unknown): true => {
    assert.ok(error instanceof DriverError, String((error as Error)?.stack));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.match(error.message, /^orders\/3: the record batch at offset \d+ /);
    return true;
  };
}
