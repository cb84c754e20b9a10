import type { Conservation } from "./credit.ts";
import type { Stall } from "./watchdog.ts";

/** How one source is doing. */
export interface SourceReport {
  readonly name: string;
  readonly type: string;
  readonly ready: boolean;
  readonly reason: string | undefined;
  /** What is worth knowing though it goes on, in sentences. */
  readonly notes?: readonly string[] | undefined;
  /** Present while it stands still though there is something to read or to settle. */
  readonly stall?: Stall | undefined;
  readonly conservation: Conservation;
  readonly lanes: readonly {
    readonly name: string;
    readonly epoch: number;
    readonly inFlight: number;
    readonly span: number;
    readonly checkpoint: number;
  }[];
  /** Fetched and waiting for credit. */
  readonly backlog: number;
  /** Not fetched yet, where the source knows. */
  readonly queued?: number;
  /** Of those in flight: held by windows, and waiting for a twin. */
  readonly held: number;
  readonly waiting: number;
  readonly creditMessages: number;
  readonly creditBytes: number;
  readonly bytesInFlight: number;
}

export interface SinkReport {
  readonly name: string;
  readonly type: string;
  readonly ready: boolean;
  readonly reason: string | undefined;
  /** What is worth knowing though it goes on, in sentences. */
  readonly notes?: readonly string[] | undefined;
  /** Messages acknowledged by the destination. */
  readonly written: number;
  /** Batches under way. */
  readonly writing: number;
  readonly batches: number;
}

/** `starting`: connecting. `running`. `draining`: no intake, finishing what is in flight. `done`. `failed`. */
export type RunMode = "starting" | "running" | "draining" | "done" | "failed";

/** Everything about a run at one moment: what `/status` shows and the final table sums up. */
export interface RunStatus {
  readonly topology: string;
  readonly mode: RunMode;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly ready: boolean;
  /** True where a message may be lost: a source cannot read again what it has read, or a sink may give up. */
  readonly bestEffort?: boolean;
  /** Of all sources together. */
  readonly conservation: Conservation;
  readonly sources: readonly SourceReport[];
  readonly sinks: readonly SinkReport[];
  /** Where rejected messages go, if the topology says so: while it is not ready, they wait unacknowledged. */
  readonly deadLetters?: Pick<SinkReport, "name" | "type" | "ready" | "reason">;
  /** Newest first, at most five. */
  readonly lastErrors: readonly { readonly message: string; readonly at: number; readonly node: string }[];
  /** Counters of the components by name: retries, reconnects, evictions. */
  readonly counters: Readonly<Record<string, number>>;
}

/** How a run ended. */
export type RunResult =
  | { readonly how: "done" }
  | { readonly how: "drain-timeout"; readonly error: Error }
  | { readonly how: "failed"; readonly error: Error };
