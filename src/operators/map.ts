import { Observable, type Subscriber } from "rxjs";
import { Backoff } from "../component/backoff.ts";
import type { Timer } from "../component/context.ts";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import { type Duration, milliseconds, type OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { Chunk, type Message } from "../message/chunk.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";

interface MapOptions {
  /** Makes the new value. */
  readonly to: OfMessage<never, unknown>;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { to: { isFunction: true } },
  required: ["to"],
  additionalProperties: false,
};

export const mapDefinition = defineOperator<MapOptions>({
  type: "map",
  summary: "Makes a new value of each value.",
  guarantee:
    "One message stays one message, under its key and headers. The bytes no longer say what the value does, so an " +
    "`encode` must follow before a sink. A function that throws rejects its message. Return a new value: the old " +
    "one may be shared with other branches.",
  schema,
  examples: [
    {
      title: "A part of the value",
      code: "map((o) => ({ id: o.id, total: o.price * o.qty }))",
      operator: () =>
        map((order: { id: string; price: number; qty: number }) => ({
          id: order.id,
          total: order.price * order.qty,
        })),
      given: [{ value: { id: "a", price: 2, qty: 3 } }],
      expect: [{ value: { id: "a", total: 6 } }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "changed" }),
  rejects: true,
  build: ({ to }, context) => {
    const make = byIndex(to);
    return perChunk((chunk) => {
      const values = valuesOf(chunk);
      chunk.changed = true;
      for (let i = 0; i < chunk.length; i++) {
        if (chunk.state[i] === 0) continue;
        try {
          const value: unknown = make(chunk, i);
          if (isPromise(value))
            rejectPromise(context, chunk, i, "the function of map", "use mapAsync", value);
          else values[i] = value;
        } catch (error) {
          rejectThrown(context, chunk, i, "the function of map", error);
        }
      }
    });
  },
});

/** Makes a new value of each value. Give a second parameter to see the whole message. */
export function map<A, B>(to: OfMessage<A, B>): Operator<A, B> {
  return mapDefinition.place<A, B>({ to: to as OfMessage<never, unknown> });
}

/** What an asynchronous function is given beside the value. */
export interface Call<A = unknown> {
  readonly message: Message<A>;
  /** Aborted when the time is up, when the message's lane is revoked, and when the run ends. */
  readonly signal: AbortSignal;
}

export interface MapAsyncOptions {
  /** Calls under way at once. Default 16. */
  readonly concurrency?: number;
  /** Longest time for one attempt. Default "30s"; then the message is tried again or rejected as `author-timeout`. */
  readonly timeout?: Duration;
  /** How often a failed call is made again, and how long it waits between. Default: never. */
  readonly retry?: {
    /** Attempts in all. */
    readonly attempts: number;
    /** Upper bound of the first wait; it doubles from attempt to attempt. Default "100ms". */
    readonly initial?: Duration;
    /** Upper bound of any wait. Default "10s". */
    readonly max?: Duration;
  };
}

type AsyncOptions = MapAsyncOptions & {
  readonly to: (value: never, call: Call<never>) => unknown;
};

const asyncSchema: OptionsSchema = {
  type: "object",
  properties: {
    to: { isFunction: true },
    concurrency: { type: "integer", minimum: 1, maximum: 10_000 },
    timeout: { isDuration: true },
    retry: {
      type: "object",
      properties: {
        attempts: { type: "integer", minimum: 1, maximum: 1_000 },
        initial: { isDuration: true },
        max: { isDuration: true },
      },
      required: ["attempts"],
      additionalProperties: false,
    },
  },
  required: ["to"],
  additionalProperties: false,
};

export const mapAsyncDefinition = defineOperator<AsyncOptions>({
  type: "mapAsync",
  summary:
    "Makes a new value of each value by an asynchronous function, several at once, and keeps the order.",
  guarantee:
    "Results go on in the order of the messages, so a slow call holds back those behind it, and at most `concurrency` " +
    "calls are under way. After a crash calls are made again: the function must bear that. One that fails or takes " +
    "too long, after its retries, rejects its message. Waiting messages are bounded by the source's credit.",
  schema: asyncSchema,
  examples: [
    {
      title: "A look-up",
      code: "mapAsync(async (o) => ({ ...o, name: await nameOf(o.id) }), { concurrency: 8 })",
      operator: () =>
        mapAsync(async (order: { id: string }) => ({ ...order, name: `name of ${order.id}` }), {
          concurrency: 8,
        }),
      given: [{ value: { id: "a" } }, { value: { id: "b" } }],
      expect: [{ value: { id: "a", name: "name of a" } }, { value: { id: "b", name: "name of b" } }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "changed" }),
  rejects: true,
  build: (options, context) => (source) =>
    new Observable((subscriber) => {
      const calls = new OrderedCalls(options, context, subscriber);
      const subscription = source.subscribe(calls);
      return () => {
        subscription.unsubscribe();
        calls.stop();
      };
    }),
});

/**
 * Makes a new value of each value by an asynchronous function. Up to `concurrency` calls are under way at once;
 * results go on in the order of the messages.
 */
export function mapAsync<A, B>(
  to: (value: A, call: Call<A>) => Promise<B>,
  options: MapAsyncOptions = {},
): Operator<A, B> {
  return mapAsyncDefinition.place<A, B>({ ...options, to: to as AsyncOptions["to"] });
}

/** A chunk whose calls are not all over, or a control that must not overtake the chunks before it. */
type Queued = { readonly chunk: Chunk; open: number; next: number } | { readonly control: Flowing };

/**
 * Keeps chunks and controls in the order they came, starts calls from the front, and lets go of the front when
 * its calls are over. A revoke overtakes: its lane's messages are returned already, and their calls are aborted.
 */
class OrderedCalls {
  readonly #options: AsyncOptions;
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #concurrency: number;
  readonly #timeout: number;
  readonly #queue: Queued[] = [];
  readonly #aborts = new Map<AbortController, Chunk>();
  #running = 0;
  #completing = false;
  #stopped = false;

  constructor(options: AsyncOptions, context: OperatorContext, subscriber: Subscriber<Flowing>) {
    this.#options = options;
    this.#context = context;
    this.#subscriber = subscriber;
    this.#concurrency = options.concurrency ?? 16;
    this.#timeout = milliseconds(options.timeout, 30_000);
  }

  next(item: Flowing): void {
    if (item instanceof Chunk) {
      if (item.live === 0) return;
      valuesOf(item);
      item.changed = true;
      this.#queue.push({ chunk: item, open: item.live, next: 0 });
      this.#start();
      return;
    }
    if ("kind" in item && item.kind === "revoke") {
      for (const [abort, chunk] of this.#aborts) if (chunk.lane === item.lane) abort.abort();
      this.#subscriber.next(item);
      this.#release();
      return;
    }
    this.#queue.push({ control: item });
    this.#release();
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completing = true;
    this.#release();
  }

  stop(): void {
    this.#stopped = true;
    for (const abort of this.#aborts.keys()) abort.abort();
    this.#queue.length = 0;
  }

  #start(): void {
    for (const entry of this.#queue) {
      if (!("chunk" in entry) || entry.chunk.lane.ended) continue;
      const { chunk } = entry;
      while (entry.next < chunk.length) {
        if (this.#running >= this.#concurrency) return;
        const index = entry.next++;
        if (chunk.state[index] === 0) continue;
        this.#running++;
        const over = this.#context.busy();
        this.#call(chunk, index).finally(() => {
          over();
          this.#running--;
          entry.open--;
          if (this.#stopped) return;
          this.#release();
          this.#start();
        });
      }
    }
  }

  /** One message: all its attempts. Sets the value, or rejects the message; never rejects itself. */
  async #call(chunk: Chunk, index: number): Promise<void> {
    const { retry } = this.#options;
    const attempts = retry?.attempts ?? 1;
    const backoff = new Backoff(this.#context, {
      initial: milliseconds(retry?.initial, 100),
      max: milliseconds(retry?.max, 10_000),
    });
    for (let attempt = 1; ; attempt++) {
      try {
        const value = await this.#attempt(chunk, index);
        if (!chunk.lane.ended) (chunk.values as unknown[])[index] = value;
        return;
      } catch (error) {
        if (chunk.lane.ended || this.#stopped || this.#context.signal.aborted) return;
        if (attempt < attempts) {
          this.#context.meter.count("author_retries_total");
          await backoff.wait().catch(() => {});
          if (chunk.lane.ended || this.#stopped || this.#context.signal.aborted) return;
          continue;
        }
        if (error === timedOut) {
          this.#context.reject(chunk, index, {
            class: "application",
            code: "author-timeout",
            message: `the function of mapAsync took longer than ${this.#timeout} ms`,
          });
        } else rejectThrown(this.#context, chunk, index, "the function of mapAsync", error);
        return;
      }
    }
  }

  #attempt(chunk: Chunk, index: number): Promise<unknown> {
    const abort = new AbortController();
    this.#aborts.set(abort, chunk);
    let timer: Timer | undefined;
    const end = new Promise<never>((_, reject) => {
      timer = this.#context.clock.after(this.#timeout, () => {
        reject(timedOut);
        abort.abort(timedOut);
      });
      abort.signal.addEventListener("abort", () => reject(abort.signal.reason), { once: true });
    });
    const call: Call<never> = { message: chunk.message(index) as Message<never>, signal: abort.signal };
    const made = (async () => this.#options.to(chunk.value(index) as never, call))();
    return Promise.race([made, end]).finally(() => {
      timer?.cancel();
      this.#aborts.delete(abort);
    });
  }

  /** Lets go of everything at the front that is over. */
  #release(): void {
    for (;;) {
      const first = this.#queue[0];
      if (first === undefined) break;
      if ("control" in first) {
        this.#queue.shift();
        this.#subscriber.next(first.control);
        continue;
      }
      // An ended lane's messages are returned already: nobody waits for their calls.
      if (first.open > 0 && !first.chunk.lane.ended) return;
      this.#queue.shift();
      if (first.chunk.live > 0 && !first.chunk.lane.ended) this.#subscriber.next(first.chunk);
    }
    if (this.#completing && !this.#stopped) {
      this.#stopped = true;
      this.#subscriber.complete();
    }
  }
}

const timedOut = new Error("the time is up");

/** The column of values, to be written: made of the fetched bytes where there is none. */
function valuesOf(chunk: Chunk): unknown[] {
  chunk.values ??= Array.from({ length: chunk.length }, (_, i) => chunk.value(i));
  return chunk.values;
}
