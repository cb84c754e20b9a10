import { Backoff } from "../../../../../component/backoff.ts";
import type { Context, Time, Timer } from "../../../../../component/context.ts";
import { DriverError, type TopicPartition } from "../../../driver.ts";
import { within } from "../../within.ts";
import type { Cluster } from "../cluster.ts";
import { driverError, ErrorCode, protocolCode } from "../errors.ts";
import { atCoordinator } from "../offsets.ts";
import { heartbeatRequest, joinGroupRequest, leaveGroupRequest, syncGroupRequest } from "../requests.ts";
import { assign } from "./assign.ts";
import { commitOffsets } from "./commit.ts";
import {
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
} from "./consumer-protocol.ts";
import {
  drainTime,
  type Membership,
  type MembershipListener,
  type MembershipOptions,
  type OwnedPartition,
  partitionKey,
} from "./membership.ts";

const protocolType = "consumer";

/**
 * Names under which we deal partitions out: those of Java's and kafkajs' assignors that give up everything in a
 * rebalance, so that members of those clients and ours can share a group while one replaces the other.
 */
const assignors = ["roundrobin", "range", "RoundRobinAssigner"];

/**
 * A member by Kafka's older protocol: in a rebalance everyone gives up everything and joins the next generation.
 * Ours answers the call to rejoin only when it has let go, still in its old generation, while its heartbeats go on.
 *
 * States: *joining* (owns nothing; a JoinGroup or SyncGroup request is out or about to be); *stable*; *letting go*
 * (the listener drains, and commits are still taken); *closed*.
 */
export class ClassicMembership implements Membership {
  readonly #cluster: Cluster;
  readonly #context: Context;
  readonly #options: MembershipOptions;
  readonly #listener: MembershipListener;
  readonly #backoff: Backoff;
  readonly #commits = new Set<Promise<void>>();
  #state: "joining" | "stable" | "letting go" | "closed" = "joining";
  #member = "";
  #generation = -1;
  #owned: readonly OwnedPartition[] = [];
  /** Partitions of each topic when this member, as the leader, dealt them out. */
  #dealt: ReadonlyMap<string, number> | undefined;
  #timer: Timer | undefined;
  #growth: Timer | undefined;

