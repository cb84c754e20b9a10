import {
  AmqpError,
  type AmqpPublisher,
  type ChannelEvents,
  type ConsumerSettings,
  type Delivery,
  type ExchangeSettings,
  type FieldTable,
  type PublisherEvents,
  type PublishSettings,
  type QueueSettings,
  type QueueState,
} from "../../driver.ts";
import type { Connection } from "./connection.ts";
import type { Consumer, Queue, Queued } from "./queue.ts";

/** A message given to a consumer and not acknowledged yet. */
export interface Unacknowledged {
  readonly queue: Queue;
  readonly queued: Queued;
  readonly consumer: Consumer;
}

/**
 * Both ends of a channel. The client's end is the {@link AmqpPublisher}: its calls travel to the broker through
 * the connection, and so do the answers back. The broker's end is what the broker keeps for it.
 */
export class Channel implements AmqpPublisher {
  readonly connection: Connection;
  readonly events: ChannelEvents & Partial<PublisherEvents>;
  readonly confirms: boolean;

  // The broker's end.
  openAtBroker = true;
  readonly unacknowledged = new Map<number, Unacknowledged>();
  readonly consumers = new Map<string, Consumer>();
  prefetchCount = 0;
  nextDelivery = 1;
  /** Answers for publishes, to go out together: tag and whether it was taken. */
  readonly answers: { readonly tag: number; readonly taken: boolean }[] = [];
  /** Every tag up to this one was answered; 0 is none. −1 once an answer was withheld: then no answer covers several. */
  answeredUpTo = 0;

  // The client's end.
  #open = true;
  #closing = false;
  #sent = 0;
  #waiting = new Set<(error: AmqpError) => void>();
  #gone: Promise<void>;
  #tellGone!: () => void;

  constructor(connection: Connection, events: ChannelEvents & Partial<PublisherEvents>, confirms: boolean) {
    this.connection = connection;
    this.events = events;
    this.confirms = confirms;
    this.#gone = new Promise((resolve) => {
      this.#tellGone = resolve;
    });
  }

  get full(): boolean {
    return false;
  }

  async assertExchange(name: string, settings: ExchangeSettings): Promise<void> {
    await this.#call(() => this.connection.broker.assertExchange(name, settings));
  }

  async checkExchange(name: string): Promise<void> {
    await this.#call(() => this.connection.broker.exchange(name));
  }

  assertQueue(name: string, settings: QueueSettings): Promise<QueueState> {
    return this.#call(() => stateOf(this.connection.broker.assertQueue(name, settings)));
  }

  checkQueue(name: string): Promise<QueueState> {
    return this.#call(() => stateOf(this.connection.broker.queue(name)));
  }

  async deleteQueue(name: string): Promise<void> {
    await this.#call(() => this.connection.broker.deleteQueue(name));
  }

  async bindQueue(queue: string, exchange: string, key: string, table: FieldTable): Promise<void> {
    await this.#call(() => this.connection.broker.bind(queue, exchange, key, table));
  }

  async prefetch(count: number): Promise<void> {
    await this.#call(() => {
      this.prefetchCount = count;
    });
  }

  consume(queue: string, settings: ConsumerSettings): Promise<string> {
    return this.#call(() => this.connection.broker.consume(this, queue, settings));
  }

  async cancel(consumerTag: string): Promise<void> {
    await this.#call(() => this.connection.broker.cancel(this, consumerTag));
  }

  ack(tag: number, multiple: boolean): void {
    if (this.#open) this.connection.send({ kind: "ack", channel: this, tag, multiple });
  }

  reject(tag: number, requeue: boolean): void {
    if (this.#open) this.connection.send({ kind: "reject", channel: this, tag, requeue });
  }

  publish(exchange: string, routingKey: string, content: Buffer, settings: PublishSettings): number {
    if (!this.#open) throw new AmqpError("the channel is closed");
    const tag = ++this.#sent;
    this.connection.send({ kind: "publish", channel: this, tag, exchange, routingKey, content, settings });
    return tag;
  }

  async close(): Promise<void> {
    if (this.#open && !this.#closing) {
      this.#closing = true;
      this.#open = false;
      this.connection.send({ kind: "close", channel: this });
    }
    await this.#gone;
  }

  // What arrives at the client.

  delivered(delivery: Delivery): void {
    if (this.#open) this.events.delivered?.(delivery);
  }

  cancelled(): void {
    if (this.#open) this.events.cancelled?.();
  }

  confirmed(tag: number, multiple: boolean, taken: boolean): void {
    if (this.#open) this.events.confirmed?.(tag, multiple, taken);
  }

  returned(tag: number): void {
    if (this.#open) this.events.returned?.(tag);
  }

  /** Once; by the broker, by the loss of the connection, or because we asked for it (no error). */
  closed(error: AmqpError | undefined): void {
    this.#open = false;
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const reject of waiting) reject(error ?? new AmqpError("the channel is closed"));
    this.#tellGone();
    this.events.closed(this.#closing ? undefined : error);
  }

  #call<T>(run: () => T): Promise<T> {
    if (!this.#open) return Promise.reject(new AmqpError("the channel is closed"));
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      const answer = (settle: () => void) => {
        if (this.#waiting.delete(reject)) settle();
      };
      this.connection.send({
        kind: "call",
        channel: this,
        run: () => {
          const result = run();
          return () => answer(() => resolve(result));
        },
        fail: (error) => answer(() => reject(error)),
      });
    });
  }
}

function stateOf(queue: Queue): QueueState {
  return { messageCount: queue.ready, consumerCount: queue.consumers.length };
}
