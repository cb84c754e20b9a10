import { pause } from "../../../../component/backoff.ts";
import type { Context, Time } from "../../../../component/context.ts";
import {
  DriverError,
  type KafkaClient,
  type NewTopic,
  type PartitionOffsets,
  type Producer,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicDescription,
} from "../../driver.ts";
import type { KafkaSettings } from "../../options.ts";
import { Cluster } from "./cluster.ts";
import { Connections } from "./connections.ts";
import { ErrorCode, protocolError } from "./errors.ts";
import { whileLoading } from "./loading.ts";
import { committedOffsets, earliest, latest, listOffsets } from "./offsets.ts";
import { WireProducer } from "./producer.ts";
import { createTopicsRequest, describeConfigsRequest } from "./requests.ts";
import { type MembershipProtocol, WireSubscription } from "./subscription.ts";

/** As Kafka numbers the kinds of things that have settings. */
const topicResource = 2;
const sizeLimit = "max.message.bytes";
/** What a broker applies where nothing is set. */
const defaultSizeLimit = 1_048_588;

/** How long a broker may take to open its books, ms. */
const longestLoading = 10_000;

export class WireClient implements KafkaClient {
  readonly #settings: KafkaSettings;
  readonly #context: Context;
  readonly #protocol: MembershipProtocol;
  readonly #connections: Connections;
  readonly #cluster: Cluster;
  readonly #opened: (Producer | Subscription)[] = [];

  constructor(settings: KafkaSettings, context: Context, protocol: MembershipProtocol) {
    this.#settings = settings;
    this.#context = context;
    this.#protocol = protocol;
    this.#connections = new Connections(settings, context);
    this.#cluster = new Cluster(this.#connections);
  }

  async describe(topics: readonly string[]): Promise<ReadonlyMap<string, TopicDescription | undefined>> {
    const descriptions = new Map<string, TopicDescription | undefined>(
      topics.map((topic) => [topic, undefined]),
    );
    if (topics.length === 0) return descriptions;
    await this.#cluster.refresh(topics);
    const found = topics.flatMap((topic) => this.#cluster.topic(topic) ?? []);
    if (found.length === 0) return descriptions;
    const connection = await this.#connections.toAny("admin");
    const { results } = await connection.ask(
      describeConfigsRequest,
      found.map(({ name }) => ({
        resourceType: topicResource,
        resourceName: name,
        configurationKeys: [sizeLimit],
      })),
      false,
      false,
    );
    for (const { name, leaders } of found) {
      const limit = results
        .find(({ resourceName }) => resourceName === name)
        ?.configs.find((config) => config.name === sizeLimit)?.value;
      descriptions.set(name, {
        partitions: leaders.length,
        maxMessageBytes: Number(limit ?? defaultSizeLimit),
      });
    }
    return descriptions;
  }

  async create(topics: readonly NewTopic[]): Promise<void> {
    if (topics.length === 0) return;
    await this.#cluster.refresh(topics.map(({ topic }) => topic));
    const connection = await this.#connections.to(this.#cluster.controller, "admin");
    const { requestTimeout } = this.#settings;
    const answer = await connection.askForParts(
      createTopicsRequest,
      topics.map(({ topic, partitions, replicationFactor }) => ({
        name: topic,
        numPartitions: partitions,
        replicationFactor,
        assignments: [],
        configs: [],
      })),
      requestTimeout,
      false,
    );
    for (const { name, errorCode, errorMessage } of answer.topics) {
      if (errorCode === ErrorCode.topicExists) continue;
      const error = protocolError(errorCode, `topic "${name}"`, errorMessage);
      if (error !== undefined) throw error;
    }
    await this.#untilServed(topics.map(({ topic }) => topic));
  }

  async offsets(topic: string): Promise<readonly PartitionOffsets[]> {
    await this.#cluster.learn([topic]);
    const known = this.#cluster.topic(topic);
    if (known === undefined) throw new DriverError("unknown-topic", `topic "${topic}" does not exist`);
    const partitions = known.leaders.map((_, partition) => partition);
    const [first, next] = await Promise.all([
      listOffsets(this.#cluster, topic, partitions, earliest),
      listOffsets(this.#cluster, topic, partitions, latest),
    ]);
    return partitions.map((partition) => ({
      partition,
      earliest: first.get(partition) ?? 0,
      latest: next.get(partition) ?? 0,
    }));
  }

  async committed(group: string, topic: string): Promise<ReadonlyMap<number, number>> {
    await this.#cluster.learn([topic]);
    const partitions = (this.#cluster.topic(topic)?.leaders ?? []).map((_, partition) => ({
      topic,
      partition,
    }));
    if (partitions.length === 0) return new Map();
    const committed = await whileLoading(this.#context, longestLoading, () =>
      committedOffsets(this.#cluster, group, partitions),
    );
    return new Map(committed.map(({ partition, offset }) => [partition, offset]));
  }

  async subscribe(options: SubscribeOptions, listener: SubscriptionListener): Promise<Subscription> {
    const subscription = await whileLoading(this.#context, longestLoading, () =>
      WireSubscription.open(this.#cluster, this.#context, options, listener, this.#protocol),
    );
    this.#opened.push(subscription);
    return subscription;
  }

  async producer(): Promise<Producer> {
    const producer = new WireProducer(this.#cluster, this.#context, this.#settings.requestTimeout);
    await whileLoading(this.#context, longestLoading, () => producer.open());
    this.#opened.push(producer);
    return producer;
  }

  async close(deadline: Time): Promise<void> {
    await Promise.all(this.#opened.splice(0).map((opened) => opened.close(deadline)));
    this.#connections.close();
  }

  /** A topic is named before its partitions have leaders, and these before they serve them. */
  async #untilServed(topics: readonly string[]): Promise<void> {
    const deadline = this.#context.clock.now() + this.#settings.requestTimeout;
    for (;;) {
      try {
        await this.#cluster.refresh(topics);
        for (const topic of topics) await this.offsets(topic);
        return;
      } catch (error) {
        if (this.#context.clock.now() > deadline) throw error;
      }
      await pause(this.#context, 50);
    }
  }
}
