import { Observable, type Subscriber } from "rxjs";
import { type Compression, decompressTask, offloadAbove } from "../component/codec.ts";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import { byteCount, type OptionsSchema, type Size } from "../component/options.ts";
import { MillraceError, messageOf } from "../errors.ts";
import { Batch } from "../message/batch.ts";
import { type Bytes, Chunk, Split } from "../message/chunk.ts";
import { decodeFrame, frameType } from "../message/frame.ts";
import type { Headers } from "../message/records.ts";

export interface DecompressOptions {
  /**
   * What the payloads are compressed with. `auto` goes by each message's header `content-encoding`, and lets a
   * message without one pass untouched.
   * @default "auto"
   */
  readonly codec?: Compression | "auto";
  /** Most bytes that one payload may become. Default "16MiB". */
  readonly maxBytes?: Size;
  /** Most bytes for each compressed byte, beyond the first MiB. Default 1,000. */
  readonly maxRatio?: number;
}

const compressions = ["gzip", "snappy", "lz4", "zstd"] as const satisfies readonly Compression[];

const schema: OptionsSchema = {
  type: "object",
  properties: {
    codec: { enum: [...compressions, "auto"] },
    maxBytes: { isSize: true },
    maxRatio: { type: "number", minimum: 1 },
  },
  additionalProperties: false,
};

export const decompressDefinition = defineOperator<DecompressOptions>({
  type: "decompress",
  summary: "Restores payloads that were compressed one by one, or as a framed batch.",
  guarantee:
    "A damaged payload, one of an unknown codec, and one that would grow beyond the limits is rejected alone; nothing " +
    "beyond the limits is allocated. A framed batch becomes its messages again, with their own keys and headers; the " +
    "message it came in settles once all of them have, with the worst of their outcomes. Order is kept. Kafka's own " +
    "record batches need no such step.",
  schema,
  examples: [
    {
      title: "By the content-encoding of each message",
      code: "decompress()",
      operator: () => decompress(),
      given: [{ value: "not compressed" }],
      expect: [{ value: "not compressed" }],
    },
  ],
  effect: () => ({ takes: "bytes", leaves: "bytes" }),
  rejects: true,
  build: (options, context) => (source) =>
    new Observable((subscriber) => {
      const restorer = new Restorer(options, context, subscriber);
      const subscription = source.subscribe(restorer);
      return () => {
        subscription.unsubscribe();
        restorer.stop();
      };
    }),
});

/** Restores payloads that were compressed one by one, or as a framed batch, within limits. */
export function decompress(options: DecompressOptions = {}): Operator<Bytes, Bytes> {
  return decompressDefinition.place<Bytes, Bytes>(options);
}

/**
 * Restores chunk by chunk, in order. Small payloads are restored in place; from the first large one on, the chunks
 * wait in a queue for the thread pool, bounded by the credit of their sources.
 */
class Restorer {
  readonly #codec: Compression | "auto";
  readonly #limits: { readonly maxBytes: number; readonly maxRatio: number };
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #queue: Flowing[] = [];
  #working = false;
  #completing = false;
  #stopped = false;

