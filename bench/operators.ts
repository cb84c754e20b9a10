// What a message costs in each operator, without broker, pipeline or credit: chunks of 500 orders go in one after
// another, and what comes out is settled at once, as a sink would settle it. What that frame costs by itself is taken
// off; a chain of operators that do nothing, and dedup by the number of different ids, are measured the same way.
//
// node bench/operators.ts each|chain|keys [messages]
import { zstdCompressSync } from "node:zlib";
import { type Observable, Subject } from "rxjs";
import type { Flowing, Operator, OperatorContext } from "../src/component/operator.ts";
import { Batch } from "../src/message/batch.ts";
import { Chunk } from "../src/message/chunk.ts";
import { Lane } from "../src/message/lane.ts";
import { Outcome } from "../src/message/outcome.ts";
import { noHeaders, type PlainRecord, PlainRecords, type Records } from "../src/message/records.ts";
import { batch } from "../src/operators/batch.ts";
import { compress } from "../src/operators/compress.ts";
import { decode } from "../src/operators/decode.ts";
import { decompress } from "../src/operators/decompress.ts";
import { dedup } from "../src/operators/dedup.ts";
import { encode } from "../src/operators/encode.ts";
import { fanOut } from "../src/operators/fan-out.ts";
import { filter } from "../src/operators/filter.ts";
import { key } from "../src/operators/key.ts";
import { map, mapAsync } from "../src/operators/map.ts";
import { reject } from "../src/operators/reject.ts";
import { route } from "../src/operators/route.ts";
import { stage } from "../src/operators/stage.ts";
import { validate } from "../src/operators/validate.ts";
import { order } from "../topologies/orders.schema.ts";
import { benchContext } from "./context.ts";
import { orders } from "./orders.ts";

const chunkLength = 500;
/** Of the measured rounds the best counts: whatever disturbs makes a round longer, never shorter. */
const rounds = 7;

interface Value {
  readonly id: string;
  readonly customer: string;
  readonly amount: number;
}

interface Frame {
  readonly records: Records;
  /** What `decode` would have made of each. */
  readonly values: readonly unknown[] | undefined;
}

type Step = (input: Observable<Flowing>, context: OperatorContext) => Observable<Flowing>;

const step =
  (operator: Operator<never, unknown>): Step =>
  (input, context) =>
    operator.build(context)(input);

const target = { name: "bench/0" };

function operatorContext(): OperatorContext {
  return {
    ...benchContext(),
    reject: (chunk, index) => chunk.settle(index, Outcome.deadLettered),
    held() {},
    waiting() {},
    opened() {},
    closed() {},
    destinationOf: () => target,
    bytesOnly: true,
    busy: () => () => {},
    keeps() {},
    fail(error) {
      throw error;
    },
  };
}

/** Sends every message of the frames through the step; returns what that took, ms. */
async function pass(frames: readonly Frame[], steps: readonly Step[]): Promise<number> {
  const input = new Subject<Flowing>();
  const context = operatorContext();
  const total = frames.reduce((sum, { records }) => sum + records.length, 0);
  let settled = 0;
  let done!: () => void;
  const ended = new Promise<void>((resolve) => {
    done = resolve;
  });
  const ledger = {
    taken() {},
    branched() {},
    settled() {
      if (++settled === total) done();
    },
  };
  const output = steps.reduce<Observable<Flowing>>((stream, next) => next(stream, context), input);
  output.subscribe((item) => {
    if (item instanceof Batch) item.settleAll(Outcome.delivered);
    else if (item instanceof Chunk) {
      for (let i = 0; i < item.length; i++) if (item.state[i] === 1) item.settle(i, Outcome.delivered);
    }
  });
  const lane = new Lane({
    origin: { source: "bench", target: "bench" },
    epoch: 1,
    ack: "cumulative",
    ledger,
  });
  const chunks = frames.map(({ records, values }) => {
    const first = lane.take(records, 0, records.length);
    const chunk = new Chunk(lane, lane, first, records.length, records, 0);
    if (values !== undefined) chunk.values = [...values];
    return chunk;
  });
  globalThis.gc?.();
  const from = performance.now();
  for (const chunk of chunks) input.next(chunk);
  input.next({ kind: "flush", cut: 0 });
  await ended;
  const took = performance.now() - from;
  input.complete();
  return took;
}

/** Nanoseconds a message, at best. */
async function nanos(frames: () => readonly Frame[], steps: readonly Step[]): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = -2; round < rounds; round++) {
    const given = frames();
    const took = await pass(given, steps);
    const count = given.reduce((sum, { records }) => sum + records.length, 0);
    // The first two warm up.
    if (round >= 0) best = Math.min(best, (took * 1e6) / count);
  }
  return best;
}

function framesOf(messages: readonly PlainRecord[], decoded: boolean): Frame[] {
  const frames: Frame[] = [];
  for (let i = 0; i < messages.length; i += chunkLength) {
    const part = messages.slice(i, i + chunkLength);
    frames.push({
      records: new PlainRecords(part),
      values: decoded ? part.map(({ value }) => JSON.parse(value!.toString()) as unknown) : undefined,
    });
  }
  return frames;
}

function records(count: number, change: (value: Buffer) => Buffer = (value) => value): PlainRecord[] {
  return [...orders(count)].map(({ key: customer, value }, position) => ({
    position,
    key: Buffer.from(customer),
    value: change(Buffer.from(value)),
    headers: noHeaders,
    timestamp: 1_767_225_600_000 + position,
  }));
}

/** Both branches of a route, or of a stream that is used twice, in one stream. */
const parted =
  (part: (context: OperatorContext) => (chunk: Chunk) => readonly (Chunk | undefined)[]): Step =>
  (input, context) => {
    const output = new Subject<Flowing>();
    const branches = part(context);
    input.subscribe((item) => {
      if (!(item instanceof Chunk)) return output.next(item);
      for (const chunk of branches(item)) if (chunk !== undefined) output.next(chunk);
    });
    return output;
  };

