import { defineOperator } from "../component/define-operator.ts";
import type { Operator, OperatorContext } from "../component/operator.ts";
import type { OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import type { Bytes, Chunk } from "../message/chunk.ts";

export interface EncodeOptions {
  /**
   * What becomes of null: a `value` like any other (JSON writes `null`; text and bytes cannot express it and
   * refuse), or it may `pass` as a message without a value, a Kafka tombstone.
   * @default "value"
   */
  readonly nullValue?: "value" | "pass";
}

type Format = "json" | "text" | "bytes";
type Options = EncodeOptions & { readonly format: Format };

const schema: OptionsSchema = {
  type: "object",
  properties: {
    format: { enum: ["json", "text", "bytes"] },
    nullValue: { enum: ["value", "pass"] },
  },
  required: ["format"],
  additionalProperties: false,
};

export const encodeDefinition = defineOperator<Options>({
  type: "encode",
  summary: "Turns a message's value into the bytes a sink writes: JSON, text, or bytes as they are.",
  guarantee:
    "What cannot be expressed is rejected: in JSON a bigint, a value that refers to itself, undefined as a whole; as " +
    "text anything but a string, and a string with a lone surrogate. But JSON.stringify's own rules hold: NaN and " +
    "Infinity become null, members that are undefined or functions are left out, a Date becomes text, a Map {}. A " +
    "dead letter of a message rejected later still has the bytes that were first fetched.",
  schema,
  examples: [
    {
      title: "JSON, after a step that changed the value",
      code: 'encode("json")',
      operator: () => encode("json"),
      given: [{ value: { id: 1, tags: ["a"] } }, { value: null }],
      expect: [{ value: '{"id":1,"tags":["a"]}' }, { value: "null" }],
    },
    {
      title: "Text, null making a tombstone",
      code: 'encode("text", { nullValue: "pass" })',
      operator: () => encode("text", { nullValue: "pass" }),
      given: [{ value: "grün" }, { value: null }, { value: 7 }],
      expect: [{ value: "grün" }, { value: null }, { value: 7, outcome: "deadLettered" }],
    },
  ],
  effect: ({ format }) => ({ takes: format === "bytes" ? "any" : "value", leaves: "bytes" }),
  rejects: true,
  build: (options, context) => {
    const encoder = new Encoder(options, context);
    return perChunk((chunk) => encoder.encode(chunk));
  },
});

/** Turns a message's value into the bytes that a sink writes. A step that changed values must be followed by it. */
export function encode(format: "json", options?: EncodeOptions): Operator<unknown, Bytes>;
export function encode(
  format: "text",
  options: EncodeOptions & { readonly nullValue: "pass" },
): Operator<string | null, Bytes>;
export function encode(format: "text", options?: EncodeOptions): Operator<string, Bytes>;
export function encode(
  format: "bytes",
  options: EncodeOptions & { readonly nullValue: "pass" },
): Operator<Uint8Array | null, Bytes>;
export function encode(format: "bytes", options?: EncodeOptions): Operator<Uint8Array, Bytes>;
export function encode(format: Format, options: EncodeOptions = {}): Operator<never, Bytes> {
  return encodeDefinition.place({ ...options, format });
}

class Encoder {
  readonly #format: Format;
  readonly #passNull: boolean;
  readonly #context: OperatorContext;

  constructor(options: Options, context: OperatorContext) {
    this.#format = options.format;
    this.#passNull = options.nullValue === "pass";
    this.#context = context;
  }

  encode(chunk: Chunk): void {
    const payloads = new Array<Bytes>(chunk.length);
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const value = chunk.value(i);
      let payload: Bytes | string;
      if (value === null && this.#passNull) payload = null;
      else if (this.#format === "json") payload = json(value);
      else payload = this.#format === "text" ? text(value) : bytes(value);
      if (typeof payload !== "string") payloads[i] = payload;
      else
        this.#context.reject(chunk, i, {
          class: "business",
          code: "encode-failed",
          message: `the value cannot be written as ${this.#format === "json" ? "JSON" : this.#format}: ${payload}`,
        });
    }
    chunk.payloads = payloads;
    chunk.values = undefined;
    chunk.changed = false;
  }
}

/** The bytes, or in words why there are none. */
function json(value: unknown): Buffer | string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    // The engine's message names members of the value, which must not get into an error.
    const message = error instanceof Error ? error.message : "";
    if (message.includes("BigInt")) return "it has a bigint";
    if (message.startsWith("Converting circular structure")) return "it refers to itself";
    return error instanceof RangeError
      ? "it is too large or nested too deep"
      : "a toJSON function in it threw";
  }
  return text === undefined ? `it is ${typeof value}` : Buffer.from(text, "utf8");
}

function text(value: unknown): Buffer | string {
  if (typeof value !== "string") return `it is ${kindOf(value)}, not a string`;
  return value.isWellFormed()
    ? Buffer.from(value, "utf8")
    : "it has a lone surrogate, which UTF-8 cannot express";
}

function bytes(value: unknown): Buffer | string {
  if (Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return `it is ${kindOf(value)}, not a Buffer`;
}

function kindOf(value: unknown): string {
  return value === null ? "null" : typeof value;
}
