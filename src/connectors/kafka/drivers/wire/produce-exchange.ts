import { Writer } from "@platformatic/kafka";
import type { OwnAnswer, OwnExchange } from "./connection.ts";
import { produceRequest } from "./requests.ts";

export interface ProducePartition {
  readonly topic: string;
  readonly partition: number;
  readonly bytes: Buffer;
}

export interface ProducedPartition {
  readonly topic: string;
  readonly partition: number;
  /** Kafka's error code; 0: none. */
  readonly error: number;
  /** What the broker adds to the code. */
  readonly detail: string | null;
  /** Offset of the first record; −1: the broker does not say. */
  readonly offset: number;
}

export interface ProduceAnswer extends OwnAnswer {
  readonly partitions: readonly ProducedPartition[];
}

const allReplicas = -1;

/** One Produce request, acknowledged by all in-sync replicas. `timeout`: how long the leader waits for them, ms. */
export function produceExchange(
  batches: readonly ProducePartition[],
  timeout: number,
): OwnExchange<ProduceAnswer> {
  return {
    request: produceRequest,
    write() {
      return Writer.create()
        .appendString(null)
        .appendInt16(allReplicas)
        .appendInt32(timeout)
        .appendArray(byTopic(batches), (topics, [topic, parts]) => {
          topics.appendString(topic).appendArray(parts, (each, { partition, bytes }) => {
            each.appendInt32(partition).appendBytes(bytes);
          });
        })
        .appendTaggedFields();
    },
    read(reader) {
      const answers = reader.readArray((topics) => {
        const topic = topics.readString();
        return topics.readArray(
          (each) => {
            const partition = each.readInt32();
            const error = each.readInt16();
            const offset = Number(each.readInt64());
            each.readInt64();
            each.readInt64();
            let ofRecord: string | null = null;
            each.readArray((record) => {
              const index = record.readInt32();
              const message = record.readNullableString();
              ofRecord ??= message === null ? null : `record ${index}: ${message}`;
            });
            // Read whether or not it is told: what follows begins after it.
            const ofBatch = each.readNullableString();
            each.readTaggedFields();
            return { topic, partition, error, detail: ofRecord ?? ofBatch, offset };
          },
          true,
          false,
        );
      });
      return { throttle: reader.readInt32(), partitions: answers.flat() };
    },
  };
}

function byTopic(batches: readonly ProducePartition[]): [string, ProducePartition[]][] {
  const topics = new Map<string, ProducePartition[]>();
  for (const batch of batches) {
    const parts = topics.get(batch.topic);
    if (parts === undefined) topics.set(batch.topic, [batch]);
    else parts.push(batch);
  }
  return [...topics];
}
