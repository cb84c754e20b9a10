/**
 * The one way each accepted message ends. The numbers are ordered by severity, so that where several
 * branches of one message end differently the worst is the greatest.
 *
 * - `filtered`: a declared filter dropped it.
 * - `duplicate`: dedup had already delivered its twin.
 * - `delivered`: every sink on its route has acknowledged it.
 * - `deadLettered`: rejected, and the dead-letter sink has acknowledged it.
 * - `returned`: its lane's epoch ended first; the broker will hand it to someone again.
 * - `lost`: given up, only ever in a declared best-effort mode.
 */
export const Outcome = {
  filtered: 1,
  duplicate: 2,
  delivered: 3,
  deadLettered: 4,
  returned: 5,
  lost: 6,
} as const;

export type Outcome = (typeof Outcome)[keyof typeof Outcome];
export type OutcomeName = keyof typeof Outcome;

/** The names in the order of their numbers; index 0 is unused. */
export const outcomeNames: readonly (OutcomeName | "inFlight")[] = [
  "inFlight",
  "filtered",
  "duplicate",
  "delivered",
  "deadLettered",
  "returned",
  "lost",
];

/** Whoever is told how message number `sequence` of its own numbering ended. Telling it twice is harmless. */
export interface Settler {
  settle(sequence: number, outcome: Outcome): void;
}
