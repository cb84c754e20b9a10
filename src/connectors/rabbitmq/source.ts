import { Backoff, pause } from "../../component/backoff.ts";
import type { Time, Timer } from "../../component/context.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import type { LaneLag, SourceContext, SourceSession, SourceStatus } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Lane } from "../../message/lane.ts";
import { Administration, administer, createMissing, declareAll, hasQueue, isStream } from "./declare.ts";
import { DepthGate } from "./depth-gate.ts";
import type { AmqpChannel, AmqpConnection, AmqpError, Delivery } from "./driver.ts";
import { isInUse, isMissing, lastingError, missingTarget } from "./errors.ts";
import type { Link } from "./link.ts";
import {
  type Declarations,
  defaultPrefetch,
  gateSettings,
  oldestUnacknowledged,
  type RabbitmqSourceOptions,
} from "./options.ts";
import { Deliveries } from "./properties.ts";
import { settledBefore } from "./settled-before.ts";

/** Settled messages above an unsettled one are acknowledged by themselves after so long, ms … */
const individualAfter = 100;
/** … or when they are more than this part of the prefetch. */
const individualPart = 1 / 4;
/** How often it is looked whether the gate has opened before anything is consumed, ms. */
const gateTick = 100;
/** How often it is looked whether the sinks answer again, ms. */
const downstreamTick = 1_000;
/** Delivery tags begin with it on each channel. */
const firstTag = 1;
/** What a stream delivers has it, and so has what somebody copied out of one. */
const streamHeader = "x-stream-offset";
/** A consumer that lived so long was a good one, and the next wait begins small again, ms. */
const goodAfter = 1_000;

export interface SourceSetting {
  readonly link: Link;
  readonly declarations: Declarations;
  readonly address: string;
  /** Embedded: a queue that is not there is made. */
  readonly creates: boolean;
  /** The broker that the gate looks at, where the options have one. */
  readonly gate?: { readonly link: Link; readonly address: string };
}

/**
 * Reads a queue. A consumer's channel is one lane in one epoch: delivery tags are its positions, and they mean
 * nothing on any other channel. When the channel is gone the lane ends, the broker gives out again what was
 * unacknowledged, and whatever still settles under the old lane does nothing.
 *
 * The prefetch is the credit: the broker sends no more than is in flight and waiting. So acknowledgements must
 * not wait behind one slow message: see {@link Consumption}.
 *
 * While its gate is closed nothing goes into the pipeline: the prefetch fills, and the broker keeps the rest.
 */
export async function openRabbitmqSource(
  context: SourceContext,
  setting: SourceSetting,
  options: RabbitmqSourceOptions,
): Promise<SourceSession> {
  const session = new RabbitmqSourceSession(context, setting, options);
  await session.opened;
  return session;
}

class RabbitmqSourceSession implements SourceSession {
  /** Resolves once the session consumes, or stands by for another consumer; rejects when it cannot at all. */
  readonly opened: Promise<void>;
  readonly #context: SourceContext;
  readonly #setting: SourceSetting;
  readonly #options: RabbitmqSourceOptions;
  readonly #prefetch: number;
  readonly #errors = new RecentErrors();
  readonly #backoff: Backoff;
  readonly #gate: DepthGate | undefined;
  readonly #ended: Promise<void>;
  readonly #stop = new AbortController();
  #isOpen = false;
  #consumption: Consumption | undefined;
  #administration: { readonly of: AmqpConnection; readonly channel: Administration } | undefined;
  #epoch = 0;
  #trouble: string | undefined = "connecting";
  #stopped = false;
  #closed = false;
  /** After a channel was given up for its age: one message at a time until one is through. */
  #probing = false;
  #caution: string | undefined;
  #tellOpened!: { resolve: () => void; reject: (error: unknown) => void };

