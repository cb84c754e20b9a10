import type { Cluster } from "kafkajs";
import type { TopicPartition } from "../../driver.ts";

interface FetchRequest {
  readonly topics: readonly {
    readonly topic: string;
    readonly partitions: readonly { readonly partition: number; readonly fetchOffset: string }[];
  }[];
}

interface FetchAnswer {
  readonly responses: readonly { readonly partitions: readonly { readonly messages: unknown[] }[] }[];
}

interface CommitRequest {
  readonly topics: readonly { readonly partitions: readonly { readonly offset: unknown }[] }[];
}

/** What the guard needs of a broker of kafkajs. */
interface Broker {
  fetch(request: FetchRequest): Promise<FetchAnswer>;
  offsetCommit(request: CommitRequest): Promise<unknown>;
  joinGroup(request: unknown): Promise<unknown>;
  syncGroup(request: unknown): Promise<unknown>;
  heartbeat(request: unknown): Promise<unknown>;
}

/** To be told of each end and beginning of an assignment, an end being a join or the consumer's stop. */
export interface Guard {
  ended(): void;
  began(): void;
  /** Passes on what a step of joining comes to, and remembers that it failed. */
  joining<T>(step: Promise<T>): Promise<T>;
}

/**
 * Stands between a consumer of kafkajs and its brokers, for what it does wrong and tells nobody:
 *
 * - The fetch of one broker may rejoin the group while that of another is under way or its messages wait in a queue.
 *   They would then move the position of the new epoch past what the old one had in flight. What was asked for in
 *   another epoch is not answered, and of what was fetched and not yet handed on the lists of messages are emptied
 *   ({@link isStale}).
 * - When a join fails it reads on under the assignment that it gave up, for as long as heartbeats are answered. They
 *   fail then, which makes it join.
 * - A failed commit would be repeated under the generation of then. It is tried once.
 * - An offset that is out of range is given up for the earliest, of which `outOfRange` tells.
 */
export function guardCluster(
  cluster: Cluster,
  outOfRange: (partition: TopicPartition, offset: number) => void,
): Guard {
  let epoch = 0;
  let inForce = false;
  let joinFailed = false;
  const joining = async <T>(step: Promise<T>): Promise<T> => {
    try {
      return await step;
    } catch (error) {
      joinFailed = !inForce;
      throw error;
    }
  };
  const nextEpoch = () => {
    epoch++;
    joinFailed = false;
    for (const lists of latest.values()) for (const messages of lists) messages.length = 0;
    latest.clear();
  };
  /** By broker, the lists of messages of its latest answer: before the next fetch all were handed on. */
  const latest = new Map<string, readonly unknown[][]>();
  // The leader's, before it assigns.
  const refreshMetadata = cluster.refreshMetadata.bind(cluster);
  cluster.refreshMetadata = () => joining(refreshMetadata());
  const findBroker = cluster.findBroker.bind(cluster);
  cluster.findBroker = async (which) => {
    // A fetch looks for its broker as soon as it has chosen its offsets, and that may take a reconnection.
    const asked = epoch;
    const broker = await findBroker(which);
    const { fetch, offsetCommit, joinGroup, syncGroup, heartbeat } = broker as unknown as Broker;
    return overriding<typeof broker & Broker>(broker as typeof broker & Broker, {
      joinGroup: (request) => joining(joinGroup.call(broker, request)),
      syncGroup: (request) => joining(syncGroup.call(broker, request)),
      async heartbeat(request) {
        if (joinFailed) throw Object.assign(new Error("not joined"), { type: "REBALANCE_IN_PROGRESS" });
        return heartbeat.call(broker, request);
      },
      async fetch(request) {
        let answer: FetchAnswer | undefined;
        try {
          if (epoch === asked) answer = await fetch.call(broker, request);
        } catch (error) {
          if (epoch === asked) {
            tell(request, error);
            throw error;
          }
        }
        if (answer === undefined || epoch !== asked) return { responses: [] };
        latest.set(
          which.nodeId,
          answer.responses.flatMap(({ partitions }) => partitions.map(({ messages }) => messages)),
        );
        return answer;
      },
      async offsetCommit(request) {
        try {
          return await offsetCommit.call(broker, request);
        } catch (error) {
          // kafkajs itself commits -2 when it gives an offset up: that may be tried again.
          const ours = Number(request.topics[0]?.partitions[0]?.offset) >= 0;
          if (ours && error instanceof Error) Object.assign(error, { retriable: false });
          throw error;
        }
      },
    });
  };
  const tell = (request: FetchRequest, error: unknown) => {
    const { name, topic, partition } = error as { name?: string; topic?: string; partition?: number };
    if (name !== "KafkaJSOffsetOutOfRange" || topic === undefined || partition === undefined) return;
    const from = request.topics
      .find((one) => one.topic === topic)
      ?.partitions.find((one) => one.partition === partition);
    if (from !== undefined) outOfRange({ topic, partition }, Number(from.fetchOffset));
  };
  return {
    ended() {
      inForce = false;
      nextEpoch();
    },
    began() {
      inForce = true;
      nextEpoch();
    },
    joining,
  };
}

/** Whether a batch that kafkajs hands on was fetched in an epoch that has passed. */
export function isStale(batch: object): boolean {
  return (batch as { readonly rawMessages: readonly unknown[] }).rawMessages.length === 0;
}

/** The broker, with some of its methods replaced for whoever has this object. */
function overriding<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get: (_, name) => Reflect.get(Object.hasOwn(methods, name) ? methods : target, name),
  });
}
