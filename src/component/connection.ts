import type { ErrorCode } from "../errors.ts";
import type { Context } from "./context.ts";
import type { EmbeddedBroker } from "./embedded.ts";
import type { Location } from "./location.ts";
import type { OptionProblem } from "./options.ts";
import type { Source } from "./source.ts";

/** Something a topology needs to exist before it runs: a topic, a queue, an exchange. */
export interface Requirement {
  /** "topic", "queue", "exchange", "file". */
  readonly kind: string;
  readonly name: string;
  /** Whether the source or sink reads from it or writes to it. */
  readonly role: "source" | "sink";
  /** Where the topology file asks for it: "orders.ts:12". */
  readonly at: string;
}

/** A requirement that the broker does not meet, with what to do. */
export interface Unmet {
  readonly requirement: Requirement;
  readonly problem: string;
  readonly remedy: string;
  /** Why it is not met. @default "target-missing" */
  readonly code?: ErrorCode;
}

/**
 * A connector bound to its settings: one cluster or broker. Sources and sinks are made from it and share it.
 * Making one opens nothing.
 */
export interface Connection {
  /** "kafka", "rabbitmq", "file". */
  readonly connector: string;
  /** Where it leads, without secrets: "127.0.0.1:9092". */
  readonly address: string;
  /** Line of the topology file that made it. */
  readonly location?: Location | undefined;
  /** Mistakes in its own settings: reported once at its own line, however many sources and sinks repeat them. */
  readonly problems?: readonly OptionProblem[];
  /** The in-process stand-in of this connection in a run on embedded brokers; undefined where none is needed. */
  embedded(context: Context): EmbeddedBroker | undefined;
  /** Asks the broker which requirements it does not meet. Errors thrown: class network or application. */
  verify(context: Context, requirements: readonly Requirement[]): Promise<readonly Unmet[]>;
  /**
   * A source that reads a target beside whoever reads it already and takes nothing from them, under a group of its
   * own. Absent where a broker has no such reading: a queue gives each message to one consumer.
   */
  tap?(target: string, group: string): Source;
  /** Creates what is missing, with the declared or the broker's default settings; returns what it made. */
  create(context: Context, requirements: readonly Requirement[]): Promise<readonly Requirement[]>;
}
