import { Observable } from "rxjs";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator } from "../component/operator.ts";
import type { OptionsSchema } from "../component/options.ts";
import { Batch, type Codec, codecs, type Framing } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";

export interface CompressOptions {
  /** gzip, snappy, lz4 or zstd; `none` leaves the bytes as they are. */
  readonly codec: Codec;
  /**
   * For sinks that have no batch format of their own: `record` compresses each payload by itself, `batch` makes
   * one payload of all messages of a batch, which `decompress` takes apart again. Kafka compresses its own record
   * batches whole, either way.
   * @default "record"
   */
  readonly framing?: Framing;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { codec: { enum: [...codecs] }, framing: { enum: ["record", "batch"] } },
  required: ["codec"],
  additionalProperties: false,
};

export const compressDefinition = defineOperator<CompressOptions>({
  type: "compress",
  summary: "Says how the sink compresses what it writes.",
  guarantee:
    "It only names the codec; the sink applies it to the bytes it sends, so a resend is the same bytes. Messages in " +
    "a payload that frames a whole batch are stored and refused together.",
  schema,
  examples: [
    {
      title: "Record batches of Kafka",
      code: 'compress("zstd")',
      operator: () => compress("zstd"),
      given: [{ value: { id: 1 } }],
      expect: [{ value: { id: 1 } }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "same" }),
  rejects: false,
  build:
    ({ codec, framing = "record" }) =>
    (source) =>
      new Observable<Flowing>((subscriber) =>
        source.subscribe({
          next(item) {
            if (item instanceof Batch || item instanceof Chunk) {
              item.codec = codec;
              item.framing = framing;
            }
            subscriber.next(item);
          },
          error: (error) => subscriber.error(error),
          complete: () => subscriber.complete(),
        }),
      ),
});

/** Says how the sink compresses what it writes: a codec, or a codec and how payloads are framed. */
export function compress<T>(how: Codec | CompressOptions): Operator<T, T> {
  return compressDefinition.place<T, T>(typeof how === "string" ? { codec: how } : how);
}
