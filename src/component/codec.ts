import { promisify } from "node:util";
import zlib from "node:zlib";
import lz4 from "lz4-napi";
import snappy from "snappy";
import { MillraceError } from "../errors.ts";
import type { Codec } from "../message/batch.ts";
import type { Task } from "./context.ts";
import { type Lz4Frame, lz4Frames } from "./lz4-frames.ts";
import { isXerial, snappyBlock, xerialBlocks, xerialHeader } from "./snappy-blocks.ts";
import { type ZstdFrame, zstdFrames } from "./zstd-frames.ts";

/** A codec that does something. */
export type Compression = Exclude<Codec, "none">;

/**
 * From this size on, compressing or restoring one payload of many goes to the thread pool, whatever the codec. 32 KiB
 * cost gzip about 0.1 ms, the others less: below that, going there and back costs as much as is gained.
 */
export const offloadAbove = 32 * 1024;

/**
 * From so many bytes on, compressing or restoring a record batch leaves the event loop at least half of the time that
 * it would be held up otherwise; below, the way to the thread pool and back takes as much, and processor time on top.
 * Measured by bench/compression.ts, loop at once → offloaded, µs for the least size that pays, for orders that
 * shrink to a fifth: compressing gzip 50 → 20, snappy 35 → 12; restoring (by the compressed size) gzip 60 → 19,
 * zstd 60 → 28, lz4 148 → 91. Of the others only what would hold the loop up for nearly a millisecond goes: snappy's
 * blocks of 32 KiB gain nothing, and for lz4 and zstd the way costs what a busy machine has not. A batch of 240 KB takes
 * 197 and 351 ns a message on the loop, 229 and 579 with the way, and orders by benchmark run at 0.93 and 0.87 of the
 * uncompressed rate, where all batches above 64 and 128 KiB on the way made it 0.81 and 0.77.
 */
export const offloadFrom: Readonly<
  Record<Compression, { readonly compress: number; readonly restore: number }>
> = {
  gzip: { compress: 16 * 1024, restore: 24 * 1024 },
  snappy: { compress: 64 * 1024, restore: 512 * 1024 },
  lz4: { compress: 512 * 1024, restore: 64 * 1024 },
  zstd: { compress: 512 * 1024, restore: 24 * 1024 },
};

export interface CompressOptions {
  /**
   * How snappy is written: one `raw` block, or blocks in the stream format of xerial's library, which Kafka's
   * Java producer writes. Java consumers, librdkafka and {@link decompressTask} read both.
   * @default "raw"
   */
  readonly snappy?: "raw" | "xerial";
}

export interface RestoreLimits {
  /** Most bytes to restore. */
  readonly maxBytes: number;
  /**
   * Most bytes to restore for each compressed byte. Up to 1 MiB is restored whatever the ratio: short messages
   * that repeat one thing reach any ratio honestly. Without it only `maxBytes` counts.
   */
  readonly maxRatio?: number;
}

/** What is restored at any ratio. */
const anyRatioBelow = 2 ** 20;

/** Larger blocks gain nothing; and this is what Java's producer writes. */
const xerialBlockSize = 32 * 1024;

/**
 * Compresses a payload: gzip (RFC 1952), zstd frames with a checksum (RFC 8878), the LZ4 frame format with a
 * content checksum and independent blocks (Kafka's Java client reads no others), or snappy, which has no
 * checksum of its own. Everything is one frame, member or stream, and empty input gives one too.
 */
export function compressTask(codec: Compression, input: Buffer, options: CompressOptions = {}): Task<Buffer> {
  switch (codec) {
    case "gzip": {
      const settings = { chunkSize: outputChunk(input.length) };
      return {
        run: () => compact(zlib.gzipSync(input, settings), settings),
        offload: async () => compact(await gzip(input, settings), settings),
      };
    }
    case "zstd": {
      const settings = {
        chunkSize: outputChunk(input.length),
        // The frame's header then tells a reader how much room it needs.
        pledgedSrcSize: input.length,
        params: { [zlib.constants.ZSTD_c_checksumFlag]: 1 },
      };
      return {
        run: () => compact(zlib.zstdCompressSync(input, settings), settings),
        offload: async () => compact(await zstdCompress(input, settings), settings),
      };
    }
    case "lz4": {
      const settings = { contentChecksum: true };
      return {
        run: () => lz4.compressFrameSync(input, settings),
        offload: () => lz4.compressFrame(input, settings),
      };
    }
    case "snappy":
      return options.snappy === "xerial"
        ? xerialTask(input)
        : { run: () => snappy.compressSync(input), offload: () => snappy.compress(input) };
  }
}

