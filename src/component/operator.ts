import type { OperatorFunction } from "rxjs";
import type { Batch, Destination } from "../message/batch.ts";
import type { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import type { Lane } from "../message/lane.ts";
import type { Headers } from "../message/records.ts";
import type { Context, Time } from "./context.ts";
import type { Failure } from "./failure.ts";
import type { IdStore } from "./id-store.ts";
import type { Location } from "./location.ts";
import type { OptionProblem, OptionsSchema } from "./options.ts";

/** What flows between two nodes of a plan. `Batch` occurs only after `batch`, on the way to a sink. */
export type Flowing = Chunk | Batch | Control;

/** A window that keeps messages back, as the runtime sees it: something it can open when credit runs out. */
export interface Window {
  /** The monotonic time at which its first message came. */
  readonly openedAt: number;
  /** Emits what it holds, now. */
  flush(): void;
}

/** What an operator is given beside the context of every component. */
export interface OperatorContext extends Context {
  /**
   * Sends message `index` of the chunk to the dead letters with its original bytes, and takes it out of the
   * chunk. It settles `deadLettered` once that write is acknowledged; if the topology has no dead letters the
   * run stops and nothing of it is acknowledged.
   */
  reject(chunk: Chunk, index: number, failure: Failure): void;
  /** Counts messages of the lane held by a window: positive when it takes them, negative when it lets them go. */
  held(lane: Lane, count: number): void;
  /** Counts messages of the lane that wait for another message's outcome (twins in dedup). */
  waiting(lane: Lane, count: number): void;
  /** A window of this operator opened; when credit runs out with nothing under way, the oldest of all is flushed. */
  opened(window: Window): void;
  /** It has emitted or dropped everything. */
  closed(window: Window): void;
  /** Where the sink that this operator leads to will put the message; undefined where it leads to several or none. */
  readonly destinationOf: ((chunk: Chunk, index: number) => Destination) | undefined;
  /** The one sink that this node leads to looks at no decoded value. */
  readonly bytesOnly: boolean;
  /** An author's asynchronous call began; call the returned function when it is over. Nothing counts as starved meanwhile. */
  busy(): () => void;
  /**
   * Author code of this node keeps messages to itself: `count` tells how many of living lanes, whenever somebody
   * asks why a run does not come to its end.
   */
  keeps(count: () => number): void;
  /** Stops the run with class system: nothing unsettled is acknowledged. */
  fail(error: Error): void;
}

/** What a step does to the values that pass it, so that the compiler can follow them. */
export interface ValueEffect {
  /** What it must be given: raw bytes, a decoded value, or either. */
  readonly takes: "bytes" | "value" | "any";
  /**
   * What it leaves: `bytes`; `value` (decoded, the original bytes still stand for it); `changed` (the bytes no
   * longer match, so an `encode` must follow before a sink); or the `same` as it was given.
   */
  readonly leaves: "bytes" | "value" | "changed" | "same";
}

/**
 * An operator placed in a topology. `In` and `Out` are the types of the values before and after it; they exist
 * only for the compiler of the topology file.
 */
export interface Operator<In = never, Out = unknown> {
  readonly kind: "operator";
  /** The verb: "decode", "dedup". */
  readonly type: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** Line of the topology file that made it. */
  readonly location: Location | undefined;
  readonly problems: readonly OptionProblem[];
  readonly effect: ValueEffect;
  /** It can refuse a message, so dead letters should be declared. */
  readonly rejects: boolean;
  /** It may keep up to so many messages back at once, for each destination: the compiler compares it with the credit. */
  readonly holds?: number;
  /** How long it may keep a message back by itself, ms. */
  readonly holdsFor?: number;
  build(context: OperatorContext): OperatorFunction<Flowing, Flowing>;
  /** What it keeps outside of the process, if anything. */
  readonly store?: IdStore;
  /** With a {@link store}: opens it before any sink, and stands for {@link build}, which would do without. */
  open?(context: Context): Promise<OpenedOperator>;
  /** Never there: carries the types. */
  readonly types?: (value: In) => Out;
}

/** An operator whose store is open. */
export interface OpenedOperator {
  build(context: OperatorContext): OperatorFunction<Flowing, Flowing>;
  /** Lets go of the store; done or given up by `deadline`. Called when all sources and sinks are closed. */
  close(deadline: Time): Promise<void>;
}

/** A step with several outputs: each message goes on in at most one of the branches. */
export interface Router {
  readonly type: string;
  /** Branch names in the order they are tried; unique. */
  readonly branches: readonly string[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly location: Location | undefined;
  readonly problems: readonly OptionProblem[];
  readonly rejects: boolean;
  /** Returns a function that parts a chunk: one chunk, or none, for each branch in order. */
  build(context: OperatorContext): (chunk: Chunk) => readonly (Chunk | undefined)[];
}

/** Everything a reader needs to know of an operator, and the reference prints. */
export interface OperatorDefinition<Options extends object> {
  /** The verb it is called by. */
  readonly type: string;
  /** One sentence. */
  readonly summary: string;
  /** What it promises and what it costs or cannot promise. */
  readonly guarantee: string;
  readonly schema: OptionsSchema;
  readonly examples: readonly OperatorExample[];
  effect(options: Options): ValueEffect;
  readonly rejects: boolean;
  holds?(options: Options): number;
  holdsFor?(options: Options): number;
  /** Problems that a JSON Schema cannot say. */
  verify?(options: Options): readonly OptionProblem[];
  build(options: Options, context: OperatorContext): OperatorFunction<Flowing, Flowing>;
  store?(options: Options): IdStore | undefined;
  open?(options: Options, context: Context): Promise<OpenedOperator>;
}

/** An example that the reference prints and the test runs. Values are JSON; `key` is text. */
export interface OperatorExample {
  readonly title: string;
  /** As an author writes it: `key((o) => o.customer)`. */
  readonly code: string;
  readonly operator: () => Operator<never, unknown>;
  readonly given: readonly ExampleMessage[];
  readonly expect: readonly (ExampleMessage & { readonly outcome?: string })[];
}

export interface ExampleMessage {
  readonly key?: string | null;
  readonly value: unknown;
  readonly headers?: Headers;
}
