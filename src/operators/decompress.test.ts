import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { type Observable, Subject, tap } from "rxjs";
import { compressTask, offloadAbove } from "../component/codec.ts";
import type { Task, Work } from "../component/context.ts";
import type { Flowing } from "../component/operator.ts";
import { encodePayloads } from "../component/payloads.ts";
import { Batch, type Codec } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { encodeFrame } from "../message/frame.ts";
import { Outcome } from "../message/outcome.ts";
import { type Headers, PlainRecords } from "../message/records.ts";
import { settlePromises } from "../testing/clock.ts";
import { seededRandom } from "../testing/context.ts";
import { type GivenMessage, OperatorBed } from "../testing/operator-bed.ts";
import { compress } from "./compress.ts";
import { decode } from "./decode.ts";
import { type DecompressOptions, decompress } from "./decompress.ts";

const work = { run: async <T>(task: { run(): T }) => task.run() };
const codecs = ["gzip", "snappy", "lz4", "zstd"] as const;
const encoded = (codec: string, value: Buffer, more: Headers = []): GivenMessage => ({
  value,
  headers: [...more, ["content-encoding", codec]],
});

test("compress names the codec on whatever carries messages to the sink", () => {
  const bed = new OperatorBed(compress({ codec: "lz4", framing: "batch" }));
  const chunk = bed.send([{ value: "a" }]);
  assert.deepEqual([chunk.codec, chunk.framing], ["lz4", "batch"]);
  assert.equal(compress("lzma" as Codec).problems[0]?.code, "option-invalid");
});

test("each payload is restored by its header, which goes; others pass; order holds across large ones", async () => {
  const large = Buffer.alloc(offloadAbove * 40, "large payload ");
  const bed = new OperatorBed(decompress());
  bed.send([
    { value: "plain", headers: [["h", "1"]] },
    ...codecs.map((codec) => encoded(codec, compressTask(codec, Buffer.from(codec)).run(), [["h", "2"]])),
  ]);
  bed.send([encoded("snappy", compressTask("snappy", large).run())]);
  bed.send([{ value: "last" }]);
  bed.flush();
  await bed.context.clock.run(0);
  assert.deepEqual(
    bed.emitted().map(({ payload }) => payload),
    ["plain", ...codecs, large.toString(), "last"],
  );
  const first = bed.output[0] as Chunk;
  assert.deepEqual(first.headers(1), [["h", "2"]]);
  assert.equal(bed.output.at(-1)! instanceof Chunk, false, "the flush came last");
});

test("damaged, unknown and growing payloads are rejected alone, each with its reason", async () => {
  const good = gzipSync("good");
  const bed = new OperatorBed(decompress({ maxBytes: "1MiB", maxRatio: 100 }));
  bed.send([
    encoded("gzip", good),
    encoded("gzip", good.subarray(0, -3)),
    encoded("br", good),
    encoded("gzip", gzipSync(Buffer.alloc(5 * 2 ** 20))),
    encoded("zstd", Buffer.from("not zstd")),
    encoded("gzip", good, [["content-type", "application/vnd.millrace.frame"]]),
    encoded("gzip", good),
  ]);
  await bed.context.clock.run(0);
  assert.deepEqual(
    bed.emitted().map(({ position, payload }) => [position, payload]),
    [
      [0, "good"],
      [6, "good"],
    ],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.code, failure.class]).sort(),
    [
      [1, "compressed-invalid", "business"],
      [2, "codec-unknown", "business"],
      [3, "decompressed-too-large", "business"],
      [4, "compressed-invalid", "business"],
      [5, "compressed-invalid", "business"],
    ],
  );
});

/** What a sink would write of these messages. */
async function written(messages: readonly GivenMessage[], codec: Codec, framing: "record" | "batch") {
  const bed = new OperatorBed(compress({ codec, framing }));
  const chunk = bed.send(messages);
  const batch = new Batch({ name: "out" }, 0);
  batch.codec = codec;
  batch.framing = framing;
  for (let i = 0; i < chunk.length; i++) batch.add(chunk, i);
  return encodePayloads(batch, work);
}

const message = fc.record({
  key: fc.option(fc.uint8Array({ maxLength: 5 }).map((bytes) => Buffer.from(bytes))),
  value: fc.option(fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))),
  timestamp: fc.nat(),
});

