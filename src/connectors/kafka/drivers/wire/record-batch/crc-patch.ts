/** x⁸ modulo the polynomial of CRC-32C; the lowest bit of a number is the highest power, as in the checksum. */
const oneByte = 1 << 23;
const polynomial = 0x82f63b78;

/** By k: what 2ᵏ bytes more multiply by. */
const powers: readonly number[] = (() => {
  const list = [oneByte];
  for (let k = 1; k < 31; k++) list.push(product(list[k - 1]!, list[k - 1]!));
  return list;
})();

/**
 * The CRC-32C of bytes of which a part was replaced by as many others. The checksum is linear: it changes by the
 * difference of the two parts' own checksums, moved past the bytes that follow. That takes about a microsecond,
 * however many these are.
 */
export function patchedCrc(crc: number, before: number, after: number, bytesFollowing: number): number {
  let difference = before ^ after;
  for (let k = 0, left = bytesFollowing; left > 0; k++, left >>>= 1) {
    if ((left & 1) !== 0) difference = product(powers[k]!, difference);
  }
  return (crc ^ difference) >>> 0;
}

/** Of two polynomials over the field of two elements, modulo CRC-32C's. */
function product(a: number, b: number): number {
  let result = 0;
  let shifted = b;
  for (let bit = 1 << 31; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) result ^= shifted;
    shifted = (shifted & 1) === 0 ? shifted >>> 1 : (shifted >>> 1) ^ polynomial;
  }
  return result;
}
