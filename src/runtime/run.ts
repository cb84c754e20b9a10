import type { Clock, Logger, Random, Work } from "../component/context.ts";
import type { EmbeddedBrokers } from "../component/embedded.ts";
import type { Plan } from "../topology/plan.ts";
import type { RunResult, RunStatus } from "./status.ts";

export interface RunOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly work: Work;
  readonly logger: Logger;
  /** In-process brokers instead of the real ones. */
  readonly embedded?: EmbeddedBrokers;
  /** Longest time in ms from {@link Run.drain} to the end. Default 30,000. */
  readonly drainTimeout?: number;
}

/** A plan being run. */
export interface Run {
  status(): RunStatus;
  /** Stops intake, finishes what is in flight, acknowledges it, closes. Resolves as {@link finished} does. */
  drain(): Promise<RunResult>;
  /** Ends at once: nothing more is acknowledged. */
  abort(reason: Error): void;
  /** Every source is at its end and nothing is in flight, seen twice with no delivery between; windows are flushed for it. */
  untilIdle(): Promise<void>;
  /** Never rejects. */
  readonly finished: Promise<RunResult>;
}

export type { Plan };
