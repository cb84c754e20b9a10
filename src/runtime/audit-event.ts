import type { Refusal } from "../component/sink.ts";
import type { Batch } from "../message/batch.ts";

/** What a sink's `audit` is told of each written batch: one JSON object, the delivery report of all its messages. */
export interface AuditEvent {
  /** Name of the sink in the topology. */
  readonly topic: string;
  /** What the batch went to: "orders.accepted/3" is partition 3 of a Kafka topic. */
  readonly destination: string;
  /** When it was acknowledged, ISO 8601. */
  readonly time: string;
  readonly succeeded: number;
  readonly failed: number;
  /** Where the messages stand: `count` of them from offset `first` on. Empty where the broker gives no offsets. */
  readonly stored: readonly { readonly first: number; readonly count: number }[];
  /** Why the failed messages failed, the first 100 of them, each by where it came from. */
  readonly errors: readonly AuditedError[];
}

interface AuditedError {
  /** The topic, queue or file it was read from, its partition there, and its position. */
  readonly target: string;
  readonly partition?: number;
  readonly position: number;
  /** As in the dead letter's headers. */
  readonly code: string;
  readonly message: string;
}

/** More would make an event too large for the topic it goes to. */
const mostErrors = 100;

export function auditEvent(
  sink: string,
  batch: Batch,
  refusals: readonly Refusal[],
  now: number,
): AuditEvent {
  return {
    topic: sink,
    destination: batch.destination.name,
    time: new Date(now).toISOString(),
    succeeded: batch.length - refusals.length,
    failed: refusals.length,
    stored: batch.stored,
    errors: refusals.slice(0, mostErrors).map(({ entry, failure: { code, message } }) => {
      const chunk = batch.chunk(entry);
      const { target, partition } = chunk.lane.origin;
      return {
        target,
        ...(partition === undefined ? {} : { partition }),
        position: chunk.position(batch.index(entry)),
        code,
        message,
      };
    }),
  };
}
