import { Backoff } from "../../component/backoff.ts";
import type { Context, Time, Timer } from "../../component/context.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import { administer, declareAll } from "./declare.ts";
import type { AmqpConnection, AmqpDriver, AmqpError, Role } from "./driver.ts";
import { lastingError } from "./errors.ts";
import type { Broker, Declarations } from "./options.ts";
import { settledBefore } from "./settled-before.ts";

/** Refusals in a row (credentials, vhost, permissions) that are believed: at the start, and later. */
const refusalsAtStart = 3;
const refusalsLater = 10;
/** A connection that lived so long was a good one, and the next wait begins small again, ms. */
const goodAfter = 250;
/** An alarm that has lasted so long is not one that consumers end by themselves, ms. */
const deadlockAfter = 5_000;

/** The links of a run that consume, by the signal that ends the run. */
const consuming = new WeakMap<AbortSignal, Set<Link>>();

/**
 * A connection that mends itself: one for everything in a run that consumes from a broker, one for everything
 * that publishes to it. It is opened for its first user and closed with its last.
 *
 * ```
 *   idle ─ acquire ─► connecting ──► up ─ connection lost ─► waiting (full jitter, 30 s at most) ─► connecting
 *                        └─ refused too often ─► failed, for good
 * ```
 * Each time it comes up it declares what the topology declares, before anyone may use it. Users ask for
 * {@link connected} again whenever a channel of theirs was closed.
 *
 * An alarm stops publishing to the whole server, whatever the vhost. A run that also consumes there then gets no
 * confirms, so acknowledges nothing, so the queues that raised the alarm keep what they hold: a deadlock, which is
 * named after a few seconds. It is never resolved by acknowledging early.
 */
export class Link {
  readonly errors = new RecentErrors();
  readonly #driver: AmqpDriver;
  readonly #role: Role;
  readonly #broker: Broker;
  readonly #declarations: Declarations;
  readonly #context: Context;
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  readonly #onBlocked = new Set<() => void>();
  #users = 0;
  #connection: AmqpConnection | undefined;
  #failure: MillraceError | undefined;
  #blocked: string | undefined;
  #deadlock: string | undefined;
  #deadlockTimer: Timer | undefined;
  readonly #consuming: Set<Link>;
  #trouble: string | undefined = "connecting";
  #waiters: { resolve: (connection: AmqpConnection) => void; reject: (error: unknown) => void }[] = [];
  #running: Promise<void> | undefined;

  constructor(driver: AmqpDriver, role: Role, broker: Broker, declarations: Declarations, context: Context) {
    this.#driver = driver;
    this.#role = role;
    this.#broker = broker;
    this.#declarations = declarations;
    let ofRun = consuming.get(context.signal);
    if (ofRun === undefined) {
      ofRun = new Set();
      consuming.set(context.signal, ofRun);
    }
    this.#consuming = ofRun;
    this.#context = { ...context, signal: AbortSignal.any([context.signal, this.#stop.signal]) };
    this.#backoff = new Backoff(this.#context);
    const { signal } = this.#context;
    signal.addEventListener(
      "abort",
      () => {
        this.#deadlockTimer?.cancel();
        this.#reject(signal.reason);
      },
      { once: true },
    );
  }

  /** Why there is no connection, in words; undefined while there is one. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** The alarm that keeps the broker from taking what is published; undefined when there is none. */
  get blocked(): string | undefined {
    return this.#blocked;
  }

  /** The deadlock that the alarm has made, in words; undefined when there is none. */
  get deadlock(): string | undefined {
    return this.#deadlock;
  }

