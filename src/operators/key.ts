import { hash } from "node:crypto";
import { defineOperator } from "../component/define-operator.ts";
import type { Operator, OperatorContext } from "../component/operator.ts";
import type { OptionProblem, OptionsSchema } from "../component/options.ts";
import { perChunk } from "../component/per-chunk.ts";
import type { Chunk } from "../message/chunk.ts";
import { KeyWriter } from "../message/key-column.ts";
import { byIndex, disown, type OfMessage, rejectThrown } from "./author-function.ts";
import { compositeTextOf, type IdentityFault, type IdentityPart, isFault, keyOf } from "./identity.ts";
import { JsonPointer, pointerProblem } from "./json-pointer.ts";

/** What a key may be made of: text, bytes, or a whole number within ±(2⁵³ − 1); a bigint of any size. */
export type KeyValue = string | number | bigint | Uint8Array | null | undefined;

export interface KeyOptions {
  /**
   * null makes a message without a key, which a sink may send anywhere; otherwise null is a missing key.
   * @default false
   */
  readonly allowNull?: boolean;
}

/** A key of several fields. */
export interface KeyFields<T> {
  /** The fields, in order. Null is a field of its own, which no other value equals; undefined is a missing key. */
  readonly fields: OfMessage<T, readonly (IdentityPart | undefined)[]>;
  /**
   * A text between the fields, to make the keys that an existing system makes. Different fields may then make
   * one key: with "_", ("a_b", "c") and ("a", "b_c") do. Null has no form and is refused.
   * @default length-prefixed: every field as `5:hello,` (its length in UTF-8 bytes), null as `-,`; no two lists
   * of fields make one key
   */
  readonly join?: string;
}

/** A key of several fields, digested: short, of one length, and unreadable. */
export interface KeyDigest<T> {
  readonly digest: "md5" | "sha1" | "sha256";
  /** The fields, in order, as in {@link KeyFields.fields}. */
  readonly of: OfMessage<T, readonly (IdentityPart | undefined)[]>;
  /** As in {@link KeyFields.join}. */
  readonly join?: string;
  /**
   * How the digest is written: lower-case hex, base64 with padding, or its bytes.
   * @default "hex"
   */
  readonly encoding?: "hex" | "base64" | "bytes";
}

type Options = KeyOptions & {
  readonly value?: OfMessage<never, KeyValue>;
  readonly path?: string;
} & Partial<KeyFields<never>> &
  Partial<KeyDigest<never>>;

const schema: OptionsSchema = {
  type: "object",
  properties: {
    value: { isFunction: true },
    path: { type: "string" },
    fields: { isFunction: true },
    digest: { enum: ["md5", "sha1", "sha256"] },
    of: { isFunction: true },
    join: { type: "string" },
    encoding: { enum: ["hex", "base64", "bytes"] },
    allowNull: { type: "boolean" },
  },
  additionalProperties: false,
};

export const keyDefinition = defineOperator<Options>({
  type: "key",
  summary: "Gives a message its key: a field, several fields, or a digest of several.",
  guarantee:
    "Two different values never make one key, unless `join` says so; the text 1 and the number 1 are the same key. " +
    "A number beyond ±(2^53 - 1) is exact when its field is named by a JSON pointer, and refused when a function " +
    "returns it, since JSON.parse has rounded it. Lists of fields are length-prefixed. An empty text is a key; a " +
    "missing one rejects the message.",
  schema,
  examples: [
    {
      title: "A field",
      code: "key((o) => o.customer)",
      operator: () => key((order: { customer: string }) => order.customer),
      given: [{ value: { customer: "c1" } }, { value: { customer: "" } }, { value: {} }],
      expect: [
        { key: "c1", value: { customer: "c1" } },
        { key: "", value: { customer: "" } },
        { value: {}, outcome: "deadLettered" },
      ],
    },
    {
      title: "A field by its JSON pointer",
      code: 'key("/account/number")',
      operator: () => key("/account/number"),
      given: [{ value: { account: { number: 7 } } }],
      expect: [{ key: "7", value: { account: { number: 7 } } }],
    },
    {
      title: "Two fields together",
      code: "key({ fields: (o) => [o.shop, o.customer] })",
      operator: () =>
        key({ fields: (order: { shop: string; customer: number }) => [order.shop, order.customer] }),
      given: [{ value: { shop: "north", customer: 12 } }],
      expect: [{ key: "5:north,2:12,", value: { shop: "north", customer: 12 } }],
    },
    {
      title: "A digest, as another system already makes it",
      code: 'key({ digest: "md5", join: "_", of: (m) => [m.tenant_id, m.patient_id] })',
      operator: () =>
        key({
          digest: "md5",
          join: "_",
          of: (meta: { tenant_id: string; patient_id: string }) => [meta.tenant_id, meta.patient_id],
        }),
      given: [{ value: { tenant_id: "t", patient_id: "p" } }],
      expect: [{ key: "5c2423d9bb6800593fddead13d1534d3", value: { tenant_id: "t", patient_id: "p" } }],
    },
  ],
  effect: ({ path }) => ({ takes: path === undefined ? "any" : "value", leaves: "same" }),
  rejects: true,
  verify,
  build: (options, context) => {
    const make = keyMaker(options);
    return perChunk((chunk) => assignKeys(chunk, make, options.allowNull === true, context));
  },
});

