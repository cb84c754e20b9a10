import type { Connection } from "../../component/connection.ts";
import type { Context } from "../../component/context.ts";
import { callerLocation } from "../../component/location.ts";
import { type OptionsSchema, optionProblems } from "../../component/options.ts";
import type { Sink } from "../../component/sink.ts";
import type { Message } from "../../message/chunk.ts";
import { openWriterSink } from "./sink.ts";

/** A place to write to that no connector knows, opened. */
export interface Writer<T = unknown> {
  /**
   * Stores the messages and resolves when all of them are safe: only then are they acknowledged upstream. One call
   * at a time. Give whole windows with `batch`; without it a call gets what gathered while the last one was out.
   *
   * What it throws decides what follows. A `MillraceError` of class business blames a message: the batch is parted
   * and each message tried alone, so that only the one at fault is dead-lettered. One of class system ends the run.
   * Anything else is taken for trouble of the other side: it is called again with the same messages, with backoff,
   * until it succeeds. So it must bear to be given again what it has already stored.
   */
  write(messages: readonly Message<T>[], signal: AbortSignal): Promise<void>;
  /** Nothing is under way any more. */
  close?(): Promise<void>;
}

export interface WriterOptions<T = unknown> {
  /** Names it in plans, logs and status. */
  readonly name: string;
  /**
   * Called before anything is read, and again with backoff while it throws something of class network or unknown.
   * A `MillraceError` of class application or system ends the start.
   */
  readonly open: (context: Context) => Promise<Writer<T>>;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { name: { type: "string", minLength: 1 }, open: { isFunction: true } },
  required: ["name", "open"],
  additionalProperties: false,
};

/**
 * A sink of the author's own. Retry, order and the blame for a refusal are taken care of; what is stored, and when it
 * is safe, is the author's word. It keeps order: one write after the other.
 *
 * @example writer({ name: "pond", open: async () => ({ write: (messages) => pond.insert(messages) }) })
 */
export function writer<T = unknown>(options: WriterOptions<T>): Sink {
  const location = callerLocation();
  const problems = optionProblems("writer", schema, options);
  const name = String(options?.name);
  const connection: Connection = {
    connector: "writer",
    address: name,
    location,
    embedded: () => undefined,
    verify: async () => [],
    create: async () => [],
  };
  return {
    kind: "sink",
    type: "writer",
    name,
    connection,
    location,
    capabilities: { order: "always", batches: false },
    problems,
    targets: [name],
    readsValues: true,
    open: (context) => openWriterSink(context, options as WriterOptions),
  };
}
