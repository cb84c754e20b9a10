import type { Batch } from "../message/batch.ts";
import type { Bytes } from "../message/chunk.ts";
import { encodeFrame, type FrameSource, frameType, messageSize, mostMessages } from "../message/frame.ts";
import type { Headers } from "../message/records.ts";
import { compressTask, offloadAbove } from "./codec.ts";
import { encodedWith, typeHeader } from "./content-encoding.ts";
import type { Work } from "./context.ts";
import { InPlace } from "./in-place.ts";

/** What a sink without a batch format of its own writes for entries [from, to) of a batch: acknowledged or refused together. */
export interface EncodedPayload {
  readonly from: number;
  readonly to: number;
  readonly payload: Bytes;
  /** null for a frame: it stands for messages of many keys. */
  readonly key: Buffer | null;
  /** A message's own and `content-encoding`; of a frame only `content-type` and `content-encoding`. */
  readonly headers: Headers;
  /** Of a frame that of its first message. */
  readonly timestamp: number;
}

/** Whether a batch's payloads are written as they are, so that {@link encodePayloads} has nothing to do. */
export function isPlain(batch: Batch): boolean {
  return batch.codec === "none" && batch.framing === "record";
}

/**
 * Frames are closed at this size, uncompressed, so that what one holds can be restored by any reader: half of
 * what `decompress` restores by default. A larger message goes alone.
 */
const frameBytes = 8 * 2 ** 20;

/**
 * Applies a batch's codec and framing, for sinks that have no batch format of their own: with framing `record`
 * each payload is compressed by itself and the header `content-encoding` names the codec; with framing `batch`
 * all messages go into one payload, or into several when they are very many, of the type {@link frameType}.
 * Null stays null. The payloads are in the order of their messages; large ones are made by `work`.
 */
export function encodePayloads(batch: Batch, work: Work): Promise<readonly EncodedPayload[]> {
  return batch.framing === "batch" ? framed(batch, work) : single(batch, work);
}

async function single(batch: Batch, work: Work): Promise<readonly EncodedPayload[]> {
  const { codec } = batch;
  const encoded = new Array<EncodedPayload>(batch.length);
  const pending: Promise<void>[] = [];
  const here = new InPlace();
  const set = (entry: number, payload: Bytes, headers: Headers) => {
    const key = batch.key(entry);
    encoded[entry] = { from: entry, to: entry + 1, payload, key, headers, timestamp: batch.timestamp(entry) };
  };
  for (let entry = 0; entry < batch.length; entry++) {
    const payload = batch.payload(entry);
    const headers = batch.headers(entry);
    if (codec === "none" || payload === null) {
      set(entry, payload, headers);
      continue;
    }
    const task = compressTask(codec, payload);
    if (here.allows(payload.length)) {
      set(entry, task.run(), encodedWith(headers, codec));
      here.used(payload.length);
      continue;
    }
    pending.push(work.run(task).then((compressed) => set(entry, compressed, encodedWith(headers, codec))));
  }
  await Promise.all(pending);
  return encoded;
}

async function framed(batch: Batch, work: Work): Promise<readonly EncodedPayload[]> {
  const { codec } = batch;
  const headers = encodedWith([[typeHeader, frameType]], codec);
  const encoded: EncodedPayload[] = [];
  for (let from = 0; from < batch.length; ) {
    const to = frameEnd(batch, from);
    const frame = encodeFrame(new Part(batch, from, to - from));
    let payload = frame;
    if (codec !== "none") {
      const task = compressTask(codec, frame);
      payload = frame.length > offloadAbove ? await work.run(task) : task.run();
    }
    encoded.push({ from, to, payload, key: null, headers, timestamp: batch.timestamp(from) });
    from = to;
  }
  return encoded;
}

/** The end of the frame that begins with entry `from`. */
function frameEnd(batch: Batch, from: number): number {
  const last = Math.min(batch.length, from + mostMessages);
  let bytes = messageSize(batch, from);
  let to = from + 1;
  while (to < last) {
    bytes += messageSize(batch, to);
    if (bytes > frameBytes) break;
    to++;
  }
  return to;
}

/** Some of a batch's messages, one after the other. */
class Part implements FrameSource {
  readonly length: number;
  readonly #batch: Batch;
  readonly #from: number;

  constructor(batch: Batch, from: number, length: number) {
    this.#batch = batch;
    this.#from = from;
    this.length = length;
  }

  key(entry: number): Buffer | null {
    return this.#batch.key(this.#from + entry);
  }

  payload(entry: number): Bytes {
    return this.#batch.payload(this.#from + entry);
  }

  headers(entry: number): Headers {
    return this.#batch.headers(this.#from + entry);
  }

  timestamp(entry: number): number {
    return this.#batch.timestamp(this.#from + entry);
  }
}
