import { type Count, idOf } from "./counters.ts";

/** What the broker holds at the end, everything in the order of its log or queue. */
export interface History {
  readonly input: readonly Count[];
  readonly output: readonly Count[];
  readonly dead: readonly Count[];
  /** Keys whose order nobody promised, by the beginning of their names. */
  readonly unordered: string;
}

/** What is wrong with a history: ids, or pairs of them. Duplicates are judged by who knows their bound. */
export interface Verdict {
  /** In the input, and neither in the output nor among the dead letters. */
  readonly lost: readonly string[];
  /** In the output or among the dead letters, and never in the input. */
  readonly invented: readonly string[];
  /** Poison in the output, or a good message among the dead letters. */
  readonly misplaced: readonly string[];
  /** The first arrival of a message after the first arrival of a later one of its key. */
  readonly inversions: readonly string[];
  readonly duplicates: number;
}

/**
 * Every message fed is in the output, or, if it is poison, among the dead letters, and in no other place; the
 * first arrivals of a key's messages are in the order in which they were fed. A repetition is a duplicate and
 * no inversion: what is replayed is replayed from an earlier place on.
 */
export function check({ input, output, dead, unordered }: History): Verdict {
  const fed = new Set(input.map(idOf));
  const arrived = new Set<string>();
  const invented: string[] = [];
  const misplaced: string[] = [];
  const inversions: string[] = [];
  const highest = new Map<string, number>();
  let duplicates = 0;
  const meet = (count: Count, isPlace: boolean): boolean => {
    const id = idOf(count);
    if (!isPlace) misplaced.push(id);
    if (!fed.has(id)) invented.push(id);
    const isFirst = !arrived.has(id);
    arrived.add(id);
    if (!isFirst) duplicates++;
    return isFirst;
  };
  for (const count of output) {
    if (!meet(count, !count.poison) || count.key.startsWith(unordered)) continue;
    const before = highest.get(count.key) ?? -1;
    if (count.seq < before) inversions.push(`${idOf(count)} after ${count.key}:${before}`);
    else highest.set(count.key, count.seq);
  }
  for (const count of dead) meet(count, count.poison);
  const lost = [...fed].filter((id) => !arrived.has(id));
  return { lost, invented, misplaced, inversions, duplicates };
}
