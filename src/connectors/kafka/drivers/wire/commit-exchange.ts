import { Writer } from "@platformatic/kafka";
import type { OwnAnswer, OwnExchange } from "./connection.ts";
import { commitRequest } from "./requests.ts";

export interface CommitPartition {
  readonly topic: string;
  /** Of the topic that was read; brokers since 4.1 refuse the commit where the name belongs to another by now. */
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
}

export interface CommitAnswer extends OwnAnswer {
  /** Kafka's error code by topic (id or name, as it was asked) and partition, as in "orders/3". */
  readonly errors: ReadonlyMap<string, number>;
}

const withIds = 10;

/** What an answer calls a partition. */
export function commitKey({ topic, topicId, partition }: CommitPartition, version: number): string {
  return `${version >= withIds ? topicId : topic}/${partition}`;
}

/** One OffsetCommit request, under a generation or member epoch. */
export function commitExchange(
  group: string,
  member: string,
  epoch: number,
  partitions: readonly CommitPartition[],
): OwnExchange<CommitAnswer> {
  return {
    request: commitRequest,
    write(version) {
      return Writer.create()
        .appendString(group)
        .appendInt32(epoch)
        .appendString(member)
        .appendString(null)
        .appendArray(byTopic(partitions), (topics, [{ topic, topicId }, parts]) => {
          if (version >= withIds) topics.appendUUID(topicId);
          else topics.appendString(topic);
          topics.appendArray(parts, (each, { partition, offset }) => {
            each.appendInt32(partition).appendInt64(BigInt(offset)).appendInt32(-1).appendString(null);
          });
        })
        .appendTaggedFields();
    },
    read(reader, version) {
      const throttle = reader.readInt32();
      const errors = new Map<string, number>();
      reader.readArray((topics) => {
        const topic = version >= withIds ? topics.readUUID() : topics.readString();
        topics.readArray((each) => {
          const partition = each.readInt32();
          errors.set(`${topic}/${partition}`, each.readInt16());
        });
      });
      return { throttle, errors };
    },
  };
}

function byTopic(partitions: readonly CommitPartition[]): [CommitPartition, CommitPartition[]][] {
  const topics = new Map<string, [CommitPartition, CommitPartition[]]>();
  for (const one of partitions) {
    const key = `${one.topicId} ${one.topic}`;
    const present = topics.get(key);
    if (present === undefined) topics.set(key, [one, [one]]);
    else present[1].push(one);
  }
  return [...topics.values()];
}
