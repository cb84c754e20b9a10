import { DriverError, type TopicPartition } from "../../driver.ts";
import type { Cluster } from "./cluster.ts";
import type { BrokerConnection } from "./connection.ts";
import { ErrorCode, protocolCode, protocolError } from "./errors.ts";
import { listOffsetsRequest, offsetFetchRequest } from "./requests.ts";

/** Special timestamps of a ListOffsets request. */
export const earliest = -2n;
export const latest = -1n;
/** The end is where a reader comes to: before the first transaction that is still open. */
const readCommitted = 1;

/**
 * The first (`earliest`) or the next (`latest`) offset of each partition, each asked of its leader. Rejects when
 * one partition's cannot be told.
 */
export async function listOffsets(
  cluster: Cluster,
  topic: string,
  partitions: readonly number[],
  timestamp: typeof earliest | typeof latest,
): Promise<ReadonlyMap<number, number>> {
  const byNode = new Map<number, number[]>();
  for (const partition of partitions) {
    const leader = cluster.leader({ topic, partition });
    if (leader === undefined || leader.node < 0) {
      cluster.suspect(topic);
      throw new DriverError("retry", `${topic}/${partition} has no leader at the moment`);
    }
    const list = byNode.get(leader.node);
    if (list === undefined) byNode.set(leader.node, [partition]);
    else list.push(partition);
  }
  const offsets = new Map<number, number>();
  await Promise.all(
    [...byNode].map(async ([node, list]) => {
      try {
        const connection = await cluster.connections.to(node, "admin");
        const answer = await connection.askForParts(listOffsetsRequest, -1, readCommitted, [
          {
            name: topic,
            partitions: list.map((partitionIndex) => ({
              partitionIndex,
              currentLeaderEpoch: -1,
              timestamp,
            })),
          },
        ]);
        for (const { partitionIndex, errorCode, offset } of answer.topics[0]?.partitions ?? []) {
          const error = protocolError(errorCode, `offsets of ${topic}/${partitionIndex}`);
          if (error !== undefined) throw error;
          offsets.set(partitionIndex, Number(offset));
        }
      } catch (error) {
        cluster.suspect(topic);
        throw error;
      }
    }),
  );
  return offsets;
}

export interface CommittedOffset extends TopicPartition {
  readonly offset: number;
}

/**
 * What a group has committed, for the partitions named. Offsets that a transaction has yet to decide on are not
 * told: then it rejects with code `retry`.
 */
export async function committedOffsets(
  cluster: Cluster,
  group: string,
  partitions: readonly TopicPartition[],
): Promise<readonly CommittedOffset[]> {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) {
    const list = topics.get(topic);
    if (list === undefined) topics.set(topic, [partition]);
    else list.push(partition);
  }
  return atCoordinator(cluster, group, async (connection) => {
    const { groups } = await connection.ask(
      offsetFetchRequest,
      [
        {
          groupId: group,
          memberId: null,
          memberEpoch: -1,
          topics: [...topics].map(([name, partitionIndexes]) => ({ name, partitionIndexes })),
        },
      ],
      true,
    );
    return (groups[0]?.topics ?? []).flatMap(({ name, partitions: answers }) =>
      answers
        .filter(({ committedOffset }) => committedOffset >= 0n)
        .map(({ partitionIndex, committedOffset }) => ({
          topic: name,
          partition: partitionIndex,
          offset: Number(committedOffset),
        })),
    );
  });
}

const coordinatorMoved = new Set<number>([ErrorCode.coordinatorNotAvailable, ErrorCode.notCoordinator]);

/** Asks the group's coordinator; when it turns out to be another, or away, it is looked up again the next time. */
export async function atCoordinator<R>(
  cluster: Cluster,
  group: string,
  ask: (connection: BrokerConnection) => Promise<R>,
): Promise<R> {
  const connection = await cluster.coordinator(group, "group");
  try {
    return await ask(connection);
  } catch (error) {
    const code = protocolCode(error);
    if (code === undefined ? connection.closed : coordinatorMoved.has(code))
      cluster.suspectCoordinator(group);
    throw error;
  }
}
