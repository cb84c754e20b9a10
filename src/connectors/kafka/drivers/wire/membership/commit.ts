import { DriverError, type TopicPartition } from "../../../driver.ts";
import type { Cluster } from "../cluster.ts";
import { type CommitPartition, commitExchange, commitKey } from "../commit-exchange.ts";
import { protocolError } from "../errors.ts";
import { atCoordinator } from "../offsets.ts";
import { chooseVersion, commitRequest } from "../requests.ts";
import { type OwnedPartition, partitionKey } from "./membership.ts";

/** Who commits: the generation of a classic group, or the member epoch of an incremental one. */
export interface CommitIdentity {
  readonly member: string;
  readonly epoch: number;
}

/**
 * One OffsetCommit request. The broker takes it only while the member is in that very epoch.
 *
 * A topic may have been deleted and made anew under its name since it was read: an offset of the old one must not
 * become the position in the new one. Where the cluster is known to name another topic by now, nothing is sent
 * for it, and the commit rejects with code `unknown-topic`.
 */
export async function commitOffsets(
  cluster: Cluster,
  group: string,
  { member, epoch }: CommitIdentity,
  owned: readonly OwnedPartition[],
  offsets: readonly (TopicPartition & { readonly offset: number })[],
): Promise<void> {
  const ids = new Map(owned.map((one) => [partitionKey(one), one.topicId]));
  const partitions: CommitPartition[] = [];
  let failure: DriverError | undefined;
  for (const { topic, partition, offset } of offsets) {
    const current = cluster.topic(topic)?.id;
    const topicId = ids.get(`${topic}/${partition}`) ?? current;
    if (topicId === undefined || topicId !== current) {
      failure = new DriverError(
        "unknown-topic",
        `commit: topic "${topic}" is not the one that was read any more`,
      );
    } else partitions.push({ topic, topicId, partition, offset });
  }
  if (partitions.length > 0) {
    await atCoordinator(cluster, group, async (connection) => {
      const version = chooseVersion(commitRequest, connection.versions, connection.address);
      const { errors } = await connection.exchange(commitExchange(group, member, epoch, partitions), 0);
      for (const one of partitions) {
        const code = errors.get(commitKey(one, version));
        const about = `commit of ${partitionKey(one)}`;
        if (code === undefined) throw new DriverError("retry", `${about}: the answer does not cover it`);
        const error = protocolError(code, about);
        if (error !== undefined) throw error;
      }
    });
  }
  if (failure !== undefined) throw failure;
}