test("property: what is compressed, one by one or as a framed batch, comes back as it was, and settles as one", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { minLength: 1, maxLength: 8 }),
      fc.constantFrom<Codec>("none", ...codecs),
      fc.constantFrom("record" as const, "batch" as const),
      async (messages, codec, framing) => {
        const payloads = await written(messages, codec, framing);
        const bed = new OperatorBed(decompress());
        const chunk = bed.send([
          { value: "before" },
          ...payloads.map(({ payload, headers, key, timestamp }) => ({
            value: payload,
            headers,
            key,
            timestamp,
          })),
          { value: "after" },
        ]);
        await bed.context.clock.run(0);
        const out = bed.output.flatMap((item) =>
          item instanceof Chunk
            ? Array.from({ length: item.length }, (_, i) => i)
                .filter((i) => item.state[i] === 1)
                .map((i) => ({ key: item.key(i), value: item.payload(i), timestamp: item.timestamp(i) }))
            : [],
        );
        assert.equal(out[0]!.value?.toString(), "before");
        assert.equal(out.at(-1)!.value?.toString(), "after");
        assert.deepEqual(
          out.slice(1, -1),
          messages.map(({ key, value, timestamp }) => ({ key, value, timestamp })),
        );
        bed.deliver();
        assert.equal(bed.lane().checkpoint, chunk.length);
      },
    ),
  );
});

test("property: no damage crashes it, passes the limit, or loses a neighbour", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...codecs),
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      fc.boolean(),
      async (codec, bytes, at, flip, cut) => {
        const good = compressTask(codec, Buffer.from(bytes)).run();
        const bad = cut ? good.subarray(0, at % good.length) : Buffer.from(good);
        if (!cut) bad[at % good.length]! ^= flip;
        const bed = new OperatorBed(decompress({ maxBytes: 4_096 }));
        bed.send([encoded(codec, good), encoded(codec, bad), encoded(codec, good)]);
        await bed.context.clock.run(0);
        const positions = bed.emitted().map(({ position }) => position);
        assert.ok(positions.includes(0) && positions.includes(2));
        assert.equal(positions.length + bed.rejected.length, 3);
        for (const item of bed.output) {
          if (item instanceof Chunk)
            for (let i = 0; i < item.length; i++)
              if (item.state[i] === 1) assert.ok(item.payload(i)!.length <= 4_096);
        }
        assert.deepEqual(bed.failures, []);
      },
    ),
  );
});

test("a revoked lane's chunk that was being restored goes nowhere", async () => {
  const bed = new OperatorBed(decompress());
  const incompressible = Buffer.from(Array.from({ length: 80_000 }, () => bed.context.random.next() * 256));
  const payload = gzipSync(incompressible);
  assert.ok(payload.length > offloadAbove);
  bed.send([encoded("gzip", payload)], "a");
  bed.revoke("a");
  bed.send([{ value: "b" }], "b");
  await bed.context.clock.run(0);
  assert.deepEqual(
    bed.emitted().map(({ lane }) => lane),
    ["b"],
  );
});

/** Bytes that no codec makes smaller, so that they go to the thread pool. */
function noise(length: number, seed = 1): Buffer {
  const random = seededRandom(seed);
  return Buffer.from(Array.from({ length }, () => random.next() * 256));
}

const frameHeader: Headers[number] = ["content-type", "application/vnd.millrace.frame"];
const large = encoded("snappy", compressTask("snappy", noise(offloadAbove + 1)).run());
const kinds = (bed: OperatorBed) => bed.output.map((item) => ("kind" in item ? item.kind : "messages"));

function frameOf(messages: readonly GivenMessage[]): Buffer {
  return encodeFrame({
    length: messages.length,
    key: (entry) => messages[entry]!.key ?? null,
    payload: (entry) => {
      const { value } = messages[entry]!;
      return typeof value === "string" ? Buffer.from(value) : value;
    },
    headers: (entry) => messages[entry]!.headers ?? [],
    timestamp: (entry) => messages[entry]!.timestamp ?? 0,
  });
}