  constructor(context: SourceContext, setting: SourceSetting, options: RabbitmqSourceOptions) {
    this.#context = context;
    this.#setting = setting;
    this.#options = options;
    this.#prefetch = options.prefetch ?? defaultPrefetch;
    this.#backoff = new Backoff({
      clock: context.clock,
      random: context.random,
      signal: AbortSignal.any([context.signal, this.#stop.signal]),
    });
    this.opened = new Promise((resolve, reject) => {
      this.#tellOpened = { resolve, reject };
    });
    setting.link.acquire();
    if (options.gate !== undefined && setting.gate !== undefined) {
      this.#gate = new DepthGate(context, setting.gate, gateSettings(options.gate), () =>
        this.#consumption?.takeHeld(),
      );
    }
    this.#ended = this.#run();
  }

  get stream() {
    return this.#context.intake.stream;
  }

  stopIntake(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#context.intake.stop();
    // The channel stays for acknowledgements; what was sent and never taken in returns when it closes.
    this.#consumption?.stop();
    this.#stop.abort(new MillraceError("connection-lost", "the source was stopped"));
  }

  async commit(): Promise<void> {
    await this.#consumption?.commit();
  }

  async close(deadline: Time): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.stopIntake();
    const { clock } = this.#context;
    const consumption = this.#consumption;
    await settledBefore(
      clock,
      deadline,
      Promise.all([consumption?.close(), this.#administration?.channel.close(), this.#gate?.stop(deadline)]),
    );
    consumption?.end();
    await this.#setting.link.release(deadline);
    await settledBefore(clock, deadline, this.#ended);
  }

  status(): SourceStatus {
    const trouble = this.#setting.link.trouble ?? this.#trouble;
    const caution = this.#consumption?.probing === true ? this.#caution : undefined;
    const reason = trouble ?? this.#gate?.reason ?? caution;
    return {
      ready: trouble === undefined,
      ...(reason === undefined ? {} : { reason }),
      lastErrors: [...this.#errors.list, ...this.#setting.link.errors.list]
        .toSorted((a, b) => b.at - a.at)
        .slice(0, 5),
    };
  }

  /**
   * The queue's depth is asked for first and what was received is looked at afterwards, behind a round trip on
   * the consumer's own channel: every delivery made before the answer has then arrived.
   */
  async atEnd(): Promise<boolean> {
    const consumption = this.#consumption;
    if (consumption === undefined || !consumption.consuming) return false;
    const { messageCount } = await this.#administer().ask((channel) =>
      channel.checkQueue(this.#options.queue),
    );
    if (!(await consumption.roundTrip())) return false;
    if (messageCount > 0) {
      if (consumption.gotNothing) await this.#refuseStream();
      return false;
    }
    return consumption === this.#consumption && consumption.consuming && consumption.waiting === 0;
  }

  async lag(): Promise<readonly LaneLag[]> {
    const consumption = this.#consumption;
    if (consumption?.lane === undefined || !consumption.consuming) return [];
    const { messageCount, consumerCount } = await this.#administer().ask((channel) =>
      channel.checkQueue(this.#options.queue),
    );
    const { lane } = consumption;
    if (consumption !== this.#consumption || lane === undefined) return [];
    // With a single active consumer the others get nothing, however much there is, and nobody tells them.
    const mayStandBy = consumerCount > 1 && lane.position === firstTag;
    if (messageCount > 0 && consumption.gotNothing) await this.#refuseStream();
    return [
      { lane, lag: messageCount, asking: consumption.hasRoom && !mayStandBy && (this.#gate?.isOpen ?? true) },
    ];
  }

  /**
   * To a stream an acknowledgement means nothing: what is in flight at a stop would never come again, and what was
   * there before is never read. Asked only where there is a sign of it, once for each consumer.
   */
  async #refuseStream(): Promise<void> {
    const { queue } = this.#options;
    if (this.#consumption?.takeDoubt() !== true || !(await isStream(this.#administer(), queue))) return;
    this.#context.intake.fail(
      new MillraceError(
        "target-mismatch",
        `queue "${queue}" on ${this.#setting.address} is a stream, which keeps no account of what was acknowledged: after a restart messages would be missing`,
        { remedy: "bind a quorum queue to the exchange that the stream is bound to, and read that one" },
      ),
    );
  }

  #administer(): Administration {
    const connection = this.#consumption!.connection;
    if (this.#administration?.of !== connection) {
      this.#administration = { of: connection, channel: new Administration(connection) };
    }
    return this.#administration.channel;
  }

  /** Keeps one consumer going until the session stops, on one channel after another. */
  async #run(): Promise<void> {
    let failure: unknown = new MillraceError("connection-lost", "the source was stopped");
    try {
      while (!this.#stopped) await this.#consumeOnce();
    } catch (error) {
      failure = error instanceof Unmendable ? error.error : error;
      if (this.#isOpen && !this.#stopped && !this.#context.signal.aborted) {
        this.#context.intake.fail(failure instanceof Error ? failure : new Error(String(failure)));
      }
    }
    if (!this.#isOpen) this.#refuseOpening(failure);
  }

  /** One channel, from its opening to its end. Throws what no further attempt mends. */
  async #consumeOnce(): Promise<void> {
    if (this.#probing) await this.#downstreamAnswers();
    if (this.#stopped) return;
    // A failure of the connection itself is final: the link has tried often enough.
    const connection = await this.#setting.link.connected();
    try {
      const consumption = await Consumption.open(this.#context, connection, {
        queue: this.#options.queue,
        epoch: ++this.#epoch,
        prefetch: this.#prefetch,
        probing: this.#probing,
        consumerTag: this.#options.consumerTag,
        exclusive: this.#options.exclusive ?? false,
        keyFromRoutingKey: this.#options.key === "routing-key",
        oldest: oldestUnacknowledged(this.#options),
        mayTakeIn: () => this.#gate?.isOpen ?? true,
        likeStream: () => {
          this.#refuseStream().catch(() => {});
        },
      });
      this.#consumption = consumption;
      try {
        await this.#keepConsuming(consumption);
      } finally {
        this.#probing = consumption.recycled || (this.#probing && consumption.probing);
        // A stopped session keeps its channel for acknowledgements until it is closed.
        if (!this.#stopped || consumption.closed) this.#drop(consumption);
      }
      if (this.#stopped) return;
      if (consumption.recycled) this.#caution = consumption.whyRecycled;
      else if (consumption.fault !== undefined) throw consumption.fault;
    } catch (error) {
      if (this.#stopped) return;
      this.#note(error);
      await this.#pause();
    }
  }

  /**
   * Every delivery counts against a quorum queue's delivery limit, beyond which it drops the message or dead-letters
   * it. So what was given back for its age is not taken again while a sink is known to be away.
   */
  async #downstreamAnswers(): Promise<void> {
    const { clock, signal } = this.#context;
    for (
      let trouble = this.#context.downstream();
      trouble !== undefined;
      trouble = this.#context.downstream()
    ) {
      this.#trouble = `${this.#caution}; nothing is read before the sink answers (${trouble})`;
      const stopped = AbortSignal.any([signal, this.#stop.signal]);
      await pause({ clock, signal: stopped }, downstreamTick).catch(() => {});
      if (signal.aborted) throw signal.reason;
      if (this.#stopped) return;
    }
  }

  /**
   * Nothing is asked for while the gate is closed. What is delivered before it closes is held, and after
   * `consumer_timeout` the broker takes that back; each time counts against a quorum queue's delivery limit.
   */
  async #gateOpens(consumption: Consumption): Promise<void> {
    const signal = AbortSignal.any([this.#context.signal, this.#stop.signal]);
    while (this.#gate?.isOpen === false && !this.#stopped && !consumption.closed) {
      this.#trouble = undefined;
      this.#tellOpen();
      await pause({ clock: this.#context.clock, signal }, gateTick).catch(() => {});
      if (this.#context.signal.aborted) throw this.#context.signal.reason;
    }
  }

  /** Consumes, and again whenever the broker cancels the consumer, for as long as the channel lives. */
  async #keepConsuming(consumption: Consumption): Promise<void> {
    while (!this.#stopped && !consumption.closed) {
      await this.#ensureQueue(consumption.connection);
      if (this.#stopped) return;
      if (!this.#isOpen) await this.#gate?.opened.catch(refuseForGood);
      await this.#gateOpens(consumption);
      if (this.#stopped || consumption.closed) return;
      await consumption.consume();
      this.#trouble = undefined;
      this.#tellOpen();
      const since = this.#context.clock.now();
      const ended = await consumption.ended();
      if (this.#context.clock.now() - since >= goodAfter) this.#backoff.reset();
      if (ended !== "cancelled" || this.#stopped) continue;
      const error = new MillraceError(
        "target-missing",
        `the broker cancelled the consumer of queue "${this.#options.queue}": it was deleted, or moves`,
      );
      this.#note(error);
      await this.#pause();
    }
  }

  /** Waits until the queue is there: declared ones are made, others looked for. At the start a missing one is final. */
  async #ensureQueue(connection: AmqpConnection): Promise<void> {
    const { queue } = this.#options;
    const { declarations, address, creates } = this.#setting;
    while (!this.#stopped) {
      try {
        const found = await administer(connection, async (administration) => {
          if (await hasQueue(administration, queue)) return true;
          if (creates) {
            const requirement = {
              kind: "queue",
              name: queue,
              role: "source",
              at: this.#context.node,
            } as const;
            await createMissing(administration, declarations, [requirement], address);
          } else if (declarations.queues.has(queue)) await declareAll(administration, declarations, address);
          else return false;
          return true;
        });
        if (found) return;
        throw missingTarget("queue", queue, address);
      } catch (error) {
        const lasting = lastingError(error, address);
        if (!this.#isOpen && lasting !== undefined) throw new Unmendable(lasting);
        // Lost connections are the caller's affair.
        if (lasting === undefined && !isMissing(error)) throw error;
        this.#note(lasting ?? error);
        await this.#pause();
      }
    }
  }

  #drop(consumption: Consumption): void {
    consumption.end();
    // What failed may have been something else than its channel.
    consumption.close();
    if (this.#consumption === consumption) this.#consumption = undefined;
  }

  #tellOpen(): void {
    this.#isOpen = true;
    this.#tellOpened.resolve();
  }

  #refuseOpening(error: unknown): void {
    this.#tellOpened.reject(error);
    this.#closed = true;
    this.#consumption?.end();
    const { clock } = this.#context;
    this.#gate?.stop(clock.now() + 1_000);
    this.#setting.link.release(clock.now() + 1_000);
  }

  /** Shows and logs what went wrong. Throws it at the start if no further attempt mends it. */
  #note(error: unknown): void {
    if (error instanceof Unmendable) throw error;
    const { clock, logger, meter, node } = this.#context;
    const { queue } = this.#options;
    const lasting = lastingError(error, this.#setting.address);
    if (!this.#isOpen && lasting !== undefined) throw new Unmendable(lasting);
    const message = messageOf(error);
    this.#trouble = message;
    this.#errors.add(error, clock.wall());
    meter.count("consumer_restarts_total");
    logger.warn({ node, queue, error: message }, "the consumer stopped");
    // Whoever has the queue for itself may hold it for days: the run goes on and this source stands by.
    if (isInUse(error)) this.#tellOpen();
  }

  /** The link has waits of its own for a connection that was lost. */
  async #pause(): Promise<void> {
    if (this.#setting.link.isUp) await this.#backoff.wait().catch(() => {});
    if (this.#context.signal.aborted) throw this.#context.signal.reason;
  }
}

/** The first look of a gate fails only for what no further one mends. */
function refuseForGood(error: unknown): never {
  throw error instanceof MillraceError ? new Unmendable(error) : error;
}

/** What keeps a session from opening, on its way out through everything that would try again. */
class Unmendable extends Error {
  readonly error: MillraceError;

  constructor(error: MillraceError) {
    super(error.message);
    this.error = error;
  }
}

interface ConsumptionOptions {
  readonly queue: string;
  readonly epoch: number;
  readonly prefetch: number;
  readonly probing: boolean;
  readonly consumerTag: string | undefined;
  readonly exclusive: boolean;
  readonly keyFromRoutingKey: boolean;
  /** ms; 0 for no limit */
  readonly oldest: number;
  /** False while a gate is closed. */
  readonly mayTakeIn: () => boolean;
  /** What was delivered looks as if it came from a stream. */
  readonly likeStream: () => void;
}

/** Deliveries offered together: up to this tag, at this time. */
interface Arrival {
  readonly last: number;
  readonly at: Time;
}

/**
 * One channel with one consumer at a time, and its lane.
 *
 * Acknowledgements: the contiguous settled part goes out as one (`multiple`) on a later turn of the event loop;
 * settled messages above an unsettled one go out by themselves, 100 ms later or when they are more than a
 * quarter of the prefetch. So one stuck message never keeps the broker from sending.
 *
 * Age: a message that is unsettled for two thirds of the broker's consumer_timeout makes us close the channel
 * before the broker does. Everything returns to the queue, and the next channel reads one message at a time
 * until one is through.
 */
class Consumption {
  static async open(
    context: SourceContext,
    connection: AmqpConnection,
    options: ConsumptionOptions,
  ): Promise<Consumption> {
    const consumption = new Consumption(context, connection, options);
    consumption.#channel = await connection.openChannel({
      closed: (error) => consumption.#close(error),
      delivered: (delivery) => consumption.#deliver(delivery),
      cancelled: () => {
        consumption.#cancels++;
        consumption.#end("cancelled");
      },
    });
    return consumption;
  }

  readonly connection: AmqpConnection;
  readonly #context: SourceContext;
  readonly #options: ConsumptionOptions;
  #channel!: AmqpChannel;
  #lane: Lane | undefined;
  /** Received in this turn of the event loop, and not yet offered. */
  #arrived: Delivery[] = [];
  #offerScheduled = false;
  #ackScheduled = false;
  #ackTimer: Timer | undefined;
  readonly #arrivals: Arrival[] = [];
  #ageTimer: Timer | undefined;
  #consumerTag: string | undefined;
  /** How often the broker ended the consumer. */
  #cancels = 0;
  #probing: boolean;
  #stopped = false;
  #closed = false;
  #fault: AmqpError | undefined;
  #whyRecycled: string | undefined;
  #tellEnded: ((how: "cancelled" | "closed" | "widened") => void) | undefined;
  /** Nobody has asked yet whether the consumer has a stream before it. */
  #doubt = true;
  #delivered = 0;

  private constructor(context: SourceContext, connection: AmqpConnection, options: ConsumptionOptions) {
    this.#context = context;
    this.connection = connection;
    this.#options = options;
    this.#probing = options.probing;
  }

  get consuming(): boolean {
    return this.#consumerTag !== undefined && !this.#closed;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get lane(): Lane | undefined {
    return this.#lane;
  }

  /** The broker may send more: the prefetch is not used up. */
  get hasRoom(): boolean {
    const inHand = this.waiting + (this.#lane?.inFlight ?? 0);
    return inHand < (this.#probing ? 1 : this.#options.prefetch);
  }

  get fault(): AmqpError | undefined {
    return this.#fault;
  }

  get recycled(): boolean {
    return this.#whyRecycled !== undefined;
  }

  get whyRecycled(): string | undefined {
    return this.#whyRecycled;
  }

  get probing(): boolean {
    return this.#probing;
  }

  /** Received and not yet taken in. */
  get waiting(): number {
    return this.#arrived.length + (this.#lane === undefined ? 0 : this.#context.intake.waiting(this.#lane));
  }

  /** The consumer asks for messages, and has got none yet. */
  get gotNothing(): boolean {
    return this.consuming && this.#delivered === 0;
  }

  /** True the first time it is called for a consumer. */
  takeDoubt(): boolean {
    const doubt = this.#doubt;
    this.#doubt = false;
    return doubt;
  }

  /** The gate has changed. */
  takeHeld(): void {
    if (!this.#stopped && !this.#closed) this.#offer();
  }

  async consume(): Promise<void> {
    const { queue, consumerTag, exclusive, prefetch } = this.#options;
    await this.#channel.prefetch(this.#probing ? 1 : prefetch);
    const cancels = this.#cancels;
    this.#doubt = true;
    this.#delivered = 0;
    const tag = await this.#channel.consume(queue, { consumerTag, exclusive });
    // The queue may be gone again already, and the word of it comes before that of the start.
    this.#consumerTag = cancels === this.#cancels ? tag : undefined;
    this.#openLane();
    if (this.#stopped) this.#cancel();
  }

  /** Resolves when the consumer has ended: the broker cancelled it, the channel is closed, or a wider one must follow. */
  async ended(): Promise<"cancelled" | "closed" | "widened"> {
    if (this.#closed) return "closed";
    if (this.#consumerTag === undefined) return "cancelled";
    const how = await new Promise<"cancelled" | "closed" | "widened">((resolve) => {
      this.#tellEnded = resolve;
    });
    if (how === "widened") await this.#channel.cancel(this.#consumerTag).catch(() => {});
    return how;
  }

  /** No more deliveries; the channel stays for acknowledgements. */
  stop(): void {
    this.#stopped = true;
    this.#arrived = [];
    this.#cancel();
    this.#ageTimer?.cancel();
    this.#tellEnded?.("cancelled");
  }

  /** Acknowledges all that is settled; resolves when the broker has taken it, or the channel is gone. */
  async commit(): Promise<void> {
    if (this.#closed || this.#lane === undefined) return;
    this.#acknowledge(true);
    await this.roundTrip();
  }

  /** False when the channel is gone. */
  async roundTrip(): Promise<boolean> {
    try {
      await this.#channel.prefetch(this.#probing ? 1 : this.#options.prefetch);
      return true;
    } catch {
      return false;
    }
  }

  close(): Promise<void> {
    return this.#channel.close();
  }

  /** The epoch is over: what is unsettled is returned. */
  end(): void {
    this.#closed = true;
    this.#arrived = [];
    this.#ackTimer?.cancel();
    this.#ageTimer?.cancel();
    const lane = this.#lane;
    this.#lane = undefined;
    if (lane !== undefined) this.#context.intake.end(lane);
  }

  #openLane(): Lane | undefined {
    if (this.#lane === undefined && !this.#closed) {
      this.#lane = this.#context.intake.open({
        origin: { target: this.#options.queue },
        epoch: this.#options.epoch,
        ack: "individual",
        start: firstTag,
        onProgress: () => this.#progress(),
      });
    }
    return this.#lane;
  }

  #deliver(delivery: Delivery): void {
    if (this.#stopped || this.#closed) return;
    if (this.#delivered++ === 0 && delivery.properties.headers?.[streamHeader] !== undefined) {
      this.#options.likeStream();
    }
    this.#arrived.push(delivery);
    if (this.#offerScheduled) return;
    this.#offerScheduled = true;
    this.#context.clock.defer(() => {
      this.#offerScheduled = false;
      this.#offer();
    });
  }

  #offer(): void {
    const arrived = this.#arrived;
    const lane = this.#openLane();
    if (arrived.length === 0 || lane === undefined || !this.#options.mayTakeIn()) return;
    this.#arrived = [];
    const { clock, intake } = this.#context;
    this.#forgetArrivals(lane);
    this.#arrivals.push({ last: arrived.at(-1)!.fields.deliveryTag, at: clock.now() });
    this.#armAge();
    intake.offer(lane, new Deliveries(arrived, clock.wall(), this.#options.keyFromRoutingKey));
  }

  #progress(): void {
    if (this.#ackScheduled) return;
    this.#ackScheduled = true;
    this.#context.clock.defer(() => {
      this.#ackScheduled = false;
      // An aborted run acknowledges nothing more by itself.
      if (!this.#closed && !this.#context.signal.aborted) this.#acknowledge(false);
    });
  }

  #acknowledge(all: boolean): void {
    const lane = this.#lane;
    if (lane === undefined) return;
    const individually = all || lane.settledAboveHole > this.#options.prefetch * individualPart;
    lane.collectAcks(individually, (tag, multiple) => this.#channel.ack(tag, multiple));
    if (lane.settledAboveHole === 0) {
      this.#ackTimer?.cancel();
      this.#ackTimer = undefined;
    } else {
      this.#ackTimer ??= this.#context.clock.after(individualAfter, () => {
        this.#ackTimer = undefined;
        if (!this.#closed && !this.#context.signal.aborted) this.#acknowledge(true);
      });
    }
    if (this.#probing && lane.passed > 0 && this.#whyRecycled === undefined) {
      this.#probing = false;
      this.#end("widened");
    }
  }

  #cancel(): void {
    const tag = this.#consumerTag;
    this.#consumerTag = undefined;
    // On a closed channel there is nothing to cancel.
    if (tag !== undefined && !this.#closed) this.#channel.cancel(tag).catch(() => {});
  }

  #armAge(): void {
    const { oldest } = this.#options;
    if (oldest === 0 || this.#ageTimer !== undefined) return;
    this.#ageTimer = this.#context.clock.after(oldest / 8, () => {
      this.#ageTimer = undefined;
      this.#checkAge();
    });
  }

  #checkAge(): void {
    const lane = this.#lane;
    if (lane === undefined || this.#stopped || this.#closed) return;
    this.#forgetArrivals(lane);
    const oldest = this.#arrivals[0];
    if (oldest === undefined) return;
    const { clock, logger, node, meter } = this.#context;
    if (clock.now() - oldest.at < this.#options.oldest * (7 / 8)) {
      this.#armAge();
      return;
    }
    this.#whyRecycled = `a message was unsettled for ${Math.round((clock.now() - oldest.at) / 1_000)} s; everything in flight was returned to queue "${this.#options.queue}" before the broker's consumer_timeout, and one message is tried at a time`;
    meter.count("consumer_recycles_total");
    logger.warn({ node, queue: this.#options.queue, unsettled: lane.inFlight }, this.#whyRecycled);
    this.#channel.close();
  }

  #forgetArrivals(lane: Lane): void {
    const unsettledFrom = lane.checkpoint;
    while (this.#arrivals.length > 0 && this.#arrivals[0]!.last < unsettledFrom) this.#arrivals.shift();
  }

  #close(error: AmqpError | undefined): void {
    if (this.#closed) return;
    this.#fault = error;
    this.end();
    this.#end("closed");
  }

  #end(how: "cancelled" | "closed" | "widened"): void {
    if (how !== "widened") this.#consumerTag = undefined;
    this.#tellEnded?.(how);
    this.#tellEnded = undefined;
  }
}
