import type { Duplex, Writable } from "node:stream";
import {
  type Channel,
  type ChannelModel,
  type ConfirmChannel,
  connect,
  credentials,
  IllegalOperationError,
} from "amqplib";
import type { Context, Time } from "../../../../component/context.ts";
import { pem } from "../../../../component/pem.ts";
import { reveal } from "../../../../component/secret.ts";
import {
  type AmqpChannel,
  type AmqpConnection,
  type AmqpDriver,
  AmqpError,
  type AmqpPublisher,
  type ChannelEvents,
  type ConnectionEvents,
  type ConsumerSettings,
  type Delivery,
  type ExchangeSettings,
  type FieldTable,
  type PublisherEvents,
  type PublishSettings,
  type QueueSettings,
  type QueueState,
  tagHeader,
} from "../../driver.ts";
import type { RabbitmqTls } from "../../options.ts";
import { amqpError, connectError } from "./errors.ts";
import { PublishFrames } from "./publish-frames.ts";

/** AMQP by amqplib. It is asked for no recovery of its own: that is done above, with consumers and confirms. */
export const amqplibDriver: AmqpDriver = {
  name: "amqplib",
  async connect(broker, role, context, events) {
    if (broker.tls?.insecureSkipVerify === true) {
      context.logger.warn({ address: broker.address }, "the broker's certificate is not checked");
    }
    let model: ChannelModel;
    try {
      model = await connect(
        {
          protocol: broker.tls === undefined ? "amqp" : "amqps",
          hostname: broker.host,
          port: broker.port,
          username: broker.username,
          password: broker.password,
          // It decodes what it is given.
          vhost: encodeURIComponent(broker.vhost),
          heartbeat: broker.heartbeat,
        },
        {
          ...tlsOptions(broker.tls),
          ...(broker.external ? { credentials: credentials.external() } : {}),
          timeout: broker.connectTimeout,
          noDelay: true,
          clientProperties: { connection_name: `millrace ${role} ${context.node}`, product: "millrace" },
        },
      );
    } catch (error) {
      throw connectError(error, broker);
    }
    return new Connection(model, context, events);
  },
};

function tlsOptions(tls: RabbitmqTls | undefined): object {
  if (tls === undefined) return {};
  const { ca, cert, key, passphrase, servername, insecureSkipVerify } = tls;
  return {
    minVersion: "TLSv1.2",
    ...(ca === undefined ? {} : { ca: pem(ca) }),
    ...(cert === undefined ? {} : { cert: pem(cert) }),
    ...(key === undefined ? {} : { key: pem(key) }),
    ...(passphrase === undefined ? {} : { passphrase: reveal(passphrase) }),
    ...(servername === undefined ? {} : { servername }),
    ...(insecureSkipVerify === true ? { rejectUnauthorized: false } : {}),
  };
}

/** An error thrown by our own handlers is a mistake in them: it ends the process, and nothing is acknowledged. */
function rethrow(error: Error): void {
  throw error;
}

class Connection implements AmqpConnection {
  readonly #model: ChannelModel;
  readonly #context: Context;
  readonly #dispatch: Dispatch;
  readonly #closed: Promise<void>;
  #closing = false;

