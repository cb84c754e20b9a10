import { MillraceError } from "../errors.ts";

const frameMagic = 0xfd2fb528;
/** 0x184D2A50 to 0x184D2A5F: data for someone else, shared with LZ4. */
export const skippableMagic = 0x184d2a50;

/** The largest window every decoder is to accept, RFC 8878 section 3.1.1.1.2. */
const usualWindow = 8 * 2 ** 20;

/** A decoder costs tens of microseconds to set up, and a frame of nothing takes 9 bytes to send. */
export const mostFrames = 1_000;

export interface ZstdFrame {
  readonly frame: Buffer;
  /** Bytes when decompressed, where the frame's header says so. */
  readonly contentSize: number | undefined;
}

/**
 * Finds the frames of a zstd stream (RFC 8878) by their headers and the headers of their blocks. Node's own
 * decoder stops silently after the first frame, and reads over anything that follows it.
 *
 * @throws MillraceError `compressed-invalid`, or `decompressed-too-large` where a header declares more than `limit`
 */
export function zstdFrames(input: Buffer, limit: number): ZstdFrame[] {
  const frames: ZstdFrame[] = [];
  let at = 0;
  let declared = 0;
  if (input.length === 0) throw invalid("it is empty");
  while (at < input.length) {
    const start = at;
    const magic = uint(input, at, 4);
    if ((magic & 0xfffffff0) >>> 0 === skippableMagic) {
      at += 8 + uint(input, at + 4, 4);
      if (at > input.length) throw invalid("it is cut short");
      continue;
    }
    if (magic !== frameMagic) throw invalid(`byte ${at} does not begin a frame`);
    if (frames.length === mostFrames) throw invalid(`it has more than ${mostFrames} frames`);
    const descriptor = uint(input, at + 4, 1);
    at += 5;
    if ((descriptor & 0x08) !== 0) throw invalid("its header has a reserved bit set");
    const single = (descriptor & 0x20) !== 0;
    let window = 0;
    if (!single) {
      const log = uint(input, at, 1);
      window = 2 ** (10 + (log >> 3)) * (1 + (log & 7) / 8);
      at++;
    }
    const dictionary = [0, 1, 2, 4][descriptor & 3]!;
    if (uint(input, at, dictionary) !== 0) throw invalid("it needs a dictionary");
    at += dictionary;
    const sizeOfSize = single && descriptor >> 6 === 0 ? 1 : [0, 2, 4, 8][descriptor >> 6]!;
    let contentSize: number | undefined;
    if (sizeOfSize > 0) {
      contentSize = uint(input, at, sizeOfSize) + (sizeOfSize === 2 ? 256 : 0);
      at += sizeOfSize;
      declared += contentSize;
      if (declared > limit) throw tooLarge(declared, limit);
    }
    // A decoder that streams needs the window, or the content where that is less.
    const needed = Math.min(window, contentSize ?? window);
    if (needed > Math.max(limit, usualWindow)) throw tooLarge(needed, limit);
    for (let last = false; !last; ) {
      const header = uint(input, at, 3);
      const type = (header >> 1) & 3;
      last = (header & 1) !== 0;
      if (type === 3) throw invalid("it has a block of a reserved type");
      at += 3 + (type === 1 ? 1 : header >> 3);
    }
    if ((descriptor & 0x04) !== 0) at += 4;
    if (at > input.length) throw invalid("it is cut short");
    frames.push({ frame: input.subarray(start, at), contentSize });
  }
  return frames;
}

/** Little-endian; 8 bytes lose precision above 2^53, which is beyond every limit. */
function uint(input: Buffer, at: number, size: number): number {
  if (at + size > input.length) throw invalid("it is cut short");
  if (size === 0) return 0;
  return size === 8
    ? input.readUInt32LE(at) + input.readUInt32LE(at + 4) * 2 ** 32
    : input.readUIntLE(at, size);
}

function invalid(problem: string): MillraceError {
  return new MillraceError("compressed-invalid", problem);
}

function tooLarge(needed: number, limit: number): MillraceError {
  return new MillraceError(
    "decompressed-too-large",
    `it needs ${needed} bytes when decompressed, more than ${limit}`,
  );
}
