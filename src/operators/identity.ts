/**
 * What makes a key or a dedup id out of a value, in one place, so that both refuse the same values and no two
 * different values can ever become one.
 *
 * Whole numbers are exact up to ±(2⁵³ − 1); beyond, JSON.parse has already merged neighbours, so such a number
 * is refused. A bigint is exact at any size: it is what {@link JsonPointer} gives for a number beyond 2⁵³.
 */

/** One field of a composite key or id. */
export type IdentityPart = string | number | bigint | null;

/** Why a value is no identity. Constants: refusing allocates nothing. */
export interface IdentityFault {
  /** `missing` (undefined or null) is often told from `invalid` by an option. */
  readonly kind: "missing" | "invalid";
  /** What the value is, to follow "the key" or "the id". */
  readonly reason: string;
}

const isUndefined: IdentityFault = Object.freeze({ kind: "missing", reason: "is undefined" });
const isNull: IdentityFault = Object.freeze({ kind: "missing", reason: "is null" });
const hasUndefinedPart: IdentityFault = Object.freeze({
  kind: "missing",
  reason: "has a field that is undefined",
});
const hasNullPart: IdentityFault = Object.freeze({ kind: "missing", reason: "has a field that is null" });
const isUnsafe: IdentityFault = Object.freeze({
  kind: "invalid",
  reason:
    "is a number beyond ±(2^53 - 1), whose last digits are lost: name the field by its JSON pointer, which reads the digits from the bytes",
});
/** What {@link JsonPointer} gives for such a number that the bytes do not have as plain digits either. */
export const unsafeAsWritten: IdentityFault = Object.freeze({
  kind: "invalid",
  reason:
    "is a number beyond ±(2^53 - 1) that is written with a fraction or an exponent, or at endless length: its writer must write plain digits, or text",
});
/** The same where the value has been changed since it was decoded. */
export const unsafeAndChanged: IdentityFault = Object.freeze({
  kind: "invalid",
  reason:
    "is a number beyond ±(2^53 - 1) in a value that was changed, whose last digits are lost: read it before the step that changes the value, or make it text there",
});
const isFractional: IdentityFault = Object.freeze({
  kind: "invalid",
  reason: "is not a whole number: make it text",
});
const isIllFormed: IdentityFault = Object.freeze({
  kind: "invalid",
  reason: "has a lone surrogate, which UTF-8 cannot express",
});
const isPromise: IdentityFault = Object.freeze({
  kind: "invalid",
  reason: "is a promise: the function must return the value itself",
});
const isOther: IdentityFault = Object.freeze({
  kind: "invalid",
  reason: "is not text, bytes, or a whole number",
});

export function isFault(result: string | Uint8Array | IdentityFault): result is IdentityFault {
  return typeof result !== "string" && !(result instanceof Uint8Array);
}

/**
 * A key: a text, which stands for its UTF-8, or bytes as they are; whole numbers are the text of their decimal
 * digits. So the text "1" and the number 1 are one key, as they are to every other client. `""` is a key, of no
 * bytes; null is none.
 */
export function keyOf(value: unknown): string | Uint8Array | IdentityFault {
  return value instanceof Uint8Array ? value : textOf(value);
}

/**
 * One text for a composite key. Without `join` every field is written as a netstring, `5:hello,` (length in
 * bytes), and null as `-,`: no two lists of fields give one text, whatever separators the fields contain
 * (a number counts as its digits). With `join` the fields are written with it between them, as some existing
 * systems do, where ("a_b", "c") and ("a", "b_c") are one key; null has no form there and is refused.
 */
export function compositeTextOf(parts: readonly unknown[], join: string | undefined): string | IdentityFault {
  let all = "";
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i];
    if (part === null) {
      if (join !== undefined) return hasNullPart;
      all += "-,";
      continue;
    }
    const text = textOf(part);
    if (typeof text !== "string") return text === isUndefined ? hasUndefinedPart : text;
    if (join === undefined) all += `${Buffer.byteLength(text)}:${text},`;
    else all += i === 0 ? text : join + text;
  }
  return all;
}

/**
 * An exact text for a dedup id, or for several that count together: equal for equal ids and for no others.
 * Kinds are kept apart: the text "1", the number 1 and the byte 0x31 are three ids; 1 and 1n are one. A null
 * or undefined field makes the whole id missing, since it would throw unrelated messages together.
 *
 * Text stands for itself unless it begins with U+0000, which marks all other forms.
 */
export function identityOf(value: unknown): string | IdentityFault {
  if (typeof value === "string") {
    if (!value.isWellFormed()) return isIllFormed;
    return value.charCodeAt(0) === 0 ? `\0s${value}` : value;
  }
  if (value instanceof Uint8Array) return `\0b${asBuffer(value).toString("latin1")}`;
  if (!Array.isArray(value)) {
    const text = textOf(value);
    return typeof text === "string" ? `\0n${text}` : text;
  }
  if (value.length === 0) return isUndefined;
  let all = "\0t";
  for (let i = 0; i < value.length; i++) {
    const part: unknown = value[i];
    const text = textOf(part);
    if (typeof text !== "string") {
      if (text === isUndefined) return hasUndefinedPart;
      return text === isNull ? hasNullPart : text;
    }
    all += `${typeof part === "string" ? "s" : "n"}${text.length}:${text}`;
  }
  return all;
}

function textOf(value: unknown): string | IdentityFault {
  switch (typeof value) {
    case "string":
      return value.isWellFormed() ? value : isIllFormed;
    case "number":
      if (Number.isSafeInteger(value)) return String(value);
      return Number.isInteger(value) ? isUnsafe : isFractional;
    case "bigint":
      return String(value);
    case "undefined":
      return isUndefined;
    case "object":
      if (value === null) return isNull;
      if (value === unsafeAsWritten || value === unsafeAndChanged) return value as IdentityFault;
      return typeof (value as { then?: unknown }).then === "function" ? isPromise : isOther;
    default:
      return isOther;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
