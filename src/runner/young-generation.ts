import { PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/** Bytes for new objects, both halves: from here on it grows no more. */
const enough = 16 * 2 ** 20;

/**
 * Keeps the part of the heap where new objects begin small. V8 lets it grow to 64 MiB and more on Node 24 when much
 * survives a collection, as messages in flight do; and all of it counts as the process's memory, since each
 * collection uses the whole. Its limit is read once, before any code of ours runs, but the factor by which it grows
 * is read each time: so that is 1 while it is large enough. V8 takes memory back from an idle process, so it
 * must be able to grow again.
 */
export function boundYoungGeneration(): void {
  let grows = true;
  const look = (): void => {
    const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space");
    const shouldGrow = (space?.space_size ?? 0) < enough;
    if (shouldGrow === grows) return;
    grows = shouldGrow;
    setFlagsFromString(`--semi-space-growth-factor=${grows ? 2 : 1}`);
  };
  new PerformanceObserver(look).observe({ entryTypes: ["gc"] });
}
