import type { Context, Time } from "../../../component/context.ts";

/** Waits for a library call, but not beyond the deadline; its failure is of no interest any more. */
export async function within(context: Context, deadline: Time, call: Promise<unknown>): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = context.clock.after(Math.max(0, deadline - context.clock.now()), resolve);
    call
      .catch(() => {})
      .finally(() => {
        timer.cancel();
        resolve();
      });
  });
}
