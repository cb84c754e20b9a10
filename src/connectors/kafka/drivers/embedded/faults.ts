import type { Clock, Time } from "../../../../component/context.ts";
import { DriverError, type DriverErrorCode, type TopicPartition } from "../../driver.ts";
import type { Api, Connection } from "./connection.ts";
import type { EmbeddedKafka } from "./embedded-kafka.ts";
import type { RebalanceManner } from "./group.ts";

export type Fate = "dropRequest" | "dropResponse" | DriverError | undefined;

/** What becomes of one batch of a produce request: refused with an error, or left out of the answer. */
export type BatchFate =
  | { readonly kind: "refuse"; readonly error: DriverError }
  | { readonly kind: "omit"; readonly applied: boolean };

interface Planned<T> {
  readonly where: Partial<TopicPartition>;
  readonly fate: T;
  left: number;
}

/**
 * What can go wrong with the embedded cluster, at a test's word. Nothing here goes wrong by itself. Times are
 * milliseconds of the cluster's clock; hooks take effect at once unless they say otherwise.
 */
export class Faults {
  /** How long each request, and each answer, is under way. Default 0: one turn of the event loop. */
  latency = 0;
  readonly #cluster: EmbeddedKafka;
  readonly #clock: Clock;
  readonly #requests: (Planned<Fate> & { readonly api: Api })[] = [];
  readonly #batches: Planned<BatchFate>[] = [];
  #downUntil: Time = Number.NEGATIVE_INFINITY;
  #stalledTopic: string | undefined;
  #stalling = false;
  #stalled: (() => void)[] = [];
  /** Connections whose fetches are never answered. */
  readonly #ignored = new WeakSet<Connection>();
  #ignoresNew = false;
  #standIns = 0;

  constructor(cluster: EmbeddedKafka, clock: Clock) {
    this.#cluster = cluster;
    this.#clock = clock;
  }

  /** Loses the next requests of a kind on the way out: the broker never sees them, the client knows of nothing. */
  dropRequest(api: Api, times = 1): void {
    this.#requests.push({ api, where: {}, fate: "dropRequest", left: times });
  }

  /** Loses the answers of the next requests of a kind after the broker has done what they ask. */
  dropResponse(api: Api, times = 1): void {
    this.#requests.push({ api, where: {}, fate: "dropResponse", left: times });
  }

  /** Answers the next requests of a kind with an error, and does nothing of what they ask. */
  fail(api: Api, code: DriverErrorCode, times = 1): void {
    const error = new DriverError(code, `the broker answers ${api} with an error`);
    this.#requests.push({ api, where: {}, fate: error, left: times });
  }

  /** Refuses the next batches, of one topic or partition if named, with an error of their own; the others of the request are stored. */
  refuse(code: DriverErrorCode, times = 1, where: Partial<TopicPartition> = {}): void {
    const error = new DriverError(code, "the broker refuses the batch");
    this.#batches.push({ where, fate: { kind: "refuse", error }, left: times });
  }

  /**
   * Leaves the next batches, of one topic or partition if named, out of the answer to an otherwise successful
   * produce request, as kafkajs does when a leader moves: stored (`applied`), or not.
   */
  omit(applied: boolean, times = 1, where: Partial<TopicPartition> = {}): void {
    this.#batches.push({ where, fate: { kind: "omit", applied }, left: times });
  }

  /** The partition has no leader for `ms`: it refuses batches with code `retry`, and nothing of it can be read. */
  moveLeader(topic: string, partition: number, ms: number): void {
    this.#cluster.require(topic).leaderlessUntil.set(partition, this.#clock.now() + ms);
  }

  /**
   * Cuts all connections, or those of one client (by the name of its node). What is under way is of unknown
   * outcome; connections cannot be made again for `ms`. Members whose session ends meanwhile are expelled.
   */
  cut(ms: number, client?: string): void {
    const until = this.#clock.now() + ms;
    if (client === undefined) this.#downUntil = Math.max(this.#downUntil, until);
    for (const connection of this.#cluster.connections) {
      if (client === undefined || connection.client === client) connection.cut(until);
    }
  }

