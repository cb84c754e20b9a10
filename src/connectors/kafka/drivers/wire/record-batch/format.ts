import type { Codec } from "../../../../../message/batch.ts";

/*
 * A record batch, magic 2, all numbers big-endian:
 *
 *    0  baseOffset            int64
 *    8  batchLength           int32   bytes after this field
 *   12  partitionLeaderEpoch  int32
 *   16  magic                 int8
 *   17  crc                   uint32  CRC-32C of all that follows
 *   21  attributes            int16
 *   23  lastOffsetDelta       int32
 *   27  baseTimestamp         int64
 *   35  maxTimestamp          int64
 *   43  producerId            int64
 *   51  producerEpoch         int16
 *   53  baseSequence          int32
 *   57  records               int32   how many; the records follow, compressed as a whole if at all
 */
export const at = {
  baseOffset: 0,
  batchLength: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  count: 57,
  records: 61,
} as const;

/** Bytes before the part that `batchLength` counts. */
export const lengthOverhead = 12;
/** Bytes of a batch without its records. */
export const headerSize = 61;
export const magic = 2;

export const codecMask = 0x07;
export const logAppendTimeFlag = 0x08;
export const transactionalFlag = 0x10;
export const controlFlag = 0x20;

/** By the number in the attributes. */
export const codecOf: readonly Codec[] = ["none", "gzip", "snappy", "lz4", "zstd"];

/** The smallest record: its length, attributes, two deltas, no key, no value, no headers. */
export const smallestRecord = 7;

/** Beyond 2⁵³ not exact, which no offset, producer id or time in milliseconds reaches. */
export function readInt64(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position) * 2 ** 32 + bytes.readUInt32BE(position + 4);
}

/** Of a whole number up to 2⁵³ in size. */
export function writeInt64(bytes: Buffer, value: number, position: number): void {
  bytes.writeInt32BE(Math.floor(value / 2 ** 32), position);
  bytes.writeUInt32BE(value >>> 0, position + 4);
}
