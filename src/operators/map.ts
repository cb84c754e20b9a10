import { Observable } from "rxjs";
import { defineOperator } from "../component/define-operator.ts";
import type { Operator } from "../component/operator.ts";
import { type Duration, milliseconds, type OptionProblem, type OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { type AsyncOfMessage, AuthorCalls, type Call } from "./author-call.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";
import { KeyedCalls } from "./keyed-calls.ts";
import { OrderedCalls } from "./ordered-calls.ts";
import { valuesOf } from "./value-column.ts";

export type { Call } from "./author-call.ts";

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

export interface MapAsyncOptions {
  /** Calls under way at once. Default 16. One that was given up counts no longer, even if it ignores its signal. */
  readonly concurrency?: number;
  /**
   * What holds back what. `lane` (default): results go on in the order of the messages, so a slow call holds back
   * all that came after it. `key`: in order within each key only. Keys are parted among `concurrency` slots, each of
   * which makes one call at a time; a slow call, or one that is made again, holds back the keys of its slot and no
   * others. A message without a key takes the slot with the fewest messages and has no order. Use it where what
   * follows needs no more than the order of each key.
   */
  readonly order?: "lane" | "key";
  /** Longest time for one attempt. Default "30s"; then the message is tried again or rejected as `author-timeout`. */
  readonly timeout?: Duration;
  /**
   * How often a failed call is made again, and how long it waits between. Default: never. A call that throws a
   * `MillraceError` of class network is made again until it succeeds, since no message is at fault for that,
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

type AsyncOptions = MapAsyncOptions & { readonly to: AsyncOfMessage };

const asyncSchema: OptionsSchema = {
  type: "object",
  properties: {
    to: { isFunction: true },
    concurrency: { type: "integer", minimum: 1, maximum: 10_000 },
    order: { enum: ["lane", "key"] },
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
    "Makes a new value of each value by an asynchronous function, several at once, in order by lane or by key.",
  guarantee:
    "Results go on in the order of the messages, so a slow call holds back those behind it, and at most `concurrency` " +
    "calls are under way; a flush waits behind the messages that came before it. After a crash calls are made again: " +
    "the function must bear that. One that fails or takes too long, after its retries, rejects its message. Waiting " +
    'messages are bounded by the source\'s credit. With `order: "key"` results go on as they are ready, in order ' +
    "within each key, and never two calls of one key are under way, save one that was given up and ignores its " +
    "signal; a slow call holds back only what shares its slot. The price: the order of a lane is lost, also between " +
    "messages without a key; keys that share a slot wait for each other, and one busy key has one call at a time; " +
    "each message travels on alone, in a copy; the checkpoint still waits for the slowest, so more comes again " +
    "after a crash; and what came after a flush waits until the flush has gone on.",
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
    {
      title: "Each customer's messages in order, and none waits for another customer's",
      code: 'mapAsync(async (o) => ({ ...o, price: await priceOf(o.id) }), { order: "key" })',
      operator: () => {
        const priceOf = async (id: string) => {
          if (id === "slow") for (let turn = 0; turn < 9; turn++) await Promise.resolve();
          return 5;
        };
        return mapAsync(async (order: { id: string }) => ({ ...order, price: await priceOf(order.id) }), {
          order: "key",
        });
      },
      given: [
        { key: "anna", value: { id: "slow" } },
        { key: "anna", value: { id: "next" } },
        { key: "bert", value: { id: "other" } },
      ],
      expect: [
        { key: "bert", value: { id: "other", price: 5 } },
        { key: "anna", value: { id: "slow", price: 5 } },
        { key: "anna", value: { id: "next", price: 5 } },
      ],
    },
  ],
  effect: () => ({ takes: "any", leaves: "changed" }),
  rejects: true,
  verify: ({ timeout }) => (milliseconds(timeout, 1) < 1 ? [tooShort] : []),
  build: ({ to, concurrency = 16, order, timeout, retry }, context) => {
    const policy = {
      to,
      timeout: milliseconds(timeout, 30_000),
      attempts: retry?.attempts ?? 1,
      initial: milliseconds(retry?.initial, 100),
      max: milliseconds(retry?.max, 10_000),
    };
    const Calls = order === "key" ? KeyedCalls : OrderedCalls;
    return (source) =>
      new Observable((subscriber) => {
        const calls = new Calls(new AuthorCalls(policy, context), concurrency, subscriber);
        const stop = () => calls.stop();
        context.signal.addEventListener("abort", stop, { once: true });
        const subscription = source.subscribe(calls);
        return () => {
          context.signal.removeEventListener("abort", stop);
          subscription.unsubscribe();
          calls.stop();
        };
      });
  },
});

/**
 * Makes a new value of each value by an asynchronous function. Up to `concurrency` calls are under way at once;
 * results go on in the order of the messages, or of each key's messages with `order: "key"`.
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