  constructor(model: ChannelModel, context: Context, events: ConnectionEvents) {
    this.#model = model;
    this.#context = context;
    this.#dispatch = new Dispatch(insideOf(model.connection));
    let fault: Error | undefined;
    model.on("error", (error) => {
      fault = error;
    });
    model.on("handler-error", rethrow);
    model.on("blocked", (reason) => events.blocked(String(reason)));
    model.on("unblocked", () => events.unblocked());
    this.#closed = new Promise((resolve) => {
      model.on("close", (error) => {
        resolve();
        events.closed(this.#closing ? undefined : amqpError(error ?? fault));
      });
    });
  }

  async openChannel(events: ChannelEvents): Promise<AmqpChannel> {
    const channel = await answered(this.#model.createChannel());
    return new OpenChannel(channel, events, this.#dispatch);
  }

  async openPublisher(events: PublisherEvents): Promise<AmqpPublisher> {
    const channel = await answered(this.#model.createConfirmChannel());
    return new OpenPublisher(channel, events, this.#dispatch);
  }

  async close(deadline: Time): Promise<void> {
    this.#closing = true;
    const { clock } = this.#context;
    const timer = clock.after(Math.max(0, deadline - clock.now()), () => this.#cut());
    // Rejects when it is closed already, or when the connection breaks meanwhile: closed all the same.
    this.#model.close().catch(() => {});
    await this.#closed;
    timer.cancel();
  }

  /** Ends the connection without asking the broker. */
  #cut(): void {
    // Without an error amqplib would not notice before its heartbeat does.
    insideOf(this.#model.connection).stream.destroy(new Error("closing took too long"));
  }
}

/**
 * What amqplib's types do not show of a connection: its socket, what each channel's frames are written to, and what
 * moves them from there to the socket.
 */
interface ConnectionInside {
  readonly stream: Duplex;
  readonly muxer: { _readIncoming(): void };
  readonly frameMax: number;
  /** By number. */
  readonly channels: readonly { readonly buffer: Writable }[];
}

function insideOf(connection: object): ConnectionInside {
  return connection as ConnectionInside;
}

/** Lets frames go at the end of the task that wrote them. amqplib by itself waits for the event loop to come round. */
class Dispatch {
  readonly #inside: ConnectionInside;
  #scheduled = false;

  constructor(inside: ConnectionInside) {
    this.#inside = inside;
  }

  /** To be called whenever frames were handed to amqplib. */
  soon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // A channel's buffer tells in a tick of its own that it can be read, which comes before the second of ours.
    process.nextTick(() =>
      process.nextTick(() => {
        this.#scheduled = false;
        const { stream, muxer } = this.#inside;
        stream.cork();
        muxer._readIncoming();
        stream.uncork();
      }),
    );
  }
}

async function answered<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw amqpError(error);
  }
}

class OpenChannel<C extends Channel> implements AmqpChannel {
  protected readonly channel: C;
  protected open = true;
  protected readonly dispatch: Dispatch;
  readonly #events: ChannelEvents;
  readonly #gone: Promise<void>;
  #closing = false;

  constructor(channel: C, events: ChannelEvents, dispatch: Dispatch) {
    this.channel = channel;
    this.dispatch = dispatch;
    this.#events = events;
    let fault: Error | undefined;
    channel.on("error", (error) => {
      // The broker has closed the channel; "close" follows.
      this.open = false;
      fault = error;
    });
    channel.on("handler-error", rethrow);
    this.#gone = new Promise((resolve) => {
      channel.on("close", () => {
        this.open = false;
        resolve();
        events.closed(this.#closing ? undefined : amqpError(fault ?? new Error("the connection is lost")));
      });
    });
  }

  async assertExchange(name: string, { type, durable, arguments: table }: ExchangeSettings): Promise<void> {
    await this.#ask(() => this.channel.assertExchange(name, type, { durable, arguments: table }));
  }

  async checkExchange(name: string): Promise<void> {
    await this.#ask(() => this.channel.checkExchange(name));
  }

  async assertQueue(name: string, { durable, arguments: table }: QueueSettings): Promise<QueueState> {
    return stateOf(await this.#ask(() => this.channel.assertQueue(name, { durable, arguments: table })));
  }

  async checkQueue(name: string): Promise<QueueState> {
    return stateOf(await this.#ask(() => this.channel.checkQueue(name)));
  }

  async deleteQueue(name: string): Promise<void> {
    await this.#ask(() => this.channel.deleteQueue(name));
  }

  async bindQueue(queue: string, exchange: string, key: string, table: FieldTable): Promise<void> {
    await this.#ask(() => this.channel.bindQueue(queue, exchange, key, table));
  }

  async prefetch(count: number): Promise<void> {
    await this.#ask(() => this.channel.prefetch(count));
  }

  async consume(queue: string, { consumerTag, exclusive }: ConsumerSettings): Promise<string> {
    const events = this.#events;
    const started = await this.#ask(() =>
      this.channel.consume(
        queue,
        (message) => {
          // amqplib says by null that the broker cancelled the consumer.
          if (message === null) events.cancelled?.();
          else events.delivered?.(message as unknown as Delivery);
        },
        { exclusive, ...(consumerTag === undefined ? {} : { consumerTag }) },
      ),
    );
    return started.consumerTag;
  }

  async cancel(consumerTag: string): Promise<void> {
    await this.#ask(() => this.channel.cancel(consumerTag));
  }

  ack(tag: number, multiple: boolean): void {
    this.#tell(() => this.channel.ack(deliveryOf(tag), multiple));
  }

  reject(tag: number, requeue: boolean): void {
    this.#tell(() => this.channel.nack(deliveryOf(tag), false, requeue));
  }

  async close(): Promise<void> {
    if (this.open && !this.#closing) {
      this.#closing = true;
      this.open = false;
      this.channel.close().catch(() => {});
    }
    await this.#gone;
  }

  /** amqplib may have begun to close by itself, of which it says nothing before the broker has answered. */
  #tell(tell: () => void): void {
    if (!this.open) return;
    try {
      tell();
      this.dispatch.soon();
    } catch (error) {
      if (!(error instanceof IllegalOperationError)) throw error;
    }
  }

  /** amqplib throws at once on a channel it knows to be closed. */
  async #ask<T>(ask: () => Promise<T>): Promise<T> {
    if (!this.open) throw new AmqpError("the channel is closed");
    try {
      return await ask();
    } catch (error) {
      throw amqpError(error);
    }
  }
}

