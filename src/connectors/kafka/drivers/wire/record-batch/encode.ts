import { crc32c } from "@node-rs/crc32";
import { compressTask, offloadFrom } from "../../../../../component/codec.ts";
import type { Work } from "../../../../../component/context.ts";
import type { Batch, Codec } from "../../../../../message/batch.ts";
import { type Headers, type HeaderValue, noHeaders } from "../../../../../message/records.ts";
import { DriverError } from "../../../driver.ts";
import { patchedCrc } from "./crc-patch.ts";
import { FetchedRecords } from "./fetched-records.ts";
import { at, codecOf, headerSize, lengthOverhead, magic, writeInt64 } from "./format.ts";
import { varintSize, varlongSize, writeVarint, writeVarlong } from "./varint.ts";

export interface RecordBatchOptions {
  readonly codec: Codec;
  /** The timestamp of records that have none of their own (a negative one), ms since 1970. */
  readonly now: number;
  /** Does the compression of large batches. */
  readonly work: Work;
  /**
   * The idempotent producer's id; see {@link stampProducer}.
   * @default −1: none
   */
  readonly producerId?: bigint | number;
  /** @default −1 */
  readonly producerEpoch?: number;
  /** @default −1 */
  readonly baseSequence?: number;
}

/** Bytes of a usual record beside key and value: length, attributes, deltas, lengths, number of headers. */
const usualFraming = 12;
/** The length of a record, at its longest. */
const longestVarint = 5;
/** The longest batch its header can tell of. */
const largestBatch = 2 ** 31 - 1;
/** Most that is kept at hand for the next batch to be compressed. */
const largestScratch = 4 * 2 ** 20;

/** Where records are gathered to be compressed; undefined while somebody has it. */
let scratch: Buffer | undefined;

/**
 * Encodes entries [from, to) of the batch as one record batch, whole, as a Produce request carries it. Header
 * values that are text, numbers or booleans become UTF-8. A promise comes when the batch is compressed off the
 * event loop.
 *
 * @throws RangeError when there are no entries; DriverError `too-large` beyond 2 GiB
 */
export function encodeRecordBatch(
  batch: Batch,
  from: number,
  to: number,
  options: RecordBatchOptions,
): Buffer | Promise<Buffer> {
  const count = to - from;
  if (!(count > 0)) throw new RangeError("a record batch has at least one record");
  const { codec } = options;
  // What they take if all entries are alike; the buffer grows when they are not.
  const size = headerSize + Math.ceil((batch.bytes / batch.length + usualFraming) * count);
  if (codec === "none") {
    const written = writeRecords(batch, from, to, options.now, Buffer.allocUnsafe(size));
    const bytes = trimmed(written.bytes, written.length);
    writeHeader(bytes, count, written, options);
    return bytes;
  }
  const written = writeRecords(batch, from, to, options.now, takeScratch(size));
  const records = written.bytes.subarray(headerSize, written.length);
  const finish = (compressed: Buffer): Buffer => {
    if (written.bytes.length <= largestScratch) scratch = written.bytes;
    const bytes = Buffer.allocUnsafe(headerSize + compressed.length);
    bytes.set(compressed, headerSize);
    writeHeader(bytes, count, written, options);
    return bytes;
  };
  const task = compressTask(codec, records, { snappy: "xerial" });
  return records.length >= offloadFrom[codec].compress
    ? options.work.run(task).then(finish)
    : finish(task.run());
}

/**
 * Writes an idempotent producer's id, epoch and sequence number into an encoded batch, in place. The broker knows
 * a batch that comes again by these: a resend is the same bytes, and is not stamped anew.
 *
 * @param baseSequence of the batch's first record
 */
export function stampProducer(
  bytes: Buffer,
  producerId: bigint | number,
  producerEpoch: number,
  baseSequence: number,
): void {
  const part = bytes.subarray(at.producerId, at.count);
  const before = crc32c(part);
  writeProducer(bytes, producerId, producerEpoch, baseSequence);
  const crc = patchedCrc(bytes.readUInt32BE(at.crc), before, crc32c(part), bytes.length - at.count);
  bytes.writeUInt32BE(crc, at.crc);
}

interface WrittenRecords {
  /** Records from {@link headerSize} on. */
  readonly bytes: Buffer;
  /** Bytes in use, the room for the header included. */
  readonly length: number;
  readonly firstTimestamp: number;
  readonly maxTimestamp: number;
}

