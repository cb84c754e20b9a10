/** Longest text that a loop writes sooner than `Buffer.write`, whose call costs as much as 40 characters. */
const shortText = 40;
/** Most that is kept at hand for the next column, in bytes. */
const largestRoom = 256 * 2 ** 10;

/**
 * The keys of a chunk's messages, one after the other in one run of bytes: an object for all, and a slice only
 * where someone looks. Never written once it is made, so that chunks share it.
 */
export class KeyColumn {
  readonly #bytes: Buffer;
  /** Where each key ends; the bits are inverted where there is none. It starts where the one before it ends. */
  readonly #ends: Int32Array;
  /** The index in `#ends` of key 0. */
  readonly #from: number;

  constructor(bytes: Buffer, ends: Int32Array, from = 0) {
    this.#bytes = bytes;
    this.#ends = ends;
    this.#from = from;
  }

  /** null is "no key". The slice is good for as long as anyone holds it. */
  key(index: number): Buffer | null {
    const at = this.#from + index;
    const end = this.#ends[at]!;
    return end < 0 ? null : this.#bytes.subarray(this.#start(at), end);
  }

  /** The key's length in bytes; −1: there is none. */
  length(index: number): number {
    const at = this.#from + index;
    const end = this.#ends[at]!;
    return end < 0 ? -1 : end - this.#start(at);
  }

  /** Asks `hash` of a key that is there where it lies, in bytes [from, to). */
  hashed<A>(
    index: number,
    hash: (bytes: Buffer, argument: A, from: number, to: number) => number,
    argument: A,
  ): number {
    const at = this.#from + index;
    return hash(this.#bytes, argument, this.#start(at), this.#ends[at]!);
  }

  /** Writes a key that is there into `into`, from byte `start` on. */
  copy(index: number, into: Buffer, start: number): void {
    const bytes = this.#bytes;
    const at = this.#from + index;
    const from = this.#start(at);
    const to = this.#ends[at]!;
    if (to - from > shortText) into.set(bytes.subarray(from, to), start);
    else for (let i = from; i < to; i++) into[start + i - from] = bytes[i]!;
  }

  /** The same keys from `index` on. */
  after(index: number): KeyColumn {
    return new KeyColumn(this.#bytes, this.#ends, this.#from + index);
  }

  /** The keys of what still travels, over bytes of their own. */
  travelling(state: Uint8Array): KeyColumn {
    let size = 0;
    for (let i = 0; i < state.length; i++) if (state[i] !== 0) size += Math.max(this.length(i), 0);
    const bytes = Buffer.allocUnsafe(size);
    const ends = new Int32Array(state.length);
    let at = 0;
    for (let i = 0; i < state.length; i++) {
      const key = state[i] === 0 ? null : this.key(i);
      if (key !== null) {
        bytes.set(key, at);
        at += key.length;
      }
      ends[i] = key === null ? ~at : at;
    }
    return new KeyColumn(bytes, ends);
  }

  #start(at: number): number {
    if (at === 0) return 0;
    const end = this.#ends[at - 1]!;
    return end < 0 ? ~end : end;
  }
}

/** Room to write the next column in; undefined while a writer has it. */
let room: Buffer | undefined;

/** Makes a column: the keys by rising index, then {@link finish}. */
export class KeyWriter {
  #room: Buffer;
  #used = 0;
  readonly #ends: Int32Array;
  /** Messages below this have their key, or none. */
  #next = 0;

  /** @param length messages in the chunk; those that are given no key have none. */
  constructor(length: number) {
    this.#ends = new Int32Array(length);
    this.#room = room ?? Buffer.allocUnsafeSlow(1_024);
    room = undefined;
  }

  /** The key is the text as UTF-8, or the bytes, which are copied. */
  write(index: number, key: string | Uint8Array): void {
    this.#skipTo(index);
    const used = this.#used;
    if (typeof key !== "string") {
      this.#reserve(key.length);
      this.#room.set(key, used);
      this.#used = used + key.length;
    } else if (!this.#writeShort(key)) {
      this.#reserve(3 * key.length);
      this.#used = used + this.#room.write(key, used);
    }
    this.#ends[index] = this.#used;
    this.#next = index + 1;
  }

  /** The column. The writer is done. */
  finish(): KeyColumn {
    this.#skipTo(this.#ends.length);
    const column = new KeyColumn(Buffer.from(this.#room.subarray(0, this.#used)), this.#ends);
    if (this.#room.length <= largestRoom) room = this.#room;
    return column;
  }

  /** False, with nothing written, where the text is long or has other letters than ASCII. */
  #writeShort(text: string): boolean {
    const { length } = text;
    if (length > shortText) return false;
    this.#reserve(length);
    const room = this.#room;
    const used = this.#used;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0x7f) return false;
      room[used + i] = code;
    }
    this.#used = used + length;
    return true;
  }

  #skipTo(index: number): void {
    for (let i = this.#next; i < index; i++) this.#ends[i] = ~this.#used;
  }

  #reserve(bytes: number): void {
    const needed = this.#used + bytes;
    if (needed <= this.#room.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#room.length));
    larger.set(this.#room.subarray(0, this.#used));
    this.#room = larger;
  }
}
