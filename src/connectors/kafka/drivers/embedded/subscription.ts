import type { Clock, Time, Timer } from "../../../../component/context.ts";
import {
  DriverError,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicPartition,
} from "../../driver.ts";
import type { Connection } from "./connection.ts";
import type { EmbeddedKafka } from "./embedded-kafka.ts";
import type { Assignment, HeartbeatAnswer, RebalanceManner } from "./group.ts";
import type { Found } from "./log.ts";

/** ms before a failed request is made again. */
const retryDelay = 100;

export interface SubscriptionParts {
  readonly cluster: EmbeddedKafka;
  readonly clock: Clock;
  readonly client: string;
  readonly coordinator: Connection;
  readonly fetches: Connection;
  readonly manner: RebalanceManner;
  readonly options: SubscribeOptions;
  readonly listener: SubscriptionListener;
}

/** An owned partition in one epoch. */
interface Reader extends TopicPartition {
  /** Undefined until the committed offset was asked for. */
  position: number | undefined;
  paused: boolean;
}

interface Fetched {
  readonly reader: Reader;
  readonly position: number;
  readonly found: Found;
}

/**
 * A member of a consumer group.
 *
 * States: *joining* (owns nothing; a JoinGroup request is out or about to be); *stable*; *revoking* (the listener
 * lets go of partitions, still in its old generation, and the member goes on with its heartbeats); *closed*.
 *
 * A fetch is answered for all partitions that are not paused, in rotating order; while there is nothing to read
 * it waits for an append. What was fetched when a partition is paused still arrives.
 */
export class EmbeddedSubscription implements Subscription {
  readonly #parts: SubscriptionParts;
  readonly #readers = new Map<string, Reader>();
  readonly #wake = () => this.#fetch();
  #state: "joining" | "stable" | "revoking" | "closed" = "joining";
  readonly #member: string;
  #generation = -1;
  #heartbeatTimer: Timer | undefined;
  #fetching = false;
  /** Something changed while a fetch was under way that did not know of it. */
  #fetchAgain = false;
  #rotation = 0;
  #troubled = false;
  #heartbeatOut = false;

