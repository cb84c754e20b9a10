import { crc32c } from "@node-rs/crc32";
import { type Compression, decompressTask, offloadFrom } from "../../../../../component/codec.ts";
import type { Task, Work } from "../../../../../component/context.ts";
import { MillraceError } from "../../../../../errors.ts";
import type { Records } from "../../../../../message/records.ts";
import { DriverError, type DriverErrorCode } from "../../../driver.ts";
import { FetchedRecords, InvalidRecords, type RecordFrame } from "./fetched-records.ts";
import {
  at,
  codecMask,
  codecOf,
  controlFlag,
  headerSize,
  lengthOverhead,
  logAppendTimeFlag,
  magic,
  readInt64,
  smallestRecord,
  transactionalFlag,
} from "./format.ts";

/** The most that one fetched record batch may become; a broker's own limit is far below in practice. */
const maxBatchBytes = 256 * 2 ** 20;
/** So much is decompressed of one response; what follows is left to the next fetch. */
const enoughDecompressed = 32 * 2 ** 20;
/** Records that are less than this part of the bytes they keep alive get bytes of their own. */
const sparse = 1 / 8;

/** The number in a control record's key that says that a transaction was aborted. */
const abortMarker = 0;

/** As the broker lists them: what the producer wrote from `firstOffset` up to its abort marker is void. */
export interface AbortedTransaction {
  readonly producerId: bigint | number;
  readonly firstOffset: bigint | number;
}

export interface DecodeOptions {
  readonly topic: string;
  readonly partition: number;
  /** The offset that was asked for: a batch may begin before it. */
  readonly from: number;
  /** Aborted transactions of the response, for read_committed; without a list only control records are left out. */
  readonly aborted?: readonly AbortedTransaction[] | undefined;
  /** Does the decompression of large batches. */
  readonly work: Work;
  /**
   * Most bytes that one compressed batch may become.
   * @default 256 MiB
   */
  readonly maxBytes?: number;
}

export interface DecodedRecords {
  /** What is visible; may be nothing. */
  readonly records: Records;
  /** The offset to read on from: after everything that was read, visible or not. */
  readonly next: number;
  /**
   * When the bytes end inside a batch: how many that batch takes, as far as it says; otherwise 0. When nothing
   * else came, a fetch must ask for that much.
   */
  readonly incomplete: number;
}

/**
 * Decodes the record batches that a Fetch response has for one partition, in place: the result refers to the
 * bytes. Only where few of them are visible are these copied, so that a message that stays for long does not
 * hold on to a whole response.
 *
 * A batch that cannot be read ends the result before it; it fails when it is the first. The promise comes when a
 * batch is decompressed off the event loop.
 *
 * @throws DriverError naming topic, partition and offset: `retry` when a checksum does not match; `invalid` when
 *   it does and the content breaks the format; `unsupported` for a message format other than 2, an unknown codec,
 *   or a batch that grows beyond `maxBytes`.
 */
export function decodeRecords(
  bytes: Buffer,
  options: DecodeOptions,
): DecodedRecords | Promise<DecodedRecords> {
  const reader = new ResponseReader(bytes, options);
  const task = reader.readUntilLarge();
  return task === undefined ? reader.result() : readOn(reader, options.work, task);
}

async function readOn(reader: ResponseReader, work: Work, first: Task<Buffer>): Promise<DecodedRecords> {
  for (let task: Task<Buffer> | undefined = first; task !== undefined; task = reader.readUntilLarge()) {
    try {
      reader.takeContent(await work.run(task));
    } catch (error) {
      reader.fail(error);
    }
  }
  return reader.result();
}

interface BatchHeader extends RecordFrame {
  readonly lastOffset: number;
  readonly producerId: number;
  readonly control: boolean;
  /** The position after the batch. */
  readonly end: number;
}

/**
 * Goes through the batches of one partition. It stops where a large one is to be decompressed, and goes on once
 * it got the content. At a batch that cannot be read it is done.
 */
