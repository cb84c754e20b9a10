import type { Clock } from "../../../../component/context.ts";
import type { EmbeddedBroker, FedMessage, StoredMessage } from "../../../../component/embedded.ts";
import { noHeaders, type PlainRecord } from "../../../../message/records.ts";
import { DriverError, type NewTopic, type ProduceResult, type TopicDescription } from "../../driver.ts";
import { murmur2Partition } from "../../partitioner.ts";
import { columnsOf, type EmbeddedBatch } from "./batch.ts";
import { Connection } from "./connection.ts";
import { Faults } from "./faults.ts";
import { Group, type RebalanceManner } from "./group.ts";
import { defaultMaxMessageBytes, Topic } from "./topic.ts";

export interface EmbeddedKafkaOptions {
  /** Partitions of a topic that does not say. Default 4. */
  readonly partitions?: number;
  /** `max.message.bytes` of a topic that does not say. Default 1048588, as a broker has it. */
  readonly maxMessageBytes?: number;
  /** How the members of its groups rebalance, unless their driver says. Default "eager", as with kafkajs. */
  readonly rebalance?: RebalanceManner;
}

/** A client as the cluster sees it. */
export interface ConnectedClient {
  /** The node of the plan that it belongs to. */
  readonly name: string;
  kill(): void;
}

/**
 * A Kafka cluster in the process: topics, logs, groups, and the real one's manners, good and bad. It is
 * deterministic under a simulated clock: whatever takes time or a turn is scheduled there. `faults` makes it
 * misbehave.
 */
export class EmbeddedKafka implements EmbeddedBroker {
  readonly faults: Faults;
  readonly connections = new Set<Connection>();
  readonly clients = new Set<ConnectedClient>();
  readonly rebalance: RebalanceManner;
  readonly #clock: Clock;
  readonly #partitions: number;
  readonly #maxMessageBytes: number;
  readonly #topics = new Map<string, Topic>();
  readonly #groups = new Map<string, Group>();
  #members = 0;

  constructor(clock: Clock, options: EmbeddedKafkaOptions = {}) {
    this.#clock = clock;
    this.#partitions = options.partitions ?? 4;
    this.#maxMessageBytes = options.maxMessageBytes ?? defaultMaxMessageBytes;
    this.rebalance = options.rebalance ?? "eager";
    this.faults = new Faults(this, clock);
  }

