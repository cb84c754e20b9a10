import { Backoff } from "../../component/backoff.ts";
import type { Context, Time } from "../../component/context.ts";
import type { Failure } from "../../component/failure.ts";
import { byteCount, milliseconds } from "../../component/options.ts";
import { type EncodedPayload, encodePayloads, isPlain } from "../../component/payloads.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import type { Chunk } from "../../message/chunk.ts";
import { administer, createMissing, declareAll, hasExchange, hasQueue } from "./declare.ts";
import { type AmqpConnection, AmqpError, type AmqpPublisher } from "./driver.ts";
import { lastingError, missingTarget } from "./errors.ts";
import type { Link } from "./link.ts";
import type { Declarations, RabbitmqSinkOptions } from "./options.ts";
import { propertiesOf } from "./properties.ts";
import { type Route, Routes } from "./routes.ts";
import { settledBefore } from "./settled-before.ts";
import { Unconfirmed } from "./unconfirmed.ts";
import { Write } from "./write.ts";

/** A limit below this would refuse nearly everything: the broker is misconfigured, not the messages. */
const absurdLimit = 16 * 1024;
/** Messages of one destination that are sent before another has its turn. */
const turn = 200;
/** A channel that lived so long was a good one, and the next wait begins small again, ms. */
const goodAfter = 1_000;

const nothing = Buffer.alloc(0);

export interface SinkSetting {
  readonly link: Link;
  readonly declarations: Declarations;
  readonly address: string;
  /** Embedded: a queue or exchange that is not there is made. */
  readonly creates: boolean;
}

/**
 * Publishes to an exchange, or to a queue through the default exchange, and takes a message for delivered when
 * the broker has confirmed it and did not return it first.
 *
 * Publishing is pipelined: confirms of later messages may come before those of earlier ones. When the channel
 * is lost, what is unconfirmed is sent again, in its order, before anything else. When the broker refuses a
 * message of a destination (a full queue with `reject-publish`), that destination waits, and then begins again
 * with one message at a time; what was already under way behind the refused message may overtake it, which is
 * why order holds "unlessRefused".
 *
 * A returned message is refused as `unroutable` where its routing key is a matter of binding. A sink of a queue
 * that gets one back has lost its queue: that is no fault of the message, and the sink waits for the queue.
 */
export async function openRabbitmqSink(
  context: Context,
  setting: SinkSetting,
  options: RabbitmqSinkOptions,
): Promise<SinkSession> {
  const session = new RabbitmqSinkSession(context, setting, options);
  await session.opened;
  return session;
}

class RabbitmqSinkSession implements SinkSession {
  readonly bytesOnly: boolean;
  /** Resolves once it can publish; rejects when it cannot at all. */
  readonly opened: Promise<void>;
  readonly #context: Context;
  readonly #setting: SinkSetting;
  readonly #options: RabbitmqSinkOptions;
  readonly #limit: number;
  readonly #byteLimit: number;
  readonly #routes: Routes;
  readonly #unconfirmed = new Unconfirmed();
  readonly #writes = new Set<Write>();
  readonly #errors = new RecentErrors();
  readonly #backoff: Backoff;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  readonly #unwatch: () => void;
  /** Routes with something to send, each once, in turn. */
  readonly #turns: Route[] = [];
  readonly #held = new Set<Route>();
  /** The broker's limit, if it is lower than ours and it has told it on this connection. */
  #maxMessageBytes: number;
  readonly #allowedBytes: number;
  #connection: AmqpConnection | undefined;
  #publisher: AmqpPublisher | undefined;
  #isOpen = false;
  #pumping = false;
  #trouble: string | undefined = "connecting";
  #failure: unknown;
  #tellOpened!: { resolve: () => void; reject: (error: unknown) => void };

