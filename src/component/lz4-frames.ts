import { MillraceError } from "../errors.ts";
import { mostFrames, skippableMagic } from "./zstd-frames.ts";

const frameMagic = 0x184d2204;
const uncompressed = 0x8000_0000;

export interface Lz4Frame {
  readonly frame: Buffer;
  /** Bytes when decompressed: counted, not believed. */
  readonly contentSize: number;
}

/**
 * Finds the frames of an LZ4 stream (LZ4 Frame Format 1.6) and counts what each gives, by reading the lengths
 * in its blocks without decompressing them. The library's decoder takes no limit, ignores what follows the
 * frame, does not mind a missing end mark, and gives up at a skippable frame.
 *
 * @throws MillraceError `compressed-invalid`, or `decompressed-too-large` as soon as the count exceeds `limit`
 */
export function lz4Frames(input: Buffer, limit: number): Lz4Frame[] {
  if (input.length === 0) throw invalid("it is empty");
  const frames: Lz4Frame[] = [];
  let at = 0;
  let total = 0;
  while (at < input.length) {
    const start = at;
    const magic = uint32(input, at);
    if ((magic & 0xfffffff0) >>> 0 === skippableMagic) {
      at += 8 + uint32(input, at + 4);
      if (at > input.length) throw invalid("it is cut short");
      continue;
    }
    if (magic !== frameMagic) throw invalid(`byte ${at} does not begin a frame`);
    if (frames.length === mostFrames) throw invalid(`it has more than ${mostFrames} frames`);
    if (at + 7 > input.length) throw invalid("it is cut short");
    const flags = input[at + 4]!;
    const blockFlags = input[at + 5]!;
    if (flags >> 6 !== 1) throw invalid("its version is unknown");
    if ((flags & 0x02) !== 0 || (blockFlags & 0x8f) !== 0) throw invalid("its header has a reserved bit set");
    if ((flags & 0x01) !== 0) throw invalid("it needs a dictionary");
    if (blockFlags >> 4 < 4) throw invalid("its block size is unknown");
    const maxBlock = 2 ** (8 + 2 * (blockFlags >> 4));
    const linked = (flags & 0x20) === 0;
    const blockChecksum = (flags & 0x10) === 0 ? 0 : 4;
    let declared: number | undefined;
    at += 6;
    if ((flags & 0x08) !== 0) {
      declared = uint32(input, at) + uint32(input, at + 4) * 2 ** 32;
      if (total + declared > limit) throw tooLarge(limit);
      at += 8;
    }
    at++;
    let content = 0;
    for (;;) {
      const header = uint32(input, at);
      at += 4;
      if (header === 0) break;
      const size = header >= uncompressed ? header - uncompressed : header;
      const end = at + size;
      if (size > maxBlock) throw invalid("it has a block larger than it declares");
      if (end + blockChecksum > input.length) throw invalid("it is cut short");
      const gives =
        header >= uncompressed ? size : blockLength(input, at, end, linked ? content : 0, maxBlock);
      content += gives;
      if (total + content > limit) throw tooLarge(limit);
      at = end + blockChecksum;
    }
    if ((flags & 0x04) !== 0) at += 4;
    if (at > input.length) throw invalid("it is cut short");
    if (declared !== undefined && declared !== content) throw invalid("it is not as long as it says");
    total += content;
    frames.push({ frame: input.subarray(start, at), contentSize: content });
  }
  return frames;
}

/** How many bytes the block from `at` to `end` gives, when `before` bytes of its frame may be referred to. */
function blockLength(input: Buffer, at: number, end: number, before: number, most: number): number {
  let length = 0;
  let p = at;
  while (p < end) {
    const token = input[p++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255) {
        if (p >= end) throw invalid("a block is cut short");
        more = input[p++]!;
        literals += more;
      }
    }
    p += literals;
    length += literals;
    if (p > end) throw invalid("a block is cut short");
    if (p === end) break;
    if (p + 2 > end) throw invalid("a block is cut short");
    const offset = input[p]! | (input[p + 1]! << 8);
    p += 2;
    if (offset === 0 || offset > length + before)
      throw invalid("a block refers to bytes before its beginning");
    let match = token & 15;
    if (match === 15) {
      let more = 255;
      while (more === 255) {
        if (p >= end) throw invalid("a block is cut short");
        more = input[p++]!;
        match += more;
      }
    }
    length += match + 4;
    if (length > most) throw invalid("a block gives more than it declares");
  }
  if (length > most) throw invalid("a block gives more than it declares");
  return length;
}

function uint32(input: Buffer, at: number): number {
  if (at + 4 > input.length) throw invalid("it is cut short");
  return input.readUInt32LE(at);
}

function invalid(problem: string): MillraceError {
  return new MillraceError("compressed-invalid", problem);
}

function tooLarge(limit: number): MillraceError {
  return new MillraceError("decompressed-too-large", `it has more than ${limit} bytes when decompressed`);
}
