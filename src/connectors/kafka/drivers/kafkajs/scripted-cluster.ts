import { createRequire } from "node:module";
import kafkajs, { type Consumer, type ConsumerConfig, type Kafka } from "kafkajs";

const { AssignerProtocol, KafkaJSProtocolError } = kafkajs;

/** The consumer of kafkajs on a cluster of one's own, which its public face does not offer. */
const createConsumer = createRequire(import.meta.url)("kafkajs/src/consumer/index.js") as (
  options: Omit<ConsumerConfig, "retry"> & { cluster: unknown; logger: unknown },
) => Consumer;

interface Request {
  readonly topics: readonly {
    readonly partitions: readonly {
      readonly partition: number;
      readonly fetchOffset?: string;
      readonly offset?: string | number;
    }[];
  }[];
}

/** What a broker answers when it is asked for `offset` and what follows; rejects with an error of Kafka. */
export type Answer = (offset: number) => Promise<readonly { offset: number; control?: boolean }[]>;

/** An error as a broker gives it. */
export function protocolError(type: string, retriable: boolean): Error {
  return new KafkaJSProtocolError(Object.assign(new Error(type), { type, code: 1, retriable }));
}

/**
 * Two brokers and a group that do what a test says, under a real consumer of kafkajs. Topic "t" has partition 0, led by
 * broker 1, and further ones, led by broker 2; all are always assigned to the one member. By default the log is
 * empty, nothing is committed, and everything succeeds.
 */
export class ScriptedCluster {
  /** Goes up with each assignment. */
  generation = 0;
  readonly committed = new Map<number, number>();
  readonly commits: { readonly generation: number; readonly partition: number; readonly offset: number }[] =
    [];
  /** By partition; an empty answer comes after a while, as that of a long poll. */
  readonly answers = new Map<number, Answer>();
  /** The member leads its group. */
  leads = false;
  joins = 0;
  /** The connections of consumers, one for each consumer that has any. */
  readonly connected = new Set<object>();
  /** What these requests wait for, or fail with. */
  onJoin: () => Promise<void> = async () => {};
  onRefresh: () => Promise<void> = async () => {};
  onSync: () => Promise<void> = async () => {};
  onCommit: () => Promise<void> = async () => {};
  onSubscribe: () => Promise<void> = async () => {};
  onDisconnect: () => Promise<void> = async () => {};
  onFindBroker: (nodeId: number) => Promise<void> = async () => {};
  onHeartbeat: () => Promise<void> = async () => {};
  readonly #partitions: readonly number[];

  constructor(partitions = 2) {
    this.#partitions = Array.from({ length: partitions }, (_, partition) => partition);
  }

  /** Stands for `new Kafka(…)`. */
  get kafka(): Kafka {
    const silent = { info() {}, error() {}, warn() {}, debug() {}, namespace: () => silent };
    return {
      consumer: (options: ConsumerConfig) =>
        createConsumer({ ...options, cluster: this.#cluster(), logger: silent }),
    } as unknown as Kafka;
  }

  #cluster() {
    const committedOffsets = {};
    const connection = {};
    const brokers = [1, 2].map((nodeId) => ({
      ...this.#coordinator(),
      nodeId,
      fetch: this.#fetch.bind(this),
    }));
    return {
      connect: async () => void this.connected.add(connection),
      disconnect: async () => {
        this.connected.delete(connection);
        await this.onDisconnect();
      },
      refreshMetadata: () => this.onRefresh(),
      refreshMetadataIfNecessary: async () => {},
      addMultipleTargetTopics: () => this.onSubscribe(),
      getNodeIds: () => [1, 2],
      findTopicPartitionMetadata: () =>
        this.#partitions.map((partitionId) => ({ partitionId, leader: partitionId === 0 ? 1 : 2 })),
      // Through the cluster's own method, as kafkajs does it.
      async findGroupCoordinator() {
        return this.findBroker({ nodeId: 1 });
      },
      findBroker: async ({ nodeId }: { nodeId: number }) => {
        await this.onFindBroker(nodeId);
        return brokers[nodeId - 1];
      },
      committedOffsets: () => committedOffsets,
      fetchTopicsOffset: async () => [
        { topic: "t", partitions: this.#partitions.map((partition) => ({ partition, offset: "0" })) },
      ],
      defaultOffset: () => -2,
      removeBroker: () => {},
    };
  }

  #coordinator() {
    return {
      isConnected: () => true,
      joinGroup: async () => {
        this.joins++;
        await this.onJoin();
        return {
          generationId: ++this.generation,
          leaderId: this.leads ? "this" : "another",
          memberId: "this",
          members: [],
          groupProtocol: "RoundRobinAssigner",
        };
      },
      syncGroup: async () => {
        await this.onSync();
        const assignment = { t: [...this.#partitions] };
        const userData = Buffer.alloc(0);
        return {
          memberAssignment: AssignerProtocol.MemberAssignment.encode({ version: 0, assignment, userData }),
        };
      },
      heartbeat: () => this.onHeartbeat(),
      leaveGroup: async () => {},
      offsetFetch: async ({ topics: [asked] }: Request) => ({
        responses: [
          {
            topic: "t",
            partitions: asked!.partitions.map(({ partition }) => ({
              partition,
              offset: String(this.committed.get(partition) ?? -1),
            })),
          },
        ],
      }),
      offsetCommit: async ({ groupGenerationId, topics }: Request & { groupGenerationId: number }) => {
        await this.onCommit();
        if (groupGenerationId !== this.generation) throw protocolError("ILLEGAL_GENERATION", false);
        for (const { partition, offset } of topics[0]!.partitions) {
          this.commits.push({ generation: groupGenerationId, partition, offset: Number(offset) });
          this.committed.set(partition, Number(offset));
        }
      },
    };
  }

  async #fetch({ topics: [asked] }: Request) {
    const partitions = await Promise.all(
      asked!.partitions.map(async ({ partition, fetchOffset }) => ({
        partition,
        highWatermark: "1000",
        abortedTransactions: [],
        messages: messages((await this.answers.get(partition)?.(Number(fetchOffset))) ?? []),
      })),
    );
    if (partitions.every((one) => one.messages.length === 0))
      await new Promise((resolve) => setTimeout(resolve, 20));
    return { responses: [{ topicName: "t", partitions }] };
  }
}

function messages(records: Awaited<ReturnType<Answer>>): object[] {
  return records.map(({ offset, control = false }) => ({
    offset: String(offset),
    key: null,
    value: Buffer.from(String(offset)),
    headers: {},
    timestamp: "1",
    isControlRecord: control,
  }));
}
