import type { Clock, Context, Time } from "../../../../component/context.ts";
import type { Batch } from "../../../../message/batch.ts";
import {
  DriverError,
  type EncodedBatch,
  type KafkaClient,
  type KafkaDriver,
  type NewTopic,
  type PartitionOffsets,
  type ProduceResult,
  type Producer,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicDescription,
  type TopicPartition,
} from "../../driver.ts";
import type { KafkaSettings } from "../../options.ts";
import { EmbeddedBatch } from "./batch.ts";
import type { Connection } from "./connection.ts";
import type { ConnectedClient, EmbeddedKafka } from "./embedded-kafka.ts";
import type { RebalanceManner } from "./group.ts";
import { EmbeddedSubscription } from "./subscription.ts";

export interface EmbeddedDriverOptions {
  /** How its members rebalance. Default: as the cluster says. */
  readonly rebalance?: RebalanceManner;
}

/** Clients of one embedded cluster. All members of a group must rebalance in the same manner. */
export function embeddedDriver(cluster: EmbeddedKafka, options: EmbeddedDriverOptions = {}): KafkaDriver {
  const manner = options.rebalance ?? cluster.rebalance;
  return {
    name: "embedded",
    holdsRebalance: manner !== "eager",
    connect: (settings, context) => new EmbeddedClient(cluster, settings, context, manner),
  };
}

class EmbeddedClient implements KafkaClient, ConnectedClient {
  readonly name: string;
  readonly #cluster: EmbeddedKafka;
  readonly #settings: KafkaSettings;
  readonly #clock: Clock;
  readonly #manner: RebalanceManner;
  readonly #connections = new Set<Connection>();
  readonly #subscriptions = new Set<EmbeddedSubscription>();
  #requests: Connection | undefined;
  #closed = false;

  constructor(cluster: EmbeddedKafka, settings: KafkaSettings, context: Context, manner: RebalanceManner) {
    this.name = context.node;
    this.#cluster = cluster;
    this.#settings = settings;
    this.#clock = context.clock;
    this.#manner = manner;
    cluster.clients.add(this);
  }

  describe(topics: readonly string[]): Promise<ReadonlyMap<string, TopicDescription | undefined>> {
    return this.#connection.ask(
      "metadata",
      () => new Map(topics.map((topic) => [topic, this.#cluster.describe(topic)])),
    );
  }

  create(topics: readonly NewTopic[]): Promise<void> {
    return this.#connection.ask("metadata", () => this.#cluster.create(topics));
  }

  offsets(topic: string): Promise<readonly PartitionOffsets[]> {
    return this.#connection.ask("metadata", () =>
      this.#cluster.require(topic).logs.map((log, partition) => ({
        partition,
        earliest: log.start,
        latest: log.end,
      })),
    );
  }

  committed(group: string, topic: string): Promise<ReadonlyMap<number, number>> {
    return this.#connection.ask("committed", () => new Map(this.#cluster.group(group).committed(topic)));
  }

  async subscribe(options: SubscribeOptions, listener: SubscriptionListener): Promise<Subscription> {
    await this.#connection.ask("metadata", () => {
      for (const topic of options.topics) this.#cluster.require(topic);
    });
    const subscription = new EmbeddedSubscription({
      cluster: this.#cluster,
      clock: this.#clock,
      client: this.name,
      coordinator: this.#connect(),
      fetches: this.#connect(),
      manner: this.#manner,
      options,
      listener,
    });
    this.#subscriptions.add(subscription);
    return subscription;
  }

  async producer(): Promise<Producer> {
    return new EmbeddedProducer(this.#cluster, this.#connect(), this.#clock, this.#settings.requestTimeout);
  }

  async close(deadline: Time): Promise<void> {
    await Promise.all([...this.#subscriptions].map((subscription) => subscription.close(deadline)));
    this.#closed = true;
    for (const connection of this.#connections) connection.close();
    this.#forget();
  }

  kill(): void {
    for (const subscription of this.#subscriptions) subscription.stop();
    for (const connection of this.#connections) connection.kill();
    this.#forget();
  }

  #forget(): void {
    for (const connection of this.#connections) this.#cluster.connections.delete(connection);
    this.#cluster.clients.delete(this);
  }

  get #connection(): Connection {
    this.#requests ??= this.#connect();
    return this.#requests;
  }

  #connect(): Connection {
    const connection = this.#cluster.connect(this.name);
    this.#connections.add(connection);
    if (this.#closed) connection.close();
    return connection;
  }
}

/**
 * As rude as an idempotent producer that learns its next sequence number from the answer (kafkajs): two batches of one
 * partition that are out at once have the same number, so the broker takes the second for the first sent again, and
 * acknowledges it without storing it. A batch that is sent again after its answer was lost is stored twice, as when the
 * broker has forgotten the producer meanwhile.
 */
class EmbeddedProducer implements Producer {
  readonly #cluster: EmbeddedKafka;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #requestTimeout: number;
  /** How many batches are out, by partition. */
  readonly #out = new Map<string, number>();

  constructor(cluster: EmbeddedKafka, connection: Connection, clock: Clock, requestTimeout: number) {
    this.#cluster = cluster;
    this.#connection = connection;
    this.#clock = clock;
    this.#requestTimeout = requestTimeout;
  }

  encode(partition: TopicPartition, batch: Batch, from: number, to: number): EmbeddedBatch {
    return new EmbeddedBatch(partition, batch, from, to, this.#clock.wall());
  }

  send(batches: readonly EncodedBatch[]): Promise<readonly ProduceResult[]> {
    const fresh: EmbeddedBatch[] = [];
    const taken: ProduceResult[] = [];
    for (const batch of batches) {
      if (!(batch instanceof EmbeddedBatch)) throw new TypeError("a batch of another driver");
      const { topic, partition } = batch;
      if (this.#count(batch, 1) === 1) fresh.push(batch);
      else taken.push({ topic, partition, offset: undefined, error: undefined });
    }
    const answered = new Promise<readonly ProduceResult[]>((resolve, reject) => {
      this.#connection.call<readonly ProduceResult[]>(
        "produce",
        (answer) => {
          const store = () => answer.result([...this.#cluster.produce(fresh), ...taken]);
          if (!this.#cluster.faults.stalls(batches, store)) return store();
          this.#clock.after(this.#requestTimeout, () =>
            reject(new DriverError("retry", `no answer to produce within ${this.#requestTimeout} ms`)),
          );
        },
        { result: resolve, fail: reject },
      );
    });
    return answered.finally(() => {
      for (const batch of batches) this.#count(batch, -1);
    });
  }

  #count({ topic, partition }: TopicPartition, change: 1 | -1): number {
    const key = `${topic}/${partition}`;
    const out = (this.#out.get(key) ?? 0) + change;
    if (out === 0) this.#out.delete(key);
    else this.#out.set(key, out);
    return out;
  }

  async close(): Promise<void> {
    this.#connection.close();
    this.#cluster.connections.delete(this.#connection);
  }
}
