import type { Context, Time, Timer } from "../../../../component/context.ts";
import type {
  DriverError,
  SubscribeOptions,
  Subscription,
  SubscriptionListener,
  TopicPartition,
} from "../../driver.ts";
import type { Cluster } from "./cluster.ts";
import { Fetcher } from "./fetcher.ts";
import { ClassicMembership } from "./membership/classic.ts";
import { IncrementalMembership } from "./membership/incremental.ts";
import {
  type Membership,
  type MembershipListener,
  type OwnedPartition,
  partitionKey,
} from "./membership/membership.ts";
import { groupHeartbeatRequest, understands } from "./requests.ts";
import { Troubles } from "./troubles.ts";

/** `incremental`: KIP-848, where the broker and the group do it. */
export type MembershipProtocol = "incremental" | "classic";

/** Joins a membership, which says what is owned, to the fetches of what is owned. */
export class WireSubscription implements Subscription {
  readonly #cluster: Cluster;
  readonly #context: Context;
  readonly #options: SubscribeOptions;
  readonly #listener: SubscriptionListener;
  readonly #fetcher: Fetcher;
  readonly #troubles: Troubles;
  #membership: Membership;
  #owned: readonly OwnedPartition[] = [];
  #timer: Timer | undefined;
  #closed = false;

  /** Connects to the group's coordinator, and joins. Rejects with a {@link DriverError} where it cannot connect. */
  static async open(
    cluster: Cluster,
    context: Context,
    options: SubscribeOptions,
    listener: SubscriptionListener,
    protocol: MembershipProtocol,
  ): Promise<WireSubscription> {
    await cluster.refresh(options.topics);
    const { versions } = await cluster.coordinator(options.group, "group");
    const incremental = protocol === "incremental" && understands(groupHeartbeatRequest, versions);
    return new WireSubscription(cluster, context, options, listener, incremental);
  }

  private constructor(
    cluster: Cluster,
    context: Context,
    options: SubscribeOptions,
    listener: SubscriptionListener,
    incremental: boolean,
  ) {
    this.#cluster = cluster;
    this.#context = context;
    this.#options = options;
    this.#listener = listener;
    this.#troubles = new Troubles((error, fatal) => {
      if (!this.#closed) listener.trouble(error, fatal);
    });
    this.#fetcher = new Fetcher(
      cluster,
      context,
      options,
      {
        records: (partition, records, next) => listener.records(partition, records, next),
        passed: (partition, next) => listener.passed(partition, next),
        outOfRange: (partition, offset) => listener.outOfRange(partition, offset),
        remade: (topic) => this.#membership.remade?.(topic),
      },
      this.#troubles,
    );
    const told: MembershipListener = {
      assigned: (partitions, fresh) => this.#assigned(partitions, fresh),
      revoking: (partitions) => this.#revoking(partitions),
      expelled: (error) => this.#expelled(error),
      failed: (error) => this.#troubles.failed("group", error),
      well: () => this.#troubles.well("group"),
    };
    const classic = () => new ClassicMembership(cluster, context, options, told);
    this.#membership = incremental
      ? new IncrementalMembership(cluster, context, options, told, (error) => {
          context.logger.info(
            { node: context.node, reason: error.message },
            "the group rebalances by the classic protocol",
          );
          this.#membership = classic();
        })
      : classic();
    this.#watchMetadata();
  }

  pause(partitions: readonly TopicPartition[]): void {
    this.#fetcher.pause(partitions);
  }

  resume(partitions: readonly TopicPartition[]): void {
    this.#fetcher.resume(partitions);
  }

  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void> {
    return this.#membership.commit(offsets);
  }

  async close(deadline: Time): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    this.#fetcher.close();
    await this.#membership.close(deadline);
  }

  #assigned(partitions: readonly OwnedPartition[], fresh: ReadonlySet<string>): void {
    if (this.#closed) return;
    this.#owned = [...partitions];
    this.#fetcher.own(partitions, fresh);
    this.#listener.assigned(
      this.#owned,
      this.#owned.filter((one) => fresh.has(partitionKey(one))),
    );
  }

  async #revoking(partitions: readonly OwnedPartition[]): Promise<void> {
    if (this.#closed || partitions.length === 0) return;
    this.#fetcher.stop(partitions);
    await this.#listener.revoking(partitions);
  }

  #expelled(error: DriverError): void {
    this.#context.meter.count("group_expulsions_total");
    this.#owned = [];
    this.#fetcher.own([], new Set());
    // Another may own them already: nothing is left to wait for.
    this.#listener.assigned([], []);
    this.#troubles.failed("group", error);
  }

  #watchMetadata(): void {
    if (this.#closed) return;
    this.#timer = this.#context.clock.after(this.#options.metadataAge, async () => {
      await this.#cluster.refresh(this.#options.topics).catch(() => {});
      this.#fetcher.reconsider();
      this.#watchMetadata();
    });
  }
}
