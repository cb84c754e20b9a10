import { Observable, type Subscriber } from "rxjs";
import { type Compression, decompressTask, type RestoreLimits } from "../component/codec.ts";
import { codingsOf, mediaTypeOf, withCodings } from "../component/content-encoding.ts";
import type { Task } from "../component/context.ts";
import { defineOperator } from "../component/define-operator.ts";
import { InPlace } from "../component/in-place.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import { byteCount, type OptionsSchema, type Size } from "../component/options.ts";
import { MillraceError } from "../errors.ts";
import { codecs } from "../message/batch.ts";
import { type Bytes, Chunk, Split } from "../message/chunk.ts";
import { decodeFrame, frameType } from "../message/frame.ts";
import type { Lane } from "../message/lane.ts";
import type { Headers, Records } from "../message/records.ts";

export interface DecompressOptions {
  /**
   * `auto` goes by each message's header `content-encoding`, as `compress` writes it and as HTTP has it, and lets
   * values without one pass as they are. A codec is taken to have been applied to every value, whatever the
   * headers say.
   * @default "auto"
   */
  readonly codec?: Compression | "auto";
  /** Most bytes a value may have when restored. @default "16MiB" */
  readonly maxBytes?: Size;
  /**
   * Most bytes restored for each compressed byte, above 1 MiB. Honest data rarely passes 200; what credit holds
   * in memory is compressed, so this bounds what a sender can make of it.
   * @default 1_000
   */
  readonly maxRatio?: number;
}

const compressions = codecs.filter((codec) => codec !== "none");
const known: ReadonlySet<string> = new Set(compressions);

/** Most codings of one value. More are no use, and each may be a bomb. */
const mostCodings = 4;

const schema: OptionsSchema = {
  type: "object",
  properties: {
    codec: { enum: ["auto", ...compressions] },
    maxBytes: { isSize: true },
    maxRatio: { type: "number", minimum: 1 },
  },
  additionalProperties: false,
};

export const decompressDefinition = defineOperator<DecompressOptions>({
  type: "decompress",
  summary: "Restores compressed values, and takes payloads that frame a whole batch apart.",
  guarantee:
    "Values come out exactly as they were compressed, in order, the header content-encoding removed. A frame becomes " +
    "the messages it was made of, with their keys, headers and timestamps; it settles when they all have. What is " +
    "damaged, cut short, followed by other bytes, larger than allowed or of an unknown codec is rejected; raw snappy " +
    "has no checksum, so damage in it can go unseen. Large values are restored on the thread pool, and what comes " +
    "after them waits. Credit counts the compressed bytes.",
  schema,
  examples: [
    {
      title: "Values of one codec, whatever their headers say",
      code: 'decompress({ codec: "snappy" })',
      operator: () => decompress({ codec: "snappy" }),
      given: [{ value: "\u0005\u0010hello" }, { value: "\u0005\u0010hell" }, { value: null }],
      expect: [{ value: "hello" }, { value: "\u0005\u0010hell", outcome: "deadLettered" }, { value: null }],
    },
    {
      title: "By header: a value without content-encoding passes as it is",
      code: "decompress()",
      operator: () => decompress(),
      given: [{ value: "hello" }],
      expect: [{ value: "hello" }],
    },
  ],
  effect: () => ({ takes: "bytes", leaves: "bytes" }),
  rejects: true,
  build: (options, context) => (source) =>
    new Observable((subscriber) => {
      const decompressor = new Decompressor(options, context, subscriber);
      const subscription = source.subscribe(decompressor);
      return () => {
        subscription.unsubscribe();
        decompressor.stop();
      };
    }),
});

/** Restores compressed values: by their header `content-encoding`, or with one codec for all. */
export function decompress(options: DecompressOptions = {}): Operator<Bytes, Bytes> {
  return decompressDefinition.place<Bytes, Bytes>(options);
}

/** A chunk whose values are being restored. */
class Restoring {
  readonly chunk: Chunk;
  /** By index: what a value became, or why it could not. Undefined where it stays as it is. */
  readonly results: (Buffer | MillraceError | undefined)[];
  /** Headers of the messages in `results`, without what was undone. */
  readonly headers: Headers[] = [];
  /** Values that are still out. */
  open = 0;

  constructor(chunk: Chunk) {
    this.chunk = chunk;
    this.results = new Array(chunk.length);
  }
}