async function each(count: number): Promise<Record<string, number>> {
  const plain = records(count);
  const raw = framesOf(plain, false);
  const decoded = framesOf(plain, true);
  const zipped = framesOf(
    records(count, (value) => zstdCompressSync(value)),
    false,
  );
  const customer = (o: Value) => o.customer;
  const halves = route<Value>({ big: (o) => o.amount > 500, small: () => true });
  const all: readonly [string, readonly Frame[], Step][] = [
    ["batch, 1,000 messages", decoded, step(batch({ count: 1_000 }))],
    ["compress, names the codec", decoded, step(compress("zstd"))],
    ["decode json", raw, step(decode("json"))],
    ["decode text", raw, step(decode("text"))],
    ["decompress zstd, one by one", zipped, step(decompress({ codec: "zstd" }))],
    ["dedup, new ids", decoded, step(dedup<Value>({ id: (o) => o.id, capacity: 100_000 }))],
    ["encode json", decoded, step(encode("json"))],
    ["fan-out, 2 branches", decoded, parted(() => (chunk) => fanOut(chunk, 2))],
    ["filter", decoded, step(filter<Value>((o) => o.amount >= 0))],
    ["key, function", decoded, step(key<Value>(customer))],
    ["key, pointer", decoded, step(key<Value>("/customer"))],
    ["map", decoded, step(map<Value, unknown>((o) => ({ id: o.id })))],
    ["mapAsync, resolves at once", decoded, step(mapAsync<Value, unknown>(async (o) => ({ id: o.id })))],
    ["reject, none", decoded, step(reject<Value>((o) => o.amount < 0, "negative"))],
    ["route, 2 branches", decoded, parted((context) => halves.build(context))],
    ["stage, passes on", decoded, step(stage<Value, Value>((stream) => stream))],
    ["validate, orders", decoded, step(validate(order))],
  ];
  const [bare, bareDecoded] = [await nanos(() => raw, []), await nanos(() => decoded, [])];
  const found: Record<string, number> = {};
  for (const [name, frames, operator] of all) {
    found[name] = (await nanos(() => frames, [operator])) - (frames === decoded ? bareDecoded : bare);
  }
  return found;
}

/** What each of so many operators adds that call a function of the author's and change nothing. */
async function chain(count: number): Promise<Record<string, number>> {
  const decoded = framesOf(records(count), true);
  const nothing = step(filter<Value>(() => true));
  const bare = await nanos(() => decoded, []);
  const found: Record<string, number> = {};
  for (const length of [1, 2, 5, 10, 20]) {
    const took = await nanos(() => decoded, new Array<Step>(length).fill(nothing));
    found[`${length} operators, each`] = (took - bare) / length;
  }
  return found;
}

/** Every id once, and then every id again, in two orders that have nothing to do with each other. */
async function keys(): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const count of [1_000, 10_000, 100_000, 1_000_000, 10_000_000]) {
    let best = Number.POSITIVE_INFINITY;
    // Small ones are over before a clock has seen much of them.
    const passes = Math.max(1, Math.min(200, Math.round(2_000_000 / count)));
    for (let round = 0; round < passes; round++) {
      best = Math.min(best, (await idsPass(count)) / (2 * count));
    }
    found[`dedup, ${count.toLocaleString("en")} ids`] = best * 1e6;
  }
  return found;
}

/** A pass in parts, so that ten million messages need not be there at once; returns ms. */
async function idsPass(count: number): Promise<number> {
  const part = Math.min(count, 100_000);
  const input = new Subject<Flowing>();
  const context = operatorContext();
  const operator = dedup<Value>({ id: (o) => o.id, capacity: count });
  step(operator)(input, context).subscribe((item) => {
    if (!(item instanceof Chunk)) return;
    for (let i = 0; i < item.length; i++) if (item.state[i] === 1) item.settle(i, Outcome.delivered);
  });
  const ledger = { taken() {}, branched() {}, settled() {} };
  const lane = new Lane({
    origin: { source: "bench", target: "bench" },
    epoch: 1,
    ack: "cumulative",
    ledger,
  });
  const blank: PlainRecord = { position: 0, key: null, value: null, headers: noHeaders, timestamp: 0 };
  let took = 0;
  // Primes that divide no power of ten: each walks through all numbers below it once.
  for (const stride of [7_368_787, 49_979_687]) {
    for (let from = 0; from < count; from += part) {
      const chunks: Chunk[] = [];
      for (let i = from; i < from + part; i += chunkLength) {
        const length = Math.min(chunkLength, from + part - i);
        const positions = Array.from({ length }, (_, j) => ({ ...blank, position: i + j }));
        const records = new PlainRecords(positions);
        const chunk = new Chunk(lane, lane, lane.take(records, 0, length), length, records, 0);
        chunk.values = positions.map(({ position }) => ({ id: `ord-${(position * stride) % count}` }));
        chunks.push(chunk);
      }
      const start = performance.now();
      for (const chunk of chunks) input.next(chunk);
      took += performance.now() - start;
      lane.readCheckpoint();
    }
  }
  input.complete();
  return took;
}

const [what, countText = "100000"] = process.argv.slice(2);
const modes: Readonly<Record<string, (count: number) => Promise<Record<string, number>>>> = {
  each,
  chain,
  keys,
};
const mode = modes[what ?? ""];
if (mode === undefined) {
  console.error("usage: node bench/operators.ts each|chain|keys [messages]");
  process.exit(2);
}
console.log(JSON.stringify(await mode(Number(countText))));
