import { Backoff } from "../../component/backoff.ts";
import type { Time, Timer } from "../../component/context.ts";
import { byteCount, milliseconds } from "../../component/options.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import type { LaneLag, SourceContext, SourceSession, SourceStatus } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Lane } from "../../message/lane.ts";
import type { Records } from "../../message/records.ts";
import {
  DriverError,
  type DriverErrorCode,
  type KafkaClient,
  type Subscription,
  type TopicPartition,
} from "./driver.ts";
import { missingTopic } from "./errors.ts";
import { openPersistently } from "./opening.ts";
import { groupTimes, type KafkaSourceOptions, metadataAge } from "./options.ts";
import { GrowthWatch } from "./partition-growth.ts";

const joining = "joining the group";

/** One owned partition in one epoch. */
interface Owned extends TopicPartition {
  readonly lane: Lane;
  /** Where the driver reads on, to be told to the lane once everything before it was taken in. */
  next: number;
  /** Something has settled, so that the checkpoint is the lane's own. */
  progressed: boolean;
  /** The highest checkpoint that the broker has taken. */
  committed: number;
  paused: boolean;
  /** Being given up: what still arrives is not taken in, and so is not seen. */
  leaving: boolean;
}

/** A checkpoint to commit. */
interface Moved {
  readonly owned: Owned;
  readonly checkpoint: number;
}

/**
 * Reads topics as a member of a consumer group. Each partition is a lane for one assignment epoch; its
 * checkpoint is what gets committed, and never under another epoch than its own.
 *
 * A driver that delivers more than credit lets in is paused for that partition, so that at most what it had
 * already fetched waits here.
 */
export async function openKafkaSource(
  context: SourceContext,
  client: KafkaClient,
  address: string,
  options: KafkaSourceOptions,
  holdsRebalance: boolean,
): Promise<SourceSession> {
  const session = new KafkaSourceSession(context, client, options, holdsRebalance);
  return openPersistently(context, client, address, "kafka source", async () => {
    const topics = await client.describe(options.topics);
    for (const topic of options.topics)
      if (topics.get(topic) === undefined) throw missingTopic(topic, address);
    await session.subscribe();
    session.watchGrowth(new Map([...topics].map(([topic, found]) => [topic, found?.partitions ?? 0])));
    return session;
  });
}

class KafkaSourceSession implements SourceSession {
  readonly #context: SourceContext;
  readonly #client: KafkaClient;
  readonly #options: KafkaSourceOptions;
  readonly #commitInterval: number;
  readonly #holdsRebalance: boolean;
  readonly #owned = new Map<string, Owned>();
  readonly #errors = new RecentErrors();
  /** By topic. */
  readonly #notes = new Map<string, string>();
  #growth: GrowthWatch | undefined;
  #subscription: Subscription | undefined;
  #epoch = 0;
  #assigned = false;
  #stopped = false;
  #closed = false;
  #trouble: string | undefined = joining;
  #timer: Timer | undefined;
  #committing: Promise<void> | undefined;
  /** Why the last commit failed. */
  #commitFailure: DriverErrorCode | undefined;

  constructor(
    context: SourceContext,
    client: KafkaClient,
    options: KafkaSourceOptions,
    holdsRebalance: boolean,
  ) {
    this.#context = context;
    this.#client = client;
    this.#options = options;
    this.#holdsRebalance = holdsRebalance;
    this.#commitInterval = milliseconds(options.commitInterval, 1_000);
  }

  get stream() {
    return this.#context.intake.stream;
  }

