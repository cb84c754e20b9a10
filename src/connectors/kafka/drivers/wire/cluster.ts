import { DriverError, type TopicPartition } from "../../driver.ts";
import { type Address, addressName, type BrokerConnection } from "./connection.ts";
import type { Connections, Purpose } from "./connections.ts";
import { ErrorCode, protocolError } from "./errors.ts";
import { findCoordinatorRequest, metadataRequest } from "./requests.ts";

export interface Leader {
  /** The broker's id; −1: there is none at the moment. */
  readonly node: number;
  readonly epoch: number;
}

export interface Topic {
  readonly name: string;
  /** Changes when a topic is deleted and made anew under its name. */
  readonly id: string;
  /** By partition. */
  readonly leaders: readonly Leader[];
}

/** Most brokers that are asked at once because some broker does not answer: the one asked may not either. */
const mostInquiries = 3;

/** What the cluster said of itself last: brokers, topics, leaders. Nothing here is fresher than its last refresh. */
export class Cluster {
  readonly connections: Connections;
  readonly #topics = new Map<string, Topic>();
  /** Topics whose leaders have turned out to be wrong since they were asked for. */
  readonly #stale = new Set<string>();
  readonly #coordinators = new Map<string, Address>();
  #controller = -1;
  /** Who is being asked because some broker does not answer. */
  readonly #inquiries = new Set<string>();

  constructor(connections: Connections) {
    this.connections = connections;
    connections.onOverdue = () => this.#inquire();
  }

  get controller(): number {
    return this.#controller;
  }

  /** As last heard; undefined for a topic that does not exist or was not asked for. */
  topic(name: string): Topic | undefined {
    return this.#topics.get(name);
  }

  topicById(id: string): Topic | undefined {
    for (const topic of this.#topics.values()) if (topic.id === id) return topic;
    return undefined;
  }

  leader({ topic, partition }: TopicPartition): Leader | undefined {
    return this.#topics.get(topic)?.leaders[partition];
  }

  /** A leader turned out to be another, or none: asked again before it is used next. */
  suspect(topic: string): void {
    this.#stale.add(topic);
  }

  /** Asks for topics that are unknown or suspect. */
  async learn(topics: readonly string[]): Promise<void> {
    const open = topics.filter((topic) => !this.#topics.has(topic) || this.#stale.has(topic));
    if (open.length > 0) await this.refresh(open);
  }

  /** Asks for topics, and creates none. Rejects with a {@link DriverError}. */
  async refresh(topics: readonly string[]): Promise<void> {
    await this.#refreshFrom(await this.connections.toAny("admin"), topics);
  }

  async #refreshFrom(connection: BrokerConnection, topics: readonly string[]): Promise<void> {
    const wanted = [...new Set(topics)];
    const answer = await connection.askForParts(metadataRequest, wanted, false, false);
    this.connections.brokers = new Map(
      answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }]),
    );
    this.#controller = answer.controllerId;
    let failure: DriverError | undefined;
    for (const { name, topicId, errorCode, partitions } of answer.topics) {
      if (!name) continue;
      this.#stale.delete(name);
      if (errorCode === ErrorCode.unknownTopicOrPartition) {
        this.#topics.delete(name);
        continue;
      }
      const error = protocolError(errorCode, `topic "${name}"`);
      if (error !== undefined && errorCode !== ErrorCode.leaderNotAvailable) {
        failure ??= error;
        continue;
      }
      this.#topics.set(name, merged(this.#topics.get(name), name, topicId, partitions));
      if (partitions.some(({ leaderId }) => leaderId < 0)) this.#stale.add(name);
    }
    if (failure !== undefined) throw failure;
  }

  /** A broker does not answer: whether it is still one of the cluster, another may know. */
  async #inquire(): Promise<void> {
    if (this.#inquiries.size >= mostInquiries) return;
    const inTurn = this.connections.inTurn("admin");
    const address = inTurn.find((candidate) => !this.#inquiries.has(addressName(candidate)));
    if (address === undefined) return;
    this.#inquiries.add(addressName(address));
    try {
      await this.#refreshFrom(await this.connections.at(address, "admin"), [...this.#topics.keys()]);
    } catch {
      // Whoever asked waits for an answer still, and asks again when none comes.
    } finally {
      this.#inquiries.delete(addressName(address));
    }
  }

  /** Connects to the broker that keeps a group's books; asks which one it is when it is not known. */
  async coordinator(group: string, purpose: Purpose): Promise<BrokerConnection> {
    let known = this.#coordinators.get(group);
    if (known === undefined) {
      const connection = await this.connections.toAny("admin");
      const { coordinators } = await connection.ask(findCoordinatorRequest, 0, [group]);
      const found = coordinators[0];
      if (found === undefined) throw new DriverError("retry", `nobody coordinates group "${group}"`);
      known = { host: found.host, port: found.port };
      this.#coordinators.set(group, known);
    }
    try {
      return await this.connections.at(known, purpose);
    } catch (error) {
      this.suspectCoordinator(group);
      throw error;
    }
  }

  /** The group's coordinator turned out to be another. */
  suspectCoordinator(group: string): void {
    this.#coordinators.delete(group);
  }
}

interface PartitionAnswer {
  readonly partitionIndex: number;
  readonly leaderId: number;
  readonly leaderEpoch: number;
}

/** A broker that is behind may name a leader of the past: of one topic, the newer epoch counts. */
function merged(
  known: Topic | undefined,
  name: string,
  id: string,
  partitions: readonly PartitionAnswer[],
): Topic {
  const leaders: Leader[] = known?.id === id ? [...known.leaders] : [];
  for (const { partitionIndex, leaderId, leaderEpoch } of partitions) {
    const before = leaders[partitionIndex];
    if (before !== undefined && before.epoch > leaderEpoch) continue;
    leaders[partitionIndex] = { node: leaderId, epoch: leaderEpoch };
  }
  for (let i = 0; i < leaders.length; i++) leaders[i] ??= { node: -1, epoch: -1 };
  return { name, id, leaders };
}