/**
 * Small values are restored at once and their chunk goes on before `next` returns. A chunk with large ones waits
 * in the queue for the thread pool, and everything after it waits behind it: chunks, whose own values are already
 * being restored meanwhile, and controls. Only a revoke goes past, since nothing of its lane stays behind.
 */
class Decompressor {
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #codec: Compression | undefined;
  readonly #limits: RestoreLimits;
  #queue: (Restoring | Flowing)[] = [];
  #emitting = false;
  #completed = false;
  #idle: (() => void) | undefined;

  constructor(options: DecompressOptions, context: OperatorContext, subscriber: Subscriber<Flowing>) {
    this.#context = context;
    this.#subscriber = subscriber;
    const { codec = "auto" } = options;
    this.#codec = codec === "auto" ? undefined : codec;
    this.#limits = {
      maxBytes: byteCount(options.maxBytes, 16 * 2 ** 20),
      maxRatio: options.maxRatio ?? 1_000,
    };
  }

  next(item: Flowing): void {
    if (item instanceof Chunk) {
      // What is left of an ended lane is `returned` already.
      if (item.lane.ended) return;
      this.#queue.push(this.#restore(item) ?? item);
    } else if ("kind" in item && item.kind === "revoke") {
      this.#drop(item.lane);
      this.#subscriber.next(item);
      return;
    } else this.#queue.push(item);
    this.#emitReady();
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completed = true;
    this.#emitReady();
  }

  /** Nobody listens any more: what waits stays unsettled. */
  stop(): void {
    this.#queue = [];
    this.#idle?.();
    this.#idle = undefined;
  }

  /** Begins with what is compressed in the chunk; undefined when nothing is. */
  #restore(chunk: Chunk): Restoring | undefined {
    let restoring: Restoring | undefined;
    let here: InPlace | undefined;
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const headers = chunk.headers(i);
      if (headers.length === 0 && this.#codec === undefined) continue;
      const input = chunk.payload(i);
      if (input === null) continue;
      const codings = codingsOf(headers);
      const undone = this.#codec === undefined ? codings : [this.#codec];
      if (undone.length === 0 && mediaTypeOf(headers) !== frameType) continue;
      restoring ??= new Restoring(chunk);
      here ??= new InPlace();
      restoring.headers[i] = withCodings(headers, this.#left(codings));
      this.#begin(restoring, i, restoreTask(undone, input, this.#limits), input.length, here);
    }
    return restoring;
  }

  /** The codings that a message still has afterwards. */
  #left(codings: readonly string[]): readonly string[] {
    if (this.#codec === undefined) return [];
    return codings.at(-1) === this.#codec ? codings.slice(0, -1) : codings;
  }

  #begin(restoring: Restoring, index: number, task: Task<Buffer>, size: number, here: InPlace): void {
    const { results } = restoring;
    if (here.allows(size)) {
      try {
        const restored = task.run();
        here.used(size + restored.length);
        results[index] = restored;
      } catch (error) {
        // A bomb may have cost as much as it was allowed to unpack.
        const bomb = error instanceof MillraceError && error.code === "decompressed-too-large";
        here.used(bomb ? this.#limits.maxBytes : size);
        this.#failed(restoring, index, error);
      }
      return;
    }
    restoring.open++;
    this.#context.work.run(task).then(
      (restored) => {
        results[index] = restored;
        restoring.open--;
        this.#emitReady();
      },
      (error) => {
        restoring.open--;
        this.#failed(restoring, index, error);
        this.#emitReady();
      },
    );
  }

  #failed(restoring: Restoring, index: number, error: unknown): void {
    if (error instanceof MillraceError) {
      restoring.results[index] = error;
      return;
    }
    // No fault of the message: its chunk stays here, unsettled.
    restoring.open = Number.POSITIVE_INFINITY;
    this.#context.fail(error instanceof Error ? error : new Error(String(error)));
  }

  /** Sends on what is first in the queue, as far as it is ready. */
  #emitReady(): void {
    // What comes in while something goes out waits its turn.
    if (this.#emitting) return;
    this.#emitting = true;
    try {
      while (this.#queue.length > 0) {
        const first = this.#queue[0]!;
        if (first instanceof Restoring && first.open > 0) break;
        this.#queue.shift();
        if (first instanceof Restoring) this.#emit(first);
        else this.#subscriber.next(first);
      }
    } finally {
      this.#emitting = false;
    }
    if (this.#queue.length > 0) this.#idle ??= this.#context.busy();
    else {
      this.#idle?.();
      this.#idle = undefined;
      if (this.#completed) this.#subscriber.complete();
    }
  }

  #emit({ chunk, results, headers }: Restoring): void {
    // An author's code further up may have ended the lane without its revoke having come here yet.
    if (chunk.lane.ended) return;
    const frames = new Map<number, Records>();
    for (let i = 0; i < chunk.length; i++) {
      const result = results[i];
      if (result === undefined || chunk.state[i] === 0) continue;
      if (result instanceof MillraceError) this.#reject(chunk, i, result);
      else if (mediaTypeOf(headers[i]!) === frameType) this.#open(chunk, i, result, frames);
      else this.#replace(chunk, i, result, headers[i]!);
    }
    if (frames.size === 0) {
      if (chunk.live > 0) this.#subscriber.next(chunk);
      return;
    }
    let from = 0;
    for (const [at, records] of frames) {
      this.#emitPart(chunk, from, at);
      const children = new Chunk(
        chunk.lane,
        new Split(chunk, at, records.length),
        0,
        records.length,
        records,
        0,
      );
      children.codec = chunk.codec;
      children.framing = chunk.framing;
      this.#subscriber.next(children);
      from = at + 1;
    }
    this.#emitPart(chunk, from, chunk.length);
  }

  #open(chunk: Chunk, index: number, frame: Buffer, frames: Map<number, Records>): void {
    try {
      frames.set(index, decodeFrame(frame, chunk.position(index)));
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      this.#reject(chunk, index, error);
    }
  }

  /** The messages of `from` to before `to` that still travel. */
  #emitPart(chunk: Chunk, from: number, to: number): void {
    let live = 0;
    for (let i = from; i < to; i++) live += chunk.state[i]!;
    if (live === 0) return;
    const part = chunk.share();
    for (let i = 0; i < from; i++) part.takeOut(i);
    for (let i = to; i < part.length; i++) part.takeOut(i);
    this.#subscriber.next(part);
  }

  #replace(chunk: Chunk, index: number, restored: Buffer, headers: Headers): void {
    chunk.payloads ??= column(chunk, (i) => chunk.payload(i));
    chunk.headerColumn ??= column(chunk, (i) => chunk.headers(i));
    chunk.values = undefined;
    chunk.payloads[index] = restored;
    chunk.headerColumn[index] = headers;
  }

  #reject(chunk: Chunk, index: number, { code, message }: MillraceError): void {
    this.#context.reject(chunk, index, { class: "business", code, message });
  }

  /** Lets go of a lane whose epoch has ended. */
  #drop(lane: Lane): void {
    this.#queue = this.#queue.filter((item) => {
      const chunk = item instanceof Restoring ? item.chunk : item;
      return !(chunk instanceof Chunk && chunk.lane === lane);
    });
    this.#emitReady();
  }
}

