import type { TopicPartition } from "../../driver.ts";

interface FetchRequest {
  readonly topics: readonly {
    readonly topic: string;
    readonly partitions: readonly { readonly partition: number; readonly fetchOffset: string }[];
  }[];
}

interface FetchAnswer {
  readonly responses: readonly { readonly partitions: readonly { readonly messages: object }[] }[];
}

interface CommitRequest {
  readonly topics: readonly { readonly partitions: readonly { readonly offset: unknown }[] }[];
}

/** What the guard needs of a broker of kafkajs, and of the cluster that an assigner is given. */
interface Broker {
  fetch(request: FetchRequest): Promise<FetchAnswer>;
  offsetCommit(request: CommitRequest): Promise<unknown>;
}

interface Cluster {
  findBroker(which: unknown): Promise<Broker>;
  findGroupCoordinator(which: unknown): Promise<Broker>;
}

export interface Guarded {
  /** Changes whenever an assignment ends or begins. */
  epoch(): number;
  /** The log does not hold `offset`, at which the partition was to be read on: kafkajs goes on elsewhere. */
  outOfRange(partition: TopicPartition, offset: number): void;
}

/**
 * Stands between a consumer of kafkajs and its brokers, for what it does wrong and tells nobody:
 *
 * - The fetch of one broker may rejoin the group while that of another is under way, whose answer would then move
 *   the position of the new epoch past what the old one had in flight. Such answers are dropped.
 * - A failed commit would be repeated under the generation of then. It is tried once.
 * - An offset that is out of range is given up for the earliest.
 *
 * Returns the epoch in which messages were fetched, by the list they are in.
 */
export function guardCluster(given: unknown, guarded: Guarded): WeakMap<object, number> {
  const cluster = given as Cluster;
  const fetched = new WeakMap<object, number>();
  const proxies = new WeakMap<Broker, Broker>();
  const guard = (broker: Broker): Broker => {
    const known = proxies.get(broker);
    if (known !== undefined) return known;
    const fetch: Broker["fetch"] = async (request) => {
      const epoch = guarded.epoch();
      const answer = await broker.fetch(request).catch((error: unknown) => {
        if (guarded.epoch() === epoch) tell(request, error);
        throw error;
      });
      if (guarded.epoch() !== epoch) return { ...answer, responses: [] };
      for (const { partitions } of answer.responses)
        for (const { messages } of partitions) fetched.set(messages, epoch);
      return answer;
    };
    const offsetCommit: Broker["offsetCommit"] = (request) =>
      broker.offsetCommit(request).catch((error: unknown) => {
        // kafkajs itself commits -2 when it gives an offset up: that may be tried again.
        const ours = Number(request.topics[0]?.partitions[0]?.offset) >= 0;
        if (ours && error instanceof Error) (error as { retriable?: boolean }).retriable = false;
        throw error;
      });
    const proxy = new Proxy(broker, {
      get(target, name) {
        if (name === "fetch") return fetch;
        if (name === "offsetCommit") return offsetCommit;
        return Reflect.get(target, name, target);
      },
    });
    proxies.set(broker, proxy);
    return proxy;
  };
  const tell = (request: FetchRequest, error: unknown) => {
    const { name, topic, partition } = error as { name?: string; topic?: string; partition?: number };
    if (name !== "KafkaJSOffsetOutOfRange" || topic === undefined || partition === undefined) return;
    const asked = request.topics
      .find((one) => one.topic === topic)
      ?.partitions.find((one) => one.partition === partition);
    if (asked !== undefined) guarded.outOfRange({ topic, partition }, Number(asked.fetchOffset));
  };
  for (const name of ["findBroker", "findGroupCoordinator"] as const) {
    const find = cluster[name];
    cluster[name] = async (which) => guard(await find.call(cluster, which));
  }
  return fetched;
}
