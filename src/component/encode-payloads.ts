import type { Batch } from "../message/batch.ts";
import type { Bytes } from "../message/chunk.ts";
import { encodeFrame, frameType } from "../message/frame.ts";
import type { Headers } from "../message/records.ts";
import { compressTask, offloadAbove } from "./codec.ts";
import type { Work } from "./context.ts";

/** One payload that stands for entries [from, to) of a batch. */
export interface EncodedPayload {
  readonly from: number;
  readonly to: number;
  readonly key: Buffer | null;
  readonly payload: Bytes;
  /** With `content-encoding` where it is compressed, and `content-type` where it is a frame. */
  readonly headers: Headers;
  readonly timestamp: number;
}

/** Whether a batch's payloads are written as they are, so that {@link encodePayloads} has nothing to do. */
export function isPlain(batch: Batch): boolean {
  return batch.codec === "none" && batch.framing === "record";
}

/**
 * A batch's payloads as a sink without a batch format of its own writes them: each by itself, compressed where the
 * batch names a codec, or one frame of them all. A message without a value has nothing to compress and keeps none.
 * Large payloads are compressed on the thread pool.
 */
export async function encodePayloads(batch: Batch, work: Work): Promise<readonly EncodedPayload[]> {
  if (batch.framing === "batch") {
    const frame = encodeFrame(batch);
    return [
      {
        from: 0,
        to: batch.length,
        key: batch.key(0),
        payload: await compressed(batch, frame, work),
        headers: withEncoding([["content-type", frameType]], batch),
        timestamp: batch.timestamp(0),
      },
    ];
  }
  const payloads: EncodedPayload[] = [];
  for (let entry = 0; entry < batch.length; entry++) {
    const payload = batch.payload(entry);
    const headers = batch.headers(entry);
    payloads.push({
      from: entry,
      to: entry + 1,
      key: batch.key(entry),
      payload: payload === null ? null : await compressed(batch, payload, work),
      headers: payload === null ? headers : withEncoding(headers, batch),
      timestamp: batch.timestamp(entry),
    });
  }
  return payloads;
}

function compressed({ codec }: Batch, payload: Buffer, work: Work): Promise<Buffer> | Buffer {
  if (codec === "none") return payload;
  const task = compressTask(codec, payload);
  return payload.length > offloadAbove ? work.run(task) : task.run();
}

function withEncoding(headers: Headers, { codec }: Batch): Headers {
  if (codec === "none") return headers;
  return [
    ...headers.filter(([name]) => name.toLowerCase() !== "content-encoding"),
    ["content-encoding", codec],
  ];
}
