import { Observable, type Subscriber } from "rxjs";
import type { Timer } from "../component/context.ts";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator, OperatorContext, Window } from "../component/operator.ts";
import {
  byteCount,
  type Duration,
  milliseconds,
  type OptionProblem,
  type OptionsSchema,
  type Size,
} from "../component/options.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk, type Message } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { isPromise, rejectPromise, rejectThrown } from "./author-function.ts";

export interface BatchOptions<T = unknown> {
  /**
   * Most messages in a batch. More make fewer and larger writes; they wait longer, and a crash replays more of
   * them. A path's credit must be larger, and should be so for all its destinations together.
   * @default 1_000
   */
  readonly count?: number;
  /**
   * Most bytes in a batch, keys and payloads before compression. A message that is larger by itself goes alone.
   * @default "1MiB"
   */
  readonly bytes?: Size;
  /**
   * Longest time that a message waits for others, on the monotonic clock: the window closes so long after its
   * first message came, however many follow; with another whose time is over up to a tenth sooner.
   * @default "50ms"
   */
  readonly within?: Duration;
  /** Closes the window after the message for which it is true. If it throws, the message is rejected. */
  readonly when?: (message: Message<T>) => boolean;
  /**
   * What shares a window: messages of one `destination` of the sink (a Kafka partition, an exchange and routing
   * key), so that its batches are as large as they may be; of one `key`, so that a batch has all of a key that
   * came in its time; or `all`. A batch always has one destination: what a window of `key` or `all` holds is
   * parted by destination when it closes. With `key`, keys that share a destination may change places.
   * @default "destination"
   */
  readonly per?: "destination" | "key" | "all";
}

const schema: OptionsSchema = {
  type: "object",
  properties: {
    count: { type: "integer", minimum: 1, maximum: 1_000_000 },
    bytes: { isSize: true },
    within: { isDuration: true },
    when: { isFunction: true },
    per: { enum: ["destination", "key", "all"] },
  },
  additionalProperties: false,
};

const defaultCount = 1_000;
/** A window goes with another whose time is over when it is short of its own by no more than this part. */
const alongWith = 1 / 10;

export const batchDefinition = defineOperator<BatchOptions<never>>({
  type: "batch",
  summary: "Gathers messages that a sink writes together.",
  guarantee:
    "A batch is never empty, has at most `count` messages and `bytes` bytes unless one message alone is larger, and " +
    "is on its way at most `within` after its first message came, or up to a tenth of that sooner together with " +
    "another. Messages for one destination stay in order. Nothing is discarded: windows close when the input ends, " +
    "when the topology drains, and, the oldest first, when credit runs out while they hold it; when a lane's epoch " +
    "ends they let go of its messages alone, which the broker hands out again. Every message waits up to `within`; " +
    "without this step, those that gathered while the sink was busy go together, and none waits.",
  schema,
  examples: [
    {
      title: "By count, or after a time",
      code: 'batch({ count: 2, within: "50ms" })',
      operator: () => batch({ count: 2, within: "50ms" }),
      given: [{ value: 1 }, { value: 2 }, { value: 3 }],
      expect: [{ value: 1 }, { value: 2 }, { value: 3 }],
    },
    {
      title: "Up to the end of each document",
      code: "batch({ per: 'key', when: (m) => m.value.last })",
      operator: () => batch<{ last: boolean }>({ per: "key", when: (message) => message.value.last }),
      given: [
        { key: "d1", value: { last: false } },
        { key: "d2", value: { last: false } },
        { key: "d1", value: { last: true } },
      ],
      expect: [
        { key: "d1", value: { last: false } },
        { key: "d1", value: { last: true } },
        { key: "d2", value: { last: false } },
      ],
    },
  ],
  effect: () => ({ takes: "any", leaves: "same" }),
  rejects: false,
  holds: ({ count }) => count ?? defaultCount,
  holdsFor: ({ within }) => milliseconds(within, 50),
  verify: ({ bytes }) => (byteCount(bytes, 1) < 1 ? [tooSmall] : []),
  build: (options, context) => (source) =>
    new Observable((subscriber) => {
      const batcher = new Batcher(options, context, subscriber);
      const subscription = source.subscribe(batcher);
      return () => {
        subscription.unsubscribe();
        batcher.stop();
      };
    }),
});