function writeRecords(batch: Batch, from: number, to: number, now: number, into: Buffer): WrittenRecords {
  let bytes = into;
  let position: number = headerSize;
  let firstTimestamp = 0;
  let maxTimestamp = 0;
  for (let entry = from; entry < to; entry++) {
    const chunk = batch.chunk(entry);
    const index = batch.index(entry);
    const { keys } = chunk;
    const value = chunk.payload(index);
    const own = chunk.timestamp(index);
    const timestamp = Math.floor(own >= 0 && own < 2 ** 63 ? own : now);
    if (entry === from) firstTimestamp = timestamp;
    if (timestamp > maxTimestamp) maxTimestamp = timestamp;

    // Headers that nobody touched are copied as they came.
    const untouched = chunk.headerColumn === undefined && chunk.records instanceof FetchedRecords;
    const encodedHeaders = untouched
      ? (chunk.records as FetchedRecords).encodedHeaders(chunk.from + index)
      : undefined;
    const headers = untouched ? noHeaders : chunk.headers(index);
    const headerBytes = encodedHeaders !== undefined ? encodedHeaders.length : headersSize(headers);

    const timestampDelta = timestamp - firstTimestamp;
    const offsetDelta = entry - from;
    const keyLength = chunk.keyLength(index);
    const valueLength = value === null ? -1 : value.length;
    const length =
      1 +
      varlongSize(timestampDelta) +
      varintSize(offsetDelta) +
      varintSize(keyLength) +
      Math.max(keyLength, 0) +
      varintSize(valueLength) +
      Math.max(valueLength, 0) +
      headerBytes;
    const needed = position + longestVarint + length;
    if (needed > bytes.length) bytes = grown(bytes, position, needed);

    position = writeVarint(bytes, position, length);
    bytes[position++] = 0;
    position = writeVarlong(bytes, position, timestampDelta);
    position = writeVarint(bytes, position, offsetDelta);
    position = writeVarint(bytes, position, keyLength);
    if (keyLength >= 0) {
      if (keys === undefined) bytes.set(chunk.key(index)!, position);
      else keys.copy(index, bytes, position);
      position += keyLength;
    }
    position = writeVarint(bytes, position, valueLength);
    if (value !== null) {
      bytes.set(value, position);
      position += valueLength;
    }
    if (encodedHeaders !== undefined) {
      bytes.set(encodedHeaders, position);
      position += headerBytes;
    } else {
      position = writeHeaders(bytes, position, headers);
    }
  }
  return { bytes, length: position, firstTimestamp, maxTimestamp };
}

function headersSize(headers: Headers): number {
  let size = varintSize(headers.length);
  for (let i = 0; i < headers.length; i++) {
    const [name, content] = headers[i]!;
    const nameLength = Buffer.byteLength(name);
    const length = contentLength(content);
    size += varintSize(nameLength) + nameLength + varintSize(length) + Math.max(length, 0);
  }
  return size;
}

function writeHeaders(bytes: Buffer, start: number, headers: Headers): number {
  let position = writeVarint(bytes, start, headers.length);
  for (let i = 0; i < headers.length; i++) {
    const [name, content] = headers[i]!;
    position = writeVarint(bytes, position, Buffer.byteLength(name));
    position += bytes.write(name, position);
    position = writeVarint(bytes, position, contentLength(content));
    if (Buffer.isBuffer(content)) {
      bytes.set(content, position);
      position += content.length;
    } else if (content !== null) {
      position += bytes.write(String(content), position);
    }
  }
  return position;
}

/** −1: null. */
function contentLength(content: HeaderValue): number {
  if (content === null) return -1;
  return Buffer.isBuffer(content) ? content.length : Buffer.byteLength(String(content));
}

function writeHeader(
  bytes: Buffer,
  count: number,
  { firstTimestamp, maxTimestamp }: WrittenRecords,
  { codec, producerId = -1, producerEpoch = -1, baseSequence = -1 }: RecordBatchOptions,
): void {
  writeInt64(bytes, 0, at.baseOffset);
  bytes.writeInt32BE(bytes.length - lengthOverhead, at.batchLength);
  bytes.writeInt32BE(-1, at.leaderEpoch);
  bytes.writeInt8(magic, at.magic);
  bytes.writeInt16BE(codecOf.indexOf(codec), at.attributes);
  bytes.writeInt32BE(count - 1, at.lastOffsetDelta);
  writeInt64(bytes, firstTimestamp, at.baseTimestamp);
  writeInt64(bytes, maxTimestamp, at.maxTimestamp);
  bytes.writeInt32BE(count, at.count);
  writeProducer(bytes, producerId, producerEpoch, baseSequence);
  bytes.writeUInt32BE(crc32c(bytes.subarray(at.attributes)), at.crc);
}

function writeProducer(bytes: Buffer, id: bigint | number, epoch: number, sequence: number): void {
  bytes.writeBigInt64BE(BigInt(id), at.producerId);
  bytes.writeInt16BE(epoch, at.producerEpoch);
  bytes.writeInt32BE(sequence, at.baseSequence);
}

function grown(bytes: Buffer, used: number, needed: number): Buffer {
  if (needed > largestBatch) throw new DriverError("too-large", "a record batch cannot exceed 2 GiB");
  const larger = Buffer.allocUnsafe(Math.min(largestBatch, Math.max(needed, 2 * bytes.length)));
  larger.set(bytes.subarray(0, used));
  return larger;
}

/** What was estimated far too high is not kept so. */
function trimmed(bytes: Buffer, length: number): Buffer {
  const used = bytes.subarray(0, length);
  return bytes.length > 2 * length + 1_024 ? Buffer.from(used) : used;
}

function takeScratch(size: number): Buffer {
  const taken = scratch;
  scratch = undefined;
  return taken !== undefined && taken.length >= size ? taken : Buffer.allocUnsafeSlow(size);
}
