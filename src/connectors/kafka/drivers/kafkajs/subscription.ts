import type { Consumer, Kafka, KafkaMessage } from "kafkajs";
import { Backoff } from "../../../../component/backoff.ts";
import type { Context, Time } from "../../../../component/context.ts";
import { type Headers, noHeaders, type Records, sizeOf } from "../../../../message/records.ts";
import {
  DriverError,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicPartition,
} from "../../driver.ts";
import { within } from "../within.ts";
import { subscriberAssigner } from "./assigner.ts";
import { driverError } from "./errors.ts";
import { type Guard, guardCluster, isStale } from "./guarded-cluster.ts";

/** How long a partition with no room may hold the consumer before it is paused, ms. */
const longestHold = 200;

/** {@link Records} over the message objects of kafkajs; headers are translated only where someone looks. */
class KafkaJsRecords implements Records {
  readonly length: number;
  readonly #messages: readonly KafkaMessage[];

  constructor(messages: readonly KafkaMessage[]) {
    this.#messages = messages;
    this.length = messages.length;
  }

  position(index: number): number {
    return Number(this.#messages[index]!.offset);
  }

  key(index: number): Buffer | null {
    return this.#messages[index]!.key;
  }

  value(index: number): Buffer | null {
    return this.#messages[index]!.value;
  }

  headers(index: number): Headers {
    const headers = this.#messages[index]!.headers;
    if (headers === undefined) return noHeaders;
    const list: [string, Buffer | string | null][] = [];
    for (const name of Object.keys(headers)) {
      const content = headers[name];
      if (Array.isArray(content)) for (const one of content) list.push([name, one]);
      else list.push([name, content ?? null]);
    }
    return list.length === 0 ? noHeaders : list;
  }

  timestamp(index: number): number {
    return Number(this.#messages[index]!.timestamp);
  }

  size(index: number): number {
    const { key, value } = this.#messages[index]!;
    return sizeOf(key, value, this.headers(index));
  }
}

/**
 * Keeps one kafkajs consumer alive. States: *running* (a consumer is in the group or on its way there);
 * *rebuilding* (it crashed for good; a new one is made after a backoff); *closed*.
 *
 * kafkajs tells nobody before it rejoins. Its assigner is asked for the group protocol just before each
 * JoinGroup request, whatever the reason for it, so that call ends the epoch of every owned partition; the
 * group-join event starts the next. kafkajs rereads even retained partitions from the committed offset, so
 * every assignment is fresh. A commit made by kafkajs carries the generation that was current when it was
 * called, so one that comes late is refused by the broker.
 */
class KafkaJsSubscription implements Subscription {
  readonly #kafka: Kafka;
  readonly #context: Context;
  readonly #options: SubscribeOptions;
  readonly #listener: SubscriptionListener;
  readonly #backoff: Backoff;
  #consumer: Consumer | undefined;
  #owned: readonly TopicPartition[] = [];
  readonly #paused = new Set<string>();
  /** Ends the wait of a partition whose records are being handed over. */
  readonly #holds = new Map<string, () => void>();
  #handingOver: string | undefined;
  #commits = 0;
  #guard: Guard | undefined;
  #closed = false;

  constructor(kafka: Kafka, context: Context, options: SubscribeOptions, listener: SubscriptionListener) {
    this.#kafka = kafka;
    this.#context = context;
    this.#options = options;
    this.#listener = listener;
    this.#backoff = new Backoff(context, { initial: 200, max: 10_000 });
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.#paused.add(keyOf(partition));
    // One that is being handed over is held there for a moment first: see #handOver.
    const now = partitions.filter((partition) => keyOf(partition) !== this.#handingOver);
    if (this.#owned.length > 0 && now.length > 0) this.#consumer?.pause(grouped(now));
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const key = keyOf(partition);
      this.#paused.delete(key);
      this.#holds.get(key)?.();
    }
    if (this.#owned.length > 0) this.#consumer?.resume(grouped(partitions));
  }

  async commit(offsets: readonly (TopicPartition & { readonly offset: number })[]): Promise<void> {
    const consumer = this.#consumer;
    const guard = this.#guard;
    if (consumer === undefined || guard === undefined || this.#owned.length === 0)
      throw new DriverError("fenced", "not a member of the group");
    const before = this.#commits;
    try {
      await guard.committing(offsets, () =>
        consumer.commitOffsets(
          offsets.map(({ topic, partition, offset }) => ({ topic, partition, offset: String(offset) })),
        ),
      );
    } catch (error) {
      throw driverError(error);
    }
    // A consumer that is stopping resolves and commits nothing; only its event tells that the broker took it.
    if (this.#commits === before) throw new DriverError("retry", "the consumer is not running");
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    this.#release();
    const consumer = this.#consumer;
    this.#consumer = undefined;
    if (consumer !== undefined) await within(this.#context, deadline, consumer.disconnect());
  }

  async start(): Promise<void> {
    const {
      group,
      topics,
      sessionTimeout,
      rebalanceTimeout,
      heartbeatInterval,
      maxBytesPerPartition,
      maxWait,
      metadataAge,
    } = this.#options;
    const consumer = this.#kafka.consumer({
      groupId: group,
      sessionTimeout,
      rebalanceTimeout,
      heartbeatInterval,
      maxBytesPerPartition,
      maxWaitTimeInMs: maxWait,
      metadataMaxAge: metadataAge,
      allowAutoTopicCreation: false,
      partitionAssigners: [
        (config) => {
          const guard = guardCluster(config.cluster, (partition, offset) => {
            if (this.#consumer === consumer) this.#listener.outOfRange(partition, offset);
          });
          this.#guard = guard;
          const assigner = subscriberAssigner(config.cluster);
          return {
            ...assigner,
            assign: (group) => guard.joining(assigner.assign(group)),
            protocol: (subscription) => {
              if (this.#consumer === consumer) this.#revoke();
              return assigner.protocol(subscription);
            },
          };
        },
      ],
      retry: {
        retries: 8,
        initialRetryTime: 100,
        maxRetryTime: 2_000,
        restartOnFailure: async () => !this.#closed && this.#consumer === consumer,
      },
    });
    this.#consumer = consumer;
    consumer.on(consumer.events.REBALANCING, () => this.#revoke());
    // From here on it has no group, and would throw at a pause or a resume.
    consumer.on(consumer.events.STOP, () => {
      if (this.#consumer === consumer) this.#revoke();
    });
    consumer.on(consumer.events.COMMIT_OFFSETS, () => {
      this.#commits++;
    });
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      if (this.#consumer !== consumer || this.#closed) return;
      const partitions = Object.entries(payload.memberAssignment).flatMap(([topic, list]) =>
        list.map((partition) => ({ topic, partition })),
      );
      // Pauses survive a rejoin, and so would stop a partition that nobody remembers having paused.
      const paused = consumer.paused();
      if (paused.length > 0) consumer.resume(paused);
      this.#guard?.began();
      this.#owned = partitions;
      this.#backoff.reset();
      this.#listener.trouble(undefined, false);
      this.#listener.assigned(partitions, partitions);
    });
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (this.#consumer !== consumer || this.#closed) return;
      this.#revoke();
      const error = driverError(payload.error);
      const fatal = error.code === "unsupported";
      this.#listener.trouble(error, fatal);
      if (!payload.restart && !fatal) this.#rebuild(consumer);
    });
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      if (this.#consumer !== consumer || payload.batchSize > 0) return;
      this.#listener.passed(payload, Number(payload.lastOffset) + 1);
    });
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [...topics], fromBeginning: true });
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: 32,
        eachBatch: async ({ batch, resolveOffset }) => {
          if (this.#consumer !== consumer || batch.messages.length === 0 || isStale(batch)) return;
          const last = batch.messages[batch.messages.length - 1]!.offset;
          const next = Number(batch.lastOffset()) + 1;
          // Resolving moves the fetch position only; what is committed is the checkpoint.
          resolveOffset(last);
          await this.#handOver(
            { topic: batch.topic, partition: batch.partition },
            new KafkaJsRecords(batch.messages),
            next,
          );
        },
      });
    } catch (error) {
      consumer.disconnect().catch(() => {});
      throw driverError(error);
    }
  }

  /**
   * Hands records to the listener. When it asks for a pause meanwhile, the consumer waits here for a moment
   * before it really pauses: with all partitions paused kafkajs sleeps a whole `maxWait` before it looks again,
   * and usually there is room much sooner. It fetches no more from this broker while it waits, so not for long.
   */
  async #handOver(partition: TopicPartition, records: Records, next: number): Promise<void> {
    const key = keyOf(partition);
    this.#handingOver = key;
    this.#listener.records(partition, records, next);
    this.#handingOver = undefined;
    if (!this.#paused.has(key)) return;
    const resumed = await new Promise<boolean>((resolve) => {
      const timer = this.#context.clock.after(longestHold, () => resolve(false));
      this.#holds.set(key, () => {
        timer.cancel();
        resolve(true);
      });
    });
    this.#holds.delete(key);
    if (!resumed && this.#paused.has(key) && this.#owned.length > 0)
      this.#consumer?.pause(grouped([partition]));
  }

