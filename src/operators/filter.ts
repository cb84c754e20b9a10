import { defineOperator } from "../component/define-operator.ts";
import type { Operator } from "../component/operator.ts";
import type { OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { Outcome } from "../message/outcome.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";

interface FilterOptions {
  /** Says whether the message goes on. */
  readonly keep: OfMessage<never, boolean>;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { keep: { isFunction: true } },
  required: ["keep"],
  additionalProperties: false,
};

export const filterDefinition = defineOperator<FilterOptions>({
  type: "filter",
  summary: "Lets through the messages that a predicate is true of.",
  guarantee:
    "What does not go on is settled `filtered`: acknowledged, and counted by that name. A predicate that throws " +
    "decides nothing: its message goes to the dead letters.",
  schema,
  examples: [
    {
      title: "Strong earthquakes",
      code: "filter((q) => q.mag >= 5)",
      operator: () => filter((quake: { mag: number }) => quake.mag >= 5),
      given: [{ value: { mag: 5.1 } }, { value: { mag: 2 } }],
      expect: [{ value: { mag: 5.1 } }, { value: { mag: 2 }, outcome: "filtered" }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "same" }),
  rejects: true,
  build: ({ keep }, context) => {
    const keeps = byIndex(keep);
    return perChunk((chunk) => {
      for (let i = 0; i < chunk.length; i++) {
        if (chunk.state[i] === 0) continue;
        try {
          const kept: unknown = keeps(chunk, i);
          if (isPromise(kept)) {
            rejectPromise(context, chunk, i, "the predicate of filter", "it must answer at once", kept);
          } else if (!kept) {
            chunk.settle(i, Outcome.filtered);
          }
        } catch (error) {
          rejectThrown(context, chunk, i, "the predicate of filter", error);
        }
      }
    });
  },
});

/**
 * Lets through the messages that `keep` is true of; the others are acknowledged and counted as filtered. Give a
 * second parameter to see the whole message. A type predicate narrows the type that flows on.
 */
export function filter<T, Kept extends T>(keep: (value: T) => value is Kept): Operator<T, Kept>;
export function filter<T>(keep: OfMessage<T, boolean>): Operator<T, T>;
export function filter<T>(keep: OfMessage<T, boolean>): Operator<T, T> {
  return filterDefinition.place<T, T>({ keep: keep as OfMessage<never, boolean> });
}