  /** Every acquire is followed by exactly one {@link release}. */
  acquire(): void {
    this.#users++;
    if (this.#role === "consume") this.#consuming.add(this);
    this.#running ??= this.#run();
  }

  async release(deadline: Time): Promise<void> {
    if (--this.#users > 0) return;
    this.#consuming.delete(this);
    this.#stop.abort(new MillraceError("connection-lost", "the connection was closed"));
    await this.#connection?.close(deadline);
    await settledBefore(this.#context.clock, deadline, this.#running);
  }

  /** There is a connection now. When one is lost, this is false before anyone hears of a lost channel's end. */
  get isUp(): boolean {
    return this.#connection !== undefined;
  }

  /** Nobody uses it any more, and it will not come up again. */
  get over(): boolean {
    return this.#stop.signal.aborted;
  }

  /** The connection, as soon as there is one. Rejects when the link has failed, and when the run is aborted. */
  connected(): Promise<AmqpConnection> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#connection !== undefined) return Promise.resolve(this.#connection);
    const { signal } = this.#context;
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
  }

  /** Calls back whenever {@link blocked} changes; returns how to end that. */
  watchBlocked(changed: () => void): () => void {
    this.#onBlocked.add(changed);
    return () => this.#onBlocked.delete(changed);
  }

  async #run(): Promise<void> {
    const { clock, signal } = this.#context;
    let refusals = 0;
    let wasUp = false;
    while (!signal.aborted) {
      try {
        const { connection, closed } = await this.#connect();
        if (signal.aborted) {
          await connection.close(clock.now());
          break;
        }
        wasUp = true;
        refusals = 0;
        const since = clock.now();
        this.#up(connection);
        const error = await closed;
        // Again, in case it was lost before it was shown.
        this.#down();
        if (signal.aborted) break;
        if (clock.now() - since >= goodAfter) this.#backoff.reset();
        this.#note(
          error ?? new MillraceError("connection-lost", "the connection was closed"),
          "connection lost",
        );
      } catch (error) {
        if (signal.aborted) break;
        const lasting = lastingError(error, this.#broker.address);
        this.#note(error, "cannot connect");
        const believed =
          lasting?.code === "access-refused"
            ? ++refusals >= (wasUp ? refusalsLater : refusalsAtStart)
            : // Declared things that are missing or different stop the start; later they may be mended meanwhile.
              lasting !== undefined && !wasUp;
        if (believed) {
          this.#fail(lasting!);
          return;
        }
      }
      this.#context.meter.count("reconnects_total");
      await this.#backoff.wait().catch(() => {});
    }
  }

  async #connect(): Promise<{ connection: AmqpConnection; closed: Promise<AmqpError | undefined> }> {
    let tellClosed!: (error: AmqpError | undefined) => void;
    const closed = new Promise<AmqpError | undefined>((resolve) => {
      tellClosed = resolve;
    });
    const connection = await this.#driver.connect(this.#broker, this.#role, this.#context, {
      closed: (error) => {
        this.#down();
        tellClosed(error);
      },
      blocked: (reason) => this.#setBlocked(reason),
      unblocked: () => this.#setBlocked(undefined),
    });
    try {
      await administer(connection, (administration) =>
        declareAll(administration, this.#declarations, this.#broker.address),
      );
    } catch (error) {
      await connection.close(this.#context.clock.now() + 1_000);
      throw error;
    }
    return { connection, closed };
  }

  #up(connection: AmqpConnection): void {
    this.#connection = connection;
    this.#trouble = undefined;
    const { logger, node } = this.#context;
    logger.info({ node, address: this.#broker.address, role: this.#role }, "connected to RabbitMQ");
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { resolve } of waiters) resolve(connection);
  }

  #down(): void {
    this.#connection = undefined;
    this.#blocked = undefined;
    this.#forgetDeadlock();
  }

  #note(error: unknown, what: string): void {
    const { logger, clock, node } = this.#context;
    const message = messageOf(error);
    this.#trouble = `${what}: ${message}`;
    this.errors.add(error, clock.wall());
    logger.warn({ node, address: this.#broker.address, role: this.#role, error: message }, what);
  }

  #fail(error: MillraceError): void {
    this.#failure = error;
    this.#reject(error);
  }

  #reject(reason: unknown): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(reason);
  }

  #setBlocked(reason: string | undefined): void {
    if (this.#blocked === reason) return;
    this.#blocked = reason;
    const { logger, node } = this.#context;
    const fields = { node, address: this.#broker.address, role: this.#role, alarm: reason };
    if (reason === undefined) {
      this.#forgetDeadlock();
      logger.info(fields, "the broker takes messages again");
    } else {
      logger.warn(fields, "the broker takes no messages: an alarm is raised");
      this.#deadlockTimer ??= this.#context.clock.after(deadlockAfter, () => this.#nameDeadlock(reason));
    }
    for (const changed of this.#onBlocked) changed();
  }

  #nameDeadlock(alarm: string): void {
    const { host, port } = this.#broker;
    const server = `${host}:${port}`;
    const other = [...this.#consuming].find(
      (link) => link.#broker.host === host && link.#broker.port === port,
    );
    if (other === undefined) return;
    this.#deadlock =
      `watermark deadlock: an alarm (${alarm}) keeps ${server} from taking messages, and this run also consumes there; ` +
      "nothing is acknowledged before it is published, so what raised the alarm stays";
    const remedy =
      "raise the watermark or free disk until the queues are shorter; put what is consumed and what is published on " +
      "two servers, and a gate on the source";
    this.errors.add(this.#deadlock, this.#context.clock.wall());
    this.#context.meter.count("watermark_deadlocks_total");
    this.#context.logger.error({ node: this.#context.node, address: server, alarm, remedy }, this.#deadlock);
  }

  #forgetDeadlock(): void {
    this.#deadlockTimer?.cancel();
    this.#deadlockTimer = undefined;
    this.#deadlock = undefined;
  }
}
