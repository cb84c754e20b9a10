import type { Context, Time } from "../../component/context.ts";
import type { Broker } from "./options.ts";

/**
 * The port between the rabbitmq connector and an AMQP 0-9-1 client. It is AMQP's own words and nothing more:
 * what decides correctness (epochs, acknowledgement, retry, order of resending, declaring) is above it.
 */
export interface AmqpDriver {
  readonly name: string;
  /**
   * Opens one connection. Rejects with an {@link AmqpError}. `role` tells brokers and people what it is for.
   * `events.closed` is called once for a connection that was opened, whoever closes it.
   */
  connect(broker: Broker, role: Role, context: Context, events: ConnectionEvents): Promise<AmqpConnection>;
}

/** An alarm blocks connections that publish, so consuming has one of its own. */
export type Role = "consume" | "publish" | "check";

export interface ConnectionEvents {
  /** No channel of it works any more; each has been told so before. Undefined when we closed it. */
  closed(error: AmqpError | undefined): void;
  /** The broker takes nothing more of what is published here, because of an alarm. */
  blocked(reason: string): void;
  unblocked(): void;
}

export interface AmqpConnection {
  /** A channel to declare, look up and consume on. */
  openChannel(events: ChannelEvents): Promise<AmqpChannel>;
  /** A channel whose publishes are confirmed. */
  openPublisher(events: PublisherEvents): Promise<AmqpPublisher>;
  /** Closes in good order; by `deadline` it is cut. Never rejects. */
  close(deadline: Time): Promise<void>;
}

export interface ChannelEvents {
  /** Called once. Nothing of the channel works any more, and the broker requeues what is unacknowledged on it. */
  closed(error: AmqpError | undefined): void;
  delivered?(delivery: Delivery): void;
  /** The broker ended the consumer: its queue is gone, or moves. */
  cancelled?(): void;
}

export interface PublisherEvents extends ChannelEvents {
  /** `multiple`: all up to and including this one. `taken` is false for a refusal (nack). */
  confirmed(tag: number, multiple: boolean, taken: boolean): void;
  /** No queue was there for a mandatory message. Its confirm, which says taken, comes after this. */
  returned(tag: number): void;
  /** After {@link AmqpPublisher.full}: there is room again. */
  drained(): void;
}

/** Every call that waits for an answer rejects with an {@link AmqpError}; most faults close the channel. */
export interface AmqpChannel {
  /** Creates the exchange, or checks that it is as given: 406 when it is not. */
  assertExchange(name: string, settings: ExchangeSettings): Promise<void>;
  /** 404 when it is not there. */
  checkExchange(name: string): Promise<void>;
  assertQueue(name: string, settings: QueueSettings): Promise<QueueState>;
  checkQueue(name: string): Promise<QueueState>;
  deleteQueue(name: string): Promise<void>;
  bindQueue(queue: string, exchange: string, key: string, table: FieldTable): Promise<void>;
  /**
   * Most unacknowledged messages of each consumer started after it. Being answered in order, it also tells
   * that the broker has taken every acknowledgement sent before.
   */
  prefetch(count: number): Promise<void>;
  /** Starts a consumer; returns its tag. Deliveries may arrive before it resolves. */
  consume(queue: string, settings: ConsumerSettings): Promise<string>;
  /** Ends a consumer. What it was given stays unacknowledged on the channel. */
  cancel(consumerTag: string): Promise<void>;
  /** Nothing on a closed channel. A tag the broker does not know closes the channel. */
  ack(tag: number, multiple: boolean): void;
  /** Gives a message back to its queue, or to the queue's dead-letter exchange. Nothing on a closed channel. */
  reject(tag: number, requeue: boolean): void;
  /** Never rejects; resolves when the broker has answered or the channel is gone. */
  close(): Promise<void>;
}

export interface AmqpPublisher extends AmqpChannel {
  /**
   * Sends a message; returns its tag: 1, 2, 3 … on each channel. Throws an {@link AmqpError} when the channel is
   * closed, and anything else when the message cannot be expressed in AMQP; then no tag is used up.
   * `settings` belongs to the driver from here on.
   */
  publish(exchange: string, routingKey: string, content: Buffer, settings: PublishSettings): number;
  /** The client's buffer is full: publish no more before `drained`. */
  readonly full: boolean;
}

export interface ExchangeSettings {
  readonly type: string;
  readonly durable: boolean;
  readonly arguments: FieldTable;
}

export interface QueueSettings {
  readonly durable: boolean;
  readonly arguments: FieldTable;
}

export interface QueueState {
  /** Messages that are ready: not those delivered and unacknowledged. */
  readonly messageCount: number;
  readonly consumerCount: number;
}

export interface ConsumerSettings {
  /** Chosen by the broker when undefined. */
  readonly consumerTag: string | undefined;
  readonly exclusive: boolean;
}

export interface Delivery {
  readonly fields: {
    readonly deliveryTag: number;
    readonly redelivered: boolean;
    readonly exchange: string;
    readonly routingKey: string;
  };
  readonly properties: Properties;
  readonly content: Buffer;
}

/** AMQP's basic properties, as far as messages carry them. Short strings have at most 255 bytes. */
export interface Properties {
  contentType?: string;
  contentEncoding?: string;
  headers?: FieldTable;
  /** 2 is persistent. */
  deliveryMode?: number;
  /** 0 to 255 */
  priority?: number;
  correlationId?: string;
  replyTo?: string;
  /** Milliseconds in digits. */
  expiration?: string;
  messageId?: string;
  /** Seconds since 1970. */
  timestamp?: number;
  type?: string;
  userId?: string;
  appId?: string;
}

export interface PublishSettings extends Properties {
  headers: Record<string, FieldValue>;
  mandatory: boolean;
}

/** A value in an AMQP field table, as amqplib reads and writes it. */
export type FieldValue =
  | string
  | number
  | boolean
  | null
  | Buffer
  | FieldTimestamp
  | FieldDecimal
  | readonly FieldValue[]
  | FieldTable;

export interface FieldTable {
  readonly [name: string]: FieldValue;
}

export interface FieldTimestamp {
  readonly "!": "timestamp";
  readonly value: number;
}

export interface FieldDecimal {
  readonly "!": "decimal";
  readonly value: { readonly places: number; readonly digits: number };
}

/** AMQP reply codes that decide something here. */
export const ReplyCode = {
  connectionForced: 320,
  accessRefused: 403,
  notFound: 404,
  resourceLocked: 405,
  preconditionFailed: 406,
  notAllowed: 530,
} as const;

/** What a driver reports: the broker's reply, or that there was none. */
export class AmqpError extends Error {
  /** From the broker's close frame; undefined when the connection was lost or never made. */
  readonly replyCode: number | undefined;

  constructor(message: string, options: { readonly replyCode?: number; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AmqpError";
    this.replyCode = options.replyCode;
  }
}

/**
 * A header that a driver may add to what it publishes, to find the message again when it is returned. It says
 * nothing to anyone else, and readers leave it out.
 */
export const tagHeader = "millrace-tag";
