import type { Context, Time } from "../../component/context.ts";
import type { Batch, Codec } from "../../message/batch.ts";
import type { Records } from "../../message/records.ts";
import type { KafkaSettings } from "./options.ts";

/**
 * The port between the kafka connector and a client library. Everything that decides correctness (epochs,
 * checkpoints, credit, retry, partition choice, coverage of responses) is above it, in source.ts and sink.ts.
 *
 * It moves whole record batches by partition: a driver that fetches and produces encoded batches keeps them as
 * bytes behind {@link Records} and {@link EncodedBatch}; one that has message objects wraps those.
 */
export interface KafkaDriver {
  readonly name: string;
  /**
   * `revoking` of the listener is awaited before partitions are given up. Otherwise order holds within one
   * assignment epoch only, since what is in flight may be read again while it is still being written.
   */
  readonly holdsRebalance: boolean;
  /** Opens nothing yet: connections are made at the first call. */
  connect(settings: KafkaSettings, context: Context): KafkaClient;
}

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export interface TopicDescription {
  readonly partitions: number;
  /** The broker's limit for one record batch as stored, in bytes (`max.message.bytes`). */
  readonly maxMessageBytes: number;
}

export interface PartitionOffsets {
  readonly partition: number;
  /** The first offset still there. */
  readonly earliest: number;
  /** The offset the next message will get. */
  readonly latest: number;
}

export interface NewTopic {
  readonly topic: string;
  readonly partitions: number;
  /** −1: the broker's default. */
  readonly replicationFactor: number;
}

/** One client of one cluster. Every call may reject with a {@link DriverError}; only the caller retries. */
export interface KafkaClient {
  /** A description of each topic; undefined for one that does not exist. Creates nothing. */
  describe(topics: readonly string[]): Promise<ReadonlyMap<string, TopicDescription | undefined>>;
  create(topics: readonly NewTopic[]): Promise<void>;
  offsets(topic: string): Promise<readonly PartitionOffsets[]>;
  /** The group's committed offset for each partition that has one. */
  committed(group: string, topic: string): Promise<ReadonlyMap<number, number>>;
  /**
   * Joins the group. Resolves once the client runs; assignments follow through the listener. Lost connections,
   * rejoins and crashes of the client are mended inside, and told through `trouble`.
   */
  subscribe(options: SubscribeOptions, listener: SubscriptionListener): Promise<Subscription>;
  producer(): Promise<Producer>;
  /** Closes all connections; done or given up by `deadline`. */
  close(deadline: Time): Promise<void>;
}

export interface SubscribeOptions {
  readonly group: string;
  readonly topics: readonly string[];
  /** ms */
  readonly sessionTimeout: number;
  readonly rebalanceTimeout: number;
  readonly heartbeatInterval: number;
  /** Most bytes of one partition in one fetch. */
  readonly maxBytesPerPartition: number;
  /** Longest a fetch waits for data, ms. */
  readonly maxWait: number;
  /** How often it is looked for new partitions where the broker does not tell of them, ms. */
  readonly metadataAge: number;
}

/** What a driver tells the source. Calls are never concurrent. */
export interface SubscriptionListener {
  /**
   * The member now owns exactly these partitions and will read each from its committed offset, or from the
   * earliest where none is committed. Each assignment starts a new epoch for each partition in `fresh`; one
   * that is in `partitions` only was kept, and goes on where it was.
   */
  assigned(partitions: readonly TopicPartition[], fresh: readonly TopicPartition[]): void;
  /**
   * These partitions are about to be given up. A driver that holds the rebalance awaits the promise; one that
   * cannot calls this just before it rejoins and goes on at once.
   */
  revoking(partitions: readonly TopicPartition[]): Promise<void>;
  /** Records of an owned partition, in order, each once within an epoch. `next` is the offset it reads on from. */
  records(partition: TopicPartition, records: Records, next: number): void;
  /** Nothing visible below `next`: control records, aborted or compacted ones. */
  passed(partition: TopicPartition, next: number): void;
  /**
   * The log does not hold `offset`, where the partition was to be read on (retention passed it, or the topic was made
   * anew): the driver goes on from the earliest there is, in the same epoch.
   */
  outOfRange(partition: TopicPartition, offset: number): void;
  /** Something is wrong; undefined when it is well again. The driver is mending it unless `fatal`. */
  trouble(error: DriverError | undefined, fatal: boolean): void;
}

export interface Subscription {
  /** The driver delivers no more of these until resumed; what is under way may still arrive. */
  pause(partitions: readonly TopicPartition[]): void;
  resume(partitions: readonly TopicPartition[]): void;
  /**
   * Commits for the epoch that is current at the call. Rejects with code `fenced` when that epoch has passed;
   * nothing is committed then, and nothing is to be repeated.
   */
  commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void>;
  /** Leaves the group; done or given up by `deadline`. */
  close(deadline: Time): Promise<void>;
}

/** A record batch for one partition as it will be sent, however often: a resend is the same bytes. */
export interface EncodedBatch extends TopicPartition {
  readonly count: number;
  /** Bytes as the broker measures them against `max.message.bytes`, or an upper estimate of them. */
  readonly size: number;
  /** `size` is exact: as compressed. */
  readonly exact: boolean;
  readonly codec: Codec;
}

export interface Producer {
  /** Encodes entries [from, to) of the batch. Compression above a threshold goes to `context.work`. */
  encode(
    partition: TopicPartition,
    batch: Batch,
    from: number,
    to: number,
  ): EncodedBatch | Promise<EncodedBatch>;
  /**
   * Sends batches of distinct partitions with acks=all, and makes no second attempt. The result names each
   * partition that the broker answered for; one that it does not name is of unknown outcome. Rejects when no
   * answer came: then all are of unknown outcome.
   */
  send(batches: readonly EncodedBatch[]): Promise<readonly ProduceResult[]>;
  close(deadline: Time): Promise<void>;
}

export interface ProduceResult extends TopicPartition {
  /** Offset of the batch's first record; undefined with an error, or where the broker does not say. */
  readonly offset: number | undefined;
  readonly error: DriverError | undefined;
}

/** What a driver's errors mean, whatever the client library calls them. */
export type DriverErrorCode =
  /** Try again: connection, leader, coordinator, time-out, throttle. */
  | "retry"
  /** The epoch or generation has passed. */
  | "fenced"
  | "unknown-topic"
  /** Authentication or authorisation. */
  | "access"
  /** The broker refuses the batch for its size. */
  | "too-large"
  /** The broker refuses the batch for its content: a corrupt or invalid record, an invalid timestamp. */
  | "invalid"
  /** The broker refuses what was asked for, and always will: a topic's name or settings. */
  | "refused"
  /** The client does not support what the broker or the data needs: an unknown codec, an old version. */
  | "unsupported";

export class DriverError extends Error {
  readonly code: DriverErrorCode;

  constructor(code: DriverErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "DriverError";
    this.code = code;
  }
}
