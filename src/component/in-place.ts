import { offloadAbove } from "./codec.ts";

/** A millisecond or two of decompressing, thirty of compressing with gzip: as long as one call may block. */
const allowance = 2 ** 20;

/**
 * Decides which payloads of one call are worked on at once and which go to the thread pool: those that are large
 * by themselves, and all that come after many small ones, so that the event loop is never held up for long.
 */
export class InPlace {
  #left = allowance;

  /** Whether a payload of `size` bytes is to be worked on here. */
  allows(size: number): boolean {
    return size <= offloadAbove && this.#left > 0;
  }

  /** Counts `size` bytes that were read or written here. */
  used(size: number): void {
    this.#left -= size;
  }
}
