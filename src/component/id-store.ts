import type { ErrorCode } from "../errors.ts";
import type { Context, Time } from "./context.ts";
import type { Location } from "./location.ts";
import type { OptionProblem } from "./options.ts";

/** An id whose message was delivered. */
export interface DoneId {
  /** Within what it counts: a lane's name, or "" for all lanes together. */
  readonly scope: string;
  /** Well-formed text: it has a form in UTF-8. */
  readonly id: string;
  /** When it was delivered, by the wall clock, ms since 1970. */
  readonly at: number;
}

/** What ids are remembered for: those of one dedup mean nothing to another. */
export interface IdMeaning {
  readonly scope: "lane" | "topology";
  /** What makes an id, in words: the JSON pointers, or "a function". */
  readonly from: string;
}

/** Something that keeps a run from using a store as it is. */
export interface IdStoreProblem {
  readonly severity: "error" | "warning";
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy: string;
}

/**
 * Where dedup keeps the ids of what was delivered, so that they outlive the process, as a topology declares it.
 * One dedup uses it at a time. Ids that get lost in it let duplicates pass and do no other harm; an id that it gave
 * back without having been given it would lose a message.
 */
export interface IdStore {
  readonly kind: "idStore";
  /** What it is, in words: `the id store "orders"`. */
  readonly name: string;
  readonly problems: readonly OptionProblem[];
  /** Line of the topology file that made it. */
  readonly location: Location | undefined;
  /** Where it really is: one text for one place, whatever leads to it. Undefined when it is nowhere. */
  readonly place: string | undefined;
  /** Whether a run could use it now. Changes nothing. */
  verify(): Promise<readonly IdStoreProblem[]>;
  /**
   * Takes the store for this run.
   *
   * @throws MillraceError `topology-conflict` while another run uses it, `target-mismatch` when it holds ids of
   *   another meaning, `disk-failed` when it cannot be read or written
   */
  open(context: Context, meaning: IdMeaning): Promise<IdStoreSession>;
}

/** An opened store. One call after another: each once the one before it has ended. */
export interface IdStoreSession {
  /** Ids that it has, those forgotten since included: tells when {@link replace} would make it smaller. */
  readonly count: number;
  /** Some of what it holds should not be read again as it is. {@link replace} mends that. */
  readonly damaged: boolean;
  /** Visits all ids, in the order they were written. Once, and first. */
  load(visit: (done: DoneId) => void): Promise<void>;
  /** Resolves when the ids are as durable as the store can make them. Rejects with class system. */
  add(ids: readonly DoneId[]): Promise<void>;
  /** Forgets all that is not among these, which are drawn little by little. Rejects with class system. */
  replace(ids: Iterable<DoneId>): Promise<void>;
  /** Lets go of the store; done or given up by `deadline`. */
  close(deadline: Time): Promise<void>;
}
