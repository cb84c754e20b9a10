import { Backoff } from "../../../../../component/backoff.ts";
import type { Context, Time, Timer } from "../../../../../component/context.ts";
import { DriverError, type TopicPartition } from "../../../driver.ts";
import { within } from "../../within.ts";
import type { Cluster } from "../cluster.ts";
import { driverError, ErrorCode, protocolCode } from "../errors.ts";
import { atCoordinator } from "../offsets.ts";
import { groupHeartbeatRequest } from "../requests.ts";
import { commitOffsets } from "./commit.ts";
import {
  drainTime,
  type Membership,
  type MembershipListener,
  type MembershipOptions,
  type OwnedPartition,
  partitionKey,
} from "./membership.ts";

/** Epochs of a heartbeat that mean more than a number. */
const joining = 0;
const leaving = -1;

interface Target {
  readonly topicId: string;
  readonly partitions: readonly number[];
}

/**
 * A member by Kafka's newer protocol (KIP-848). The broker decides who shall own what and tells each member in the
 * answers to its heartbeats. A member gives up what it is to lose, reports that in its next heartbeat, and only
 * then does the broker hand it on; what it keeps goes on undisturbed.
 *
 * States: *joining* (epoch 0: it owns nothing); *member* (its epoch is above 0); *closed*. While it lets go of
 * partitions its heartbeats go on, in the epoch it was in, so that commits for them are still its own.
 */
export class IncrementalMembership implements Membership {
  readonly #cluster: Cluster;
  readonly #context: Context;
  readonly #options: MembershipOptions;
  readonly #listener: MembershipListener;
  readonly #unsuitable: (error: DriverError) => void;
  readonly #member: string;
  readonly #backoff: Backoff;
  readonly #commits = new Set<Promise<void>>();
  #epoch = joining;
  /** By topic id and partition: a topic made anew is another one. */
  #owned = new Map<string, OwnedPartition>();
  /** What the broker last said it shall own; undefined while it has said nothing. */
  #target: readonly Target[] | undefined;
  #announced = false;
  #reconciling = false;
  /** The broker does not know what is owned now, or may not: the next heartbeat says it. */
  #tell = true;
  /** And all the rest of what it knows of this member. */
  #introduce = true;
  #beating = false;
  #beatAgain = false;
  #timer: Timer | undefined;
  #interval: number;
  #closed = false;

