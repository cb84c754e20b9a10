import type { Observable } from "rxjs";
import type { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import type { Lane, LaneOrigin } from "../message/lane.ts";
import type { Records } from "../message/records.ts";
import type { Connection } from "./connection.ts";
import type { Context, Time } from "./context.ts";
import type { Location } from "./location.ts";
import type { OptionProblem } from "./options.ts";

/** Facts about a source, as data: nothing ever asks which connector it is. */
export interface SourceCapabilities {
  /** By position (Kafka), or each message by itself (RabbitMQ). */
  readonly ack: "cumulative" | "individual";
  /** The client lets a rebalance wait for a drain; otherwise order holds within an assignment epoch only. */
  readonly holdsRebalance: boolean;
  /** After a crash the broker hands out again what was not acknowledged. stdin does not: at most once. */
  readonly replays: boolean;
  /** What arrives in order: every lane, or nothing. */
  readonly order: "lane" | "none";
  /** Several processes may read it at once: the broker gives each message to one of them. Default false. */
  readonly competing?: boolean;
  /** Its input has an end, after which nothing more can come: stdin, a file that nobody follows. Default false. */
  readonly ends?: boolean;
}

/** A source as a topology declares it. */
export interface Source {
  readonly kind: "source";
  /** "kafka", "rabbitmq", "file", "stdin". */
  readonly type: string;
  /** Its name in plans, logs and status; made unique by the compiler. */
  readonly name: string;
  readonly connection: Connection;
  readonly capabilities: SourceCapabilities;
  readonly problems: readonly OptionProblem[];
  /** Line of the topology file that made it. */
  readonly location?: Location | undefined;
  /** Topics, queues or files it reads. */
  readonly targets: readonly string[];
  /** What its targets are: "topic", "queue", "file". Default "target". */
  readonly targetKind?: string;
  /**
   * Where its targets really are, in their order, if connections and names do not tell: one place has one text,
   * whatever connection leads to it.
   */
  readonly places?: readonly string[];
  /** What no other source or sink of the process may use while this one runs; files by their place. */
  readonly claims?: readonly Claim[];
  /** How long it lets a message be unacknowledged before it gives everything back to the broker, ms. Default: for ever. */
  readonly ackWithin?: number;
  /** How many lanes it will have at most, where that is known before connecting. */
  readonly lanes?: number;
  /** What it allows in flight at once. */
  readonly credit: CreditOptions;
  /** What is done when it stands still though there is something to read; undefined for one that is not watched. */
  readonly watch?: WatchOptions;
  open(context: SourceContext): Promise<SourceSession>;
}

/** Something that a source needs for itself. */
export interface Claim {
  /** As in {@link Source.places}. */
  readonly place: string;
  /** What it is, in words: "the checkpoint orders.checkpoint". */
  readonly what: string;
  /** What to give the other one instead. */
  readonly remedy: string;
  /** Among whom it may not be shared: all topologies of the process (default), or the sources of one topology. */
  readonly among?: "process" | "topology";
}

export interface CreditOptions {
  /** Messages in flight at once, all lanes together. */
  readonly messages: number;
  /** Bytes in flight at once, all lanes together, before decoding. */
  readonly bytes: number;
  /** Messages between a lane's checkpoint and its newest: the most a crash replays. */
  readonly span: number;
  /** Most messages in one chunk. */
  readonly chunk: number;
}

/** When a source is found to stand still, and what is done then. */
export interface WatchOptions {
  /** How long a lane may have lag and neither get nor settle anything, ms. */
  readonly after: number;
  /** `restart`: the session is closed and opened anew. `report`: it is said, and nothing is done. */
  readonly policy: "restart" | "report";
}

/** What the broker holds for a lane. */
export interface LaneLag {
  readonly lane: Lane;
  /** Messages that it would give, and has not yet. */
  readonly lag: number;
  /** The source waits for them: neither paused nor full. */
  readonly asking: boolean;
}

export interface LaneSettings {
  readonly origin: Omit<LaneOrigin, "source">;
  readonly epoch: number;
  readonly ack: "cumulative" | "individual";
  readonly start?: number;
  readonly onProgress?: (lane: Lane) => void;
  /** Called when the last waiting record of the lane was taken in: the driver may deliver more. */
  readonly onDrained?: (lane: Lane) => void;
}

/**
 * The gate between a driver and the pipeline, given to a source by the runtime. Records offered wait as raw
 * bytes until credit lets them in, and then go downstream as chunks, lane after lane in turn. A source keeps
 * that waiting part small by pausing its driver while {@link waiting} is not 0.
 */
export interface Intake {
  /** Chunks and controls of all lanes: what a session returns as its stream. */
  readonly stream: Observable<Chunk | Control>;
  open(settings: LaneSettings): Lane;
  /** Ignored once the lane has ended or intake has stopped. May emit chunks before it returns. */
  offer(lane: Lane, records: Records): void;
  /** Records of the lane that wait for credit. */
  waiting(lane: Lane): number;
  /**
   * Takes in nothing more of these lanes, and flushes until nothing of them is in flight. False when `deadline`
   * came first.
   */
  drain(lanes: readonly Lane[], deadline: Time): Promise<boolean>;
  /** Ends the epoch: drops what waits, returns what is in flight, tells every operator (`revoke`). */
  end(lane: Lane): void;
  /** Lanes that have not ended. */
  readonly lanes: readonly Lane[];
  /** No chunk is emitted from now on; what waits is dropped unseen, and stays with the broker. */
  stop(): void;
  /** Ends the stream normally: nothing more will come, ever. */
  complete(): void;
  /** Ends the stream with a failure of class system. Network faults are mended inside the session instead. */
  fail(error: Error): void;
}

export interface SourceContext extends Context {
  readonly intake: Intake;
  /**
   * What keeps a sink that this source leads to, or the dead letters, from taking anything, in words; undefined
   * while all of them answer. A source that has given messages back waits for that before it takes them again.
   */
  downstream(): string | undefined;
}

/** How a source is, for status, readiness and `--until-idle`. */
export interface SourceStatus {
  /** Connected, and assigned something where there is an assignment. */
  readonly ready: boolean;
  /** What keeps it from being ready or from taking in, in words: "reconnecting", "blocked by a memory alarm". */
  readonly reason?: string;
  /** What is worth knowing though it goes on, in sentences. */
  readonly notes?: readonly string[];
  readonly lastErrors: readonly { readonly message: string; readonly at: number }[];
  /** Messages that wait upstream and were not read yet, where that is known; it may be some seconds old. */
  readonly queued?: number;
}

/** An opened source. Reconnects, rebalances and rejoins happen inside; its stream errors only for class system. */
export interface SourceSession {
  readonly stream: Observable<Chunk | Control>;
  /** No more messages go into the stream; lanes stay assigned so that what is in flight can be acknowledged. */
  stopIntake(): void;
  /** Acknowledges upstream everything that may be, and waits until the broker has taken it. */
  commit(): Promise<void>;
  /** Leaves and disconnects; done or given up by `deadline`. What is unacknowledged stays with the broker. */
  close(deadline: Time): Promise<void>;
  status(): SourceStatus;
  /** Assigned, and nothing left to read: position = end on every lane, or no message ready in the queue. */
  atEnd(): Promise<boolean>;
  /**
   * What is left to read of each lane that could be asked for, as the broker tells it. A source without this is not
   * watched. Rejects when the broker cannot be asked.
   */
  lag?(): Promise<readonly LaneLag[]>;
}