/**
 * Gives a message its key: what a function returns, the field at a JSON pointer, several fields, or a digest of
 * several. Text becomes UTF-8, bytes stay, whole numbers become decimal digits. Functions are given the value, and
 * the message (headers, timestamp, origin) if they have a second parameter.
 */
export function key<T>(of: OfMessage<T, KeyValue>, options?: KeyOptions): Operator<T, T>;
export function key<T>(pointer: string, options?: KeyOptions): Operator<T, T>;
export function key<T>(fields: KeyFields<T>): Operator<T, T>;
export function key<T>(digest: KeyDigest<T>): Operator<T, T>;
export function key<T>(
  from: string | OfMessage<T, KeyValue> | KeyFields<T> | KeyDigest<T>,
  options: KeyOptions = {},
): Operator<T, T> {
  if (typeof from === "string") return keyDefinition.place({ ...options, path: from });
  if (typeof from === "function") return keyDefinition.place({ ...options, value: from });
  return keyDefinition.place({ ...options, ...from });
}

function verify(options: Options): OptionProblem[] {
  const { value, path, fields, digest, of, join, encoding, allowNull } = options;
  const problems: OptionProblem[] = [];
  const wrong = (message: string, remedy: string) =>
    problems.push({ code: "option-invalid", message: `key: ${message}`, remedy });
  const ways = [value, path, fields, digest ?? of].filter((way) => way !== undefined).length;
  if (ways === 0) {
    wrong("nothing says what the key is", "give a function, a JSON pointer, `fields`, or `digest` and `of`");
  } else if (ways > 1) wrong("the key is given in more than one way", "keep one of them");
  if ((digest === undefined) !== (of === undefined)) {
    wrong("`digest` and `of` need each other", 'write { digest: "sha256", of: (value) => [...] }');
  }
  if (join !== undefined && fields === undefined && of === undefined) {
    wrong("`join` joins the fields of a key that has several", "leave it out");
  }
  if (encoding !== undefined && digest === undefined) {
    wrong("`encoding` is how a digest is written", "leave it out");
  }
  if (allowNull !== undefined && value === undefined && path === undefined) {
    wrong("`allowNull` is for a key that is one value", "leave it out: null is a field like any other");
  }
  const pointer = path === undefined ? undefined : pointerProblem(path);
  if (pointer !== undefined) wrong(`${JSON.stringify(path)} is no JSON pointer`, pointer);
  return problems;
}

/** Makes the key of message `index`: text, whose UTF-8 it is, or bytes; null for a null value. */
type KeyMaker = (chunk: Chunk, index: number) => string | Uint8Array | null | IdentityFault;

function keyMaker(options: Options): KeyMaker {
  const { path, join, digest, encoding } = options;
  if (path !== undefined) {
    const pointer = new JsonPointer(path);
    return (chunk, index) => single(pointer.readExactly(chunk, index));
  }
  if (options.value !== undefined) {
    const value = byIndex(options.value);
    return (chunk, index) => single(value(chunk, index));
  }
  const fields = byIndex((options.fields ?? options.of)!);
  return (chunk, index) => {
    const parts: unknown = fields(chunk, index);
    if (!Array.isArray(parts)) {
      disown(parts);
      return notAList;
    }
    const text = compositeTextOf(parts, join);
    if (typeof text !== "string" || digest === undefined) return text;
    return encoding === "bytes" ? hash(digest, text, "buffer") : hash(digest, text, encoding ?? "hex");
  };
}

const notAList: IdentityFault = { kind: "invalid", reason: "is not a list of fields" };

function single(value: unknown): ReturnType<KeyMaker> {
  if (value === null) return null;
  const made = keyOf(value);
  if (isFault(made)) disown(value);
  return made;
}

function assignKeys(chunk: Chunk, make: KeyMaker, allowNull: boolean, context: OperatorContext): void {
  const keys = new KeyWriter(chunk.length);
  for (let i = 0; i < chunk.length; i++) {
    if (chunk.state[i] === 0) continue;
    let made: ReturnType<KeyMaker>;
    try {
      made = make(chunk, i);
    } catch (error) {
      rejectThrown(context, chunk, i, "the function of key", error);
      continue;
    }
    if (made === null) {
      if (!allowNull) rejectKey(context, chunk, i, "key-missing", "is null");
    } else if (isFault(made)) {
      rejectKey(context, chunk, i, made.kind === "missing" ? "key-missing" : "key-invalid", made.reason);
    } else keys.write(i, made);
  }
  chunk.keys = keys.finish();
}

function rejectKey(
  context: OperatorContext,
  chunk: Chunk,
  index: number,
  code: "key-missing" | "key-invalid",
  reason: string,
): void {
  context.reject(chunk, index, { class: "business", code, message: `the key ${reason}` });
}
