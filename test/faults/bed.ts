import type { History } from "./checker.ts";
import type { Faults } from "./proxy.ts";

/** Families of keys: messages of the second are fed only while order is nobody's promise. */
export const ordered = "k";
export const unordered = "u";

/** A cut of a connection, in the words of its proxy. */
export interface Cut {
  readonly direction: "request" | "reply";
  readonly kind: string;
}

/** The runner, for a trouble that needs it out of the way. */
export interface Freezable {
  freeze(): void;
  thaw(): void;
}

/** A fault that only one kind of broker has; done when it is over. */
export type Trouble = (runner: Freezable) => Promise<void>;

/**
 * Brokers of one kind behind a proxy, an input, an output, and a topology between them. Everything that the
 * ordeal itself does to the brokers goes past the proxy.
 */
export interface Bed {
  readonly name: string;
  readonly topology: string;
  /** For the runner: where the brokers are, as it sees them. */
  readonly env: NodeJS.ProcessEnv;
  readonly faults: Faults;
  /** Cuts before the broker hears, and cuts of the reply alone. */
  readonly cuts: { readonly before: readonly Cut[]; readonly reply: readonly Cut[] };
  /** Faults beyond cuts and restarts, by name. */
  readonly troubles: Readonly<Record<string, Trouble>>;
  /** What the runner logs when it is at work. */
  readonly atWork: string;
  /** Most messages between the checkpoint and the newest: the end of a runner, or of an epoch, may repeat them. */
  readonly span: number;
  /** Most messages that were delivered between two acknowledgements, and may be repeated as well. */
  readonly admitted: number;
  /** How often in this log of a runner an epoch ended that the runner outlived, or a write was left in doubt that may be made twice. */
  losses(log: string): number;
  /** Whether order holds with several runners at once. */
  readonly keepsOrderAmongMembers: boolean;
  /** Messages fed so far. */
  readonly fed: number;
  /** Times at which acknowledgements were compared with what the broker held. */
  readonly samples: number;
  /** Ids acknowledged upstream while they were nowhere downstream. */
  readonly earlyAcks: ReadonlySet<string>;
  /** Committed offsets that went backwards. */
  readonly regressions: readonly string[];

  feed(count: number, family: string): Promise<void>;
  /** Messages in the output and among the dead letters now, with repetitions that are not yet told apart. */
  delivered(): Promise<number>;
  /** Whether nothing of the input is left to do. */
  drained(): Promise<boolean>;
  /**
   * Looks for early acks; no runner is at work meanwhile. Returns how many messages are downstream and will be read
   * again.
   */
  inspect(): Promise<number>;
  /** Kills a broker, or stops it in good order; `meanwhile` happens while it is away. */
  restart(how: "kill" | "clean", meanwhile: () => Promise<void>): Promise<void>;
  /** Most resident memory that the runner may take, in bytes, when it took `base` before any work. */
  memoryLimit(base: number): number;
  harvest(): Promise<History>;
  stop(): Promise<void>;
}