class OpenPublisher extends OpenChannel<ConfirmChannel> implements AmqpPublisher {
  readonly #frames: PublishFrames;
  /** amqplib's own buffer of this channel, so that frames of ours and of its keep their order. */
  readonly #out: Writable;
  #handOverScheduled = false;
  #sent = 0;
  #full = false;

  constructor(channel: ConfirmChannel, events: PublisherEvents, dispatch: Dispatch) {
    super(channel, events, dispatch);
    const { connection, ch } = channel as unknown as { readonly connection: object; readonly ch: number };
    const { channels, frameMax } = insideOf(connection);
    this.#frames = new PublishFrames(ch, frameMax);
    this.#out = channels[ch]!.buffer;
    // One handler for all instead of a callback for each message: amqplib counts tags as we do.
    channel.on("ack", ({ deliveryTag, multiple }) => events.confirmed(deliveryTag, multiple, true));
    channel.on("nack", ({ deliveryTag, multiple }) => events.confirmed(deliveryTag, multiple, false));
    channel.on("return", ({ properties }) => events.returned(properties.headers?.[tagHeader] as number));
    channel.on("drain", () => {
      this.#full = false;
      events.drained();
    });
  }

  get full(): boolean {
    return this.#full;
  }

  publish(exchange: string, routingKey: string, content: Buffer, settings: PublishSettings): number {
    if (!this.open) throw new AmqpError("the channel is closed");
    const tag = this.#sent + 1;
    if (settings.mandatory) settings.headers[tagHeader] = tag;
    this.#frames.add(exchange, routingKey, content, settings);
    this.#sent = tag;
    if (!this.#handOverScheduled) {
      this.#handOverScheduled = true;
      // Once all that is published now has been: it goes as one.
      process.nextTick(() => this.#handOver());
    }
    return tag;
  }

  #handOver(): void {
    this.#handOverScheduled = false;
    for (const bytes of this.#frames.take()) {
      // A channel that has gone meanwhile takes nothing more; what was published on it counts as unconfirmed.
      if (this.#out.writableEnded) return;
      this.#full = !this.#out.write(bytes);
    }
    this.dispatch.soon();
  }
}

function stateOf({ messageCount, consumerCount }: QueueState): QueueState {
  return { messageCount, consumerCount };
}

/** What amqplib wants to be shown of a message it acknowledges. */
function deliveryOf(deliveryTag: number): Parameters<Channel["ack"]>[0] {
  return { fields: { deliveryTag } } as Parameters<Channel["ack"]>[0];
}
