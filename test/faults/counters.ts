import type { Random } from "../../src/component/context.ts";

/** Share of messages that cannot be decoded. */
const poison = 0.01;

/** One message as it is fed: the numbers of a key count up, one by one. */
export interface Fed {
  readonly key: string;
  readonly value: string;
}

/** What a message says of itself, wherever it is found. */
export interface Count {
  readonly key: string;
  readonly seq: number;
  readonly poison: boolean;
}

/**
 * Keyed monotone counters: whoever reads them again knows what is missing, what came twice and what came too
 * early. One in a hundred is poison: its JSON breaks off, and it still says which it is.
 */
export class Counters {
  readonly #random: Random;
  readonly #keys: number;
  readonly #next = new Map<string, number>();
  fed = 0;

  constructor(random: Random, keys = 100) {
    this.#random = random;
    this.#keys = keys;
  }

  /** The next messages. `family` names a set of keys of its own. */
  take(count: number, family: string): Fed[] {
    this.fed += count;
    return Array.from({ length: count }, () => {
      const key = `${family}${Math.floor(this.#random.next() * this.#keys)}`;
      const seq = this.#next.get(key) ?? 0;
      this.#next.set(key, seq + 1);
      const padding = "x".repeat(Math.floor(this.#random.next() * 200));
      const text = JSON.stringify({ key, seq, padding });
      return { key, value: this.#random.next() < poison ? text.slice(0, -1) : text };
    });
  }
}

export function readCount(value: string): Count {
  const [, key, seq] = /^\{"key":"([^"]+)","seq":(\d+),/.exec(value) ?? [];
  if (key === undefined) throw new Error(`not a counter: ${value.slice(0, 60)}`);
  return { key, seq: Number(seq), poison: !value.endsWith("}") };
}

export function idOf({ key, seq }: Count): string {
  return `${key}:${seq}`;
}
