import kafkajs, { type Assigner, type Cluster, type GroupMember } from "kafkajs";

const { AssignerProtocol } = kafkajs;

/** What the assigner needs of a broker of kafkajs. */
interface Broker {
  metadata(topics: readonly string[]): Promise<{
    readonly topicMetadata: readonly {
      readonly topic: string;
      readonly partitionMetadata: readonly { readonly partitionId: number }[];
    }[];
  }>;
}

/**
 * Deals partitions out in turn, each to the next member that subscribed to its topic. kafkajs' own assigner deals
 * the leader's topics to all members alike, so that a topic of some members only is read in part or by nobody.
 * Name and format are those of kafkajs' own, so that members with either can be in one group.
 */
export function subscriberAssigner(cluster: Cluster): Assigner {
  return {
    name: "RoundRobinAssigner",
    version: 0,
    async assign({ members, topics: own }) {
      const subscriptions = new Map(members.map((member) => [member.memberId, subscribed(member)]));
      const topics = [...new Set([...subscriptions.values()].flatMap((list) => [...list]))].sort();
      const partitions = new Map<string, readonly number[]>();
      for (const topic of topics) {
        const known = cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => partitionId);
        // Of the topics of others the leader's cluster knows nothing.
        partitions.set(topic, known.length > 0 || own.includes(topic) ? known : await ask(cluster, topic));
      }
      return [...deal(subscriptions, partitions)].map(([memberId, assignment]) => ({
        memberId,
        memberAssignment: AssignerProtocol.MemberAssignment.encode({
          version: 0,
          assignment,
          userData: Buffer.alloc(0),
        }),
      }));
    },
    protocol({ topics }) {
      const metadata = AssignerProtocol.MemberMetadata.encode({
        version: 0,
        topics,
        userData: Buffer.alloc(0),
      });
      return { name: "RoundRobinAssigner", metadata };
    },
  };
}

function subscribed({ memberMetadata }: GroupMember): ReadonlySet<string> {
  return new Set(AssignerProtocol.MemberMetadata.decode(memberMetadata)?.topics ?? []);
}

function deal(
  subscriptions: ReadonlyMap<string, ReadonlySet<string>>,
  partitions: ReadonlyMap<string, readonly number[]>,
): ReadonlyMap<string, Record<string, number[]>> {
  const members = [...subscriptions.keys()].sort();
  const dealt = new Map(members.map((member) => [member, Object.create(null) as Record<string, number[]>]));
  let turn = 0;
  for (const [topic, list] of partitions) {
    for (const partition of list) {
      while (!subscriptions.get(members[turn % members.length]!)!.has(topic)) turn++;
      const assignment = dealt.get(members[turn++ % members.length]!)!;
      assignment[topic] ??= [];
      assignment[topic].push(partition);
    }
  }
  return dealt;
}

/**
 * The partitions of a topic that the leader does not read; none where it does not exist. Through a broker itself:
 * the cluster's own `metadata` would forget the topics that the leader reads, and its list of topics would tie the
 * leader to the life of a topic that is not its own.
 */
async function ask(cluster: Cluster, topic: string): Promise<readonly number[]> {
  let failure: unknown = new Error("no broker is known");
  for (const nodeId of cluster.getNodeIds()) {
    try {
      const broker = (await cluster.findBroker({ nodeId: String(nodeId) })) as unknown as Broker;
      const { topicMetadata } = await broker.metadata([topic]);
      return topicMetadata
        .filter((found) => found.topic === topic)
        .flatMap(({ partitionMetadata }) => partitionMetadata.map(({ partitionId }) => partitionId));
    } catch (error) {
      if ((error as { type?: unknown }).type === "UNKNOWN_TOPIC_OR_PARTITION") return [];
      failure = error;
    }
  }
  throw failure;
}