  constructor(cluster: Cluster, context: Context, options: MembershipOptions, listener: MembershipListener) {
    this.#cluster = cluster;
    this.#context = context;
    this.#options = options;
    this.#listener = listener;
    this.#backoff = new Backoff(context, { initial: 100, max: 2_000 });
    this.#join();
  }

  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void> {
    if (this.#state !== "stable" && this.#state !== "letting go") {
      return Promise.reject(new DriverError("fenced", "not a member of the group at the moment"));
    }
    const identity = { member: this.#member, epoch: this.#generation };
    const commit = commitOffsets(this.#cluster, this.#options.group, identity, this.#owned, offsets);
    this.#commits.add(commit);
    const done = () => this.#commits.delete(commit);
    commit.then(done, done);
    return commit;
  }

  remade(topic: string): void {
    if (this.#state !== "stable") return;
    const topicId = this.#cluster.topic(topic)?.id;
    if (topicId === undefined) return;
    this.#owned = this.#owned.map((one) => (one.topic === topic ? { ...one, topicId } : one));
    const fresh = this.#owned.filter((one) => one.topic === topic);
    this.#listener.assigned(this.#owned, new Set(fresh.map(partitionKey)));
  }

  async close(deadline: Time): Promise<void> {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#timer?.cancel();
    this.#growth?.cancel();
    const member = this.#member;
    if (member === "") return;
    const leave = Promise.allSettled([...this.#commits]).then(() =>
      atCoordinator(this.#cluster, this.#options.group, (connection) =>
        connection.ask(leaveGroupRequest, this.#options.group, [{ memberId: member, reason: "closed" }]),
      ),
    );
    await within(this.#context, deadline, leave);
  }

  /** Joins, for as long as it takes. */
  async #join(): Promise<void> {
    while (this.#state === "joining") {
      try {
        const assigned = await this.#joinOnce();
        if (this.#state !== "joining") return;
        if (assigned === undefined) continue;
        this.#state = "stable";
        this.#owned = assigned;
        this.#backoff.reset();
        this.#listener.well();
        this.#listener.assigned(assigned, new Set(assigned.map(partitionKey)));
        this.#beatAfter(this.#options.heartbeatInterval);
        this.#watchGrowth();
        return;
      } catch (error) {
        if (this.#state !== "joining") return;
        const failure = driverError(error);
        const code = protocolCode(error);
        if (code === ErrorCode.unknownMember) this.#member = "";
        // Another rebalance overtook this one: nothing is wrong.
        if (failure.code !== "fenced") this.#listener.failed(failure);
        await this.#backoff.wait().catch(() => {});
        if (this.#context.signal.aborted) return;
      }
    }
  }

  /** Undefined: to be tried again at once, under the id that the broker has given. */
  async #joinOnce(): Promise<readonly OwnedPartition[] | undefined> {
    const { group, topics, sessionTimeout, rebalanceTimeout } = this.#options;
    const metadata = encodeSubscription(topics);
    const joined = await atCoordinator(this.#cluster, group, async (connection) => {
      try {
        return await connection.askPatiently(
          joinGroupRequest,
          rebalanceTimeout,
          group,
          sessionTimeout,
          rebalanceTimeout,
          this.#member,
          null,
          protocolType,
          assignors.map((name) => ({ name, metadata })),
          null,
        );
      } catch (error) {
        if (protocolCode(error) !== ErrorCode.memberIdRequired) throw error;
        const { response } = (error as DriverError).cause as { response: { memberId: string } };
        this.#member = response.memberId;
        return undefined;
      }
    });
    if (joined === undefined) return undefined;
    this.#member = joined.memberId;
    if (this.#state === "closed") return undefined;
    this.#dealt = undefined;
    const leads = joined.leader === joined.memberId && !joined.skipAssignment;
    const assignments = leads ? await this.#deal(joined.members) : [];
    const synced = await atCoordinator(this.#cluster, group, (connection) =>
      connection.askPatiently(
        syncGroupRequest,
        rebalanceTimeout,
        group,
        joined.generationId,
        joined.memberId,
        null,
        protocolType,
        joined.protocolName,
        assignments,
      ),
    );
    this.#generation = joined.generationId;
    const mine = decodeAssignment(synced.assignment);
    await this.#cluster.learn(mine.map(({ topic }) => topic));
    return mine.flatMap(({ topic, partitions }) =>
      partitions.map((partition) => ({ topic, partition, topicId: this.#cluster.topic(topic)?.id ?? "" })),
    );
  }

  async #deal(members: readonly { readonly memberId: string; readonly metadata?: Buffer | null }[]) {
    const candidates = members.map(({ memberId, metadata }) => ({
      member: memberId,
      topics: decodeSubscription(metadata ?? Buffer.alloc(0)),
    }));
    const topics = [...new Set(candidates.flatMap((one) => one.topics))];
    await this.#cluster.refresh(topics);
    const dealt = new Map(topics.map((topic) => [topic, this.#partitionsOf(topic)]));
    const shares = assign(candidates, (topic) => dealt.get(topic) ?? 0);
    this.#dealt = dealt;
    return [...shares].map(([memberId, share]) => ({ memberId, assignment: encodeAssignment(share) }));
  }

  #partitionsOf(topic: string): number {
    return this.#cluster.topic(topic)?.leaders.length ?? 0;
  }

  #beatAfter(delay: number): void {
    this.#timer?.cancel();
    this.#timer = this.#context.clock.after(delay, () => this.#beat());
  }

  async #beat(): Promise<void> {
    const { group, heartbeatInterval } = this.#options;
    const generation = this.#generation;
    let delay = heartbeatInterval;
    try {
      await atCoordinator(this.#cluster, group, (connection) =>
        connection.ask(heartbeatRequest, group, generation, this.#member, null),
      );
      this.#backoff.reset();
      this.#listener.well();
    } catch (error) {
      if (this.#generation !== generation) return;
      switch (protocolCode(error)) {
        case ErrorCode.rebalanceInProgress:
          this.#letGo();
          break;
        case ErrorCode.unknownMember:
          this.#member = "";
          this.#expelled(driverError(error));
          return;
        case ErrorCode.illegalGeneration:
          this.#expelled(driverError(error));
          return;
        default:
          this.#listener.failed(driverError(error));
          delay = Math.min(heartbeatInterval, this.#backoff.next());
      }
    }
    if (this.#generation === generation && (this.#state === "stable" || this.#state === "letting go"))
      this.#beatAfter(delay);
  }

  /** Lets the listener finish with everything, and joins again. */
  #letGo(): void {
    if (this.#state !== "stable") return;
    this.#state = "letting go";
    const generation = this.#generation;
    const deadline = this.#context.clock.now() + drainTime(this.#options.rebalanceTimeout);
    const drained = this.#listener.revoking(this.#owned).then(() => Promise.allSettled([...this.#commits]));
    within(this.#context, deadline, drained).then(() => {
      if (this.#state === "letting go" && this.#generation === generation) this.#rejoin();
    });
  }

  #rejoin(): void {
    this.#timer?.cancel();
    this.#growth?.cancel();
    this.#owned = [];
    this.#generation = -1;
    this.#state = "joining";
    this.#join();
  }

  #expelled(error: DriverError): void {
    if (this.#state !== "stable" && this.#state !== "letting go") return;
    this.#listener.expelled(error);
    this.#rejoin();
  }

  /** The leader alone knows how many partitions were dealt out, and calls the others when there are more. */
  #watchGrowth(): void {
    this.#growth?.cancel();
    const dealt = this.#dealt;
    if (dealt === undefined) return;
    this.#growth = this.#context.clock.after(this.#options.metadataAge, async () => {
      await this.#cluster.refresh([...dealt.keys()]).catch(() => {});
      if (this.#state !== "stable" || this.#dealt !== dealt) return;
      if ([...dealt].some(([topic, partitions]) => this.#partitionsOf(topic) !== partitions)) this.#letGo();
      else this.#watchGrowth();
    });
  }
}