/** Gathers messages that a sink writes together: by count, bytes, time since the first of them, or predicate. */
export function batch<T>(options: BatchOptions<T> = {}): Operator<T, T> {
  return batchDefinition.place<T, T>(options);
}

const tooSmall: OptionProblem = {
  code: "option-invalid",
  message: 'batch: "bytes" is 0',
  remedy: 'give a size such as "1MiB", or count: 1 to write every message by itself',
};

/** What a window is for: a destination, a key as text, or everything. */
type WindowKey = Destination | string | null;

/** Stands for the destination until it is known; and where there is no one sink to ask, for good. */
const anywhere: Destination = Object.freeze({ name: "anywhere" });

/** Messages that wait for others. Open until it is emitted, or has lost its last message. */
class OpenWindow implements Window {
  readonly key: WindowKey;
  readonly batch: Batch;
  readonly #batcher: Batcher;

  constructor(batcher: Batcher, key: WindowKey, batch: Batch) {
    this.#batcher = batcher;
    this.key = key;
    this.batch = batch;
  }

  get openedAt(): number {
    return this.batch.openedAt;
  }

  flush(): void {
    this.#batcher.flush(this);
  }
}

class Batcher {
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #count: number;
  readonly #bytes: number;
  readonly #within: number;
  readonly #when: ((message: Message<never>) => boolean) | undefined;
  readonly #keyOf: (chunk: Chunk, index: number) => WindowKey;
  /** Where each message of a window goes, if that is not what the window is for. */
  readonly #destinationOf: OperatorContext["destinationOf"];
  /** In the order in which they opened, and so in the order of their deadlines. */
  readonly #windows = new Map<WindowKey, OpenWindow>();
  /** For the window that opened first, or one that opened before it: then it fires for nothing and is set again. */
  #timer: Timer | undefined;
  /** Messages of the chunk at hand that went into windows and are not yet counted as held. */
  #taken = 0;
  #stopped = false;

  constructor(options: BatchOptions<never>, context: OperatorContext, subscriber: Subscriber<Flowing>) {
    this.#context = context;
    this.#subscriber = subscriber;
    this.#count = options.count ?? defaultCount;
    this.#bytes = byteCount(options.bytes, 2 ** 20);
    this.#within = milliseconds(options.within, 50);
    this.#when = options.when;
    const { destinationOf } = context;
    const per = options.per ?? "destination";
    if (per === "destination" && destinationOf !== undefined) {
      this.#keyOf = destinationOf;
      this.#destinationOf = undefined;
    } else {
      this.#keyOf = per === "key" ? keyText : () => "";
      this.#destinationOf = destinationOf;
    }
  }

  next(item: Flowing): void {
    if (item instanceof Chunk) {
      // What is left of an ended lane is `returned` already.
      if (!item.lane.ended) this.#gather(item);
      return;
    }
    if ("kind" in item) {
      if (item.kind === "flush") this.#emitAll();
      else if (item.kind === "revoke") this.#drop(item.lane);
    }
    this.#subscriber.next(item);
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#emitAll();
    this.#stopped = true;
    this.#subscriber.complete();
  }