  constructor(options: DecompressOptions, context: OperatorContext, subscriber: Subscriber<Flowing>) {
    this.#codec = options.codec ?? "auto";
    this.#limits = {
      maxBytes: byteCount(options.maxBytes, 16 * 2 ** 20),
      maxRatio: options.maxRatio ?? 1_000,
    };
    this.#context = context;
    this.#subscriber = subscriber;
  }

  next(item: Flowing): void {
    if (!(item instanceof Batch) && "kind" in item && item.kind === "revoke") {
      // It overtakes: what it names is returned already.
      this.#subscriber.next(item);
      return;
    }
    this.#queue.push(item);
    if (!this.#working) this.#work();
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completing = true;
    if (!this.#working) this.#work();
  }

  stop(): void {
    this.#stopped = true;
    this.#queue.length = 0;
  }

  /** Takes items off the queue for as long as none of them has to wait for the thread pool. */
  #work(): void {
    while (!this.#stopped) {
      const item = this.#queue.shift();
      if (item === undefined) break;
      if (!(item instanceof Chunk)) {
        this.#subscriber.next(item);
        continue;
      }
      const offloaded = this.#restore(item, 0);
      if (offloaded === undefined) continue;
      this.#working = true;
      const over = this.#context.busy();
      offloaded.finally(() => {
        over();
        this.#working = false;
        this.#work();
      });
      return;
    }
    if (this.#completing && !this.#stopped) {
      this.#stopped = true;
      this.#subscriber.complete();
    }
  }

  /** Restores the chunk from message `from` on and emits it; a promise when the thread pool is needed for it. */
  #restore(chunk: Chunk, from: number, framed: (Buffer | undefined)[] = []): Promise<void> | undefined {
    for (let i = from; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const codec = this.#codecOf(chunk, i);
      const payload = chunk.payload(i);
      if (payload === null || codec === "unknown") continue;
      if (codec === undefined) {
        if (isFrame(chunk.headers(i))) framed[i] = payload;
        continue;
      }
      const task = decompressTask(codec, payload, this.#limits);
      if (payload.length <= offloadAbove) {
        try {
          this.#set(chunk, i, task.run(), framed);
        } catch (error) {
          this.#reject(chunk, i, error);
        }
        continue;
      }
      return this.#context.work
        .run(task)
        .then(
          (restored) => this.#set(chunk, i, restored, framed),
          (error) => this.#reject(chunk, i, error),
        )
        .then(() => this.#restore(chunk, i + 1, framed));
    }
    this.#emit(chunk, framed);
    return undefined;
  }

  /** What the payload is compressed with; undefined for nothing. Rejects a message of an unknown codec. */
  #codecOf(chunk: Chunk, index: number): Compression | "unknown" | undefined {
    if (this.#codec !== "auto") return this.#codec;
    const encoding = headerOf(chunk.headers(index), "content-encoding")?.trim().toLowerCase();
    if (encoding === undefined || encoding === "" || encoding === "identity") return undefined;
    const known = compressions.find((codec) => codec === encoding);
    if (known !== undefined) return known;
    const message = `the content-encoding is none of ${compressions.join(", ")}`;
    this.#context.reject(chunk, index, { class: "business", code: "codec-unknown", message });
    return "unknown";
  }

  #set(chunk: Chunk, index: number, restored: Buffer, framed: (Buffer | undefined)[]): void {
    const headers = chunk.headers(index);
    if (isFrame(headers)) {
      framed[index] = restored;
      return;
    }
    chunk.payloads ??= Array.from({ length: chunk.length }, (_, i) => chunk.payload(i));
    chunk.payloads[index] = restored;
    chunk.values = chunk.payloads;
    chunk.headerColumn ??= Array.from({ length: chunk.length }, (_, i) => chunk.headers(i));
    chunk.headerColumn[index] = headers.filter(([name]) => name !== "content-encoding");
  }

  #emit(chunk: Chunk, framed: readonly (Buffer | undefined)[]): void {
    if (chunk.lane.ended) return;
    if (framed.length === 0) {
      if (chunk.live > 0) this.#subscriber.next(chunk);
      return;
    }
    // Between two frames the messages travel as they came.
    let from = 0;
    for (let i = 0; i <= chunk.length; i++) {
      if (i < chunk.length && framed[i] === undefined) continue;
      if (i > from) this.#emitRun(chunk, from, i);
      if (i < chunk.length && chunk.state[i] === 1) this.#emitFrame(chunk, i, framed[i]!);
      from = i + 1;
    }
  }

  #emitRun(chunk: Chunk, from: number, to: number): void {
    const run = chunk.share();
    for (let i = 0; i < chunk.length; i++) if (i < from || i >= to) run.takeOut(i);
    if (run.live > 0) this.#subscriber.next(run);
  }

  #emitFrame(chunk: Chunk, index: number, frame: Buffer): void {
    try {
      const children = decodeFrame(frame, chunk.position(index));
      chunk.takeOut(index);
      const split = new Split(chunk, index, children.length);
      this.#subscriber.next(new Chunk(chunk.lane, split, 0, children.length, children, 0));
    } catch (error) {
      this.#reject(chunk, index, error);
    }
  }

  #reject(chunk: Chunk, index: number, error: unknown): void {
    if (error instanceof MillraceError && error.class === "business") {
      this.#context.reject(chunk, index, { class: "business", code: error.code, message: messageOf(error) });
    } else {
      this.#context.fail(error instanceof Error ? error : new Error(messageOf(error)));
    }
  }
}

function isFrame(headers: Headers): boolean {
  return headerOf(headers, "content-type") === frameType;
}

function headerOf(headers: Headers, name: string): string | undefined {
  const value = headers.find(([candidate]) => candidate.toLowerCase() === name)?.[1];
  return value === undefined || value === null ? undefined : String(value);
}
