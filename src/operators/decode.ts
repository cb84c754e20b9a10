import { isUtf8 } from "node:buffer";
import { defineOperator } from "../component/define-operator.ts";
import type { Operator, OperatorContext } from "../component/operator.ts";
import { byteCount, type OptionsSchema, type Size } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import type { ErrorCode } from "../errors.ts";
import type { Bytes, Chunk } from "../message/chunk.ts";

export interface DecodeOptions {
  /**
   * Largest value, in bytes. Parsing blocks the event loop, for about 10 ms a MiB of JSON.
   * @default "16MiB", which is what RabbitMQ takes by default, and 16 times what Kafka does
   */
  readonly maxBytes?: Size;
  /**
   * JSON only: how deep arrays and objects may be nested. Recursive code further on (a schema, `encode`) needs
   * stack for each level, so a higher limit trades safety for room.
   * @default 64
   */
  readonly maxDepth?: number;
  /**
   * A message without a value (a Kafka tombstone): `reject` it, or `pass` null on as the value.
   * @default "reject"
   */
  readonly nullValue?: "reject" | "pass";
}

type Format = "json" | "text" | "bytes";
type PassingNull = DecodeOptions & { readonly nullValue: "pass" };
type Options = DecodeOptions & { readonly format: Format };

const schema: OptionsSchema = {
  type: "object",
  properties: {
    format: { enum: ["json", "text", "bytes"] },
    maxBytes: { isSize: true },
    maxDepth: { type: "integer", minimum: 1, maximum: 1_000 },
    nullValue: { enum: ["reject", "pass"] },
  },
  required: ["format"],
  additionalProperties: false,
};

export const decodeDefinition = defineOperator<Options>({
  type: "decode",
  summary: "Turns a message's bytes into a value: JSON, text, or the bytes themselves.",
  guarantee:
    "Strict: text that is not valid UTF-8, JSON that is not valid or is nested too deep, and objects with a key " +
    '"__proto__" are rejected, never repaired. The original bytes stay with the message. Whole numbers beyond ' +
    "±(2^53 - 1) are rounded as JSON.parse does, numbers beyond 1.8e308 become Infinity, and of several members " +
    "with one name the last counts.",
  schema,
  examples: [
    {
      title: "JSON, with what is not JSON sent to the dead letters",
      code: 'decode("json")',
      operator: () => decode("json"),
      given: [{ value: '{"id":1}' }, { value: '{"id":' }, { value: "[2]" }],
      expect: [{ value: { id: 1 } }, { value: '{"id":', outcome: "deadLettered" }, { value: [2] }],
    },
    {
      title: "Text, letting tombstones through",
      code: 'decode("text", { nullValue: "pass" })',
      operator: () => decode("text", { nullValue: "pass" }),
      given: [{ value: "grün" }, { value: null }],
      expect: [{ value: "grün" }, { value: null }],
    },
  ],
  effect: () => ({ takes: "bytes", leaves: "value" }),
  rejects: true,
  build: (options, context) => {
    const decoder = new Decoder(options, context);
    return perChunk((chunk) => decoder.decode(chunk));
  },
});

/**
 * Turns a message's bytes into a value. `"json"` gives what JSON.parse gives, of type unknown until `validate`
 * names it; `"text"` a string; `"bytes"` the Buffer.
 */
export function decode(format: "json", options?: DecodeOptions): Operator<Bytes, unknown>;
export function decode(format: "text", options: PassingNull): Operator<Bytes, string | null>;
export function decode(format: "text", options?: DecodeOptions): Operator<Bytes, string>;
export function decode(format: "bytes", options: PassingNull): Operator<Bytes, Buffer | null>;
export function decode(format: "bytes", options?: DecodeOptions): Operator<Bytes, Buffer>;
export function decode(format: Format, options: DecodeOptions = {}): Operator<Bytes, unknown> {
  return decodeDefinition.place({ ...options, format });
}

class Decoder {
  readonly #format: Format;
  readonly #maxBytes: number;
  readonly #maxDepth: number;
  readonly #passNull: boolean;
  readonly #context: OperatorContext;

