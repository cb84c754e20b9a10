// What the record-batch codec costs: orders encoded to batches of 1,000, or decoded from fetches of four of them with
// each key and value looked at, by ours or by kafkajs' own protocol code. No broker and no network.
//
// node bench/record-batch.ts encode|decode ours|kafkajs [messages] [none|gzip|snappy|lz4|zstd]
import { createRequire } from "node:module";
import { PooledWork } from "../src/component/system.ts";
import { registerCodecs } from "../src/connectors/kafka/drivers/kafkajs/codecs.ts";
import { decodeRecords } from "../src/connectors/kafka/drivers/wire/record-batch/decode.ts";
import {
  encodeRecordBatch,
  stampProducer,
} from "../src/connectors/kafka/drivers/wire/record-batch/encode.ts";
import { Batch, codecs } from "../src/message/batch.ts";
import { Chunk } from "../src/message/chunk.ts";
import { Lane } from "../src/message/lane.ts";
import { noHeaders, type PlainRecord, PlainRecords } from "../src/message/records.ts";
import { orders } from "./orders.ts";
import { stopwatch, type Taken } from "./stopwatch.ts";

/** What one pass over all messages took. */
interface Pass {
  readonly encode: Taken;
  readonly decode: Taken;
  /** Of all keys and values that were looked at. */
  readonly bytes: number;
}

const batchSize = 1_000;
const batchesPerFetch = 4;
const rounds = 12;

const [what, who, countText = "100000", codecText = "none"] = process.argv.slice(2);
const count = Math.max(batchSize, Number(countText));
const codec = codecs.find((name) => name === codecText) ?? usage();
if (!(what === "encode" || what === "decode") || !(who === "ours" || who === "kafkajs")) usage();
if (!Number.isInteger(count)) usage();
const messages: PlainRecord[] = [...orders(count)].map(({ key, value }, i) => ({
  position: i,
  key: Buffer.from(key),
  value: Buffer.from(value),
  headers: noHeaders,
  timestamp: 1_767_225_600_000 + (i >> 4),
}));
const groups: PlainRecord[][] = [];
for (let i = 0; i < count; i += batchSize) groups.push(messages.slice(i, i + batchSize));
const work = new PooledWork();

async function ours(): Promise<Pass> {
  const target = { name: "bench/0" };
  const ledger = { taken() {}, settled() {}, branched() {} };
  const batches = groups.map((group) => {
    const records = new PlainRecords(group);
    const lane = new Lane({
      origin: { source: "bench", target: "bench" },
      epoch: 1,
      ack: "cumulative",
      ledger,
    });
    const chunk = new Chunk(lane, lane, lane.take(records, 0, group.length), group.length, records, 0);
    const batch = new Batch(target, 0);
    for (let i = 0; i < group.length; i++) batch.add(chunk, i);
    return batch;
  });
  const encoding = stopwatch();
  const encoded: Buffer[] = [];
  for (const batch of batches) {
    const bytes = await encodeRecordBatch(batch, 0, batch.length, { codec, now: 0, work });
    stampProducer(bytes, 1, 0, 0);
    encoded.push(bytes);
  }
  const encode = encoding();
  const responses = asResponses(encoded);
  const decoding = stopwatch();
  let looked = 0;
  let from = 0;
  for (const response of responses) {
    const { records, next } = await decodeRecords(response, { topic: "bench", partition: 0, from, work });
    for (let i = 0; i < records.length; i++) looked += records.key(i)!.length + records.value(i)!.length;
    from = next;
  }
  const decode = decoding();
  if (from !== count) throw new Error(`decoded up to ${from} of ${count}`);
  return { encode, decode, bytes: looked };
}

async function kafkajs(): Promise<Pass> {
  const require = createRequire(import.meta.url);
  const protocol = "kafkajs/src/protocol";
  const { RecordBatch } = require(`${protocol}/recordBatch/v0`) as {
    RecordBatch(batch: object): Promise<{ readonly buffer: Buffer }>;
  };
  const Record = require(`${protocol}/recordBatch/record/v0`) as (record: object) => object;
  const Decoder = require(`${protocol}/decoder`) as new (bytes: Buffer) => { canReadInt32(): boolean };
  const decodeBatch = require(`${protocol}/recordBatch/v0/decoder`) as (
    decoder: object,
  ) => Promise<{ records: { key: Buffer; value: Buffer }[] }>;
  registerCodecs(work);
  const encoding = stopwatch();
  const encoded: Buffer[] = [];
  for (const group of groups) {
    const firstTimestamp = group[0]!.timestamp;
    const batch = await RecordBatch({
      compression: codecs.indexOf(codec),
      firstTimestamp,
      maxTimestamp: group.at(-1)!.timestamp,
      lastOffsetDelta: group.length - 1,
      records: group.map(({ key, value, timestamp }, offsetDelta) =>
        Record({ offsetDelta, timestampDelta: timestamp - firstTimestamp, key, value }),
      ),
    });
    encoded.push(batch.buffer);
  }
  const encode = encoding();
  const responses = asResponses(encoded);
  const decoding = stopwatch();
  let looked = 0;
  for (const response of responses) {
    const decoder = new Decoder(response);
    while (decoder.canReadInt32()) {
      const { records } = await decodeBatch(decoder);
      for (const { key, value } of records) looked += key.length + value.length;
    }
  }
  return { encode, decode: decoding(), bytes: looked };
}

function usage(): never {
  console.error(
    "usage: node bench/record-batch.ts encode|decode ours|kafkajs [messages] [none|gzip|snappy|lz4|zstd]",
  );
  process.exit(2);
}

/** A few batches to a response, with the offsets that a broker gives. */
function asResponses(encoded: readonly Buffer[]): Buffer[] {
  const responses: Buffer[] = [];
  for (let i = 0; i < encoded.length; i += batchesPerFetch) {
    const part = encoded.slice(i, i + batchesPerFetch);
    for (const [j, bytes] of part.entries()) bytes.writeBigInt64BE(BigInt((i + j) * batchSize), 0);
    responses.push(Buffer.concat(part));
  }
  return responses;
}

const expected = messages.reduce((sum, { key, value }) => sum + key!.length + value!.length, 0);
let [took, cpu] = [0, 0];
for (let round = -2; round < rounds; round++) {
  const pass = await (who === "ours" ? ours() : kafkajs());
  if (pass.bytes !== expected) throw new Error(`looked at ${pass.bytes} bytes of ${expected}`);
  // The first two warm up.
  if (round < 0) continue;
  took += pass[what].took;
  cpu += pass[what].cpu;
}
console.log(
  JSON.stringify({
    throughput: (rounds * count) / (took / 1_000),
    cpu: cpu / (rounds * count),
    peakMiB: process.resourceUsage().maxRSS / 1_024,
  }),
);
