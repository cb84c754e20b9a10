import type { Lane } from "./lane.ts";

/**
 * What flows downstream beside messages. Every operator handles every control and passes it on, after
 * whatever it makes the operator let go of.
 *
 * - `flush`: emit what you gathered, now. Repeated while a topology drains. `cut` numbers the flushes.
 * - `revoke`: the lane's epoch is over; let go of its messages at once (their outcome is already `returned`).
 * - `watermark`: no message of the lane with an event time below `time` (ms since 1970) is to be expected.
 */
export type Control =
  | { readonly kind: "flush"; readonly cut: number }
  | { readonly kind: "revoke"; readonly lane: Lane }
  | { readonly kind: "watermark"; readonly lane: Lane; readonly time: number };
