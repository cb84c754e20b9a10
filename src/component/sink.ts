import type { Batch, Destination } from "../message/batch.ts";
import type { Chunk } from "../message/chunk.ts";
import type { Connection } from "./connection.ts";
import type { Context, Time } from "./context.ts";
import type { Failure } from "./failure.ts";
import type { Location } from "./location.ts";
import type { OptionProblem } from "./options.ts";

/** Facts about a sink, as data. */
export interface SinkCapabilities {
  /** `always`: a batch is stored whole and after the one before; `unlessRefused`: a refused message can arrive after later ones. */
  readonly order: "always" | "unlessRefused";
  /** It stores a whole batch as one unit, compressed as one (a Kafka record batch). */
  readonly batches: boolean;
  /** It may give a message up for lost, having been told to (best effort). Default false. */
  readonly loses?: boolean;
  /** Only one process may write to it at a time: a file. Default false. */
  readonly exclusive?: boolean;
}

/** A sink as a topology declares it. */
export interface Sink {
  readonly kind: "sink";
  readonly type: string;
  readonly name: string;
  readonly connection: Connection;
  readonly capabilities: SinkCapabilities;
  readonly problems: readonly OptionProblem[];
  /** Line of the topology file that made it. */
  readonly location?: Location | undefined;
  /** Topics, queues, exchanges or files it writes to. */
  readonly targets: readonly string[];
  /** What its targets are: "topic", "queue", "exchange", "file". Default "target". */
  readonly targetKind?: string;
  /** As a source's: where its targets really are, in their order, if connections and names do not tell. */
  readonly places?: readonly string[];
  /** It makes what it writes from the values themselves, so that changed ones need not be encoded. Default false. */
  readonly readsValues?: boolean;
  open(context: Context): Promise<SinkSession>;
}

/** One message that the sink will never take, and why. The fault is the message's own. */
export interface Refusal {
  /** Index in the batch. */
  readonly entry: number;
  readonly failure: Failure;
}

export interface SinkStatus {
  readonly ready: boolean;
  readonly reason?: string;
  /** What is worth knowing though it goes on, in sentences. */
  readonly notes?: readonly string[];
  readonly lastErrors: readonly { readonly message: string; readonly at: number }[];
}

/**
 * An opened sink. Retry lives in here: the session keeps the encoded bytes, sends the batches of one
 * destination in the order of `write` with at most one outstanding, and resends for as long as the fault is
 * not a message's own. Calls of `write` may overlap.
 */
export interface SinkSession {
  /** Where message `index` of the chunk goes: the same object each time for the same destination. */
  destinationOf(chunk: Chunk, index: number): Destination;
  /**
   * It looks at keys, headers and bytes, never at decoded values: these may go as soon as their messages wait to be
   * written. Default false.
   */
  readonly bytesOnly?: boolean;
  /**
   * A further write to a destination follows while fewer messages than this are out; what comes beyond is gathered
   * and goes together. Default 0: a write follows when the one before it is done.
   */
  readonly overlap?: number;
  /**
   * Writes a batch. Settles each message `delivered` as the destination acknowledges it, and resolves when
   * all are either settled or refused for good. Rejects only for class system, and when the run is aborted.
   */
  write(batch: Batch): Promise<readonly Refusal[]>;
  /** Disconnects; done or given up by `deadline`. */
  close(deadline: Time): Promise<void>;
  status(): SinkStatus;
}
