import { MillraceError } from "../errors.ts";

/**
 * What a stream of xerial's snappy-java begins with: a magic of eight bytes, the version and the lowest version
 * that reads it. No raw block begins so: its second part would be a copy of bytes that are not there yet.
 */
export const xerialHeader: Buffer = Buffer.from([
  0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00, 0, 0, 0, 1, 0, 0, 0, 1,
]);
/** 512 MiB as snappy-java writes them. A block of nothing takes 5 bytes to send. */
const mostBlocks = 16_384;
const magic = xerialHeader.subarray(0, 8);

export function isXerial(input: Buffer): boolean {
  return input.length >= magic.length && magic.compare(input, 0, magic.length) === 0;
}

/**
 * A raw block and the length its header declares. The densest element, a copy, takes three bytes for at most 64,
 * so a block that declares more than 22 for each of its own is damaged, and nothing is allocated for it.
 *
 * @throws MillraceError `compressed-invalid`, `decompressed-too-large`
 */
export function snappyBlock(
  input: Buffer,
  limit: number,
): { readonly block: Buffer; readonly length: number } {
  let length = 0;
  for (let i = 0; ; i++) {
    if (i === 5 || i === input.length) throw invalid("it does not begin with a length");
    const byte = input[i]!;
    length += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) break;
  }
  if (length > 2 ** 32 - 1) throw invalid("it does not begin with a length");
  if (length > 22 * input.length) throw invalid("it is shorter than the length it begins with allows");
  if (length > limit) {
    throw new MillraceError(
      "decompressed-too-large",
      `it has ${length} bytes when decompressed, more than ${limit}`,
    );
  }
  return { block: input, length };
}

/**
 * The raw blocks of a xerial stream, or of several that were concatenated; all of them together give no more
 * than `limit` bytes.
 *
 * @throws MillraceError `compressed-invalid`, `decompressed-too-large`
 */
export function xerialBlocks(input: Buffer, limit: number): Buffer[] {
  const blocks: Buffer[] = [];
  let room = limit;
  let at = 0;
  while (at < input.length) {
    if (isXerial(input.subarray(at))) {
      if (at + xerialHeader.length > input.length) throw invalid("it is cut short");
      // The lowest version that can read it: this is version 1.
      if (input.readInt32BE(at + 12) > 1) throw invalid("its version is unknown");
      at += xerialHeader.length;
      continue;
    }
    if (at + 4 > input.length) throw invalid("it is cut short");
    const size = input.readInt32BE(at);
    at += 4;
    if (size <= 0 || at + size > input.length) throw invalid("it is cut short");
    const { block, length } = snappyBlock(input.subarray(at, at + size), room);
    room -= length;
    if (blocks.length === mostBlocks) throw invalid(`it has more than ${mostBlocks} blocks`);
    at += size;
    blocks.push(block);
  }
  return blocks;
}

function invalid(problem: string): MillraceError {
  return new MillraceError("compressed-invalid", problem);
}
