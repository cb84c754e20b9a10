import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import lz4 from "lz4-napi";
import { type ErrorCode, MillraceError } from "../errors.ts";
import { type Compression, type CompressOptions, compressTask, decompressTask } from "./codec.ts";
import type { Task } from "./context.ts";
import { lz4Frames } from "./lz4-frames.ts";
import { xerialBlocks, xerialHeader } from "./snappy-blocks.ts";
import { zstdFrames } from "./zstd-frames.ts";

const MiB = 2 ** 20;
const limits = { maxBytes: 16 * MiB };

/** Every format that is written. */
const formats: readonly (readonly [name: string, codec: Compression, options: CompressOptions])[] = [
  ["gzip", "gzip", {}],
  ["zstd", "zstd", {}],
  ["lz4", "lz4", {}],
  ["raw snappy", "snappy", { snappy: "raw" }],
  ["xerial snappy", "snappy", { snappy: "xerial" }],
];

/** Bytes as they come, bytes that repeat, and lengths around the edges of blocks and windows. */
const payloads = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 0, max: 100_000 }))
    .map(([pattern, length]) => Buffer.alloc(length, pattern)),
  fc
    .tuple(fc.constantFrom(32_768, 65_536, 131_072), fc.integer({ min: -1, max: 1 }), fc.nat(255))
    .map(([length, more, byte]) => Buffer.alloc(length + more, byte)),
);

/** A place in a buffer, as a part of its length. A double would be near 0 almost always. */
const places = fc.integer({ min: 0, max: 999_999 }).map((n) => n / 1e6);

/**
 * Both ways of doing a task must come to the same; but where a damaged payload is also too large they may
 * notice the one first or the other.
 */
async function both(task: Task<Buffer>, damaged = false): Promise<Buffer | MillraceError> {
  const attempt = async (way: () => Buffer | Promise<Buffer>) => {
    try {
      return await way();
    } catch (error) {
      assert.ok(error instanceof MillraceError, `${error} is not explained`);
      return error;
    }
  };
  const here = await attempt(() => task.run());
  const there = await attempt(() => task.offload());
  if (here instanceof MillraceError) {
    assert.ok(there instanceof MillraceError);
    if (!damaged) assert.equal(there.code, here.code);
  } else same(there, here);
  return here;
}

/** Without the difference that deepEqual would compute, for seconds. */
function same(actual: unknown, expected: Buffer, about = ""): void {
  assert.ok(
    Buffer.isBuffer(actual) && actual.equals(expected),
    `${about}: ${String(actual).slice(0, 200)} is not the payload of ${expected.length} bytes`,
  );
}

function refused(codec: Compression, input: Buffer, code: ErrorCode, maxBytes = limits.maxBytes): void {
  assert.throws(
    () => decompressTask(codec, input, { maxBytes }).run(),
    (error) => error instanceof MillraceError && error.code === code,
    `${codec} ${input.subarray(0, 40).toString("hex")}`,
  );
}