  #release(): void {
    this.#paused.clear();
    for (const end of [...this.#holds.values()]) end();
  }

  #revoke(): void {
    this.#guard?.ended();
    const partitions = this.#owned;
    this.#release();
    if (partitions.length === 0) return;
    // The listener commits before this list is cleared; it cannot hold kafkajs back.
    this.#listener.revoking(partitions).catch(() => {});
    this.#owned = [];
  }

  /** Replaces a consumer that has given up, for as long as it takes. */
  async #rebuild(old: Consumer): Promise<void> {
    this.#consumer = undefined;
    this.#context.meter.count("consumer_rebuilds_total");
    old.disconnect().catch(() => {});
    while (!this.#closed) {
      try {
        await this.#backoff.wait();
        if (!this.#closed) await this.start();
        return;
      } catch (error) {
        if (this.#context.signal.aborted) return;
        this.#consumer = undefined;
        this.#listener.trouble(driverError(error), false);
      }
    }
  }
}

/** Starts a subscription. Rejects when the first connection fails. */
export async function subscribe(
  kafka: Kafka,
  context: Context,
  options: SubscribeOptions,
  listener: SubscriptionListener,
): Promise<Subscription> {
  const subscription = new KafkaJsSubscription(kafka, context, options, listener);
  try {
    await subscription.start();
  } catch (error) {
    await subscription.close(context.clock.now() + 1_000);
    throw error;
  }
  return subscription;
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

function grouped(partitions: readonly TopicPartition[]): { topic: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) {
    const list = topics.get(topic);
    if (list === undefined) topics.set(topic, [partition]);
    else list.push(partition);
  }
  return [...topics].map(([topic, list]) => ({ topic, partitions: list }));
}
