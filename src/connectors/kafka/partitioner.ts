import { crc32 } from "node:zlib";

/**
 * The partition of a key as Java's clients choose it (DefaultPartitioner): murmur2 of the key, sign bit
 * cleared, modulo the partition count. So the same key lands where any Java producer would put it. The key is
 * the bytes [from, to).
 */
export function murmur2Partition(key: Buffer, partitions: number, from = 0, to = key.length): number {
  return (murmur2(key, from, to) & 0x7fffffff) % partitions;
}

/**
 * The partition of a key as librdkafka's `consistent` partitioners choose it: CRC-32 of the key, unsigned,
 * modulo the partition count. The key is the bytes [from, to).
 */
export function crc32Partition(key: Buffer, partitions: number, from = 0, to = key.length): number {
  return crc32(key.subarray(from, to)) % partitions;
}

const MIX = 0x5bd1e995;

/** Kafka's variant of murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), as a signed 32-bit number. */
export function murmur2(key: Uint8Array, from = 0, to = key.length): number {
  const length = to - from;
  const whole = from + (length & ~3);
  let hash = 0x9747b28c ^ length;
  for (let i = from; i < whole; i += 4) {
    let word = key[i]! | (key[i + 1]! << 8) | (key[i + 2]! << 16) | (key[i + 3]! << 24);
    word = Math.imul(word, MIX);
    word = Math.imul(word ^ (word >>> 24), MIX);
    hash = Math.imul(hash, MIX) ^ word;
  }
  const rest = to - whole;
  if (rest > 0) {
    if (rest === 3) hash ^= key[whole + 2]! << 16;
    if (rest >= 2) hash ^= key[whole + 1]! << 8;
    hash = Math.imul(hash ^ key[whole]!, MIX);
  }
  hash = Math.imul(hash ^ (hash >>> 13), MIX);
  return hash ^ (hash >>> 15);
}
