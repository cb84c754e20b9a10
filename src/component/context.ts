import type { EmbeddedBrokers } from "./embedded.ts";

/** A point on the monotonic clock, in milliseconds; only differences mean anything. */
export type Time = number;

export interface Timer {
  /** Harmless after it fired. */
  cancel(): void;
}

/**
 * All time in Millrace. Windows, expiry, backoff and time-outs run on the monotonic clock, so that a jump of
 * the wall clock moves none of them. A simulated clock moves only when nothing is runnable.
 */
export interface Clock {
  /** Monotonic milliseconds, with fractions. */
  now(): Time;
  /** Milliseconds since 1970. */
  wall(): number;
  /** Calls `run` once after `delay` ms, 0 ≤ delay ≤ 2³¹−1; keeps the process alive until then. */
  after(delay: number, run: () => void): Timer;
  /** Calls `run` on a later turn of the event loop, after input that is already there: the way to leave a call stack. */
  defer(run: () => void): void;
}

/** All chance in Millrace. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
}

/** CPU-bound work that may leave the event loop. */
export interface Task<T> {
  /** Does it here and now. */
  run(): T;
  /** Does it on Node's thread pool. */
  offload(): Promise<T>;
}

/** Bounded offloading: at most two tasks at once, since Node's pool also serves files and DNS. Results keep no order. */
export interface Work {
  run<T>(task: Task<T>): Promise<T>;
}

/** Structured log lines, one for each event that matters and none for a message. Never payloads or secrets. */
export interface Logger {
  debug(fields: LogFields, text: string): void;
  info(fields: LogFields, text: string): void;
  warn(fields: LogFields, text: string): void;
  error(fields: LogFields, text: string): void;
}

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Counters by name, for things beside the conservation table: retries, reconnects, evictions. Names as in Prometheus, without a prefix. */
export interface Meter {
  count(name: string, by?: number): void;
}

/** What every component is given. Nothing else in a component reads a clock, draws a random number or uses a thread pool. */
export interface Context {
  readonly clock: Clock;
  readonly random: Random;
  readonly work: Work;
  /** Aborted when the run must end at once: waits and retries give up. */
  readonly signal: AbortSignal;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Present when in-process brokers stand in for the real ones. */
  readonly embedded: EmbeddedBrokers | undefined;
  /** The component's name in the plan: "orders.accepted", "dedup-3". */
  readonly node: string;
}
