import { defineOperator } from "../component/define-operator.ts";
import type { Operator, OperatorContext } from "../component/operator.ts";
import type { OptionProblem, OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import type { Chunk } from "../message/chunk.ts";
import type { HeaderValue } from "../message/records.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";

/** A header's value, the same for all messages or made from each; undefined takes the header away. */
export type HeaderOf<T> = HeaderValue | undefined | OfMessage<T, HeaderValue | undefined>;

interface Options {
  readonly set: Readonly<Record<string, HeaderOf<never>>>;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { set: { type: "object", minProperties: 1 } },
  required: ["set"],
  additionalProperties: false,
};

export const headersDefinition = defineOperator<Options>({
  type: "headers",
  summary: "Sets headers of a message, or takes them away.",
  guarantee:
    "A name that is given stands once afterwards, behind the others; every other header stays as it came, in its " +
    "order. The dead letter of a message rejected later has those it came with.",
  schema,
  examples: [
    {
      title: "A RabbitMQ priority, made from the value",
      code: 'headers({ "amqp-priority": (o) => (o.urgent ? 9 : 0), source: "web" })',
      operator: () =>
        headers({ "amqp-priority": (order: { urgent: boolean }) => (order.urgent ? 9 : 0), source: "web" }),
      given: [{ value: { urgent: true } }, { value: { urgent: false } }],
      expect: [
        {
          value: { urgent: true },
          headers: [
            ["amqp-priority", 9],
            ["source", "web"],
          ],
        },
        {
          value: { urgent: false },
          headers: [
            ["amqp-priority", 0],
            ["source", "web"],
          ],
        },
      ],
    },
  ],
  effect: () => ({ takes: "any", leaves: "same" }),
  rejects: true,
  verify,
  build: ({ set }, context) => {
    const names = new Set(Object.keys(set));
    const makers = Object.entries(set).map(([name, value]) => {
      const make = typeof value === "function" ? byIndex(value) : () => value;
      return { name, make, what: `the function of header ${JSON.stringify(name)}` };
    });
    return perChunk((chunk) => {
      const column = new Array<(readonly [string, HeaderValue])[]>(chunk.length);
      for (let i = 0; i < chunk.length; i++) {
        if (chunk.state[i] === 0) continue;
        const made = chunk.headers(i).filter(([name]) => !names.has(name));
        for (const { name, make, what } of makers) {
          const value = headerValue(context, chunk, i, what, make);
          // A function saw to it that the message goes no further.
          if (chunk.state[i] === 0) break;
          if (value !== undefined) made.push([name, value]);
        }
        column[i] = made;
      }
      chunk.headerColumn = column;
    });
  },
});

/**
 * Sets headers by name: to a value, or to what a pure function makes of the message's value (and of the message, if
 * it has a second parameter). Text, bytes, finite numbers, booleans and null are values; undefined takes the header
 * away. A function that throws or returns anything else rejects its message as `author-error`.
 */
export function headers<T>(set: Readonly<Record<string, HeaderOf<T>>>): Operator<T, T> {
  return headersDefinition.place<T, T>({ set: set as Options["set"] });
}

function headerValue(
  context: OperatorContext,
  chunk: Chunk,
  index: number,
  what: string,
  make: (chunk: Chunk, index: number) => HeaderValue | undefined,
): HeaderValue | undefined {
  try {
    const value: unknown = make(chunk, index);
    if (isHeaderValue(value)) return value;
    if (isPromise(value)) rejectPromise(context, chunk, index, what, "it must answer at once", value);
    else {
      context.reject(chunk, index, {
        class: "application",
        code: "author-error",
        message: `${what} returned what no header can be: return text, bytes, a finite number, a boolean, null or undefined`,
      });
    }
  } catch (error) {
    rejectThrown(context, chunk, index, what, error);
  }
  return undefined;
}

function verify({ set }: Options): OptionProblem[] {
  return Object.entries(set)
    .filter(([, value]) => typeof value !== "function" && !isHeaderValue(value))
    .map(([name]) => ({
      code: "option-invalid",
      message: `headers: ${JSON.stringify(name)} is given a value that no header can be`,
      remedy: "give text, bytes, a finite number, a boolean, null, undefined, or a function that returns one",
    }));
}

function isHeaderValue(value: unknown): value is HeaderValue | undefined {
  if (typeof value === "number") return Number.isFinite(value);
  if (value === null || value === undefined || Buffer.isBuffer(value)) return true;
  return typeof value === "string" || typeof value === "boolean";
}