  /** Nobody listens any more: what the windows hold stays unsettled. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const window of this.#windows.values()) this.#close(window);
  }

  /** Sends one window's messages on, before its time. Harmless once it has closed. */
  flush(window: OpenWindow): void {
    if (this.#windows.get(window.key) !== window) return;
    this.#emit(window);
    this.#arm();
  }

  #emit(window: OpenWindow): void {
    this.#close(window);
    const { batch } = window;
    batch.drop((chunk) => chunk.lane.ended);
    if (batch.length === 0) return;
    if (this.#destinationOf === undefined) this.#subscriber.next(batch);
    else for (const part of batch.byDestination(this.#destinationOf)) this.#subscriber.next(part);
  }

  #gather(given: Chunk): void {
    const { lane } = given;
    // A few that are left of many would hold on to the bytes of all for as long as they wait.
    const chunk = given.live * 4 < given.length ? given.detached() : given;
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const last = this.#when === undefined ? false : this.#isLast(this.#when, chunk, i);
      if (last === undefined) continue;
      const key = this.#keyOf(chunk, i);
      const size = chunk.payloadSize(i);
      let window = this.#windows.get(key);
      if (window !== undefined && !this.#fits(window.batch, chunk, size)) {
        this.#countTaken(lane);
        this.#emit(window);
        window = undefined;
      }
      window ??= this.#open(key, chunk);
      const { batch } = window;
      batch.add(chunk, i, size);
      if (this.#context.bytesOnly) chunk.forgetValue(i);
      this.#taken++;
      if (last || batch.length >= this.#count || batch.bytes >= this.#bytes) {
        this.#countTaken(lane);
        this.#emit(window);
      }
    }
    this.#countTaken(lane);
    this.#arm();
  }

  /** Undefined when the predicate failed, and the message was rejected. */
  #isLast(when: (message: Message<never>) => boolean, chunk: Chunk, index: number): boolean | undefined {
    try {
      const answer: unknown = when(chunk.message(index) as Message<never>);
      if (!isPromise(answer)) return Boolean(answer);
      rejectPromise(this.#context, chunk, index, "when of batch", "it must answer at once", answer);
    } catch (error) {
      rejectThrown(this.#context, chunk, index, "when of batch", error);
    }
    return undefined;
  }

  #fits(batch: Batch, chunk: Chunk, size: number): boolean {
    return (
      batch.bytes + size <= this.#bytes && batch.codec === chunk.codec && batch.framing === chunk.framing
    );
  }

  #open(key: WindowKey, chunk: Chunk): OpenWindow {
    const isDestination = typeof key === "object" && key !== null;
    const batch = new Batch(isDestination ? key : anywhere, this.#context.clock.now());
    batch.codec = chunk.codec;
    batch.framing = chunk.framing;
    const window = new OpenWindow(this, key, batch);
    this.#windows.set(key, window);
    this.#context.opened(window);
    return window;
  }

  #close(window: OpenWindow): void {
    this.#windows.delete(window.key);
    this.#context.closed(window);
    window.batch.eachRun((lane, count) => this.#context.held(lane, -count));
  }

  #countTaken(lane: Lane): void {
    if (this.#taken === 0) return;
    this.#context.held(lane, this.#taken);
    this.#taken = 0;
  }

  #emitAll(): void {
    for (const window of this.#windows.values()) this.#emit(window);
    this.#arm();
  }

  /** Lets go of a lane whose epoch has ended; the messages of others stay, with the deadline they had. */
  #drop(lane: Lane): void {
    for (const window of this.#windows.values()) {
      const dropped = window.batch.drop((chunk) => chunk.lane === lane);
      if (dropped > 0) this.#context.held(lane, -dropped);
      if (window.batch.length === 0) this.#close(window);
    }
    this.#arm();
  }

  /** Sees that a timer runs while a window is open, and none otherwise. */
  #arm(): void {
    const first = this.#windows.values().next().value;
    if (first === undefined) {
      this.#timer?.cancel();
      this.#timer = undefined;
      return;
    }
    if (this.#timer !== undefined || this.#stopped) return;
    const { clock } = this.#context;
    this.#timer = clock.after(Math.max(0, first.openedAt + this.#within - clock.now()), () => {
      this.#timer = undefined;
      this.#emitDue();
    });
  }

  /** Emits what is due, and along with it what would be soon: with many windows each would be a request of its own. */
  #emitDue(): void {
    const now = this.#context.clock.now();
    let until = now;
    for (const window of this.#windows.values()) {
      if (window.openedAt + this.#within > until) break;
      until = now + this.#within * alongWith;
      this.#emit(window);
    }
    this.#arm();
  }
}

/** Different keys make different texts; no key is none of them. */
function keyText(chunk: Chunk, index: number): string | null {
  return chunk.key(index)?.toString("latin1") ?? null;
}
