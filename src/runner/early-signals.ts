/** Signals that tell a run to stop. */
export const stopSignals = ["SIGTERM", "SIGINT"] as const;

const held: string[] = [];
const hold = (signal: string) => held.push(signal);

/**
 * Keeps what tells the process to stop from ending it, until somebody listens. This file imports nothing: the rest
 * of the program takes long to load, and a supervisor may change its mind meanwhile.
 */
export function holdStopSignals(): void {
  for (const signal of stopSignals) process.on(signal, hold);
}

/** Holds no more; gives what came, in its order. */
export function releaseStopSignals(): readonly string[] {
  for (const signal of stopSignals) process.removeListener(signal, hold);
  return held.splice(0);
}
