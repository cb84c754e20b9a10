import type { Clock, Time, Timer } from "../../../../component/context.ts";
import { DriverError, type TopicPartition } from "../../driver.ts";
import type { Answer } from "./connection.ts";

/**
 * How the members of a group rebalance.
 *
 * - `eager`: as kafkajs does. Everyone gives up everything and rejoins at once, whatever is in flight.
 * - `held`: the same, but a member rejoins only after `revoking` has settled.
 * - `incremental`: as KIP-848 has it. A member is asked to give up only what it loses, reports it gone after
 *   `revoking` has settled, and only then does its new owner get it; what it keeps goes on undisturbed.
 */
export type RebalanceManner = "eager" | "held" | "incremental";

export interface MemberOptions {
  readonly topics: readonly string[];
  /** ms */
  readonly sessionTimeout: number;
  readonly rebalanceTimeout: number;
}

/** What a member owns from now on, and the generation its commits carry. */
export interface Assignment {
  readonly generation: number;
  readonly partitions: readonly TopicPartition[];
}

/** `rejoin`: a rebalance is under way; `fenced`: no member any more, or of a generation that has passed. */
export type HeartbeatAnswer = "ok" | "rejoin" | "fenced" | Assignment;

interface Member extends MemberOptions {
  readonly id: string;
  /** A member without a client: it takes part in every rebalance at once, and reads nothing. */
  readonly standIn: boolean;
  generation: number;
  lastSeen: Time;
  session: Timer | undefined;
  /** Eager and held: its JoinGroup request, while the others have yet to rejoin. */
  join: Answer<Assignment> | undefined;
  /** What it may read now: others get none of it. */
  holding: readonly TopicPartition[];
  /** Incremental: what it shall have once it and the others have given up what they lose. */
  target: readonly TopicPartition[];
  /** Incremental: runs while it has yet to give something up. */
  revocation: Timer | undefined;
}

/**
 * The coordinator's books of one consumer group: members, generations, committed offsets. Commits are checked as
 * the real broker checks them, that is by member and generation alone: one that goes backward, and one for a
 * partition that another member owns, are taken.
 *
 * States: *empty*; *joining* (members of the old generation are to rejoin; commits under it are still taken);
 * *stable*. An incremental group is never *joining*.
 */
export class Group {
  readonly name: string;
  readonly #clock: Clock;
  readonly #partitionsOf: (topic: string) => number;
  readonly #committed = new Map<string, Map<number, number>>();
  readonly #members = new Map<string, Member>();
  #manner: RebalanceManner = "eager";
  #generation = 0;
  #joining = false;
  #rebalance: Timer | undefined;

  constructor(name: string, clock: Clock, partitionsOf: (topic: string) => number) {
    this.name = name;
    this.#clock = clock;
    this.#partitionsOf = partitionsOf;
  }

  get generation(): number {
    return this.#generation;
  }