  targets(): readonly string[] {
    return [...this.#topics.keys()].sort();
  }

  /**
   * Appends messages as a Java producer would place them: by murmur2 of the key, and those without a key one
   * partition further each. No limit of size is enforced. Throws when a message names a partition that the topic
   * does not have.
   */
  feed(target: string, messages: readonly FedMessage[]): void {
    const topic = this.#topics.get(target) ?? this.#add(target, this.#partitions);
    const count = topic.logs.length;
    const shares = topic.logs.map((): Omit<PlainRecord, "position">[] => []);
    for (const { key = null, value, headers = noHeaders, timestamp, partition } of messages) {
      const chosen =
        partition ?? (key === null ? topic.fedWithoutKey++ % count : murmur2Partition(key, count));
      const share = shares[chosen];
      if (share === undefined) {
        throw new RangeError(
          `topic "${target}" has ${count} partitions, and a message names number ${chosen}`,
        );
      }
      share.push({ key, value, headers, timestamp: timestamp ?? this.#clock.wall() });
    }
    shares.forEach((share, partition) => {
      if (share.length > 0) topic.append(partition, columnsOf(share));
    });
  }

  *contents(target: string): Iterable<StoredMessage> {
    const topic = this.#topics.get(target);
    if (topic === undefined) return;
    for (const [partition, log] of topic.logs.entries()) {
      for (let position = log.start; ; ) {
        const found = log.read(position, Number.POSITIVE_INFINITY);
        if (found.kind === "gap") position = found.next;
        else if (found.kind === "records") {
          const { records } = found;
          for (let i = 0; i < records.length; i++) {
            yield {
              partition,
              position: records.position(i),
              key: records.key(i),
              value: records.value(i),
              headers: records.headers(i),
              timestamp: records.timestamp(i),
            };
          }
          position = found.next;
        } else break;
      }
    }
  }

  /** Creates topics; one that exists stays as it is. Partitions ≤ 0: the default. */
  create(topics: readonly (Pick<NewTopic, "topic" | "partitions"> & { maxMessageBytes?: number })[]): void {
    for (const { topic, partitions, maxMessageBytes } of topics) {
      if (this.#topics.has(topic)) continue;
      this.#add(topic, partitions > 0 ? partitions : this.#partitions, maxMessageBytes);
      this.reassign(topic);
    }
  }

  describe(topic: string): TopicDescription | undefined {
    const found = this.#topics.get(topic);
    return found && { partitions: found.logs.length, maxMessageBytes: found.maxMessageBytes };
  }

  find(topic: string): Topic | undefined {
    return this.#topics.get(topic);
  }

  /** Throws with code `unknown-topic`. */
  require(topic: string): Topic {
    const found = this.#topics.get(topic);
    if (found === undefined) throw new DriverError("unknown-topic", `topic "${topic}" does not exist`);
    return found;
  }

  remove(topic: string): void {
    const found = this.#topics.get(topic);
    this.#topics.delete(topic);
    found?.changed();
    this.reassign(topic);
  }

  /** A group is there as soon as someone speaks of it. */
  group(name: string): Group {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = new Group(name, this.#clock, (topic) => this.#topics.get(topic)?.logs.length ?? 0);
      this.#groups.set(name, group);
    }
    return group;
  }

  /** Makes the groups that read the topic deal out its partitions anew. */
  reassign(topic: string): void {
    for (const group of this.#groups.values()) if (group.reads(topic)) group.rebalance();
  }

  /** A member id that no other member has or had. */
  memberId(client: string): string {
    return `${client}-${++this.#members}`;
  }

  connect(client: string): Connection {
    const connection = new Connection(client, this.#clock, this.faults);
    this.connections.add(connection);
    return connection;
  }

  /** Stores what may be stored, each batch whole or not at all, and answers for each partition. */
  produce(batches: readonly EmbeddedBatch[]): ProduceResult[] {
    const results: ProduceResult[] = [];
    for (const batch of batches) {
      const { topic, partition } = batch;
      const fate = this.faults.fateOfBatch(batch);
      if (fate?.kind === "omit") {
        if (fate.applied) this.#store(batch);
        continue;
      }
      const outcome = fate?.kind === "refuse" ? fate.error : this.#store(batch);
      const stored = typeof outcome === "number";
      results.push({
        topic,
        partition,
        offset: stored ? outcome : undefined,
        error: stored ? undefined : outcome,
      });
    }
    return results;
  }

  /** The offset of the batch's first record, or why it is refused. */
  #store(batch: EmbeddedBatch): number | DriverError {
    const { topic: name, partition } = batch;
    const topic = this.#topics.get(name);
    if (topic?.logs[partition] === undefined) {
      return new DriverError("unknown-topic", `there is no ${name}/${partition}`);
    }
    if (this.#clock.now() < (topic.leaderlessUntil.get(partition) ?? 0)) {
      return new DriverError("retry", `${name}/${partition} has no leader`);
    }
    const limit = topic.maxMessageBytes;
    if (batch.size > limit && batch.storedSize > limit) {
      return new DriverError(
        "too-large",
        `a batch of ${batch.storedSize} bytes, and ${name} takes at most ${limit}`,
      );
    }
    return topic.append(partition, batch);
  }

  #add(name: string, partitions: number, maxMessageBytes = this.#maxMessageBytes): Topic {
    const topic = new Topic(name, partitions, maxMessageBytes);
    this.#topics.set(name, topic);
    return topic;
  }
}
