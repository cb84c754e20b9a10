import type { Clock, Time } from "../../component/context.ts";

/** Waits for the promise, at most until `deadline`; tells whether it was settled, either way, by then. */
export function settledBefore(
  clock: Clock,
  deadline: Time,
  promise: Promise<unknown> | undefined,
): Promise<boolean> {
  if (promise === undefined) return Promise.resolve(true);
  return new Promise((resolve) => {
    const timer = clock.after(Math.max(0, deadline - clock.now()), () => resolve(false));
    const settled = () => {
      timer.cancel();
      resolve(true);
    };
    promise.then(settled, settled);
  });
}
