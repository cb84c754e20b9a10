/** ms on the clock, and µs of processor time. */
export interface Taken {
  readonly took: number;
  readonly cpu: number;
}

/** Starts measuring; the function returned says what it took until its call. */
export function stopwatch(): () => Taken {
  const from = performance.now();
  const before = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(before);
    return { took: performance.now() - from, cpu: user + system };
  };
}