/** Undoes the codings from the last to the first. */
function restoreTask(codings: readonly string[], input: Buffer, limits: RestoreLimits): Task<Buffer> {
  const check = (): Compression[] => {
    if (codings.length > mostCodings) {
      throw new MillraceError("codec-unknown", `the value is compressed more than ${mostCodings} times`);
    }
    const unknown = codings.find((coding) => !known.has(coding));
    if (unknown !== undefined) {
      throw new MillraceError(
        "codec-unknown",
        `the value is compressed with ${shown(unknown)}, which is unknown`,
      );
    }
    if (codings.length === 0 && input.length > limits.maxBytes) {
      throw new MillraceError(
        "decompressed-too-large",
        `the frame has ${input.length} bytes, more than ${limits.maxBytes}`,
      );
    }
    return codings.toReversed() as Compression[];
  };
  return {
    run() {
      let restored = input;
      for (const codec of check()) restored = decompressTask(codec, restored, limits).run();
      return restored;
    },
    async offload() {
      let restored = input;
      for (const codec of check()) restored = await decompressTask(codec, restored, limits).offload();
      return restored;
    },
  };
}

/** Someone else's header, made fit for an error: short, and of harmless characters. */
function shown(coding: string): string {
  return `"${coding.slice(0, 32).replaceAll(/[^\w.+-]/g, "?")}"`;
}

/** A column for the chunk, filled where something travels. */
function column<T>(chunk: Chunk, value: (index: number) => T): T[] {
  const filled = new Array<T>(chunk.length);
  for (let i = 0; i < chunk.length; i++) if (chunk.state[i] !== 0) filled[i] = value(i);
  return filled;
}
