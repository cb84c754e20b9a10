import type { Write } from "./write.ts";

/** Told of each message that the broker has answered for. */
export type Answer = (write: Write, unit: number, returned: boolean) => void;

/**
 * What was published on one channel and not yet confirmed, by tag: 1, 2, 3 …, in a ring over the tags.
 *
 * ```
 *   head ≤ tail; [head, tail) was sent; slots in between may be answered already
 * ```
 */
export class Unconfirmed {
  #writes: (Write | undefined)[] = new Array(1024);
  #units = new Uint32Array(1024);
  #sizes = new Float64Array(1024);
  #returned = new Uint8Array(1024);
  #mask = 1023;
  #head = 1;
  #tail = 1;
  #count = 0;
  #bytes = 0;

  /** Messages sent and not yet confirmed. */
  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The next tag in turn. */
  add(write: Write, unit: number, size: number): void {
    if (this.#tail - this.#head === this.#writes.length) this.#grow();
    const slot = this.#tail++ & this.#mask;
    this.#writes[slot] = write;
    this.#units[slot] = unit;
    this.#sizes[slot] = size;
    this.#returned[slot] = 0;
    this.#count++;
    this.#bytes += size;
  }

  /** The broker found no queue for it; its confirm follows. */
  markReturned(tag: number): void {
    if (tag >= this.#head && tag < this.#tail) this.#returned[tag & this.#mask] = 1;
  }

  /** Takes out what the broker has answered for. A tag that is not there was answered before. */
  confirm(tag: number, multiple: boolean, answer: Answer): void {
    const last = Math.min(tag, this.#tail - 1);
    for (let each = multiple ? this.#head : Math.max(tag, this.#head); each <= last; each++)
      this.#take(each, answer);
    this.#advance();
  }

  /** Takes out everything, in the order it was sent. */
  takeAll(answer: Answer): void {
    for (let tag = this.#head; tag < this.#tail; tag++) this.#take(tag, answer);
    this.#head = 1;
    this.#tail = 1;
  }

  #take(tag: number, answer: Answer): void {
    const slot = tag & this.#mask;
    const write = this.#writes[slot];
    if (write === undefined) return;
    this.#writes[slot] = undefined;
    this.#count--;
    this.#bytes -= this.#sizes[slot]!;
    answer(write, this.#units[slot]!, this.#returned[slot] === 1);
  }

  #advance(): void {
    while (this.#head < this.#tail && this.#writes[this.#head & this.#mask] === undefined) this.#head++;
  }

  #grow(): void {
    const capacity = this.#writes.length * 2;
    const writes: (Write | undefined)[] = new Array(capacity);
    const units = new Uint32Array(capacity);
    const sizes = new Float64Array(capacity);
    const returned = new Uint8Array(capacity);
    const mask = capacity - 1;
    for (let tag = this.#head; tag < this.#tail; tag++) {
      const [from, to] = [tag & this.#mask, tag & mask];
      writes[to] = this.#writes[from];
      units[to] = this.#units[from]!;
      sizes[to] = this.#sizes[from]!;
      returned[to] = this.#returned[from]!;
    }
    this.#writes = writes;
    this.#units = units;
    this.#sizes = sizes;
    this.#returned = returned;
    this.#mask = mask;
  }
}
