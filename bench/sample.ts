/** What one process was seen to do. */
export interface Sample {
  /** Messages a second, from the start of the process to its last message in the output. */
  readonly whole: number;
  /**
   * Messages a second between a quarter and 95 % of the output: neither a start-up, a group's first assignment nor
   * the last half-filled window counts.
   */
  readonly steady: number;
  /** Processor time per message, µs, start-up included, of all its processes. */
  readonly cpu: number;
  /** The same over the steady part. */
  readonly steadyCpu: number;
  /** Highest resident memory of all its processes together. */
  readonly peakMiB: number;
  readonly latency?: Latency;
}

/** From the moment a message was due to be sent to the moment a reader of the output had it, ms. */
export interface Latency {
  /** Messages a second. */
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** The output as it grew: when, how many messages, and the processor time used until then. */
export interface Point {
  /** ms */
  readonly at: number;
  readonly count: number;
  /** µs */
  readonly cpu: number;
}

const steadyFrom = 0.25;
const steadyTo = 0.95;

/**
 * @param start of the process
 * @param points in order of time; the last one has the whole output
 * @param inputs messages read for each one written: duplicates count as work too
 */
export function sampleOf(start: number, points: readonly Point[], inputs: number, peakMiB: number): Sample {
  const last = points.at(-1);
  if (last === undefined || !(last.count > 0)) throw new Error("nothing was written");
  const from = points.find(({ count }) => count >= steadyFrom * last.count)!;
  const to = points.findLast(({ count }) => count <= steadyTo * last.count) ?? last;
  // An output that grows by leaps has no steady part to speak of: then from its first leap to the end.
  const [first, end] = to.count > from.count ? [from, to] : [points.find(({ count }) => count > 0)!, last];
  const count = (end.count - first.count) * inputs;
  const all = last.count * inputs;
  return {
    whole: all / ((last.at - start) / 1_000),
    steady: count > 0 ? count / ((end.at - first.at) / 1_000) : all / ((last.at - start) / 1_000),
    cpu: last.cpu / all,
    steadyCpu: count > 0 ? (end.cpu - first.cpu) / count : last.cpu / all,
    peakMiB,
  };
}

/** @param latencies ms, in any order */
export function percentiles(rate: number, latencies: Float64Array): Latency {
  const sorted = latencies.toSorted();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!;
  return { rate, p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}
