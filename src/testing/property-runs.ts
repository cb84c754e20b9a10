/** How often a property is tried, and from where chance begins: what fast-check's `assert` takes. */
export interface PropertyRuns {
  readonly numRuns: number;
  /** Replays a failure: both are in its message. */
  readonly seed?: number;
  readonly path?: string;
  /** Of the runs and of the search for a smaller failure together, ms. Too little for the runs is a failure too. */
  readonly interruptAfterTimeLimit: number;
  readonly markInterruptAsFailure: true;
}

/** Six times what the slowest property needs, ms, so that what it has found is told before the test is given up. */
const limitPerRun = 240;

/**
 * A property is tried `usual` times, or as often as MILLRACE_PROPERTY_RUNS says. MILLRACE_PROPERTY_SEED and
 * MILLRACE_PROPERTY_PATH replay one failure; they are meant for one test at a time.
 *
 * @throws RangeError when one of them is no number of its kind
 */
export function propertyRuns(usual = 1_000): PropertyRuns {
  const { MILLRACE_PROPERTY_RUNS, MILLRACE_PROPERTY_SEED, MILLRACE_PROPERTY_PATH } = process.env;
  const numRuns = MILLRACE_PROPERTY_RUNS === undefined ? usual : Number(MILLRACE_PROPERTY_RUNS);
  if (!Number.isSafeInteger(numRuns) || numRuns < 1) {
    throw new RangeError(`MILLRACE_PROPERTY_RUNS is no number of runs: ${MILLRACE_PROPERTY_RUNS}`);
  }
  const runs: PropertyRuns = {
    numRuns,
    interruptAfterTimeLimit: Math.max(120_000, numRuns * limitPerRun),
    markInterruptAsFailure: true,
  };
  if (MILLRACE_PROPERTY_SEED === undefined) return runs;
  const seed = Number(MILLRACE_PROPERTY_SEED);
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`MILLRACE_PROPERTY_SEED is no seed: ${MILLRACE_PROPERTY_SEED}`);
  }
  return { ...runs, seed, ...(MILLRACE_PROPERTY_PATH === undefined ? {} : { path: MILLRACE_PROPERTY_PATH }) };
}