test("small values are restored before the call returns, and an untouched chunk is passed on itself", () => {
  const bed = new OperatorBed(decompress());
  bed.send([encoded("gzip", gzipSync("small"))]);
  assert.deepEqual(
    bed.emitted().map(({ value, payload }) => [value, payload]),
    [[Buffer.from("small"), "small"]],
  );
  const untouched = bed.send([{ value: "plain", headers: [["h", "1"]] }, { value: null }]);
  assert.equal(bed.output[1], untouched);
  assert.equal(untouched.headerColumn, undefined);
  assert.equal(bed.busy, 0);
});

test("what comes after a large value waits for it, in order; a revoke goes past and takes its lane along", async () => {
  const bed = new OperatorBed(decompress());
  const work = new HeldWork();
  Object.assign(bed.context, { work });
  bed.send([{ value: "first" }, large], "a");
  bed.send([large], "b");
  bed.send([{ value: "small" }], "c");
  bed.flush();
  bed.send([{ value: "last" }], "a");
  assert.deepEqual(kinds(bed), []);
  assert.equal(bed.busy, 1);
  assert.equal(work.open, 2, "values of later chunks are restored meanwhile");

  bed.revoke("b");
  assert.deepEqual(kinds(bed), ["revoke"]);
  await work.finish(1);
  assert.deepEqual(kinds(bed), ["revoke"], "what was restored for a lane that is gone goes nowhere");
  await work.finish(0);
  assert.deepEqual(kinds(bed), ["revoke", "messages", "messages", "flush", "messages"]);
  assert.deepEqual(
    bed.emitted().map(({ lane, position }) => `${lane}${position}`),
    ["a0", "a1", "c0", "a2"],
  );
  assert.equal(bed.busy, 0);
});

test("a lane that is gone holds up nobody, however long its values take", async () => {
  const bed = new OperatorBed(decompress());
  const work = new HeldWork();
  Object.assign(bed.context, { work });
  bed.send([large], "a");
  bed.send([{ value: "b" }], "b");
  bed.revoke("a");
  assert.deepEqual(kinds(bed), ["messages", "revoke"]);
  assert.equal(bed.busy, 0);
  // Ended, and its revoke held up by someone else.
  bed.send([large], "c");
  bed.lane("c").end();
  await work.finish(1);
  bed.send([large], "c");
  assert.deepEqual(kinds(bed), ["messages", "revoke"]);
});

test("what comes in while something goes out goes out after all of it", () => {
  const frame = { value: frameOf([{ value: "b" }]), headers: [frameHeader] };
  const records = recordsOf([{ value: Buffer.from("a") }, frame, { value: Buffer.from("c") }]);
  const input = new Subject<Flowing>();
  const out: string[] = [];
  const bed = new OperatorBed(decompress());
  decompress()
    .build(bed.context)(input)
    .subscribe((item) => {
      if (!(item instanceof Chunk)) return;
      for (let i = 0; i < item.length; i++) if (item.state[i] === 1) out.push(String(item.payload(i)));
      if (out.length === 1)
        input.next(new Chunk(bed.lane(), bed.lane(), 3, 1, recordsOf([{ value: Buffer.from("d") }]), 0));
    });
  input.next(new Chunk(bed.lane(), bed.lane(), 0, 3, records, 0));
  assert.deepEqual(out, ["a", "b", "c", "d"]);
});

test("a column of bytes does not hide what was restored", () => {
  const bed = new OperatorBed([stageOfValues, decompress()]);
  bed.send([encoded("gzip", gzipSync("restored"))]);
  assert.equal(String((bed.output[0] as Chunk).value(0)), "restored");
});

test("the end of the input waits for what is being restored; an error and an end of interest do not", async () => {
  const bed = new OperatorBed(decompress());
  const work = new HeldWork();
  Object.assign(bed.context, { work });
  bed.send([large]);
  bed.complete();
  assert.equal(bed.completed, false);
  await work.finish(0);
  assert.deepEqual(kinds(bed), ["messages"]);
  assert.equal(bed.completed, true);

  for (const end of [(input: Subject<Flowing>) => input.error(new Error("gone")), undefined]) {
    const input = new Subject<Flowing>();
    let over = 0;
    const out: Flowing[] = [];
    const errors: unknown[] = [];
    const context = { ...bed.context, work: new HeldWork(), busy: () => () => over++ };
    const subscription = decompress()
      .build(context)(input)
      .subscribe({ next: (item) => out.push(item), error: (error) => errors.push(error) });
    const waiting = new OperatorBed(decompress());
    const chunk = waiting.send([{ value: "x" }]);
    const again = new Chunk(chunk.lane, chunk.lane, 0, 1, recordsOf([large]), 0);
    input.next(again);
    if (end === undefined) subscription.unsubscribe();
    else end(input);
    await context.work.finish(0);
    assert.deepEqual(out, []);
    assert.equal(errors.length, end === undefined ? 0 : 1);
    assert.equal(over, 1);
  }
});