class ResponseReader {
  readonly #bytes: Buffer;
  readonly #options: DecodeOptions;
  readonly #records: FetchedRecords;
  /** By first offset. */
  readonly #aborted: readonly AbortedTransaction[] | undefined;
  /** How many of them have begun. */
  #begun = 0;
  /** Producers whose transaction that is open here will be aborted. */
  readonly #abortedProducers = new Set<number>();
  #at = 0;
  #next: number;
  #lastOffset = -1;
  #incomplete = 0;
  #decompressed = 0;
  #pending: BatchHeader | undefined;
  #done = false;

  constructor(bytes: Buffer, options: DecodeOptions) {
    this.#bytes = bytes;
    this.#options = options;
    this.#next = options.from;
    this.#records = new FetchedRecords(expectedRecords(bytes));
    this.#aborted = options.aborted?.toSorted((a, b) => Number(a.firstOffset) - Number(b.firstOffset));
  }

  /** Gives what must be decompressed before it can go on; undefined when it is done. */
  readUntilLarge(): Task<Buffer> | undefined {
    try {
      while (!this.#done) {
        const task = this.#readBatch();
        if (task !== undefined) return task;
      }
    } catch (error) {
      this.fail(error);
    }
    return undefined;
  }

  /** Takes the content of the batch that was to be decompressed. */
  takeContent(content: Buffer): void {
    this.#decompressed += content.length;
    this.#take(this.#pending!, content, 0, content.length);
    if (this.#decompressed > enoughDecompressed) this.#done = true;
  }

  /** Ends before the batch that cannot be read, unless it is the first. */
  fail(error: unknown): void {
    this.#done = true;
    if (this.#next === this.#options.from) throw this.#explained(error);
  }

  result(): DecodedRecords {
    const records = this.#records;
    if (records.visibleBytes < sparse * records.heldBytes) records.detach();
    return { records, next: this.#next, incomplete: this.#incomplete };
  }

  #readBatch(): Task<Buffer> | undefined {
    const header = this.#readHeader();
    if (header === undefined) {
      this.#done = true;
      return undefined;
    }
    if (this.#isSkipped(header)) {
      this.#passed(header);
      return undefined;
    }
    const bytes = this.#bytes;
    const start = this.#at + at.records;
    const codec = bytes[this.#at + at.attributes + 1]! & codecMask;
    if (codec === 0) {
      this.#take(header, bytes, start, header.end);
      return undefined;
    }
    const name = codecOf[codec] as Compression | undefined;
    if (name === undefined)
      throw this.#error("unsupported", `is compressed with codec ${codec}, which is unknown`);
    const payload = bytes.subarray(start, header.end);
    const task = decompressTask(name, payload, { maxBytes: this.#options.maxBytes ?? maxBatchBytes });
    this.#pending = header;
    if (payload.length >= offloadFrom[name].restore) return task;
    this.takeContent(task.run());
    return undefined;
  }

  /** Checks what can be checked without the records. Undefined: no whole batch is left. */
  #readHeader(): BatchHeader | undefined {
    const bytes = this.#bytes;
    const start = this.#at;
    const left = bytes.length - start;
    if (left === 0) return undefined;
    if (left > at.magic && bytes[start + at.magic] !== magic) {
      throw this.#error(
        "unsupported",
        `is in message format ${bytes[start + at.magic]}; only format 2 is read`,
      );
    }
    // What is left may be too little to say how long the batch is.
    const length =
      left < lengthOverhead ? headerSize : lengthOverhead + bytes.readInt32BE(start + at.batchLength);
    if (length < headerSize)
      throw this.#error("retry", `is damaged: ${length} bytes are less than its header`);
    if (left < length) {
      this.#incomplete = length;
      return undefined;
    }
    const end = start + length;
    if (crc32c(bytes.subarray(start + at.attributes, end)) !== bytes.readUInt32BE(start + at.crc)) {
      throw this.#error("retry", "is damaged: its checksum does not match");
    }
    const attributes = bytes.readInt16BE(start + at.attributes);
    const baseOffset = readInt64(bytes, start + at.baseOffset);
    const lastOffsetDelta = bytes.readInt32BE(start + at.lastOffsetDelta);
    const lastOffset = baseOffset + lastOffsetDelta;
    const count = bytes.readInt32BE(start + at.count);
    if (lastOffsetDelta < 0 || count < 0) throw this.#error("invalid", "has a negative number of records");
    if (baseOffset <= this.#lastOffset) {
      throw this.#error("invalid", `is out of order: offset ${this.#lastOffset} comes before it`);
    }
    if (!Number.isSafeInteger(lastOffset)) throw this.#error("invalid", "has offsets beyond 2^53");
    return {
      baseOffset,
      lastOffset,
      lastOffsetDelta,
      baseTimestamp: readInt64(bytes, start + at.baseTimestamp),
      appendTimestamp:
        (attributes & logAppendTimeFlag) === 0 ? undefined : readInt64(bytes, start + at.maxTimestamp),
      count,
      producerId: (attributes & transactionalFlag) === 0 ? -1 : readInt64(bytes, start + at.producerId),
      control: (attributes & controlFlag) !== 0,
      end,
    };
  }

  #isSkipped({ lastOffset, count, producerId, control }: BatchHeader): boolean {
    if (this.#aborted !== undefined) {
      while (this.#begun < this.#aborted.length) {
        const transaction = this.#aborted[this.#begun]!;
        if (Number(transaction.firstOffset) > lastOffset) break;
        this.#abortedProducers.add(Number(transaction.producerId));
        this.#begun++;
      }
    }
    // Compaction leaves batches without records.
    if (count === 0) return true;
    if (control) return this.#aborted === undefined;
    return lastOffset < this.#options.from || this.#abortedProducers.has(producerId);
  }

  #take(header: BatchHeader, content: Buffer, start: number, end: number): void {
    if (header.control) {
      const markers = new FetchedRecords(1);
      markers.append(content, start, end, header, 0);
      const key = markers.key(0);
      // The key has two numbers of 16 bits: its version, and what the marker says.
      if (key === null || key.length < 4) throw new InvalidRecords("its control record has no type");
      if (key.readInt16BE(2) === abortMarker) this.#abortedProducers.delete(header.producerId);
    } else {
      this.#records.append(content, start, end, header, this.#options.from);
    }
    this.#passed(header);
  }

  #passed({ lastOffset, end }: BatchHeader): void {
    this.#at = end;
    this.#lastOffset = lastOffset;
    if (lastOffset >= this.#next) this.#next = lastOffset + 1;
  }

  #explained(error: unknown): unknown {
    if (error instanceof InvalidRecords) return this.#error("invalid", `is invalid: ${error.message}`);
    if (!(error instanceof MillraceError)) return error;
    const code = error.code === "decompressed-too-large" ? "unsupported" : "invalid";
    return this.#error(code, `cannot be decompressed: ${error.message}`, error);
  }

  #error(code: DriverErrorCode, problem: string, cause?: unknown): DriverError {
    const { topic, partition, from } = this.#options;
    const known = this.#bytes.length - this.#at >= at.batchLength;
    const offset = known ? readInt64(this.#bytes, this.#at + at.baseOffset) : from;
    return new DriverError(
      code,
      `${topic}/${partition}: the record batch at offset ${offset} ${problem}`,
      cause,
    );
  }
}

/** As many as there are when all batches are like the first. */
function expectedRecords(bytes: Buffer): number {
  if (bytes.length < headerSize) return 0;
  const count = bytes.readInt32BE(at.count);
  const length = lengthOverhead + bytes.readInt32BE(at.batchLength);
  const expected = count * Math.ceil(bytes.length / Math.max(length, headerSize));
  // Nothing of this is checked yet.
  return Math.max(0, Math.min(expected, Math.floor(bytes.length / smallestRecord)));
}