  constructor(context: Context, setting: SinkSetting, options: RabbitmqSinkOptions) {
    this.#context = context;
    this.#setting = setting;
    this.#options = options;
    this.#limit = options.unconfirmed ?? 2_000;
    this.#byteLimit = byteCount(options.unconfirmedBytes, 16 * 2 ** 20);
    this.#allowedBytes = byteCount(options.maxMessageBytes, 128 * 2 ** 20);
    this.#maxMessageBytes = this.#allowedBytes;
    this.#routes = new Routes(options);
    this.bytesOnly = typeof options.key !== "function";
    this.#backoff = this.#newBackoff(30_000);
    this.opened = new Promise((resolve, reject) => {
      this.#tellOpened = { resolve, reject };
    });
    context.signal.addEventListener("abort", this.#abort, { once: true });
    setting.link.acquire();
    this.#unwatch = setting.link.watchBlocked(() => this.#pump());
    this.#ended = this.#run();
  }

  get overlap(): number {
    return this.#limit;
  }

  destinationOf(chunk: Chunk, index: number): Destination {
    return this.#routes.of(chunk, index);
  }

  write(batch: Batch): Promise<readonly Refusal[]> {
    if (batch.length === 0) return Promise.resolve([]);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const route = batch.destination as Route;
    if (route === this.#routes.nowhere) return Promise.resolve(this.#refuseAll(batch));
    const write = new Write(route, batch);
    this.#writes.add(write);
    route.writes.push(write);
    if (!isPlain(batch)) {
      this.#encode(write, [batch], ([payloads]) => write.setEncoded(payloads!));
    }
    this.#queue(route);
    this.#pump();
    return write.done;
  }

  /** Makes payloads of batches; until then nothing of the write, nor of its destination after it, is sent. */
  #encode(
    write: Write,
    batches: readonly Batch[],
    done: (payloads: readonly (readonly EncodedPayload[])[]) => void,
  ): void {
    write.ready = false;
    Promise.all(batches.map((batch) => encodePayloads(batch, this.#context.work))).then(
      (payloads) => {
        done(payloads);
        write.ready = true;
        this.#queue(write.route);
        this.#pump();
      },
      (error) => this.#fail(error),
    );
  }

  /** What is not delivered by the deadline is given up, unsettled. */
  async close(deadline: Time): Promise<void> {
    const { clock, signal } = this.#context;
    if (!signal.aborted) {
      await settledBefore(clock, deadline, Promise.allSettled([...this.#writes].map(({ done }) => done)));
    }
    this.#fail(new MillraceError("connection-lost", "the sink was closed"));
    this.#unwatch();
    signal.removeEventListener("abort", this.#abort);
    await settledBefore(clock, deadline, this.#publisher?.close());
    await this.#setting.link.release(deadline);
    await settledBefore(clock, deadline, this.#ended);
  }

  status(): SinkStatus {
    const { link } = this.#setting;
    const blocked =
      link.blocked === undefined ? undefined : `blocked by an alarm of the broker: ${link.blocked}`;
    const [held] = this.#held;
    const reason = link.trouble ?? link.deadlock ?? blocked ?? this.#trouble ?? held?.held;
    return {
      ready: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
      lastErrors: [...this.#errors.list, ...link.errors.list].toSorted((a, b) => b.at - a.at).slice(0, 5),
    };
  }

  readonly #abort = () => this.#fail(this.#context.signal.reason);

  /** Ends everything that is under way; nothing of it is settled. */
  #fail(reason: unknown): void {
    this.#failure ??= reason;
    this.#stop.abort(reason);
    for (const write of this.#writes) write.abandon(reason);
    this.#writes.clear();
    this.#turns.length = 0;
  }

  #refuseAll(batch: Batch): Refusal[] {
    return Array.from({ length: batch.length }, (_, entry) => ({
      entry,
      failure: this.#routes.failureOf(batch.chunk(entry), batch.index(entry)),
    }));
  }

  /** Keeps a channel to publish on until the session is closed. */
  async #run(): Promise<void> {
    const { signal } = this.#stop;
    try {
      while (!signal.aborted) {
        // A failure of the connection itself is final: the link has tried often enough.
        const connection = await this.#setting.link.connected();
        try {
          await this.#publishOn(connection);
        } catch (error) {
          if (signal.aborted) break;
          this.#note(error);
          // The link has waits of its own for a connection that was lost.
          if (this.#setting.link.isUp) await this.#backoff.wait().catch(() => {});
        }
      }
    } catch (error) {
      this.#fail(error instanceof Unmendable ? error.error : error);
    }
    if (this.#isOpen) return;
    this.#tellOpened.reject(this.#failure ?? new MillraceError("connection-lost", "the sink was closed"));
    this.#unwatch();
    this.#setting.link.release(this.#context.clock.now() + 1_000);
  }

  /** One channel, from its opening to its end; throws why it ended. */
  async #publishOn(connection: AmqpConnection): Promise<void> {
    // A broker that was away may have another limit: it is learned anew.
    if (connection !== this.#connection) this.#maxMessageBytes = this.#allowedBytes;
    this.#connection = connection;
    await this.#ensureTarget(connection);
    let tellClosed!: (error: AmqpError | undefined) => void;
    const closed = new Promise<AmqpError | undefined>((resolve) => {
      tellClosed = resolve;
    });
    let isClosed = false;
    const publisher = await connection.openPublisher({
      closed: (error) => {
        isClosed = true;
        this.#publisher = undefined;
        this.#rewind();
        tellClosed(error);
      },
      confirmed: (tag, multiple, taken) => this.#confirm(tag, multiple, taken),
      returned: (tag) => this.#unconfirmed.markReturned(tag),
      drained: () => this.#pump(),
    });
    if (!isClosed) this.#publisher = publisher;
    this.#trouble = undefined;
    this.#isOpen = true;
    this.#tellOpened.resolve();
    const since = this.#context.clock.now();
    this.#pump();
    const error = await closed;
    if (this.#context.clock.now() - since >= goodAfter) this.#backoff.reset();
    if (error === undefined) return;
    this.#learnLimit(error);
    throw error;
  }

  /** Waits until what is published to is there: declared things are made. At the start a missing one is final. */
  async #ensureTarget(connection: AmqpConnection): Promise<void> {
    const { exchange = "", queue } = this.#options;
    const { declarations, address, creates } = this.#setting;
    const kind = queue === undefined ? "exchange" : "queue";
    const name = queue ?? exchange;
    await administer(connection, async (administration) => {
      const isThere = () =>
        kind === "queue" ? hasQueue(administration, name) : hasExchange(administration, name);
      if (await isThere()) return;
      if (creates) {
        await createMissing(
          administration,
          declarations,
          [{ kind, name, role: "sink", at: this.#context.node }],
          address,
        );
        return;
      }
      const declared = kind === "queue" ? declarations.queues.has(name) : declarations.exchanges.has(name);
      if (!declared) throw missingTarget(kind, name, address);
      await declareAll(administration, declarations, address);
    });
  }

  /** Shows and logs what went wrong. Throws it at the start if no further attempt mends it. */
  #note(error: unknown): void {
    const { clock, logger, meter, node } = this.#context;
    const lasting = lastingError(error, this.#setting.address);
    if (!this.#isOpen && lasting !== undefined) throw new Unmendable(lasting);
    const message = messageOf(error);
    this.#trouble = message;
    this.#errors.add(error, clock.wall());
    meter.count("publisher_restarts_total");
    logger.warn({ node, error: message }, "the publisher stopped");
  }

  /** The broker says how large a message may be only when one is too large. */
  #learnLimit(error: AmqpError): void {
    const told = /message size (\d+) (?:is )?larger than (?:configured )?max size (\d+)/.exec(error.message);
    if (told === null) return;
    const limit = Number(told[2]);
    if (limit < absurdLimit || limit >= this.#maxMessageBytes) return;
    this.#maxMessageBytes = limit;
    this.#context.logger.info(
      { node: this.#context.node, limit },
      "the broker's limit for a message was learned",
    );
  }

  /** The channel is gone: what is unconfirmed is to be sent again, in its order. */
  #rewind(): void {
    this.#unconfirmed.takeAll((write, unit) => {
      write.route.outstanding--;
      this.#sendAgain(write, unit);
      this.#queue(write.route);
    });
  }

  #confirm(tag: number, multiple: boolean, taken: boolean): void {
    this.#unconfirmed.confirm(tag, multiple, (write, unit, returned) => {
      const { route } = write;
      route.outstanding--;
      if (!taken) {
        this.#context.meter.count("publishes_refused_total");
        this.#sendAgain(write, unit);
        this.#hold(route, `the broker refuses messages for ${route.name} (a full queue?)`, undefined);
      } else if (!returned) {
        if (route.window !== Number.POSITIVE_INFINITY) this.#widen(route);
        this.#finish(write, write.delivered(unit));
      } else if (this.#options.queue !== undefined) {
        this.#sendAgain(write, unit);
        this.#hold(route, `queue "${route.routingKey}" does not exist`, (connection) =>
          this.#ensureTarget(connection),
        );
      } else {
        const message = `no queue is bound to exchange "${route.exchange}" for the routing key "${route.routingKey}"`;
        this.#finish(write, write.refused(unit, { class: "business", code: "unroutable", message }));
      }
      if (route.writes.length > 0) this.#queue(route);
    });
    this.#pump();
  }

  #sendAgain(write: Write, unit: number): void {
    write.sendAgain(unit);
    write.route.cursor = 0;
  }

  /** After a refusal one message at a time is tried, and twice as many each time it goes well. */
  #widen(route: Route): void {
    route.backoff?.reset();
    route.window *= 2;
    if (route.window >= this.#limit) route.window = Number.POSITIVE_INFINITY;
  }

  /** Sends nothing there for a while, and then only if `mend`, where there is something to mend, succeeds. */
  #hold(
    route: Route,
    reason: string,
    mend: ((connection: AmqpConnection) => Promise<void>) | undefined,
  ): void {
    if (route.held !== undefined) return;
    const { clock, logger, node } = this.#context;
    if (route.window === Number.POSITIVE_INFINITY) {
      this.#errors.add(reason, clock.wall());
      logger.warn({ node, destination: route.name }, reason);
    }
    route.held = reason;
    route.window = 1;
    this.#held.add(route);
    route.backoff ??= this.#newBackoff(milliseconds(this.#options.maxBackoff, 5_000));
    this.#release(route, mend);
  }

  async #release(
    route: Route,
    mend: ((connection: AmqpConnection) => Promise<void>) | undefined,
  ): Promise<void> {
    for (let mended = false; !mended; ) {
      await route.backoff!.wait().catch(() => {});
      if (this.#stop.signal.aborted) return;
      try {
        if (mend !== undefined) await mend(await this.#setting.link.connected());
        mended = true;
      } catch (error) {
        this.#errors.add(error, this.#context.clock.wall());
      }
    }
    route.held = undefined;
    this.#held.delete(route);
    this.#queue(route);
    this.#pump();
  }

  #finish(write: Write, isDone: boolean): void {
    if (!isDone) return;
    this.#writes.delete(write);
    const { writes } = write.route;
    const index = writes.indexOf(write);
    writes.splice(index, 1);
    if (index < write.route.cursor) write.route.cursor--;
  }

  #queue(route: Route): void {
    if (route.queued) return;
    route.queued = true;
    this.#turns.push(route);
  }

  /** Sends what may be sent. Each destination in its turn. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#turns.length > 0 && this.#maySend()) {
      const route = this.#turns.shift()!;
      route.queued = false;
      let sent = 0;
      while (sent < turn && this.#maySend() && this.#sendNext(route)) sent++;
      // It may have more to send. Where it had not, it is passed over next time.
      if (sent === turn || !this.#maySend()) this.#queue(route);
    }
    this.#pumping = false;
  }

  #maySend(): boolean {
    const { count, bytes } = this.#unconfirmed;
    return (
      this.#publisher !== undefined &&
      !this.#publisher.full &&
      this.#setting.link.blocked === undefined &&
      (count === 0 || (count < this.#limit && bytes < this.#byteLimit))
    );
  }

  /** False when the route has nothing that may be sent now. */
  #sendNext(route: Route): boolean {
    if (route.held !== undefined || route.outstanding >= route.window) return false;
    for (; route.cursor < route.writes.length; route.cursor++) {
      const write = route.writes[route.cursor]!;
      if (!write.ready) return false;
      const unit = write.take();
      if (unit >= 0) return this.#send(write, unit);
    }
    return false;
  }

  #send(write: Write, unit: number): boolean {
    const { route } = write;
    const payload = write.payload(unit);
    const content = payload ?? nothing;
    if (content.length > this.#maxMessageBytes) {
      const halves = write.halvesOf(unit);
      if (halves !== undefined) {
        const [first] = halves;
        this.#encode(write, halves, ([one, two]) =>
          write.replace(unit, [
            ...one!,
            ...two!.map((payload) => ({
              ...payload,
              from: payload.from + first.length,
              to: payload.to + first.length,
            })),
          ]),
        );
        route.cursor = 0;
        return true;
      }
      const message = `the message has ${content.length} bytes; ${route.name} takes ${this.#maxMessageBytes}`;
      return this.#refuse(write, unit, { class: "business", code: "record-too-large", message });
    }
    const settings = propertiesOf({
      key: write.key(unit),
      headers: write.headers(unit),
      tombstone: payload === null,
      timestamp: write.timestamp(unit),
      persistent: this.#options.persistent ?? true,
      mandatory: this.#options.mandatory ?? true,
    });
    if ("code" in settings) return this.#refuse(write, unit, settings);
    try {
      this.#publisher!.publish(route.exchange, route.routingKey, content, settings);
    } catch (error) {
      if (error instanceof AmqpError) {
        this.#publisher = undefined;
        this.#sendAgain(write, unit);
        return false;
      }
      const message = `AMQP cannot carry the message: ${messageOf(error)}`;
      return this.#refuse(write, unit, { class: "business", code: "record-refused", message });
    }
    this.#unconfirmed.add(write, unit, content.length);
    route.outstanding++;
    return true;
  }

  #refuse(write: Write, unit: number, failure: Failure): true {
    this.#finish(write, write.refused(unit, failure));
    return true;
  }

  #newBackoff(max: number): Backoff {
    const { clock, random, signal } = this.#context;
    return new Backoff(
      { clock, random, signal: AbortSignal.any([signal, this.#stop.signal]) },
      { initial: 100, max },
    );
  }
}

/** What keeps a session from opening, on its way out through everything that would try again. */
class Unmendable extends Error {
  readonly error: MillraceError;

  constructor(error: MillraceError) {
    super(error.message);
    this.error = error;
  }
}
