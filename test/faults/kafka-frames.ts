import type { Protocol } from "./frames.ts";

const names = new Map([
  [0, "Produce"],
  [1, "Fetch"],
  [2, "ListOffsets"],
  [3, "Metadata"],
  [8, "OffsetCommit"],
  [9, "OffsetFetch"],
  [10, "FindCoordinator"],
  [11, "JoinGroup"],
  [12, "Heartbeat"],
  [13, "LeaveGroup"],
  [14, "SyncGroup"],
  [18, "ApiVersions"],
  [22, "InitProducerId"],
  [68, "ConsumerGroupHeartbeat"],
]);

/**
 * Kafka's frames: a length, and then for requests the API's key, its version and a correlation id, for replies
 * the correlation id alone. A reply has the kind of its request.
 */
export const kafkaFrames: Protocol = () => {
  const asked = new Map<number, string>();
  return {
    request: (beginning) => {
      if (beginning.length < 12) return undefined;
      const key = beginning.readInt16BE(4);
      const kind = names.get(key) ?? `api ${key}`;
      asked.set(beginning.readInt32BE(8), kind);
      return { kind, length: 4 + beginning.readInt32BE(0) };
    },
    reply: (beginning) => {
      if (beginning.length < 8) return undefined;
      const correlation = beginning.readInt32BE(4);
      const kind = asked.get(correlation) ?? "unasked";
      asked.delete(correlation);
      return { kind, length: 4 + beginning.readInt32BE(0) };
    },
  };
};