/**
 * Restores what {@link compressTask}, or any other writer of the formats, made. The result never exceeds the
 * limits, and nothing beyond them is allocated on the word of a header.
 *
 * Accepted as their specifications say: several gzip members, several zstd or LZ4 frames and skippable frames
 * between them, concatenated xerial streams; the parts are joined. Not accepted: dictionaries, LZ4's legacy
 * format, and any byte before, between or after the parts.
 *
 * The task fails with MillraceError `compressed-invalid` (damaged, cut short, more bytes than its own) or
 * `decompressed-too-large`.
 */
export function decompressTask(codec: Compression, input: Buffer, limits: RestoreLimits): Task<Buffer> {
  const limit =
    limits.maxRatio === undefined
      ? limits.maxBytes
      : Math.min(limits.maxBytes, Math.max(anyRatioBelow, Math.floor(limits.maxRatio * input.length)));
  const steps = restoring[codec];
  return {
    run() {
      try {
        const parts: Buffer[] = [];
        let room = limit;
        for (const step of steps(input, limit)) {
          const part = step.run(room);
          if (part.length > room) throw tooLarge(limit);
          room -= part.length;
          parts.push(part);
        }
        return joined(parts);
      } catch (error) {
        throw explained(codec, error, limit);
      }
    },
    async offload() {
      try {
        const parts: Buffer[] = [];
        let room = limit;
        for (const step of steps(input, limit)) {
          const part = await step.offload(room);
          if (part.length > room) throw tooLarge(limit);
          room -= part.length;
          parts.push(part);
        }
        return joined(parts);
      } catch (error) {
        throw explained(codec, error, limit);
      }
    },
  };
}

/** One part of a compressed stream; neither way allocates more than about `room` bytes. */
interface Step {
  run(room: number): Buffer;
  offload(room: number): Promise<Buffer>;
}

/** Checks the outer structure and the sizes it declares against the limit, and says what is to be done. */
const restoring: Readonly<Record<Compression, (input: Buffer, limit: number) => Iterable<Step>>> = {
  gzip: (input) => [gunzipStep(input)],
  zstd: (input, limit) => zstdFrames(input, limit).map(unzstdStep),
  lz4: (input, limit) => lz4Frames(input, limit).map(unlz4Step),
  snappy: (input, limit) =>
    isXerial(input)
      ? xerialBlocks(input, limit).map(unsnappyStep)
      : [unsnappyStep(snappyBlock(input, limit).block)],
};

const gzip = promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.gzip);
const gunzip = promisify<Buffer, zlib.ZlibOptions, unknown>(zlib.gunzip);
const zstdCompress = promisify<Buffer, zlib.ZstdOptions, Buffer>(zlib.zstdCompress);
const zstdDecompress = promisify<Buffer, zlib.ZstdOptions, Buffer>(zlib.zstdDecompress);

function gunzipStep(input: Buffer): Step {
  // The last four bytes say how long the last member is, truly or not: a good first guess in any case.
  const guess = input.length >= 18 ? input.readUInt32LE(input.length - 4) : 0;
  const settings = (room: number) => ({
    info: true as const,
    maxOutputLength: Math.max(1, room),
    chunkSize: chunkFor(Math.min(room, Math.max(guess, 4 * input.length))),
  });
  // Node joins the members, but takes zeros after the last one for padding; it is asked how far it read.
  const whole = (result: unknown, used: { readonly chunkSize: number }): Buffer => {
    const { buffer, engine } = result as Inflated;
    if (engine.bytesWritten !== input.length) throw damaged("has bytes after its end");
    return compact(buffer, used);
  };
  return {
    run(room) {
      const used = settings(room);
      return whole(zlib.gunzipSync(input, used), used);
    },
    async offload(room) {
      const used = settings(room);
      return whole(await gunzip(input, used), used);
    },
  };
}