test("codings are undone from the last to the first; more than four, and unknown ones, are refused", async () => {
  const bed = new OperatorBed(decompress());
  const twice = compressTask("zstd", gzipSync("twice")).run();
  const five = codecs.reduce<Buffer>((value, codec) => compressTask(codec, value).run(), gzipSync("five"));
  bed.send([
    encoded("gzip, zstd", twice),
    {
      value: twice,
      headers: [
        ["content-encoding", "gzip"],
        ["h", "1"],
        ["content-encoding", "ZSTD"],
      ],
    },
    encoded("gzip, gzip, snappy, lz4, zstd", five),
    encoded("gzip, br", twice),
    encoded("utf-8", Buffer.from("grün")),
    encoded("zstd", compressTask("zstd", twice).run()),
  ]);
  assert.deepEqual(
    bed.emitted().map(({ position, payload }) => [position, payload]),
    [
      [0, "twice"],
      [1, "twice"],
      [4, "grün"],
      [5, twice.toString()],
    ],
  );
  const chunk = bed.output[0] as Chunk;
  assert.deepEqual(
    [0, 1, 4, 5].map((i) => chunk.headers(i)),
    [[], [["h", "1"]], [["content-encoding", "utf-8"]], []],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.code]),
    [
      [2, "codec-unknown"],
      [3, "codec-unknown"],
    ],
  );
  assert.match(bed.rejected[1]!.failure.message, /"br"/);
});

test("a codec of its own counts whatever the headers say, and null stays null", () => {
  const bed = new OperatorBed(decompress({ codec: "gzip" }));
  const value = gzipSync("value");
  bed.send([
    { value },
    encoded("gzip", value),
    encoded("zstd", value),
    encoded("zstd, gzip", value),
    { value: null, headers: [["content-encoding", "gzip"]] },
    { value: "not compressed" },
  ]);
  assert.deepEqual(
    bed.emitted().map(({ position, payload }) => [position, payload]),
    [
      [0, "value"],
      [1, "value"],
      [2, "value"],
      [3, "value"],
      [4, null],
    ],
  );
  const chunk = bed.output[0] as Chunk;
  assert.deepEqual(
    [0, 1, 2, 3].map((i) => chunk.headers(i)),
    [[], [], [["content-encoding", "zstd"]], [["content-encoding", "zstd"]]],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.code]),
    [[5, "compressed-invalid"]],
  );
});

test("a restored value is what decode then reads, and what a dead letter says is what was fetched", () => {
  const bed = new OperatorBed([decompress(), decode("json")]);
  const broken: Buffer = gzipSync('{"id":');
  bed.send([encoded("gzip", gzipSync('{"id":1}')), { value: '{"id":2}' }, encoded("gzip", broken)]);
  const chunk = bed.output[0] as Chunk;
  assert.deepEqual([chunk.value(0), chunk.value(1)], [{ id: 1 }, { id: 2 }]);
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.code]),
    [[2, "json-invalid"]],
  );
  assert.deepEqual(chunk.records.value(2), broken);
});

test("a frame becomes its messages, between those around it, with what each had", () => {
  const children: readonly GivenMessage[] = [
    { key: Buffer.from("k"), value: "one", headers: [["h", 1.5]], timestamp: 11 },
    { value: null, timestamp: 12 },
    { key: Buffer.alloc(0), value: "", timestamp: 13 },
  ];
  const bed = new OperatorBed(decompress());
  bed.send([
    { value: "before" },
    { value: frameOf(children), headers: [frameHeader] },
    encoded("zstd", compressTask("zstd", frameOf(children)).run(), [frameHeader]),
    { value: "between" },
    { value: frameOf(children.slice(0, 1)), headers: [["Content-Type", `${frameHeader[1]}; v=1`]] },
  ]);
  const out = bed.output.flatMap((item) =>
    item instanceof Chunk
      ? [...item.state.keys()].filter((i) => item.state[i] === 1).map((i) => item.message(i))
      : [],
  );
  assert.deepEqual(
    out.map(({ key, value, origin }) => [
      origin.position,
      key?.toString() ?? null,
      value?.toString() ?? null,
    ]),
    [
      [0, null, "before"],
      [1, "k", "one"],
      [1, null, null],
      [1, "", ""],
      [2, "k", "one"],
      [2, null, null],
      [2, "", ""],
      [3, null, "between"],
      [4, "k", "one"],
    ],
  );
  assert.deepEqual([out[1]!.headers, out[1]!.timestamp, out[2]!.timestamp], [[["h", 1.5]], 11, 12]);
});

