/*
 * Zigzag varints: the sign goes into the lowest bit (0, −1, 1, −2 … become 0, 1, 2, 3 …), then seven bits a byte,
 * the lowest first, with the top bit set in all bytes but the last.
 *
 * Numbers of 64 bits are whole JavaScript numbers: exact up to 2⁵³, rounded beyond.
 */

/** Bytes that {@link writeVarint} takes. */
export function varintSize(value: number): number {
  const zigzag = (value << 1) ^ (value >> 31);
  return zigzag >>> 7 === 0
    ? 1
    : zigzag >>> 14 === 0
      ? 2
      : zigzag >>> 21 === 0
        ? 3
        : zigzag >>> 28 === 0
          ? 4
          : 5;
}

/** Writes a number of 32 bits; returns the position after it. */
export function writeVarint(target: Uint8Array, position: number, value: number): number {
  let zigzag = (value << 1) ^ (value >> 31);
  let next = position;
  while (zigzag >>> 7 !== 0) {
    target[next++] = zigzag | 0x80;
    zigzag >>>= 7;
  }
  target[next++] = zigzag;
  return next;
}

/** Bytes that {@link writeVarlong} takes. */
export function varlongSize(value: number): number {
  if (value === (value | 0)) return varintSize(value);
  let rest = Math.floor((value < 0 ? -(value + 1) : value) / 64);
  let size = 1;
  for (; rest > 0; size++) rest = Math.floor(rest / 128);
  return size;
}

/** Writes a whole number up to 2⁵³ in size; returns the position after it. */
export function writeVarlong(target: Uint8Array, position: number, value: number): number {
  if (value === (value | 0)) return writeVarint(target, position, value);
  // Doubling could be inexact, so the first byte is made apart: six bits of the magnitude, and the sign.
  const magnitude = value < 0 ? -(value + 1) : value;
  let rest = Math.floor(magnitude / 64);
  let next = position;
  target[next++] = ((magnitude % 64) << 1) | (value < 0 ? 1 : 0) | (rest > 0 ? 0x80 : 0);
  while (rest > 0) {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    target[next++] = low | (rest > 0 ? 0x80 : 0);
  }
  return next;
}

/** The position after the varint that was read last: reading is synchronous, and returns one number only. */
export let end = 0;

/** What a damaged varint reads as; no length, count or delta of a batch is so low. */
const damaged = -(2 ** 31);

/**
 * Reads a number of 32 bits, and leaves the position after it in {@link end}. Beyond the source it reads zeros:
 * the caller checks where it got to. One that does not stop after five bytes reads as −2³¹.
 */
export function readVarint(source: Uint8Array, position: number): number {
  let next = position;
  let byte = source[next++]!;
  let zigzag = byte & 0x7f;
  for (let shift = 7; byte >= 0x80; shift += 7) {
    if (shift > 28) {
      end = next;
      return damaged;
    }
    byte = source[next++]!;
    zigzag |= (byte & 0x7f) << shift;
  }
  end = next;
  return (zigzag >>> 1) ^ -(zigzag & 1);
}

/** Reads a number of 64 bits, as {@link readVarint} does. One that does not stop after ten bytes reads as NaN. */
export function readVarlong(source: Uint8Array, position: number): number {
  let next = position;
  let byte = source[next++]!;
  const negative = byte & 1;
  let magnitude = (byte & 0x7f) >>> 1;
  for (let scale = 64; byte >= 0x80; scale *= 128) {
    if (scale > 2 ** 62) {
      end = next;
      return Number.NaN;
    }
    byte = source[next++]!;
    magnitude += (byte & 0x7f) * scale;
  }
  end = next;
  return negative === 0 ? magnitude : -magnitude - 1;
}