/** What node:zlib gives with `info: true`; its types leave that out. */
interface Inflated {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

function unzstdStep({ frame, contentSize }: ZstdFrame): Step {
  const settings = (room: number) => ({
    maxOutputLength: Math.max(1, room),
    chunkSize: chunkFor(contentSize ?? Math.max(smallestChunk, Math.min(room, frame.length * 4))),
    params: { [zlib.constants.ZSTD_d_windowLogMax]: windowLogFor(room) },
  });
  const checked = (content: Buffer, used: { readonly chunkSize: number }): Buffer => {
    if (contentSize !== undefined && content.length !== contentSize) {
      throw damaged("is not as long as it says");
    }
    return compact(content, used);
  };
  return {
    run(room) {
      const used = settings(room);
      return checked(zlib.zstdDecompressSync(frame, used), used);
    },
    async offload(room) {
      const used = settings(room);
      return checked(await zstdDecompress(frame, used), used);
    },
  };
}

/**
 * The decoder allocates the window that the frame's header asks for, up to 2 GiB. Every decoder is to accept
 * 8 MiB (RFC 8878, 3.1.1.1.2); beyond that, what the content may have is enough.
 */
function windowLogFor(room: number): number {
  return Math.min(27, Math.max(23, Math.ceil(Math.log2(Math.max(1, room)))));
}

function unlz4Step({ frame, contentSize }: Lz4Frame): Step {
  const checked = (content: Buffer): Buffer => {
    if (content.length !== contentSize) throw damaged("is not as long as its blocks");
    return content;
  };
  return {
    run: () => checked(lz4.decompressFrameSync(frame)),
    offload: async () => checked(await lz4.decompressFrame(frame)),
  };
}

function unsnappyStep(block: Buffer): Step {
  return {
    run: () => snappy.uncompressSync(block) as Buffer,
    offload: async () => (await snappy.uncompress(block)) as Buffer,
  };
}

function xerialTask(input: Buffer): Task<Buffer> {
  const parts: Buffer[] = [];
  for (let at = 0; at < input.length; at += xerialBlockSize)
    parts.push(input.subarray(at, at + xerialBlockSize));
  const framed = (blocks: readonly Buffer[]): Buffer => {
    const pieces: Buffer[] = [xerialHeader];
    for (const block of blocks) {
      const size = Buffer.allocUnsafe(4);
      size.writeInt32BE(block.length);
      pieces.push(size, block);
    }
    return Buffer.concat(pieces);
  };
  return {
    run: () => framed(parts.map((part) => snappy.compressSync(part))),
    offload: async () => {
      const blocks: Buffer[] = [];
      for (const part of parts) blocks.push(await snappy.compress(part));
      return framed(blocks);
    },
  };
}

/**
 * Each chunk costs a turn of the thread pool, and a zstd frame of 40 bytes may give a mebibyte. (Deflate gives at most
 * 1,032 bytes for one, so that a gzip's chunks need only be as large as some bytes of it.)
 */
const smallestChunk = 16 * 1024;

/** Room for what `length` bytes compress to at worst, in one chunk where that is small. */
function outputChunk(length: number): number {
  return chunkFor(length + (length >> 8) + 64);
}

/** Node's output grows by chunks of one size; one that is too large for the content would be kept with it. */
function chunkFor(length: number): number {
  return Math.min(128 * 1024, Math.max(64, length));
}

/** What came in one chunk keeps all of the chunk alive: where that is much more than it shows, a copy. */
function compact(buffer: Buffer, { chunkSize }: { readonly chunkSize: number }): Buffer {
  return chunkSize > 2 * buffer.length + 1_024 ? Buffer.from(buffer) : buffer;
}

function joined(parts: readonly Buffer[]): Buffer {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

function damaged(what: string): MillraceError {
  return new MillraceError("compressed-invalid", `it ${what}`);
}

function tooLarge(limit: number): MillraceError {
  return new MillraceError("decompressed-too-large", `it has more than ${limit} bytes when decompressed`);
}

/** What a failure of a codec says of the payload. A fault of the process is passed on as it is. */
function explained(codec: Compression, error: unknown, limit: number): unknown {
  if (error instanceof MillraceError) {
    return new MillraceError(error.code, `the ${codec} payload is refused: ${error.message}`);
  }
  const code = String((error as { code?: unknown } | null | undefined)?.code);
  if (code === "ERR_BUFFER_TOO_LARGE" || code === "ZSTD_error_frameParameter_windowTooLarge") {
    return new MillraceError(
      "decompressed-too-large",
      `the ${codec} payload is refused: it needs more than ${limit} bytes when decompressed`,
    );
  }
  // Anything else (memory, handles, a mistake of ours) is no fault of the payload.
  const ofThePayload = /^(Z_(DATA|BUF)_ERROR|Z_NEED_DICT|ZSTD_error_(?!memory).*|GenericFailure)$/.test(code);
  if (!ofThePayload) return error;
  return new MillraceError(
    "compressed-invalid",
    `the ${codec} payload is damaged or incomplete (${(error as Error).message})`,
  );
}
