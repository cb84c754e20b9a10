import type { Time } from "../../../../../component/context.ts";
import type { DriverError, SubscribeOptions, TopicPartition } from "../../../driver.ts";

/** An owned partition; the id tells its topic from one of the same name that was deleted or made anew. */
export interface OwnedPartition extends TopicPartition {
  readonly topicId: string;
}

/** What a membership tells the subscription. */
export interface MembershipListener {
  /** The member now owns exactly these; those in `fresh` (by {@link partitionKey}) begin a new epoch. */
  assigned(partitions: readonly OwnedPartition[], fresh: ReadonlySet<string>): void;
  /** These are to be given up; they are, once the promise has settled or the rebalance may wait no longer. */
  revoking(partitions: readonly OwnedPartition[]): Promise<void>;
  /** The group went on without this member: it owns nothing any more, and joins again. */
  expelled(error: DriverError): void;
  failed(error: DriverError): void;
  well(): void;
}

/** A member of a consumer group, from its first request until it leaves. */
export interface Membership {
  /**
   * Commits under the generation, or member epoch, that is current at the call and under no other. Rejects with
   * code `fenced` where there is none, or the broker says that it has passed.
   */
  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void>;
  /**
   * A topic was deleted and made anew. In a classic group, which goes by names, nobody else would say so; an
   * incremental one assigns the new topic by itself.
   */
  remade?(topic: string): void;
  /** Leaves the group; done or given up by `deadline`. */
  close(deadline: Time): Promise<void>;
}

export type MembershipOptions = Pick<
  SubscribeOptions,
  "group" | "topics" | "sessionTimeout" | "rebalanceTimeout" | "heartbeatInterval" | "metadataAge"
>;

export function partitionKey({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

/** How long partitions may be drained: most of what the group waits, so that the report of it still comes in time. */
export function drainTime(rebalanceTimeout: number): number {
  return Math.max(rebalanceTimeout * 0.5, rebalanceTimeout - 5_000);
}
