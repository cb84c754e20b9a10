import assert from "node:assert/strict";
import { test } from "node:test";
import kafkajs, { type Cluster } from "kafkajs";
import { subscriberAssigner } from "./assigner.ts";

const { AssignerProtocol, PartitionAssigners } = kafkajs;

/** What the cluster of the leader knows, what a broker tells when asked for another topic, and what was asked. */
function clusterOf(known: Readonly<Record<string, number>>, others: Readonly<Record<string, number>> = {}) {
  const asked: string[] = [];
  const failing = new Set<number>();
  const partitions = (count: number) =>
    Array.from({ length: count }, (_, partitionId) => ({ partitionId, leader: 1 }));
  const cluster = {
    findTopicPartitionMetadata: (topic: string) => partitions(known[topic] ?? 0),
    getNodeIds: () => [1, 2],
    findBroker: async ({ nodeId }: { nodeId: string }) => ({
      metadata: async ([topic]: [string]) => {
        asked.push(topic);
        if (failing.has(Number(nodeId))) throw new Error("connection lost");
        if (others[topic] === undefined)
          throw Object.assign(new Error("no such topic"), { type: "UNKNOWN_TOPIC_OR_PARTITION" });
        return { topicMetadata: [{ topic, partitionMetadata: partitions(others[topic]) }] };
      },
    }),
  } as unknown as Cluster;
  return { cluster, asked, failing };
}

/** Who gets what, as "topic/partition", by member; the first member is the leader. */
async function assign(
  cluster: Cluster,
  members: Readonly<Record<string, readonly string[]>>,
): Promise<Record<string, string[]>> {
  const assigner = subscriberAssigner(cluster);
  const topics = [...(Object.values(members)[0] ?? [])];
  const assignment = await assigner.assign({
    members: Object.entries(members).map(([memberId, subscribed]) => ({
      memberId,
      memberMetadata: assigner.protocol({ topics: [...subscribed] }).metadata,
    })),
    topics,
  });
  return Object.fromEntries(
    assignment.map(({ memberId, memberAssignment }) => [
      memberId,
      Object.entries(AssignerProtocol.MemberAssignment.decode(memberAssignment)!.assignment).flatMap(
        ([topic, list]) => list.map((partition) => `${topic}/${partition}`),
      ),
    ]),
  );
}

test("members of one subscription share its partitions in turn, across topics too", async () => {
  const { cluster, asked } = clusterOf({ a: 3, b: 1, c: 2 });
  const topics = ["a", "b", "c"];
  assert.deepEqual(await assign(cluster, { two: topics, one: topics }), {
    one: ["a/0", "a/2", "c/0"],
    two: ["a/1", "b/0", "c/1"],
  });
  assert.deepEqual(asked, []);
});

test("a topic goes to the members that subscribed to it, and to no other", async () => {
  const { cluster, asked } = clusterOf({ a: 2 }, { b: 2, c: 3 });
  assert.deepEqual(await assign(cluster, { one: ["a"], two: ["b", "c"], three: ["c"] }), {
    one: ["a/0", "a/1"],
    three: ["c/0", "c/2"],
    two: ["b/0", "b/1", "c/1"],
  });
  assert.deepEqual(asked, ["b", "c"], "what the leader does not read it must ask for");
});

test("a topic that another member names and that does not exist keeps nobody from the rest", async () => {
  const { cluster } = clusterOf({ a: 1 }, { b: 1 });
  assert.deepEqual(await assign(cluster, { one: ["a"], two: ["b", "gone"], three: ["gone"] }), {
    one: ["a/0"],
    three: [],
    two: ["b/0"],
  });
});

test("another broker is asked when one does not answer, and without an answer nothing is assigned", async () => {
  const { cluster, failing } = clusterOf({ a: 1 }, { b: 1 });
  failing.add(1);
  assert.deepEqual(await assign(cluster, { one: ["a"], two: ["b"] }), { one: ["a/0"], two: ["b/0"] });
  failing.add(2);
  await assert.rejects(assign(cluster, { one: ["a"], two: ["b"] }), { message: "connection lost" });
});

test("a member that uses kafkajs' own assigner can be in the group, and lead it", () => {
  const { cluster } = clusterOf({});
  const [ours, theirs] = [
    subscriberAssigner(cluster),
    PartitionAssigners.roundRobin({ cluster, groupId: "g", logger: {} as never }),
  ];
  assert.deepEqual([ours.name, ours.version], [theirs.name, theirs.version]);
  const topics = ["a", "b"];
  assert.deepEqual(ours.protocol({ topics }), theirs.protocol({ topics }));
});
