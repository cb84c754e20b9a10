import { Reader, Writer } from "@platformatic/kafka";

/**
 * What the members of a classic group tell each other through the broker, which does not read it: their
 * subscriptions on the way to the leader, their assignments on the way back. Version 0 of both, which every
 * client understands.
 */
export interface AssignedTopic {
  readonly topic: string;
  readonly partitions: readonly number[];
}

const version = 0;
const plain = [false, false] as const;

export function encodeSubscription(topics: readonly string[]): Buffer {
  return Writer.create()
    .appendInt16(version)
    .appendArray([...topics], (writer, topic) => writer.appendString(topic, false), ...plain)
    .appendBytes(null, false).buffer;
}

/** Topics of a subscription of any version: what newer ones add comes after them. */
export function decodeSubscription(bytes: Buffer): readonly string[] {
  if (bytes.length < 6) return [];
  const reader = Reader.from(bytes);
  reader.readInt16();
  return reader.readArray((one) => one.readString(false), ...plain);
}

export function encodeAssignment(topics: readonly AssignedTopic[]): Buffer {
  return Writer.create()
    .appendInt16(version)
    .appendArray(
      [...topics],
      (writer, { topic, partitions }) => {
        writer
          .appendString(topic, false)
          .appendArray([...partitions], (one, partition) => one.appendInt32(partition), ...plain);
      },
      ...plain,
    )
    .appendBytes(null, false).buffer;
}

export function decodeAssignment(bytes: Buffer): readonly AssignedTopic[] {
  if (bytes.length < 6) return [];
  const reader = Reader.from(bytes);
  reader.readInt16();
  return reader.readArray(
    (one) => ({
      topic: one.readString(false),
      partitions: one.readArray((partition) => partition.readInt32(), ...plain),
    }),
    ...plain,
  );
}