test("a frame settles once all of its messages have, with the worst of their outcomes", () => {
  const bed = new OperatorBed(decompress());
  bed.send([
    { value: frameOf([{ value: "a" }, { value: "b" }, { value: "c" }]), headers: [frameHeader] },
    { value: "d" },
  ]);
  const [children, rest] = bed.output as [Chunk, Chunk];
  rest.settle(1, Outcome.delivered);
  children.settle(2, Outcome.delivered);
  children.settle(2, Outcome.lost);
  children.settle(0, Outcome.deadLettered);
  assert.equal(bed.outcomes.get("t:0"), undefined);
  assert.equal(bed.lane().checkpoint, 0);
  children.settle(1, Outcome.delivered);
  assert.deepEqual(
    [...bed.outcomes],
    [
      ["t:1", "delivered"],
      ["t:0", "deadLettered"],
    ],
  );
  assert.equal(bed.lane().checkpoint, 2);
});

test("a frame larger than the limit is refused even where it is not compressed", () => {
  const frame = frameOf([{ value: Buffer.alloc(2_000) }]);
  const bed = new OperatorBed(decompress({ maxBytes: 1_000 }));
  bed.send([{ value: frame, headers: [frameHeader] }]);
  assert.deepEqual(
    bed.rejected.map(({ failure }) => failure.code),
    ["decompressed-too-large"],
  );
});

test("a fault of the process stops the run and settles nothing", async () => {
  const bed = new OperatorBed(decompress());
  Object.assign(bed.context, { work: { run: () => Promise.reject(new Error("no threads")) } });
  bed.send([large, { value: "after" }]);
  bed.send([{ value: "later" }]);
  await bed.context.clock.run(0);
  assert.deepEqual(
    bed.failures.map(({ message }) => message),
    ["no threads"],
  );
  assert.deepEqual(bed.output, []);
  assert.deepEqual([...bed.outcomes], []);
  assert.deepEqual(bed.rejected, []);
});

test("many small values of one chunk leave the event loop after a MiB", async () => {
  const bed = new OperatorBed(decompress());
  const work = new HeldWork();
  Object.assign(bed.context, { work });
  const value = compressTask("lz4", Buffer.alloc(300 * 1024)).run();
  bed.send(Array.from({ length: 6 }, () => encoded("lz4", value)));
  assert.equal(work.open, 2);
  while (work.open > 0) await work.finish(0);
  assert.equal(bed.emitted().length, 6);
});

test("options", () => {
  assert.deepEqual(decompress({ codec: "zstd", maxBytes: "1GiB", maxRatio: 5 }).problems, []);
  const wrong = [
    { codec: "none" },
    { codec: "gizp" },
    { maxBytes: "16Mib" },
    { maxRatio: 0 },
    { maxbytes: 1 },
  ];
  for (const options of wrong) {
    assert.equal(decompress(options as DecompressOptions).problems.length, 1, JSON.stringify(options));
  }
});