  constructor(options: Options, context: OperatorContext) {
    this.#format = options.format;
    this.#maxBytes = byteCount(options.maxBytes, 16 * 2 ** 20);
    this.#maxDepth = options.maxDepth ?? 64;
    this.#passNull = options.nullValue === "pass";
    this.#context = context;
  }

  decode(chunk: Chunk): void {
    const values = new Array<unknown>(chunk.length);
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const length = chunk.payloadLength(i);
      if (length < 0) {
        values[i] = null;
        if (!this.#passNull) this.#reject(chunk, i, "value-missing", "the message has no value");
      } else if (length > this.#maxBytes) {
        this.#reject(
          chunk,
          i,
          "value-too-large",
          `the value has ${length} bytes, more than ${this.#maxBytes}`,
        );
      } else if (this.#format === "bytes") {
        values[i] = chunk.payload(i);
      } else {
        // Bad bytes become U+FFFD, so only text that has one can hide some. The search costs 15 ns on 230
        // bytes of ASCII, where checking them beforehand costs 30, and a fatal TextDecoder as much.
        const text = chunk.payloadText(i);
        if (text.includes("\ufffd") && !isUtf8(chunk.payload(i)!)) {
          this.#reject(chunk, i, "utf8-invalid", "the value is not valid UTF-8");
        } else if (this.#format === "text") values[i] = text;
        else this.#parse(chunk, i, text, values);
      }
    }
    chunk.values = values;
  }

  #parse(chunk: Chunk, index: number, text: string, values: unknown[]): void {
    if (hasMore(text, this.#maxDepth) && isDeeper(chunk.payload(index)!, this.#maxDepth)) {
      this.#reject(
        chunk,
        index,
        "json-too-deep",
        `the JSON value is nested deeper than ${this.#maxDepth} levels`,
      );
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      this.#reject(chunk, index, "json-invalid", `the value is not valid JSON${placeOf(error)}`);
      return;
    }
    // A name can be hidden in escapes: all its letters are below U+0080.
    if ((text.includes("__proto__") || text.includes("\\u00")) && hasForbiddenKey(value)) {
      this.#reject(chunk, index, "json-forbidden-key", 'the JSON value has a key "__proto__"');
      return;
    }
    values[index] = value;
  }

  #reject(chunk: Chunk, index: number, code: ErrorCode, message: string): void {
    this.#context.reject(chunk, index, { class: "business", code, message });
  }
}

/** Whether there are more than `limit` opening brackets of any kind, in strings too: a quick first look. */
function hasMore(text: string, limit: number): boolean {
  let count = 0;
  for (let at = text.indexOf("{"); at >= 0; at = text.indexOf("{", at + 1)) if (++count > limit) return true;
  for (let at = text.indexOf("["); at >= 0; at = text.indexOf("[", at + 1)) if (++count > limit) return true;
  return false;
}

/** Whether brackets outside strings are nested deeper than `limit`. Right for invalid JSON up to its first error. */
function isDeeper(bytes: Buffer, limit: number): boolean {
  let depth = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (byte === 0x22) {
      for (i++; i < bytes.length && bytes[i] !== 0x22; i++) if (bytes[i] === 0x5c) i++;
    } else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > limit) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  return false;
}

/**
 * JSON.parse makes "__proto__" an own property, harmless in itself; but the first copy by assignment or by
 * Object.assign would turn the sender's object into a prototype. Nobody sends such a key in good faith.
 */
function hasForbiddenKey(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (Array.isArray(value)) return value.some(hasForbiddenKey);
  return Object.hasOwn(value, "__proto__") || Object.values(value).some(hasForbiddenKey);
}

/** Where JSON.parse stopped. The rest of its message quotes the value, which must not get into an error. */
function placeOf(error: unknown): string {
  const place =
    error instanceof Error ? /at position (\d+)(?: \(line \d+ column \d+\))?$/.exec(error.message) : null;
  if (place !== null) return `: see character ${Number(place[1]) + 1}`;
  return error instanceof Error && /end of JSON input$/.test(error.message) ? ": it ends too early" : "";
}
