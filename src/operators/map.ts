import { Observable, type Subscriber } from "rxjs";
import { Backoff } from "../component/backoff.ts";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import { type Duration, milliseconds, type OptionProblem, type OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { classify, MillraceError, messageOf } from "../errors.ts";
import { Chunk, type Message } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
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
  /** Calls under way at once. Default 16. One that was given up counts no longer, even if it ignores its signal. */
  readonly concurrency?: number;
  /** Longest time for one attempt. Default "30s"; then the message is tried again or rejected as `author-timeout`. */
  readonly timeout?: Duration;
  /**
   * How often a failed call is made again, and how long it waits between. Default: never. A call that throws a
   * {@link MillraceError} of class network is made again until it succeeds, since no message is at fault for that,
   * and one of class business is not made again.
   */
  readonly retry?: {
    /** Attempts in all. */
    readonly attempts: number;
    /** Upper bound of the first wait, which is random; it doubles from attempt to attempt. Default "100ms". */
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
    "calls are under way; a flush waits behind the messages that came before it. After a crash calls are made again: the function must bear that. One that fails or takes " +
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
  verify: ({ timeout }) => (milliseconds(timeout, 1) < 1 ? [tooShort] : []),
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

const tooShort: OptionProblem = {
  code: "option-invalid",
  message: "mapAsync: no call can be over in a time-out of 0",
  remedy: 'give a time-out of a millisecond or more, such as "30s"',
};

/** A chunk whose calls are not all over, or a control that must not overtake the chunks before it. */
type Queued = { readonly chunk: Chunk; open: number; next: number } | { readonly control: Flowing };

/**
 * Keeps chunks and controls in the order they came, starts calls from the front, and lets go of the front when
 * its calls are over. A revoke overtakes: its lane's messages are returned already, and their calls are given up.
 */
class OrderedCalls {
  readonly #options: AsyncOptions;
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #concurrency: number;
  readonly #timeout: number;
  readonly #queue: Queued[] = [];
  /** How many entries at the front have all their calls started: looking from the front each time would be quadratic. */
  #started = 0;
  /** What gives up a call, with the lane of its message. */
  readonly #calls = new Map<AbortController, Lane>();
  #running = 0;
  /** Calls that wait because the other side is away. */
  #away = 0;
  #completing = false;
  #stopped = false;
  readonly #stop = () => this.stop();

  constructor(options: AsyncOptions, context: OperatorContext, subscriber: Subscriber<Flowing>) {
    this.#options = options;
    this.#context = context;
    this.#subscriber = subscriber;
    this.#concurrency = options.concurrency ?? 16;
    this.#timeout = milliseconds(options.timeout, 30_000);
    context.signal.addEventListener("abort", this.#stop, { once: true });
  }

  next(item: Flowing): void {
    if (this.#stopped) {
      // Whoever comes after still has to let go of the lane.
      if ("kind" in item && item.kind === "revoke") this.#subscriber.next(item);
      return;
    }
    if (item instanceof Chunk) {
      if (item.live === 0) return;
      valuesOf(item);
      item.changed = true;
      this.#queue.push({ chunk: item, open: item.live, next: 0 });
      this.#start();
      return;
    }
    if ("kind" in item && item.kind === "revoke") {
      for (const [call, lane] of this.#calls) if (lane === item.lane) call.abort();
      this.#subscriber.next(item);
    } else this.#queue.push({ control: item });
    this.#release();
    this.#start();
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completing = true;
    this.#release();
  }

  /** Gives up everything; what is not over stays unacknowledged. */
  stop(): void {
    this.#stopped = true;
    this.#context.signal.removeEventListener("abort", this.#stop);
    for (const call of this.#calls.keys()) call.abort();
    this.#queue.length = 0;
  }

  #start(): void {
    for (; this.#started < this.#queue.length; this.#started++) {
      const entry = this.#queue[this.#started]!;
      if (!("chunk" in entry) || entry.chunk.lane.ended) continue;
      while (entry.next < entry.chunk.length) {
        if (this.#running >= this.#concurrency) return;
        const index = entry.next++;
        if (entry.chunk.state[index] === 0) continue;
        this.#running++;
        const over = this.#context.busy();
        this.#call(entry.chunk, index).finally(() => {
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

  /** One message, with all its attempts: sets the value or rejects the message. Never rejects itself. */
  async #call(chunk: Chunk, index: number): Promise<void> {
    const call = new AbortController();
    this.#calls.set(call, chunk.lane);
    const { retry } = this.#options;
    let backoff: Backoff | undefined;
    let away = false;
    for (let attempt = 1; ; attempt++) {
      try {
        const value = await this.#attempt(chunk, index, call.signal);
        if (value instanceof MillraceError) throw value;
        (chunk.values as unknown[])[index] = value;
        break;
      } catch (error) {
        if (call.signal.aborted || chunk.lane.ended) break;
        const network = classify(error, "author") === "network";
        if (network) {
          // Other people's trouble does not use up a message's attempts.
          attempt--;
          if (!away && this.#away++ === 0) {
            this.#context.logger.warn({ error: messageOf(error) }, "mapAsync waits for another system");
          }
          away = true;
        }
        if (!network && (attempt >= (retry?.attempts ?? 1) || isFinal(error))) {
          this.#refuse(chunk, index, error);
          break;
        }
        this.#context.meter.count("author_retries_total");
        backoff ??= this.#backoff(call.signal);
        const goesOn = await backoff.wait().then(
          () => true,
          () => false,
        );
        if (!goesOn) break;
      }
    }
    if (away && --this.#away === 0) this.#context.logger.info({}, "mapAsync waits no longer");
    this.#calls.delete(call);
  }

  #backoff(signal: AbortSignal): Backoff {
    const { retry } = this.#options;
    return new Backoff(
      { clock: this.#context.clock, random: this.#context.random, signal },
      { initial: milliseconds(retry?.initial, 100), max: milliseconds(retry?.max, 10_000) },
    );
  }

  #refuse(chunk: Chunk, index: number, error: unknown): void {
    if (error !== timedOut) {
      rejectThrown(this.#context, chunk, index, "the function of mapAsync", error);
      return;
    }
    this.#context.reject(chunk, index, {
      class: "application",
      code: "author-timeout",
      message: `the function of mapAsync took longer than ${this.#timeout} ms`,
    });
  }

  /** Calls the function once. Rejects when it does, when the time is up, and when the call is given up. */
  #attempt(chunk: Chunk, index: number, givenUp: AbortSignal): Promise<unknown> {
    const abort = new AbortController();
    return new Promise((resolve, reject) => {
      const end = (reason: unknown) => {
        timer.cancel();
        givenUp.removeEventListener("abort", giveUp);
        reject(reason);
        abort.abort(reason);
      };
      const giveUp = () => end(givenUp.reason);
      const timer = this.#context.clock.after(this.#timeout, () => end(timedOut));
      givenUp.addEventListener("abort", giveUp, { once: true });
      const message = chunk.message(index) as Message<never>;
      // An async arrow, so that a function that throws before its first await fails like any other.
      (async () => this.#options.to(message.value, { message, signal: abort.signal }))()
        .then(resolve, reject)
        .finally(() => {
          timer.cancel();
          givenUp.removeEventListener("abort", giveUp);
        });
    });
  }

  /** Lets go of everything at the front that is over. */
  #release(): void {
    for (;;) {
      const first = this.#queue[0];
      if (first === undefined) break;
      // An ended lane's messages are returned already: nobody waits for their calls.
      if ("chunk" in first && first.open > 0 && !first.chunk.lane.ended) return;
      this.#queue.shift();
      if (this.#started > 0) this.#started--;
      if ("control" in first) this.#subscriber.next(first.control);
      else if (first.chunk.live > 0 && !first.chunk.lane.ended) this.#subscriber.next(first.chunk);
    }
    if (this.#completing && !this.#stopped) {
      this.stop();
      this.#subscriber.complete();
    }
  }
}

const timedOut = new Error("the time is up");

/** Another attempt would change nothing: the message's own fault, or the process is unwell. */
function isFinal(error: unknown): boolean {
  const kind = classify(error, "author");
  return kind === "business" || kind === "system";
}

/** The column of values, to be written: made of the fetched bytes where there is none. */
function valuesOf(chunk: Chunk): unknown[] {
  chunk.values ??= Array.from({ length: chunk.length }, (_, i) => chunk.value(i));
  return chunk.values;
}