test("property: whatever is large, damaged, framed or revoked, every message goes on once and in order, is rejected, or is returned", async () => {
  const texts = fc.string({ maxLength: 20 });
  const kind = fc.oneof(
    {
      weight: 3,
      arbitrary: texts.map((text) => ({ given: { value: text } as GivenMessage, becomes: [text] })),
    },
    {
      weight: 3,
      arbitrary: fc.tuple(fc.constantFrom(...codecs), texts).map(([codec, text]) => ({
        given: encoded(codec, compressTask(codec, Buffer.from(text)).run()),
        becomes: [text],
      })),
    },
    { weight: 2, arbitrary: fc.constant({ given: large, becomes: ["large"] }) },
    {
      weight: 1,
      arbitrary: fc.constant({ given: encoded("gzip", Buffer.from("damaged")), becomes: [] as string[] }),
    },
    {
      weight: 2,
      arbitrary: fc
        .tuple(fc.array(texts, { minLength: 1, maxLength: 4 }), fc.constantFrom("none" as const, ...codecs))
        .map(([children, codec]) => {
          const frame = frameOf(children.map((value) => ({ value })));
          return codec === "none"
            ? { given: { value: frame, headers: [frameHeader] } as GivenMessage, becomes: children }
            : { given: encoded(codec, compressTask(codec, frame).run(), [frameHeader]), becomes: children };
        }),
    },
  );
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        lane: fc.constantFrom("a", "b"),
        messages: fc.array(kind, { minLength: 1, maxLength: 5 }),
      }),
    },
    { weight: 1, arbitrary: fc.constantFrom("flush" as const, "revoke" as const) },
    { weight: 3, arbitrary: fc.nat().map((finish) => ({ finish })) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const bed = new OperatorBed(decompress());
      const work = new HeldWork();
      Object.assign(bed.context, { work });
      /** What each message is to become, by "lane:position". */
      const expected = new Map<string, string[]>();
      const next = { a: 0, b: 0 };
      const revoked = new Map<string, number>();
      let flushes = 0;
      for (const one of steps) {
        if (one === "flush") {
          bed.flush();
          flushes++;
        } else if (one === "revoke") {
          bed.lane("a");
          bed.revoke("a");
          revoked.set("a", next.a);
        } else if ("finish" in one) {
          if (work.open > 0) await work.finish(one.finish % work.open);
        } else {
          const { lane, messages } = one as {
            lane: "a" | "b";
            messages: { given: GivenMessage; becomes: string[] }[];
          };
          for (const { becomes } of messages) expected.set(`${lane}:${next[lane]++}`, becomes);
          bed.send(
            messages.map(({ given }) => given),
            lane,
          );
        }
      }
      bed.complete();
      while (work.open > 0) await work.finish(0);
      assert.ok(bed.completed);
      assert.equal(bed.busy, 0);
      assert.equal(kinds(bed).filter((it) => it === "flush").length, flushes);
      const out = new Map<string, string[]>();
      const last = new Map<string, number>();
      for (const { lane, position, payload } of bed.emitted()) {
        assert.ok(position >= (last.get(lane) ?? 0), "in order");
        last.set(lane, position);
        const id = `${lane}:${position}`;
        out.set(id, [...(out.get(id) ?? []), payload!.length > 1_000 ? "large" : payload!]);
      }
      bed.deliver();
      for (const [id, becomes] of expected) {
        const [lane, position] = id.split(":") as [string, string];
        const returned = Number(position) < (revoked.get(lane) ?? 0) && !out.has(id) && !bed.outcomes.has(id);
        if (returned) continue;
        assert.deepEqual(out.get(id) ?? [], becomes, id);
        if (Number(position) >= (revoked.get(lane) ?? 0)) {
          assert.equal(bed.outcomes.get(id), becomes.length === 0 ? "deadLettered" : "delivered", id);
        }
      }
    }),
    { numRuns: 300 },
  );
});

/** A step before that has written the bytes into the column of values. */
const stageOfValues = {
  ...decompress(),
  build: () => (source: Observable<Flowing>) =>
    source.pipe(
      tap((item) => {
        if (item instanceof Chunk) item.values = [item.payload(0)];
      }),
    ),
};

/** Keeps tasks until they are told to finish, in any order. */
class HeldWork implements Work {
  readonly #held: (() => void)[] = [];

  get open(): number {
    return this.#held.length;
  }

  run<T>(task: Task<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#held.push(() => {
        try {
          resolve(task.run());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  async finish(index: number): Promise<void> {
    this.#held.splice(index, 1)[0]!();
    await settlePromises();
  }
}

function recordsOf(messages: readonly GivenMessage[]): PlainRecords {
  return new PlainRecords(
    messages.map(({ value, headers = [] }, position) => ({
      position,
      key: null,
      value: value as Buffer,
      headers,
      timestamp: 0,
    })),
  );
}
