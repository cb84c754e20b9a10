import { pause } from "../../../../component/backoff.ts";
import type { Context } from "../../../../component/context.ts";
import { ErrorCode, protocolCode } from "./errors.ts";

/** Between two attempts, ms. */
const interval = 100;

/**
 * Makes a call again while the broker says that its books are still being opened: for a moment after a start, or
 * when a coordinator has moved. After `limit` ms the last refusal stands.
 */
export async function whileLoading<T>(context: Context, limit: number, call: () => Promise<T>): Promise<T> {
  const deadline = context.clock.now() + limit;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const code = protocolCode(error);
      const loading =
        code === ErrorCode.coordinatorLoading ||
        code === ErrorCode.coordinatorNotAvailable ||
        code === ErrorCode.notCoordinator;
      if (!loading || context.clock.now() >= deadline) throw error;
      await pause(context, interval);
    }
  }
}
