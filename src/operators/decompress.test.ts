import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { compressTask, offloadAbove } from "../component/codec.ts";
import { encodePayloads } from "../component/payloads.ts";
import { Batch, type Codec } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Headers } from "../message/records.ts";
import { type GivenMessage, OperatorBed } from "../testing/operator-bed.ts";
import { compress } from "./compress.ts";
import { decompress } from "./decompress.ts";

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
