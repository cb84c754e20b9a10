import { defineOperator } from "../component/define-operator.ts";
import type { Operator } from "../component/operator.ts";
import type { OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";

interface RejectOptions {
  /** Says whether the message is at fault. */
  readonly when: OfMessage<never, boolean>;
  /** What its dead letter says, in words that hold nothing of the message. */
  readonly reason: string;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { when: { isFunction: true }, reason: { type: "string", minLength: 1 } },
  required: ["when", "reason"],
  additionalProperties: false,
};

export const rejectDefinition = defineOperator<RejectOptions>({
  type: "reject",
  summary: "Sends the messages that a predicate is true of to the dead letters, with a reason.",
  guarantee:
    "A rejected message keeps its bytes, key and headers, and settles once its dead letter is acknowledged. Use it " +
    "for rules of the business that a schema cannot say; for messages that are merely not wanted use filter.",
  schema,
  examples: [
    {
      title: "A rule of the business",
      code: 'reject((o) => o.amount < 0, "the amount is negative")',
      operator: () => reject((order: { amount: number }) => order.amount < 0, "the amount is negative"),
      given: [{ value: { amount: 3 } }, { value: { amount: -1 } }],
      expect: [{ value: { amount: 3 } }, { value: { amount: -1 }, outcome: "deadLettered" }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "same" }),
  rejects: true,
  build: ({ when, reason }, context) => {
    const isAtFault = byIndex(when);
    return perChunk((chunk) => {
      for (let i = 0; i < chunk.length; i++) {
        if (chunk.state[i] === 0) continue;
        try {
          const atFault: unknown = isAtFault(chunk, i);
          if (isPromise(atFault)) {
            rejectPromise(context, chunk, i, "the predicate of reject", "it must answer at once", atFault);
          } else if (atFault) {
            context.reject(chunk, i, { class: "business", code: "rule-broken", message: reason });
          }
        } catch (error) {
          rejectThrown(context, chunk, i, "the predicate of reject", error);
        }
      }
    });
  },
});

/**
 * Sends the messages that `when` is true of to the dead letters as a business error with this reason. Give a
 * second parameter to see the whole message.
 */
export function reject<T>(when: OfMessage<T, boolean>, reason: string): Operator<T, T> {
  return rejectDefinition.place<T, T>({ when: when as OfMessage<never, boolean>, reason });
}