  /**
   * Ends all clients, or one, as `kill -9` would: none is heard of again, nobody leaves a group, and listeners
   * and promises of theirs never hear anything more.
   */
  kill(client?: string): void {
    for (const candidate of [...this.#cluster.clients]) {
      if (client === undefined || candidate.name === client) candidate.kill();
    }
  }

  /** Keeps produce requests, all or those for one topic, unanswered and undone until {@link release}. */
  stall(topic?: string): void {
    this.#stalling = true;
    this.#stalledTopic = topic;
  }

  /** Carries out all stalled requests, in order, even those whose client has stopped waiting. */
  release(): void {
    this.#stalling = false;
    for (const resume of this.#stalled.splice(0)) resume();
  }

  /**
   * Consumers go dumb: fetches on all connections there are, those that arrive from now on, are never answered,
   * while heartbeats and all else go on. Connections made from now on are well, unless `newOnes`.
   */
  ignoreFetches({ newOnes = false } = {}): void {
    for (const connection of this.#cluster.connections) this.#ignored.add(connection);
    this.#ignoresNew = newOnes;
  }

  /** Connections made from now on are well. */
  answerNewFetches(): void {
    this.#ignoresNew = false;
  }

  /** Makes all members of the group rejoin. */
  rebalance(group: string): void {
    this.#cluster.group(group).rebalance();
  }

  /** Expels one member, or all, as if their sessions had ended. They learn of it at their next heartbeat. */
  expireSession(group: string, member?: string): void {
    const { members } = this.#cluster.group(group);
    for (const id of member === undefined ? members.keys() : [member]) this.#cluster.group(group).remove(id);
  }

  /**
   * Adds a member to the group that takes its share of the partitions and reads nothing. Call the result to make
   * it leave. `manner` must be that of the others.
   */
  join(group: string, topics: readonly string[], manner: RebalanceManner = "eager"): () => void {
    const id = `stand-in-${++this.#standIns}`;
    this.#cluster.group(group).joinStandIn(id, topics, manner);
    return () => this.#cluster.group(group).remove(id);
  }

  /** Someone else commits for the group: an operator resetting offsets, or a member with stale ideas. */
  commit(group: string, topic: string, partition: number, offset: number): void {
    this.#cluster.group(group).store([{ topic, partition, offset }]);
  }

  /** Retention, or DeleteRecords: forgets everything below `offset`. */
  deleteRecords(topic: string, partition: number, offset: number): void {
    const found = this.#cluster.require(topic);
    found.logs[partition]!.deleteBefore(offset);
    found.changed();
  }

  /** Uses up offsets that nobody ever sees: control records, aborted or compacted ones. */
  gap(topic: string, partition: number, offsets = 1): void {
    const found = this.#cluster.require(topic);
    found.logs[partition]!.skip(offsets);
    found.changed();
  }

  /** Deletes the topic and makes it anew, empty, with offsets from 0. Committed offsets stay as they are. */
  recreate(topic: string, partitions?: number): void {
    const found = this.#cluster.require(topic);
    found.recreate(partitions ?? found.logs.length);
    this.#cluster.reassign(topic);
  }

  /** Deletes the topic. */
  deleteTopic(topic: string): void {
    this.#cluster.remove(topic);
  }

  /** Adds partitions up to `partitions`, and makes the groups that read the topic rebalance. */
  growPartitions(topic: string, partitions: number): void {
    this.#cluster.require(topic).grow(partitions);
    this.#cluster.reassign(topic);
  }

  /** Sets `max.message.bytes` of the topic. */
  limit(topic: string, bytes: number): void {
    this.#cluster.require(topic).maxMessageBytes = bytes;
  }

  /** Connections opened before this time of the clock cannot be made. */
  get downUntil(): Time {
    return this.#downUntil;
  }

  /** Whether a request that arrives is left unanswered, for good. */
  ignores(api: Api, connection: Connection): boolean {
    if (api !== "fetch") return false;
    if (this.#ignoresNew) this.#ignored.add(connection);
    return this.#ignored.has(connection);
  }

  /** Asked once for each request, on its arrival. */
  fateOf(api: Api): Fate {
    return take(this.#requests, (planned) => planned.api === api)?.fate;
  }

  /** Asked once for each batch of a produce request. */
  fateOfBatch({ topic, partition }: TopicPartition): BatchFate | undefined {
    return take(
      this.#batches,
      ({ where }) =>
        (where.topic === undefined || where.topic === topic) &&
        (where.partition === undefined || where.partition === partition),
    )?.fate;
  }

  /** Takes the request into keeping if produce is stalled for one of its topics. */
  stalls(batches: readonly TopicPartition[], resume: () => void): boolean {
    const topic = this.#stalledTopic;
    if (!this.#stalling || (topic !== undefined && !batches.some((batch) => batch.topic === topic)))
      return false;
    this.#stalled.push(resume);
    return true;
  }
}

function take<P extends { left: number }>(planned: P[], matches: (candidate: P) => boolean): P | undefined {
  const index = planned.findIndex(matches);
  const found = planned[index];
  if (found !== undefined && --found.left <= 0) planned.splice(index, 1);
  return found;
}