describe("codec", () => {
  for (const [name, codec, options] of formats) {
    test(`${name}: what was compressed is restored, here and on the pool`, async () => {
      await fc.assert(
        fc.asyncProperty(payloads, async (payload) => {
          const task = compressTask(codec, payload, options);
          const compressed = task.run();
          same(await task.offload(), compressed);
          same(await both(decompressTask(codec, compressed, limits)), payload);
        }),
        { numRuns: 60 },
      );
    });

    test(`${name}: nothing that is cut short is taken for whole`, async () => {
      await fc.assert(
        fc.asyncProperty(payloads, places, async (payload, part) => {
          const compressed = compressTask(codec, payload, options).run();
          const length = Math.floor(part * compressed.length);
          const result = await both(decompressTask(codec, compressed.subarray(0, length), limits));
          if (codec === "snappy" && options.snappy === "xerial") {
            // A xerial stream has no end mark: cut after a block it is a shorter stream.
            if (!(result instanceof MillraceError)) same(result, payload.subarray(0, result.length));
          } else {
            assert.ok(result instanceof MillraceError, `${length} of ${compressed.length} bytes were enough`);
            assert.equal(result.code, "compressed-invalid");
          }
        }),
        { numRuns: 60 },
      );
    });

    test(`${name}: a changed byte is noticed, or at least does no harm`, async () => {
      await fc.assert(
        fc.asyncProperty(
          payloads,
          places,
          fc.integer({ min: 1, max: 255 }),
          async (payload, where, change) => {
            const compressed = Buffer.from(compressTask(codec, payload, options).run());
            compressed[Math.floor(where * compressed.length)]! ^= change;
            const maxBytes = payload.length + 100;
            const result = await both(decompressTask(codec, compressed, { maxBytes }), true);
            if (result instanceof MillraceError) return;
            if (codec === "snappy") assert.ok(result.length <= maxBytes);
            else same(result, payload);
          },
        ),
        { numRuns: 200 },
      );
    });

    test(`${name}: bytes after the end are refused`, async () => {
      for (const tail of [Buffer.from([0]), Buffer.alloc(8), Buffer.from("xx"), Buffer.from([0x1f, 0x8b])]) {
        const compressed = Buffer.concat([compressTask(codec, Buffer.from("hello"), options).run(), tail]);
        const result = await both(decompressTask(codec, compressed, limits));
        assert.ok(
          result instanceof MillraceError && result.code === "compressed-invalid",
          tail.toString("hex"),
        );
      }
    });

    test(`${name}: the limit is exact`, async () => {
      for (const length of [1, 1_000, 100_000]) {
        const compressed = compressTask(codec, Buffer.alloc(length, "ab"), options).run();
        const fits = await both(decompressTask(codec, compressed, { maxBytes: length }));
        assert.ok(Buffer.isBuffer(fits) && fits.length === length);
        const tooLarge = await both(decompressTask(codec, compressed, { maxBytes: length - 1 }));
        assert.ok(
          tooLarge instanceof MillraceError && tooLarge.code === "decompressed-too-large",
          `${length}`,
        );
      }
    });

    test(`${name}: a bomb is not unpacked`, () => {
      const bomb = compressTask(codec, Buffer.alloc(256 * MiB), options).run();
      const before = process.memoryUsage();
      refused(codec, bomb, "decompressed-too-large");
      const after = process.memoryUsage();
      const grown = after.external + after.arrayBuffers - before.external - before.arrayBuffers;
      assert.ok(grown < 64 * MiB, `${grown} bytes were allocated`);
    });

    test(`${name}: restored bytes do not keep much more memory alive than they show`, () => {
      for (const [length, count] of [
        [300, 500],
        [100_000, 20],
      ] as const) {
        const payload = Buffer.alloc(length, "abc");
        const compressed: Buffer[] = [];
        const restored: Buffer[] = [];
        for (let i = 0; i < count; i++) {
          compressed.push(compressTask(codec, payload, options).run());
          restored.push(decompressTask(codec, compressed[i]!, limits).run());
        }
        for (const kept of [compressed, restored]) {
          const memory = new Set(kept.map((buffer) => buffer.buffer));
          const shown = kept.reduce((sum, buffer) => sum + buffer.length, 0);
          const held = [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0);
          // What is thrown away meanwhile shares pools of 64 KiB with what is kept.
          assert.ok(held < 3 * shown + 1_500 * count + 2 * 65_536, `${held} bytes are held for ${shown}`);
        }
      }
    });

    test(`${name}: garbage is refused`, async () => {
      refused(codec, Buffer.alloc(0), "compressed-invalid");
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
          const result = await both(decompressTask(codec, Buffer.from(bytes), { maxBytes: 4_096 }));
          // A short block without a checksum can be right by chance.
          assert.ok(result instanceof MillraceError || (codec === "snappy" && result.length <= 4_096));
        }),
        { numRuns: 300 },
      );
    });
  }

  test("streams of several parts are joined, as their formats say", async () => {
    const a = Buffer.from("first ");
    const b = Buffer.alloc(70_000, "second ");
    for (const [name, codec, options] of formats) {
      if (name === "raw snappy") continue;
      const parts = [a, Buffer.alloc(0), b].map((part) => compressTask(codec, part, options).run());
      const restored = await both(decompressTask(codec, Buffer.concat(parts), limits));
      same(restored, Buffer.concat([a, b]), name);
      const last = Buffer.concat(parts).subarray(0, -1);
      refused(codec, last, "compressed-invalid");
      refused(codec, Buffer.concat(parts), "decompressed-too-large", a.length + b.length - 1);
    }
  });

  test("skippable frames are skipped, between frames of zstd and of LZ4", async () => {
    const skippable = Buffer.from("502a4d1803000000010203", "hex");
    for (const codec of ["zstd", "lz4"] as const) {
      const frame = compressTask(codec, Buffer.from("hello"), {}).run();
      const restored = await both(
        decompressTask(codec, Buffer.concat([skippable, frame, skippable, frame]), limits),
      );
      assert.equal(String(restored), "hellohello");
      refused(codec, Buffer.concat([frame, skippable.subarray(0, -1)]), "compressed-invalid");
    }
  });

  test("a wrong checksum is noticed", () => {
    for (const codec of ["gzip", "zstd", "lz4"] as const) {
      const compressed = Buffer.from(compressTask(codec, Buffer.from("hello hello hello"), {}).run());
      // gzip ends with its checksum and its length, the others with their checksum.
      compressed[compressed.length - (codec === "gzip" ? 5 : 1)]! ^= 1;
      refused(codec, compressed, "compressed-invalid");
    }
  });

  test("a header that promises more than there is allocates nothing", () => {
    // Raw snappy: 4 GiB less one byte, from six.
    refused("snappy", Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]), "compressed-invalid");
    refused("snappy", Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), "compressed-invalid");
    // xerial: a block of 2 GiB.
    refused("snappy", Buffer.concat([xerialHeader, Buffer.from("7fffffff00", "hex")]), "compressed-invalid");
    refused("snappy", Buffer.concat([xerialHeader, Buffer.from("ffffffff00", "hex")]), "compressed-invalid");
    // zstd: contents of 1 TiB; a window of 2 GiB.
    refused("zstd", Buffer.from("28b52ffde00000000000010000010000", "hex"), "decompressed-too-large");
    refused("zstd", Buffer.from("28b52ffd00a8010000", "hex"), "decompressed-too-large");
    // LZ4: contents of 1 TiB.
    refused(
      "lz4",
      Buffer.from("04224d186870000000000001000000000000000000", "hex"),
      "decompressed-too-large",
    );
  });

  test("the limit is enforced on what headers say before anything is decompressed", () => {
    const tooLarge = (walk: () => unknown) =>
      assert.throws(
        walk,
        (error) => error instanceof MillraceError && error.code === "decompressed-too-large",
      );
    const zstd = compressTask("zstd", Buffer.alloc(1_000)).run();
    tooLarge(() => zstdFrames(zstd, 999));
    tooLarge(() => zstdFrames(Buffer.concat([zstd, zstd]), 1_999));
    assert.equal(zstdFrames(Buffer.concat([zstd, zstd]), 2_000).length, 2);
    // A window of 16 MiB and an empty last block.
    const wide = Buffer.from("28b52ffd0070010000", "hex");
    tooLarge(() => zstdFrames(wide, 2 ** 23));
    assert.equal(zstdFrames(wide, 2 ** 24).length, 1);
    const xerial = compressTask("snappy", Buffer.alloc(50_000), { snappy: "xerial" }).run();
    tooLarge(() => xerialBlocks(xerial, 49_999));
    assert.equal(xerialBlocks(xerial, 50_000).length, 2);
  });

  test("a stream of very many empty parts is refused", () => {
    const empty = (codec: Compression) => compressTask(codec, Buffer.alloc(0)).run();
    for (const codec of ["zstd", "lz4"] as const) {
      refused(codec, Buffer.concat(Array.from({ length: 1_001 }, () => empty(codec))), "compressed-invalid");
    }
    const block = Buffer.from([0, 0, 0, 1, 0]);
    const blocks = Array.from({ length: 16_385 }, () => block);
    refused("snappy", Buffer.concat([xerialHeader, ...blocks]), "compressed-invalid");
  });

  test("the ratio limits what is above 1 MiB", () => {
    const zeros = compressTask("zstd", Buffer.alloc(4 * MiB)).run();
    assert.equal(decompressTask("zstd", zeros, limits).run().length, 4 * MiB);
    assert.throws(
      () => decompressTask("zstd", zeros, { ...limits, maxRatio: 1_000 }).run(),
      (error) => error instanceof MillraceError && error.code === "decompressed-too-large",
    );
    const less = compressTask("zstd", Buffer.alloc(MiB)).run();
    assert.ok(less.length * 1_000 < MiB);
    assert.equal(decompressTask("zstd", less, { ...limits, maxRatio: 1_000 }).run().length, MiB);
  });

  test("LZ4 blocks are checked before the library sees them", () => {
    const frame = (blocks: string) => Buffer.from(`04224d18604082${blocks}00000000`, "hex");
    // One literal, then a copy from two bytes back.
    refused("lz4", frame("04000000 1061 0200".replaceAll(" ", "")), "compressed-invalid");
    // An offset of 0; literals beyond the block; a length that never ends.
    refused("lz4", frame("0400000010610000"), "compressed-invalid");
    refused("lz4", frame("0200000050 61".replaceAll(" ", "")), "compressed-invalid");
    refused("lz4", frame("03000000f0ffff"), "compressed-invalid");
    // A block of 64 KiB and one byte in a frame whose blocks are 64 KiB at most.
    const large = lz4.compressFrameSync(Buffer.alloc(70_000));
    large[5] = 0x40;
    refused("lz4", large, "compressed-invalid");
    // Not left to the library either.
    assert.throws(() => lz4Frames(frame("0400000010610200"), 100), /before its beginning/);
    const checked = compressTask("lz4", Buffer.from("hello")).run();
    assert.throws(() => lz4Frames(checked.subarray(0, -1), 100), /cut short/);
    // The legacy format, and a dictionary.
    refused("lz4", Buffer.from("02214c1800000000", "hex"), "compressed-invalid");
    refused("lz4", Buffer.from("04224d18614001000000820000000000", "hex"), "compressed-invalid");
  });

  test("reads what Kafka's Java client writes", async () => {
    const text = "Kafka Kafka Kafka Kafka, written by Java. Kafka Kafka Kafka";
    const written: Readonly<Record<Compression, string>> = {
      gzip: "1f8b08000000000000fff34e4ccb4e54f046277514ca8b324b4a52f314922a15bc12cb12f530d500001505fddf3b000000",
      zstd: "28b52ffd00580c0100c04b61666b61202c207772697474656e206279204a6176612e02008ef242e60207010000",
      lz4: "04224d18604082250000006d4b61666b61200600f9032c207772697474656e206279204a6176612e2400504b61666b6100000000",
      snappy:
        "82534e41505059000000000100000001000000213b144b61666b6120420600442c207772697474656e206279204a6176612e462400",
    };
    for (const [codec, hex] of Object.entries(written)) {
      const restored = await both(decompressTask(codec as Compression, Buffer.from(hex, "hex"), limits));
      assert.equal(String(restored), text, codec);
    }
  });

  test("writes LZ4 frames that Kafka's Java client takes: version 1, independent blocks, no dictionary", () => {
    for (const length of [0, 10, 5_000_000]) {
      const flags = compressTask("lz4", Buffer.alloc(length, "abc")).run()[4]!;
      assert.equal(flags & 0b1110_0011, 0b0110_0000);
    }
  });

  test("a fault of the process is not blamed on the payload", () => {
    const real = zlib.gunzipSync;
    const input = compressTask("gzip", Buffer.from("hello")).run();
    const full = Object.assign(new Error("out of memory"), { code: "Z_MEM_ERROR" });
    zlib.gunzipSync = (() => {
      throw full;
    }) as typeof real;
    try {
      assert.throws(() => decompressTask("gzip", input, limits).run(), full);
    } finally {
      zlib.gunzipSync = real;
    }
  });

  for (const [tool, codec, writing] of [
    ["gzip", "gzip", [["-c"], ["-9", "-c"]]],
    ["zstd", "zstd", [["-c"], ["-19", "-c"], ["--no-check", "-c"]]],
    ["lz4", "lz4", [["-c"], ["-BD", "-B4", "-c"], ["-BX", "-c"], ["--no-frame-crc", "-c"], ["-9", "-c"]]],
  ] as const) {
    const present = spawnSync(tool, ["--version"]).status === 0;
    test(`${tool}, the command, reads ours and we read its`, {
      skip: present ? false : `no ${tool} here`,
    }, async () => {
      const text = Array.from({ length: 30_000 }, (_, i) => `${i}: row ${(i * 7919) % 1000}\n`).join("");
      for (const payload of [Buffer.alloc(0), Buffer.from("hello"), Buffer.from(text)]) {
        const ours = compressTask(codec, payload).run();
        const read = spawnSync(tool, ["-d", "-c"], { input: ours, maxBuffer: 16 * MiB });
        assert.equal(read.status, 0, String(read.stderr));
        same(read.stdout, payload);
        for (const options of writing) {
          const theirs = spawnSync(tool, options, { input: payload, maxBuffer: 16 * MiB });
          assert.equal(theirs.status, 0, String(theirs.stderr));
          same(await both(decompressTask(codec, theirs.stdout, limits)), payload, options.join(" "));
        }
      }
    });
  }
});
