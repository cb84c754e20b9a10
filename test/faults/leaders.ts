import { once } from "node:events";
import { connect as dial } from "node:net";
import type { Admin } from "kafkajs";
import type { Random } from "../../src/component/context.ts";

const electLeaders = 43;

/** Gives every partition of a topic another leader, chosen by chance from its other replicas. */
export async function moveLeaders(admin: Admin, topic: string, random: Random): Promise<void> {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  const partitions = topics[0]!.partitions;
  await admin.alterPartitionReassignments({
    topics: [
      {
        topic,
        partitionAssignment: partitions.map(({ partitionId, leader, replicas }) => {
          const others = replicas.filter((replica) => replica !== leader);
          if (random.next() < 0.5) others.reverse();
          return { partition: partitionId, replicas: [...others, leader].filter((replica) => replica >= 0) };
        }),
      },
    ],
  });
  const { brokers, controller } = await admin.describeCluster();
  const { port } = brokers.find(({ nodeId }) => nodeId === controller) ?? brokers[0]!;
  await elect(
    port,
    topic,
    partitions.map(({ partitionId }) => partitionId),
  );
}

/** Makes the first replica of each partition its leader; kafkajs has no such request. */
async function elect(port: number, topic: string, partitions: readonly number[]): Promise<void> {
  const name = Buffer.from(topic);
  const body = Buffer.alloc(10 + 4 + 2 + name.length + 4 + 4 * partitions.length + 4);
  let at = body.writeInt16BE(electLeaders, 0);
  at = body.writeInt16BE(0, at);
  at = body.writeInt32BE(1, at);
  at = body.writeInt16BE(-1, at);
  at = body.writeInt32BE(1, at);
  at = body.writeInt16BE(name.length, at);
  at += name.copy(body, at);
  at = body.writeInt32BE(partitions.length, at);
  for (const partition of partitions) at = body.writeInt32BE(partition, at);
  body.writeInt32BE(5_000, at);
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length);
  const socket = dial({ host: "127.0.0.1", port });
  try {
    socket.write(Buffer.concat([length, body]));
    // Some partitions may have no other leader to offer just now, so the answer's errors are nobody's business.
    await once(socket, "data", { signal: AbortSignal.timeout(60_000) });
  } finally {
    socket.destroy();
  }
}