  /**
   * @param unsuitable called once when the broker or the group does not do this protocol: the membership is over,
   * and nothing was joined.
   */
  constructor(
    cluster: Cluster,
    context: Context,
    options: MembershipOptions,
    listener: MembershipListener,
    unsuitable: (error: DriverError) => void,
  ) {
    this.#cluster = cluster;
    this.#context = context;
    this.#options = options;
    this.#listener = listener;
    this.#unsuitable = unsuitable;
    this.#member = memberId(context);
    this.#interval = options.heartbeatInterval;
    this.#backoff = new Backoff(context, { initial: 100, max: 2_000 });
    this.#beat();
  }

  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void> {
    if (this.#closed || this.#epoch <= joining) {
      return Promise.reject(new DriverError("fenced", "not a member of the group at the moment"));
    }
    const identity = { member: this.#member, epoch: this.#epoch };
    const commit = commitOffsets(
      this.#cluster,
      this.#options.group,
      identity,
      [...this.#owned.values()],
      offsets,
    );
    this.#commits.add(commit);
    const done = () => this.#commits.delete(commit);
    commit.then(done, done);
    return commit;
  }

  async close(deadline: Time): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    if (this.#epoch === joining && !this.#beating) return;
    const leave = Promise.allSettled([...this.#commits]).then(() => this.#request(leaving));
    await within(this.#context, deadline, leave);
  }

  #beatSoon(delay: number): void {
    this.#timer?.cancel();
    if (this.#closed) return;
    if (delay <= 0) this.#beat();
    else this.#timer = this.#context.clock.after(delay, () => this.#beat());
  }

  /** One heartbeat at a time. */
  async #beat(): Promise<void> {
    this.#timer?.cancel();
    if (this.#beating) {
      this.#beatAgain = true;
      return;
    }
    if (this.#closed) return;
    this.#beating = true;
    this.#beatAgain = false;
    const telling = this.#tell;
    const introducing = this.#introduce;
    this.#tell = false;
    this.#introduce = false;
    let delay: number;
    try {
      const answer = await this.#request(this.#epoch, telling || introducing, introducing);
      if (this.#closed) return;
      this.#epoch = answer.memberEpoch;
      this.#interval = Math.min(this.#options.heartbeatInterval, answer.heartbeatIntervalMs);
      if (answer.assignment !== null) this.#target = answer.assignment.topicPartitions;
      this.#backoff.reset();
      this.#listener.well();
      delay = this.#interval;
    } catch (error) {
      if (this.#closed) return;
      // The broker may have heard it or not: next time it hears everything.
      this.#introduce = true;
      if (!this.#failed(error)) return;
      delay = Math.min(this.#interval, this.#backoff.next());
    } finally {
      this.#beating = false;
    }
    await this.#reconcile();
    this.#beatSoon(this.#tell || this.#beatAgain ? 0 : delay);
  }

  /** Says what a failed heartbeat means; false when the membership is over. */
  #failed(error: unknown): boolean {
    const failure = driverError(error);
    switch (protocolCode(error)) {
      case ErrorCode.fencedMemberEpoch:
      case ErrorCode.unknownMember:
        this.#epoch = joining;
        this.#owned = new Map();
        this.#target = undefined;
        this.#announced = false;
        this.#listener.expelled(failure);
        return true;
      case ErrorCode.unsupportedVersion:
      case ErrorCode.groupNotFound:
      case ErrorCode.inconsistentGroupProtocol:
        if (this.#epoch !== joining) break;
        this.#closed = true;
        this.#unsuitable(failure);
        return false;
    }
    this.#listener.failed(failure);
    return true;
  }

  #request(epoch: number, telling = false, introducing = false) {
    const { group, topics, rebalanceTimeout } = this.#options;
    return atCoordinator(this.#cluster, group, (connection) =>
      connection.ask(
        groupHeartbeatRequest,
        group,
        this.#member,
        epoch,
        null,
        null,
        introducing ? rebalanceTimeout : -1,
        introducing ? [...topics] : null,
        null,
        null,
        telling ? byTopic([...this.#owned.values()]) : null,
      ),
    );
  }

  /** Takes the next step from what is owned to what shall be: first let go, then take over. */
  async #reconcile(): Promise<void> {
    const target = this.#target;
    if (target === undefined || this.#reconciling || this.#closed) return;
    const wanted = new Set(
      target.flatMap(({ topicId, partitions }) => partitions.map((partition) => idKey(topicId, partition))),
    );
    const lost = [...this.#owned.values()].filter((one) => !wanted.has(idKey(one.topicId, one.partition)));
    if (lost.length > 0) {
      this.#letGo(lost);
      return;
    }
    const added: OwnedPartition[] = [];
    for (const { topicId, partitions } of target) {
      if (partitions.every((partition) => this.#owned.has(idKey(topicId, partition)))) continue;
      const topic = await this.#topicOf(topicId);
      if (this.#target !== target || this.#closed) return;
      // Not known here yet, or gone already: the next answer comes with the next heartbeat.
      if (topic === undefined) continue;
      for (const partition of partitions) {
        if (!this.#owned.has(idKey(topicId, partition))) added.push({ topic, partition, topicId });
      }
    }
    if (added.length === 0 && this.#announced) return;
    for (const one of added) this.#owned.set(idKey(one.topicId, one.partition), one);
    this.#announced = true;
    this.#tell = true;
    this.#listener.assigned([...this.#owned.values()], new Set(added.map(partitionKey)));
  }

  /** Gives partitions up once the listener has finished with them; heartbeats go on meanwhile. */
  #letGo(lost: readonly OwnedPartition[]): void {
    this.#reconciling = true;
    const owned = this.#owned;
    const deadline = this.#context.clock.now() + drainTime(this.#options.rebalanceTimeout);
    const drained = this.#listener.revoking(lost).then(() => Promise.allSettled([...this.#commits]));
    within(this.#context, deadline, drained).then(() => {
      this.#reconciling = false;
      // Expelled meanwhile, it owns something else by now.
      if (this.#owned === owned && !this.#closed) {
        for (const one of lost) owned.delete(idKey(one.topicId, one.partition));
        this.#tell = true;
        this.#listener.assigned([...owned.values()], new Set());
      }
      this.#beatSoon(0);
    });
  }

  async #topicOf(id: string): Promise<string | undefined> {
    const known = this.#cluster.topicById(id);
    if (known !== undefined) return known.name;
    try {
      await this.#cluster.refresh(this.#options.topics);
    } catch (error) {
      this.#listener.failed(driverError(error));
    }
    return this.#cluster.topicById(id)?.name;
  }
}

function idKey(topicId: string, partition: number): string {
  return `${topicId}/${partition}`;
}

function byTopic(partitions: readonly OwnedPartition[]): { topicId: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topicId, partition } of partitions) {
    const list = topics.get(topicId);
    if (list === undefined) topics.set(topicId, [partition]);
    else list.push(partition);
  }
  return [...topics].map(([topicId, list]) => ({ topicId, partitions: list }));
}

/** 128 random bits: two members of one name would expel each other. */
function memberId(context: Context): string {
  const bytes = Buffer.alloc(16);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(context.random.next() * 256);
  return bytes.toString("base64url");
}
