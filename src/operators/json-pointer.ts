import type { Chunk } from "../message/chunk.ts";
import { unsafeAndChanged, unsafeAsWritten } from "./identity.ts";

/** Longer numbers are refused: turning digits into a bigint costs more than linear time. */
const mostDigits = 1_000;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;

/** A JSON pointer (RFC 6901), taken apart once: "" is the whole value, "/lines/0/qty" a field in it. */
export class JsonPointer {
  readonly text: string;
  readonly #steps: readonly string[];
  readonly #stepBytes: readonly Buffer[];
  readonly #indexes: readonly (number | undefined)[];

  /** Throws a SyntaxError that says what is wrong: see {@link pointerProblem}. */
  constructor(text: string) {
    const problem = pointerProblem(text);
    if (problem !== undefined) throw new SyntaxError(problem);
    this.text = text;
    this.#steps = text
      .split("/")
      .slice(1)
      .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    this.#stepBytes = this.#steps.map((step) => Buffer.from(step, "utf8"));
    this.#indexes = this.#steps.map((step) => (/^(?:0|[1-9]\d{0,9})$/.test(step) ? Number(step) : undefined));
  }

  /** What a decoded value has there; undefined where there is nothing. Inherited properties do not count. */
  read(value: unknown): unknown {
    let here = value;
    for (let i = 0; i < this.#steps.length; i++) {
      if (typeof here !== "object" || here === null) return undefined;
      if (Array.isArray(here)) {
        const index = this.#indexes[i];
        here = index === undefined ? undefined : here[index];
      } else {
        const step = this.#steps[i]!;
        here = Object.hasOwn(here, step) ? (here as Record<string, unknown>)[step] : undefined;
      }
    }
    return here;
  }

  /**
   * The same for message `index` of a chunk, but a whole number beyond ±(2⁵³ − 1), which JSON.parse has rounded,
   * is read again from the message's bytes and comes as an exact bigint. Where the bytes no longer stand for the
   * value, or have a fraction or an exponent, it comes as the fault that keeps it from being an identity.
   */
  readExactly(chunk: Chunk, index: number): unknown {
    const found = this.read(chunk.value(index));
    if (typeof found !== "number" || Math.abs(found) <= Number.MAX_SAFE_INTEGER) return found;
    if (chunk.changed) return unsafeAndChanged;
    const bytes = chunk.payload(index);
    const exact = bytes === null ? undefined : this.#wholeNumber(bytes);
    return exact !== undefined && Number(exact) === found ? exact : unsafeAsWritten;
  }

  /** The whole number that valid JSON text has there; undefined if there is none. */
  #wholeNumber(bytes: Buffer): bigint | undefined {
    const scan = new Scan(bytes);
    for (let i = 0; i < this.#steps.length; i++) {
      const found = scan.enter(this.#steps[i]!, this.#stepBytes[i]!, this.#indexes[i]);
      if (!found) return undefined;
    }
    const digits = scan.number();
    return digits.length <= mostDigits && /^-?\d+$/.test(digits) ? BigInt(digits) : undefined;
  }
}

/** What is wrong with the text of a JSON pointer; undefined when nothing is. */
export function pointerProblem(text: string): string | undefined {
  if (text !== "" && !text.startsWith("/")) return `a JSON pointer begins with "/": did you mean "/${text}"?`;
  if (/~(?![01])/.test(text)) return `in a JSON pointer "~" is written "~0" and "/" in a name "~1"`;
  return undefined;
}

/** A walk over the bytes of JSON text that JSON.parse has accepted. It looks only where the pointer leads. */
class Scan {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#skipSpace();
  }

  /** Moves to the named member of the object, or the element of the array, that begins here. */
  enter(name: string, nameBytes: Buffer, index: number | undefined): boolean {
    const opening = this.#bytes[this.#at];
    if (opening === openBrace) return this.#enterObject(name, nameBytes);
    if (opening === openBracket && index !== undefined) return this.#enterArray(index);
    return false;
  }

  /** The number that begins here, as it is written; "" when it is something else. */
  number(): string {
    let end = this.#at;
    while (isNumeral(this.#bytes[end])) end++;
    return this.#bytes.toString("latin1", this.#at, end);
  }

  /** Of members with one name the last counts, as for JSON.parse. */
  #enterObject(name: string, nameBytes: Buffer): boolean {
    let found = -1;
    this.#at++;
    this.#skipSpace();
    while (this.#bytes[this.#at] === quote) {
      const start = this.#at + 1;
      const escaped = this.#skipString();
      const end = this.#at - 1;
      const matches = escaped
        ? JSON.parse(this.#bytes.toString("utf8", start - 1, end + 1)) === name
        : end - start === nameBytes.length && nameBytes.compare(this.#bytes, start, end) === 0;
      this.#skipTo(colon);
      if (matches) found = this.#at;
      this.#skipValue();
      this.#skipTo(comma);
    }
    this.#at = found;
    return found >= 0;
  }

  #enterArray(index: number): boolean {
    this.#at++;
    this.#skipSpace();
    for (let i = 0; this.#at < this.#bytes.length && this.#bytes[this.#at] !== closeBracket; i++) {
      if (i === index) return true;
      const before = this.#at;
      this.#skipValue();
      this.#skipTo(comma);
      if (this.#at === before) return false;
    }
    return false;
  }

  #skipSpace(): void {
    while (this.#at < this.#bytes.length && this.#bytes[this.#at]! <= 0x20) this.#at++;
  }

  /** Passes the byte, if it comes next, and the space around it. */
  #skipTo(byte: number): void {
    this.#skipSpace();
    if (this.#bytes[this.#at] !== byte) return;
    this.#at++;
    this.#skipSpace();
  }

  /** Passes a string; tells whether it has escapes. */
  #skipString(): boolean {
    let escaped = false;
    this.#at++;
    while (this.#at < this.#bytes.length && this.#bytes[this.#at] !== quote) {
      if (this.#bytes[this.#at] === backslash) {
        escaped = true;
        this.#at++;
      }
      this.#at++;
    }
    this.#at++;
    return escaped;
  }

  #skipValue(): void {
    let depth = 0;
    while (this.#at < this.#bytes.length) {
      const byte = this.#bytes[this.#at]!;
      if (byte === quote) {
        this.#skipString();
      } else if (byte === openBrace || byte === openBracket) {
        depth++;
        this.#at++;
        continue;
      } else if (byte === closeBrace || byte === closeBracket) {
        if (depth === 0) return;
        depth--;
        this.#at++;
      } else if (depth > 0) {
        this.#at++;
        continue;
      } else {
        while (isPlain(this.#bytes[this.#at])) this.#at++;
      }
      if (depth === 0) return;
    }
  }
}

/** Part of a number. */
function isNumeral(byte: number | undefined): boolean {
  return (
    byte !== undefined &&
    ((byte >= 0x30 && byte <= 0x39) ||
      byte === 0x2d ||
      byte === 0x2b ||
      byte === 0x2e ||
      (byte | 0x20) === 0x65)
  );
}

/** Part of a number, true, false or null. */
function isPlain(byte: number | undefined): boolean {
  return byte !== undefined && (isNumeral(byte) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a));
}