  /** All members are in the current generation, and hold what they shall. */
  get stable(): boolean {
    if (this.#joining) return false;
    return (
      this.#manner !== "incremental" ||
      [...this.#members.values()].every(
        (member) => member.generation === this.#generation && member.holding.length === member.target.length,
      )
    );
  }

  /** Member ids in order, each with what it may read now. */
  get members(): ReadonlyMap<string, readonly TopicPartition[]> {
    return new Map([...this.#members.values()].sort(byId).map((member) => [member.id, member.holding]));
  }

  committed(topic: string): ReadonlyMap<number, number> {
    return this.#committed.get(topic) ?? new Map();
  }

  /** A member joins, or rejoins under the same id. The answer comes when the generation is complete. */
  join(id: string, options: MemberOptions, manner: RebalanceManner, answer: Answer<Assignment>): void {
    if (this.#members.size === 0) this.#manner = manner;
    else if (this.#manner !== manner) {
      throw new DriverError(
        "unsupported",
        `group "${this.name}" rebalances in the manner "${this.#manner}", not "${manner}"`,
      );
    }
    const member = this.#members.get(id) ?? this.#add(id, options, false);
    member.lastSeen = this.#clock.now();
    if (this.#manner === "incremental") {
      answer.result(this.#reconcile(member, []));
      return;
    }
    member.join = answer;
    if (!this.#joining) this.#startJoining();
    this.#completeIfAllJoined();
  }

  /** Adds a member that no client stands behind. */
  joinStandIn(id: string, topics: readonly string[], manner: RebalanceManner): void {
    if (this.#members.size === 0) this.#manner = manner;
    this.#add(id, { topics, sessionTimeout: 0, rebalanceTimeout: 0 }, true);
    if (this.#manner === "incremental") return;
    if (!this.#joining) this.#startJoining();
    this.#completeIfAllJoined();
  }

  /** `owned` is what an incremental member has not given up. */
  heartbeat(id: string, generation: number, owned: readonly TopicPartition[]): HeartbeatAnswer {
    const member = this.#members.get(id);
    if (member === undefined) return "fenced";
    member.lastSeen = this.#clock.now();
    if (this.#manner === "incremental") {
      const assignment = this.#reconcile(member, owned);
      const same = assignment.generation === generation && sameSet(assignment.partitions, owned);
      return same ? "ok" : assignment;
    }
    if (this.#joining) return "rejoin";
    return generation === member.generation ? "ok" : "fenced";
  }

  /** Refused with code `fenced` unless the member is one, in this generation. */
  commit(
    id: string,
    generation: number,
    offsets: readonly (TopicPartition & { readonly offset: number })[],
  ): void {
    const member = this.#members.get(id);
    if (!this.accepts(id, generation)) {
      throw new DriverError(
        "fenced",
        `commit: generation ${generation} of group "${this.name}" has passed for this member`,
      );
    }
    for (const { topic, partition } of offsets) {
      if (partition >= this.#partitionsOf(topic)) {
        throw new DriverError("unknown-topic", `commit: there is no ${topic}/${partition}`);
      }
    }
    if (member !== undefined) member.lastSeen = this.#clock.now();
    this.store(offsets);
  }

  /** It is a member, and this is the generation it was last given. */
  accepts(id: string, generation: number): boolean {
    return this.#members.get(id)?.generation === generation;
  }

  /** Writes committed offsets without asking who commits. */
  store(offsets: readonly (TopicPartition & { readonly offset: number })[]): void {
    for (const { topic, partition, offset } of offsets) {
      let partitions = this.#committed.get(topic);
      if (partitions === undefined) {
        partitions = new Map();
        this.#committed.set(topic, partitions);
      }
      partitions.set(partition, offset);
    }
  }

  /** The group has no committed offset for the partition any more. */
  erase({ topic, partition }: TopicPartition): void {
    this.#committed.get(topic)?.delete(partition);
  }

  /** A member is gone: it left, or its session has expired. */
  remove(id: string): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.#members.delete(id);
    member.session?.cancel();
    member.revocation?.cancel();
    this.rebalance();
  }

  /** Makes everyone rejoin; an incremental group assigns anew. */
  rebalance(): void {
    if (this.#members.size === 0) {
      this.#joining = false;
      this.#rebalance?.cancel();
      return;
    }
    if (this.#manner === "incremental") {
      this.#assignTargets();
      return;
    }
    if (!this.#joining) this.#startJoining();
    this.#completeIfAllJoined();
  }

  /** Whether some member reads the topic. */
  reads(topic: string): boolean {
    return [...this.#members.values()].some((member) => member.topics.includes(topic));
  }

  #add(id: string, options: MemberOptions, standIn: boolean): Member {
    const member: Member = {
      topics: options.topics,
      sessionTimeout: options.sessionTimeout,
      rebalanceTimeout: options.rebalanceTimeout,
      id,
      standIn,
      generation: -1,
      lastSeen: this.#clock.now(),
      session: undefined,
      join: undefined,
      holding: [],
      target: [],
      revocation: undefined,
    };
    this.#members.set(id, member);
    if (!standIn) this.#watch(member, member.sessionTimeout);
    if (this.#manner === "incremental") this.#assignTargets();
    return member;
  }

  /** Expels the member once nothing was heard of it for its session time-out. */
  #watch(member: Member, delay: number): void {
    member.session = this.#clock.after(delay, () => {
      // One turn later: after a pause of the whole process, its heartbeat may be waiting just behind.
      this.#clock.defer(() => {
        if (this.#members.get(member.id) !== member) return;
        const left = member.lastSeen + member.sessionTimeout - this.#clock.now();
        if (member.join === undefined && left <= 0) this.remove(member.id);
        else this.#watch(member, left > 0 ? left : member.sessionTimeout);
      });
    });
  }

  #startJoining(): void {
    this.#joining = true;
    let longest = 0;
    for (const member of this.#members.values()) longest = Math.max(longest, member.rebalanceTimeout);
    this.#rebalance?.cancel();
    this.#rebalance = this.#clock.after(longest, () => {
      for (const member of [...this.#members.values()]) {
        if (member.join !== undefined || member.standIn) continue;
        this.#members.delete(member.id);
        member.session?.cancel();
      }
      this.#completeIfAllJoined();
    });
  }

  #completeIfAllJoined(): void {
    const members = [...this.#members.values()].sort(byId);
    if (!this.#joining || members.some((member) => member.join === undefined && !member.standIn)) return;
    this.#joining = false;
    this.#rebalance?.cancel();
    this.#generation++;
    const shares = this.#roundRobin(members);
    for (const member of members) {
      const { join } = member;
      member.generation = this.#generation;
      member.holding = shares.get(member.id) ?? [];
      member.lastSeen = this.#clock.now();
      member.join = undefined;
      join?.result({ generation: this.#generation, partitions: member.holding });
    }
  }

  /** Partitions of all topics dealt out in turn. Who begins changes with the generation, so that partitions move. */
  #roundRobin(members: readonly Member[]): Map<string, TopicPartition[]> {
    const shares = new Map<string, TopicPartition[]>(members.map((member) => [member.id, []]));
    let turn = this.#generation;
    for (const topic of topicsOf(members)) {
      const readers = members.filter((member) => member.topics.includes(topic));
      for (let partition = 0; partition < this.#partitionsOf(topic); partition++, turn++) {
        shares.get(readers[turn % readers.length]!.id)!.push({ topic, partition });
      }
    }
    return shares;
  }

  /** Incremental: balances each topic while moving as little as possible. */
  #assignTargets(): void {
    this.#generation++;
    const members = [...this.#members.values()].sort(byId);
    const targets = new Map<Member, TopicPartition[]>(members.map((member) => [member, []]));
    for (const topic of topicsOf(members)) {
      const readers = members.filter((member) => member.topics.includes(topic));
      const count = this.#partitionsOf(topic);
      const fair = Math.floor(count / readers.length);
      let extras = count % readers.length;
      const shares = new Map<Member, number[]>();
      for (const reader of readers) {
        const had = reader.target
          .filter((owned) => owned.topic === topic && owned.partition < count)
          .map((owned) => owned.partition);
        const keep = had.length > fair && extras > 0 ? fair + 1 : Math.min(had.length, fair);
        if (keep > fair) extras--;
        shares.set(reader, had.slice(0, keep));
      }
      const taken = new Set([...shares.values()].flat());
      const free = Array.from({ length: count }, (_, partition) => partition).filter((p) => !taken.has(p));
      for (const [reader, share] of shares) {
        while (share.length < fair) share.push(free.shift()!);
        if (share.length === fair && extras > 0) {
          share.push(free.shift()!);
          extras--;
        }
        for (const partition of share.sort((a, b) => a - b)) targets.get(reader)!.push({ topic, partition });
      }
    }
    for (const [member, target] of targets) {
      member.target = target;
    }
    this.#moveStandIns();
  }

  /** Stand-ins give up and take over at once. */
  #moveStandIns(): void {
    for (const member of this.#members.values()) {
      if (!member.standIn) continue;
      member.generation = this.#generation;
      member.holding = member.target.filter((partition) => this.#free(member, partition));
    }
  }

  #free(member: Member, partition: TopicPartition): boolean {
    for (const other of this.#members.values()) {
      if (other !== member && includes(other.holding, partition)) return false;
    }
    return true;
  }

  /** Incremental: what a member that still has `owned` may read now. */
  #reconcile(member: Member, owned: readonly TopicPartition[]): Assignment {
    member.holding = owned;
    this.#moveStandIns();
    const kept = owned.filter((partition) => includes(member.target, partition));
    if (kept.length < owned.length) {
      member.revocation ??= this.#clock.after(member.rebalanceTimeout, () => this.remove(member.id));
      return { generation: member.generation, partitions: kept };
    }
    member.revocation?.cancel();
    member.revocation = undefined;
    member.generation = this.#generation;
    member.holding = member.target.filter((partition) => this.#free(member, partition));
    return { generation: member.generation, partitions: member.holding };
  }
}

function topicsOf(members: readonly Member[]): string[] {
  return [...new Set(members.flatMap((member) => member.topics))].sort();
}

function byId(a: Member, b: Member): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function includes(partitions: readonly TopicPartition[], { topic, partition }: TopicPartition): boolean {
  return partitions.some((other) => other.topic === topic && other.partition === partition);
}

function sameSet(a: readonly TopicPartition[], b: readonly TopicPartition[]): boolean {
  return a.length === b.length && a.every((partition) => includes(b, partition));
}