  constructor(parts: SubscriptionParts) {
    this.#parts = parts;
    this.#member = parts.cluster.memberId(parts.client);
    parts.clock.defer(() => this.#join());
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const reader = this.#readers.get(keyOf(partition));
      if (reader !== undefined) reader.paused = true;
    }
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const reader = this.#readers.get(keyOf(partition));
      if (reader !== undefined) reader.paused = false;
    }
    this.#fetch();
  }

  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void> {
    if (this.#state !== "stable" && this.#state !== "revoking") {
      return Promise.reject(new DriverError("fenced", "commit: owns nothing at the moment"));
    }
    const { cluster, coordinator, options } = this.#parts;
    const member = this.#member;
    const generation = this.#generation;
    return coordinator.ask("commit", () => cluster.group(options.group).commit(member, generation, offsets));
  }

  close(deadline: Time): Promise<void> {
    if (this.#state === "closed") return Promise.resolve();
    this.stop();
    const { cluster, clock, coordinator, options } = this.#parts;
    return new Promise((resolve) => {
      const giveUp = clock.after(Math.max(0, deadline - clock.now()), resolve);
      coordinator
        .ask("leave", () => cluster.group(options.group).remove(this.#member))
        .catch(() => {})
        .finally(() => {
          giveUp.cancel();
          resolve();
        });
    });
  }

  /** Goes silent without leaving the group. */
  stop(): void {
    this.#state = "closed";
    this.#heartbeatTimer?.cancel();
    this.#unwatch();
    this.#readers.clear();
  }

  #join(): void {
    if (this.#state !== "joining") return;
    const { cluster, coordinator, manner, options } = this.#parts;
    coordinator.call<Assignment>(
      "join",
      (answer) => cluster.group(options.group).join(this.#member, options, manner, answer),
      {
        result: (assignment) => {
          if (this.#state !== "joining") return;
          this.#state = "stable";
          this.#generation = assignment.generation;
          this.#well();
          this.#own(assignment.partitions);
          this.#scheduleHeartbeat(manner === "incremental" ? 0 : options.heartbeatInterval);
        },
        fail: (error) => {
          if (this.#state !== "joining") return;
          this.#trouble(error);
          if (error.code !== "unsupported") this.#parts.clock.after(retryDelay, () => this.#join());
        },
      },
    );
  }

  /** Takes over an assignment: readers of partitions it had before go on, unless all were given up. */
  #own(partitions: readonly TopicPartition[]): void {
    const fresh = partitions.filter((partition) => !this.#readers.has(keyOf(partition)));
    const kept = new Set(partitions.map(keyOf));
    for (const key of [...this.#readers.keys()]) if (!kept.has(key)) this.#readers.delete(key);
    for (const { topic, partition } of fresh) {
      this.#readers.set(keyOf({ topic, partition }), {
        topic,
        partition,
        position: undefined,
        paused: false,
      });
    }
    this.#watch();
    this.#parts.listener.assigned(partitions, fresh);
    this.#fetch();
  }

  #scheduleHeartbeat(delay: number): void {
    this.#heartbeatTimer?.cancel();
    this.#heartbeatTimer = this.#parts.clock.after(delay, () => this.#heartbeat());
  }

  #heartbeat(): void {
    const { cluster, coordinator, options } = this.#parts;
    if (this.#heartbeatOut || (this.#state !== "stable" && this.#state !== "revoking")) return;
    this.#heartbeatOut = true;
    const member = this.#member;
    const generation = this.#generation;
    const owned = [...this.#readers.values()].map(({ topic, partition }) => ({ topic, partition }));
    coordinator.call<HeartbeatAnswer>(
      "heartbeat",
      (answer) => answer.result(cluster.group(options.group).heartbeat(member, generation, owned)),
      {
        result: (answer) => {
          this.#heartbeatOut = false;
          if (this.#state !== "stable" && this.#state !== "revoking") return;
          this.#well();
          this.#scheduleHeartbeat(options.heartbeatInterval);
          if (this.#state === "revoking") {
            // It goes on letting go, though it may keep all by now; its commits are of the newer epoch.
            if (typeof answer === "object") this.#generation = answer.generation;
            return;
          }
          if (answer === "ok") return;
          if (answer === "rejoin" || answer === "fenced") this.#rejoin();
          else this.#adopt(answer);
        },
        fail: (error) => {
          this.#heartbeatOut = false;
          if (this.#state !== "stable" && this.#state !== "revoking") return;
          this.#trouble(error);
          this.#scheduleHeartbeat(Math.min(retryDelay, options.heartbeatInterval));
        },
      },
    );
  }

  /** Gives up everything, and joins again; a member that was expelled is taken for a new one. */
  #rejoin(): void {
    this.#letGo([...this.#readers.values()], () => {
      this.#state = "joining";
      this.#heartbeatTimer?.cancel();
      this.#unwatch();
      this.#readers.clear();
      this.#join();
    });
  }

  /** Incremental: gives up what it loses and reports that, or takes what is new. */
  #adopt({ generation, partitions }: Assignment): void {
    const keeps = new Set(partitions.map(keyOf));
    const lost = [...this.#readers.values()].filter((reader) => !keeps.has(keyOf(reader)));
    if (lost.length === 0) {
      this.#generation = generation;
      if (partitions.length > this.#readers.size) this.#own(partitions);
      this.#scheduleHeartbeat(0);
      return;
    }
    this.#letGo(lost, () => {
      this.#state = "stable";
      this.#own([...this.#readers.values()].filter((reader) => !lost.includes(reader)));
      this.#scheduleHeartbeat(0);
    });
  }

  /** Tells the listener what it loses, and goes on when it is done with that, or at once where it cannot be waited for. */
  #letGo(lost: readonly Reader[], then: () => void): void {
    this.#state = "revoking";
    for (const reader of lost) reader.paused = true;
    const done = this.#parts.listener.revoking(lost.map(({ topic, partition }) => ({ topic, partition })));
    if (this.#parts.manner === "eager") then();
    else {
      done.finally(() => {
        if (this.#state === "revoking") then();
      });
    }
  }

  #fetch(): void {
    if (this.#fetching) this.#fetchAgain = true;
    if (this.#fetching || this.#state === "joining" || this.#state === "closed") return;
    this.#fetchAgain = false;
    const readers = [...this.#readers.values()].filter((reader) => !reader.paused);
    if (readers.length === 0) return;
    this.#fetching = true;
    this.#rotation = (this.#rotation + 1) % readers.length;
    const inTurn = [...readers.slice(this.#rotation), ...readers.slice(0, this.#rotation)];
    this.#parts.fetches.call<readonly Fetched[]>("fetch", (answer) => answer.result(this.#read(inTurn)), {
      result: (fetched) => {
        this.#fetching = false;
        if (this.#state === "closed") return;
        this.#well();
        for (const one of fetched) this.#deliver(one);
        if (fetched.length > 0 || this.#fetchAgain) this.#fetch();
      },
      fail: (error) => {
        if (this.#state !== "closed") this.#trouble(error);
        this.#parts.clock.after(retryDelay, () => {
          this.#fetching = false;
          this.#fetch();
        });
      },
    });
  }

  /** At the broker: what each partition has for its reader. Those with nothing new are not named. */
  #read(readers: readonly Reader[]): Fetched[] {
    const { cluster, clock, manner, options } = this.#parts;
    const fetched: Fetched[] = [];
    let leaderAfter = Number.POSITIVE_INFINITY;
    for (const reader of readers) {
      const topic = cluster.find(reader.topic);
      const log = topic?.logs[reader.partition];
      if (topic === undefined || log === undefined) continue;
      const leaderless = (topic.leaderlessUntil.get(reader.partition) ?? 0) - clock.now();
      if (leaderless > 0) {
        leaderAfter = Math.min(leaderAfter, leaderless);
        continue;
      }
      const group = cluster.group(options.group);
      const position = reader.position ?? group.committed(reader.topic).get(reader.partition) ?? log.start;
      const found = log.read(position, options.maxBytesPerPartition);
      if (found.kind === "end" && reader.position === position) continue;
      fetched.push({ reader, position, found });
      // kafkajs commits "earliest" there, which is no offset: the group has none any more, and nobody is told.
      if (
        found.kind === "outOfRange" &&
        manner === "eager" &&
        group.accepts(this.#member, this.#generation)
      ) {
        group.erase(reader);
      }
    }
    if (leaderAfter < Number.POSITIVE_INFINITY) clock.after(leaderAfter, this.#wake);
    return fetched;
  }

  #deliver({ reader, position, found }: Fetched): void {
    if (this.#readers.get(keyOf(reader)) !== reader) return;
    const { cluster, listener } = this.#parts;
    const { topic, partition } = reader;
    switch (found.kind) {
      case "end":
        reader.position = position;
        break;
      case "outOfRange":
        reader.position = cluster.find(topic)?.logs[partition]?.start ?? 0;
        listener.outOfRange({ topic, partition }, position);
        break;
      case "gap":
        reader.position = found.next;
        listener.passed({ topic, partition }, found.next);
        break;
      case "records":
        reader.position = found.next;
        listener.records({ topic, partition }, found.records, found.next);
        break;
    }
  }

  #watch(): void {
    for (const topic of this.#parts.options.topics) this.#parts.cluster.find(topic)?.watchers.add(this.#wake);
  }

  #unwatch(): void {
    for (const topic of this.#parts.options.topics) {
      this.#parts.cluster.find(topic)?.watchers.delete(this.#wake);
    }
  }

  #trouble(error: DriverError): void {
    this.#troubled = true;
    this.#parts.listener.trouble(error, error.code === "unsupported");
  }

  #well(): void {
    if (!this.#troubled) return;
    this.#troubled = false;
    this.#parts.listener.trouble(undefined, false);
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}
