import { DriverError, type TopicPartition } from "../../../driver.ts";
import type { Cluster } from "../cluster.ts";
import { protocolError } from "../errors.ts";
import { atCoordinator } from "../offsets.ts";
import { offsetCommitRequest } from "../requests.ts";

/** Who commits: the generation of a classic group, or the member epoch of an incremental one. */
export interface CommitIdentity {
  readonly member: string;
  readonly epoch: number;
}

/** One OffsetCommit request. The broker takes it only while the member is in that very epoch. */
export async function commitOffsets(
  cluster: Cluster,
  group: string,
  { member, epoch }: CommitIdentity,
  offsets: readonly (TopicPartition & { readonly offset: number })[],
): Promise<void> {
  const topics = new Map<string, { partitionIndex: number; committedOffset: bigint }[]>();
  for (const { topic, partition, offset } of offsets) {
    const entry = { partitionIndex: partition, committedOffset: BigInt(offset) };
    const list = topics.get(topic);
    if (list === undefined) topics.set(topic, [entry]);
    else list.push(entry);
  }
  const request = [...topics].map(([name, partitions]) => ({
    name,
    partitions: partitions.map((one) => ({ ...one, committedLeaderEpoch: -1, committedMetadata: null })),
  }));
  await atCoordinator(cluster, group, async (connection) => {
    const answer = await connection.ask(offsetCommitRequest, group, epoch, member, null, request);
    const named = new Map<string, number>();
    for (const { name, partitions } of answer.topics) {
      for (const { partitionIndex, errorCode } of partitions)
        named.set(`${name}/${partitionIndex}`, errorCode);
    }
    for (const { topic, partition } of offsets) {
      const code = named.get(`${topic}/${partition}`);
      const about = `commit of ${topic}/${partition}`;
      if (code === undefined) throw new DriverError("retry", `${about}: the answer does not cover it`);
      const error = protocolError(code, about);
      if (error !== undefined) throw error;
    }
  });
}
