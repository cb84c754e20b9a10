import { type Reader, Writer } from "@platformatic/kafka";
import type { OwnAnswer, OwnExchange } from "./connection.ts";
import { fetchRequest } from "./requests.ts";

/** What is wanted of one partition. */
export interface FetchPartition {
  readonly topicId: string;
  readonly partition: number;
  readonly leaderEpoch: number;
  readonly offset: number;
  readonly maxBytes: number;
}

export interface FetchLimits {
  /** Longest the broker waits for data, ms. */
  readonly maxWait: number;
  /** Most bytes of all partitions together; a batch that is larger comes alone. */
  readonly maxBytes: number;
}

/** A transaction that was aborted, in the part of a log that was fetched. */
export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: number;
}

export interface FetchedPartition {
  readonly topicId: string;
  readonly partition: number;
  /** Kafka's error code; 0: none. */
  readonly error: number;
  /** Offset after the last message that readers of committed data may see. */
  readonly stableEnd: number;
  readonly aborted: readonly AbortedTransaction[];
  /** Record batches; the last may be cut short. */
  readonly bytes: Buffer;
}

export interface FetchAnswer extends OwnAnswer {
  readonly error: number;
  readonly partitions: readonly FetchedPartition[];
}

const nothing = Buffer.alloc(0);
const noAborts: readonly AbortedTransaction[] = [];
const readCommitted = 1;

/** One Fetch request, without a session: it names all it wants, in the order it wants it. */
export function fetchExchange(
  partitions: readonly FetchPartition[],
  limits: FetchLimits,
): OwnExchange<FetchAnswer> {
  return {
    request: fetchRequest,
    write(version) {
      const writer = Writer.create();
      if (version < 15) writer.appendInt32(-1);
      writer
        .appendInt32(limits.maxWait)
        .appendInt32(1)
        .appendInt32(limits.maxBytes)
        .appendInt8(readCommitted)
        .appendInt32(0)
        .appendInt32(-1)
        .appendArray(byTopic(partitions), (topics, [topicId, wanted]) => {
          topics.appendUUID(topicId).appendArray([...wanted], (each, partition) => {
            each
              .appendInt32(partition.partition)
              .appendInt32(partition.leaderEpoch)
              .appendInt64(BigInt(partition.offset))
              .appendInt32(-1)
              .appendInt64(-1n)
              .appendInt32(partition.maxBytes);
          });
        })
        .appendArray([], () => {})
        .appendString("")
        .appendTaggedFields();
      return writer;
    },
    read(reader) {
      const throttle = reader.readInt32();
      const error = reader.readInt16();
      reader.readInt32();
      const answers = reader.readArray((topics) => {
        const topicId = topics.readUUID();
        return topics.readArray((each) => readPartition(each, topicId), true, false);
      });
      return { throttle, error, partitions: answers.flat() };
    },
  };
}

function readPartition(reader: Reader, topicId: string): FetchedPartition {
  const partition = reader.readInt32();
  const error = reader.readInt16();
  reader.readInt64();
  const stableEnd = Number(reader.readInt64());
  reader.readInt64();
  const aborted =
    reader.readNullableArray((one) => ({
      producerId: one.readInt64(),
      firstOffset: Number(one.readInt64()),
    })) ?? noAborts;
  reader.readInt32();
  const bytes = reader.readNullableBytes() ?? nothing;
  reader.readTaggedFields();
  return { topicId, partition, error, stableEnd, aborted, bytes };
}

/** Partitions of one topic that follow each other stand together; the order is the broker's order of service. */
function byTopic(partitions: readonly FetchPartition[]): (readonly [string, readonly FetchPartition[]])[] {
  const topics: [string, FetchPartition[]][] = [];
  for (const partition of partitions) {
    const last = topics.at(-1);
    if (last !== undefined && last[0] === partition.topicId) last[1].push(partition);
    else topics.push([partition.topicId, [partition]]);
  }
  return topics;
}