  async subscribe(): Promise<void> {
    const options = this.#options;
    this.#subscription = await this.#client.subscribe(
      {
        group: options.group,
        topics: options.topics,
        ...groupTimes(options),
        rebalanceTimeout: milliseconds(options.rebalanceTimeout, 60_000),
        maxBytesPerPartition: byteCount(options.maxBytesPerPartition, 2 ** 20),
        maxWait: milliseconds(options.maxWait, 500),
        metadataAge: metadataAge(options),
      },
      {
        assigned: (partitions, fresh) => this.#assign(partitions, fresh),
        revoking: (partitions) => this.#revoke(partitions),
        records: (partition, records, next) => this.#deliver(partition, records, next),
        passed: (partition, next) => this.#pass(partition, next),
        outOfRange: (partition, offset) => this.#outOfRange(partition, offset),
        trouble: (error, fatal) => this.#setTrouble(error, fatal),
      },
    );
  }

  watchGrowth(partitions: ReadonlyMap<string, number>): void {
    const { onPartitionGrowth } = this.#options;
    this.#growth = new GrowthWatch(
      this.#context,
      this.#client,
      partitions,
      metadataAge(this.#options),
      ({ topic, before, now }) => {
        const grown = `topic "${topic}" has ${now} partitions instead of ${before}`;
        if (onPartitionGrowth === "fail") {
          this.#context.intake.fail(
            new MillraceError("gave-up", `${this.#context.node}: ${grown}`, {
              remedy:
                'keys are in other partitions now: start again when what came before is done with, or set onPartitionGrowth: "accept"',
            }),
          );
          return;
        }
        const note = `${grown}: what came of a key before may be in another one than what comes now, and order by key and dedup by lane hold from here on only`;
        this.#notes.set(topic, note);
        this.#context.logger.warn({ node: this.#context.node, topic, before, now }, note);
      },
    );
  }

  stopIntake(): void {
    this.#stopped = true;
    this.#growth?.stop();
    this.#context.intake.stop();
    this.#subscription?.pause([...this.#owned.values()]);
  }

  /** Commits every checkpoint that has moved and waits for the broker, through network faults, until the run is aborted. */
  async commit(): Promise<void> {
    const backoff = new Backoff(this.#context, { initial: 50, max: 2_000 });
    while (!(await this.#commitOnce())) await backoff.wait();
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#growth?.stop();
    await this.#subscription?.close(deadline);
    await this.#client.close(deadline);
    for (const owned of [...this.#owned.values()]) this.#end(owned);
  }

  status(): SourceStatus {
    const ready = this.#assigned && this.#trouble === undefined;
    return {
      ready,
      ...(ready ? {} : { reason: this.#trouble ?? joining }),
      ...(this.#notes.size === 0 ? {} : { notes: [...this.#notes.values()] }),
      lastErrors: this.#errors.list,
    };
  }

  async atEnd(): Promise<boolean> {
    if (!this.#assigned || this.#trouble !== undefined) return false;
    for (const topic of this.#options.topics) {
      const offsets = await this.#client.offsets(topic);
      let committed: ReadonlyMap<number, number> | undefined;
      for (const { partition, earliest, latest } of offsets) {
        if (latest === earliest) continue;
        const owned = this.#owned.get(keyOf({ topic, partition }));
        if (owned !== undefined && this.#context.intake.waiting(owned.lane) > 0) return false;
        if (owned !== undefined && owned.next > 0) {
          if (owned.next < latest) return false;
          continue;
        }
        // Another member's partition, or one of ours that has given nothing yet: at its end when the group has
        // committed all of it. An offset that is no longer in the log says nothing: reading begins elsewhere.
        committed ??= await this.#client.committed(this.#options.group, topic);
        if (committed.get(partition) !== latest) return false;
      }
    }
    return true;
  }

  async lag(): Promise<readonly LaneLag[]> {
    const lags: LaneLag[] = [];
    for (const topic of this.#options.topics) {
      const owned = [...this.#owned.values()].filter((one) => one.topic === topic);
      if (owned.length === 0) continue;
      const offsets = await this.#client.offsets(topic);
      let committed: ReadonlyMap<number, number> | undefined;
      for (const { lane, partition, next, paused, leaving } of owned) {
        const log = offsets.find((one) => one.partition === partition);
        if (log === undefined) continue;
        // Nothing has come of it yet: it is read from where the group left off.
        if (next === 0) committed ??= await this.#client.committed(this.#options.group, topic);
        const from = next > 0 ? next : Math.max(committed?.get(partition) ?? 0, log.earliest);
        lags.push({ lane, lag: Math.max(0, log.latest - from), asking: !paused && !leaving });
      }
    }
    return lags;
  }

  #assign(partitions: readonly TopicPartition[], fresh: readonly TopicPartition[]): void {
    const kept = new Set(partitions.map(keyOf));
    const renewed = new Set(fresh.map(keyOf));
    for (const [key, owned] of [...this.#owned]) if (!kept.has(key) || renewed.has(key)) this.#end(owned);
    this.#epoch++;
    for (const partition of fresh) this.#own(partition);
    this.#assigned = true;
    this.#trouble = undefined;
    this.#context.logger.info(
      { node: this.#context.node, epoch: this.#epoch, partitions: partitions.map(keyOf).join(" ") || "none" },
      "partitions assigned",
    );
    if (this.#stopped) this.#subscription?.pause([...this.#owned.values()]);
  }

  async #revoke(partitions: readonly TopicPartition[]): Promise<void> {
    if (partitions.length === 0) return;
    this.#context.logger.info(
      { node: this.#context.node, partitions: partitions.map(keyOf).join(" ") },
      "partitions revoked",
    );
    if (this.#holdsRebalance) await this.#letGo(partitions);
    // What is settled by now is committed under the epoch that is ending, without waiting for a commit that may be
    // out; the broker fences it if it comes late.
    const commit = this.#send(this.#moved());
    for (const partition of partitions) {
      const owned = this.#owned.get(keyOf(partition));
      if (owned !== undefined) this.#end(owned);
    }
    this.#assigned = false;
    // Of partitions that are kept, another commit is due if this one failed.
    if (!(await commit)) this.#armCommit();
  }

  /** Finishes and commits what is in flight of these, for most of the time that the group waits. */
  async #letGo(partitions: readonly TopicPartition[]): Promise<void> {
    const rebalanceTimeout = milliseconds(this.#options.rebalanceTimeout, 60_000);
    const deadline = this.#context.clock.now() + Math.max(rebalanceTimeout / 3, rebalanceTimeout - 10_000);
    const leaving = partitions.flatMap((partition) => this.#owned.get(keyOf(partition)) ?? []);
    for (const owned of leaving) owned.leaving = true;
    const lanes = leaving.map(({ lane }) => lane);
    await this.#context.intake.drain(lanes, deadline);
    const backoff = new Backoff(this.#context, { initial: 50, max: 1_000 });
    while (lanes.some((lane) => !lane.ended) && !(await this.#commitOnce())) {
      // The topic was deleted: there is nothing left to commit to, and another may take its name at any time.
      if (this.#commitFailure === "unknown-topic") return;
      await backoff.wait().catch(() => {});
      if (this.#context.signal.aborted || this.#context.clock.now() >= deadline) return;
    }
  }

  #end(owned: Owned): void {
    this.#owned.delete(keyOf(owned));
    this.#context.intake.end(owned.lane);
  }

  #deliver(partition: TopicPartition, records: Records, next: number): void {
    const owned = this.#owned.get(keyOf(partition));
    if (owned === undefined || owned.leaving || this.#stopped) return;
    owned.next = next;
    this.#context.intake.offer(owned.lane, records);
    // Whoever got a chunk of it may have stopped the intake, which dropped the rest.
    if (this.#stopped) return;
    if (this.#context.intake.waiting(owned.lane) === 0) owned.lane.skipTo(next);
    else if (!owned.paused) {
      owned.paused = true;
      this.#subscription?.pause([owned]);
    }
  }

  #pass(partition: TopicPartition, next: number): void {
    const owned = this.#owned.get(keyOf(partition));
    if (owned === undefined || owned.leaving || next <= owned.next || this.#stopped) return;
    owned.next = next;
    if (this.#context.intake.waiting(owned.lane) === 0) owned.lane.skipTo(next);
  }

  #drained(lane: Lane): void {
    const owned = this.#owned.get(
      keyOf({ topic: lane.origin.target, partition: lane.origin.partition ?? 0 }),
    );
    if (owned?.lane !== lane || owned.leaving) return;
    lane.skipTo(owned.next);
    if (!owned.paused) return;
    owned.paused = false;
    if (!this.#stopped) this.#subscription?.resume([owned]);
  }

  #setTrouble(error: DriverError | undefined, fatal: boolean): void {
    if (error === undefined) {
      if (this.#assigned) this.#trouble = undefined;
      return;
    }
    const message = messageOf(error);
    // One line for each trouble, however many attempts it takes to mend it.
    if (!this.#closed && (this.#trouble === undefined || this.#trouble === joining)) {
      this.#context.logger.warn(
        { node: this.#context.node, error: message },
        "kafka source is in trouble, retrying",
      );
    }
    this.#context.meter.count("source_troubles_total");
    this.#trouble = message;
    this.#errors.add(message, this.#context.clock.wall());
    if (fatal) {
      this.#context.intake.fail(
        new MillraceError("gave-up", `${this.#context.node}: ${message}`, { cause: error }),
      );
    }
  }

  #armCommit(): void {
    if (this.#timer !== undefined || this.#closed) return;
    this.#timer = this.#context.clock.after(this.#commitInterval, () => {
      this.#timer = undefined;
      this.#commitOnce().then((done) => {
        if (!done) this.#armCommit();
      });
    });
  }

  /** One commit at a time; false when it failed and something is left to commit. */
  async #commitOnce(): Promise<boolean> {
    while (this.#committing !== undefined) await this.#committing;
    return this.#send(this.#moved());
  }

  /** The checkpoints that the broker has not been told of. */
  #moved(): readonly Moved[] {
    const moved: Moved[] = [];
    for (const owned of this.#owned.values()) {
      if (owned.lane.readCheckpoint() !== undefined) owned.progressed = true;
      const { checkpoint } = owned.lane;
      if (owned.progressed && checkpoint > owned.committed) moved.push({ owned, checkpoint });
    }
    return moved;
  }

  async #send(moved: readonly Moved[]): Promise<boolean> {
    if (moved.length === 0 || this.#subscription === undefined) return true;
    let failed = false;
    const committing = this.#subscription
      .commit(
        moved.map(({ owned: { topic, partition }, checkpoint }) => ({
          topic,
          partition,
          offset: checkpoint,
        })),
      )
      .then(
        () => {
          this.#commitFailure = undefined;
          for (const { owned, checkpoint } of moved) {
            owned.committed = Math.max(owned.committed, checkpoint);
          }
        },
        (error) => {
          // A fenced commit belongs to an epoch that is over: what was given up comes again, and is not repeated
          // here. What is still owned is tried again, under the epoch of then.
          this.#commitFailure = error instanceof DriverError ? error.code : "retry";
          const fenced = this.#commitFailure === "fenced";
          failed = !fenced || moved.some(({ owned }) => this.#owned.get(keyOf(owned)) === owned);
          this.#errors.add(`commit: ${messageOf(error)}`, this.#context.clock.wall());
          this.#context.meter.count("commit_failures_total");
        },
      )
      .finally(() => {
        if (this.#committing === committing) this.#committing = undefined;
      });
    this.#committing = committing;
    await committing;
    return !failed;
  }

  /** Messages are gone that were never read, or the log is another one: what comes now belongs to a new epoch. */
  #outOfRange(partition: TopicPartition, offset: number): void {
    const owned = this.#owned.get(keyOf(partition));
    if (owned === undefined) return;
    const where = keyOf(partition);
    const text = `${where}: offset ${offset} is no longer in the log`;
    this.#errors.add(text, this.#context.clock.wall());
    this.#context.meter.count("offsets_out_of_range_total");
    this.#context.logger.error({ node: this.#context.node, partition: where, offset }, "offset out of range");
    if (this.#options.onOffsetOutOfRange === "fail") {
      this.#context.intake.fail(
        new MillraceError("gave-up", text, {
          remedy:
            'messages are gone that were never read; set onOffsetOutOfRange: "earliest" to go on without them',
        }),
      );
      return;
    }
    this.#end(owned);
    this.#epoch++;
    this.#own(partition);
    if (this.#stopped) this.#subscription?.pause([partition]);
    else if (owned.paused) this.#subscription?.resume([partition]);
  }

  #own({ topic, partition }: TopicPartition): void {
    const lane = this.#context.intake.open({
      origin: { target: topic, partition },
      epoch: this.#epoch,
      ack: "cumulative",
      onProgress: () => this.#armCommit(),
      onDrained: (drained) => this.#drained(drained),
    });
    this.#owned.set(keyOf({ topic, partition }), {
      topic,
      partition,
      lane,
      next: 0,
      progressed: false,
      committed: -1,
      paused: false,
      leaving: false,
    });
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}
