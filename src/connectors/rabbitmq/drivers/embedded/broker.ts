import type { Clock } from "../../../../component/context.ts";
import type { EmbeddedBroker, FedMessage, StoredMessage } from "../../../../component/embedded.ts";
import { MillraceError } from "../../../../errors.ts";
import { noHeaders } from "../../../../message/records.ts";
import {
  AmqpError,
  type ConnectionEvents,
  type ConsumerSettings,
  type Delivery,
  type ExchangeSettings,
  type FieldTable,
  type FieldValue,
  type Properties,
  type PublishSettings,
  type QueueSettings,
  ReplyCode,
  type Role,
} from "../../driver.ts";
import type { Declarations } from "../../options.ts";
import { contentOf, headersOf, keyOf, propertiesOf, timestampOf } from "../../properties.ts";
import type { Channel } from "./channel.ts";
import { Connection } from "./connection.ts";
import { Exchange } from "./exchange.ts";
import { type Consumer, type Message, Queue, type Queued } from "./queue.ts";

/**
 * An in-process RabbitMQ: deterministic, in the time of the given clock, and with the real one's manners. It
 * requeues to the old position, returns before it confirms, closes a channel for an unknown delivery tag, ends
 * consumers of a deleted queue, and stops reading from publishers during an alarm. `conformance.test.ts` holds
 * it to the real one.
 *
 * It has no expiry of messages or queues, no flow control, and forgets nothing at a {@link stop}.
 */
export class EmbeddedRabbitmq implements EmbeddedBroker {
  readonly connections = new Set<Connection>();
  readonly #clock: Clock;
  readonly #exchanges = new Map<string, Exchange>();
  readonly #queues = new Map<string, Queue>();
  #alarm: string | undefined;
  #refusal: AmqpError | undefined;
  #withholds = false;
  #maxMessageBytes = 128 * 2 ** 20;
  #consumers = 0;
  #dumbsNew = false;

  constructor(clock: Clock) {
    this.#clock = clock;
    for (const type of ["direct", "fanout", "topic", "headers"]) {
      this.#exchanges.set(`amq.${type}`, new Exchange(`amq.${type}`, { type, durable: true, arguments: {} }));
    }
  }

  // What the runner sees.

  targets(): readonly string[] {
    return [...this.#queues.keys()].sort();
  }

  feed(target: string, messages: readonly FedMessage[]): void {
    const queue = this.#queues.get(target) ?? this.assertQueue(target, { durable: true, arguments: {} });
    for (const { value, key = null, headers = noHeaders, timestamp = -1 } of messages) {
      const settings = propertiesOf({
        key,
        headers,
        tombstone: value === null,
        timestamp,
        persistent: true,
        mandatory: false,
      });
      if ("code" in settings)
        throw new MillraceError("record-refused", `queue "${target}": ${settings.message}`);
      const content = value ?? Buffer.alloc(0);
      this.#put(queue, this.#message("", target, content, settings));
    }
    this.#dispatch(queue);
  }

  *contents(target: string): Iterable<StoredMessage> {
    let position = 0;
    for (const { exchange, routingKey, properties, content, at } of this.#queues.get(target)?.history ?? []) {
      yield {
        partition: 0,
        position,
        key: keyOf(properties),
        value: contentOf(properties, content),
        headers: headersOf({
          fields: { deliveryTag: position, redelivered: false, exchange, routingKey },
          properties,
        }),
        timestamp: timestampOf(properties, at),
      };
      position++;
    }
  }

  // What a test does to it.

  /** Raises an alarm, or ends it. */
  setAlarm(reason: string | undefined): void {
    this.#alarm = reason;
    for (const connection of this.connections) connection.alarmChanged();
  }

  get alarm(): string | undefined {
    return this.#alarm;
  }

  /** From now on confirms are kept back, for good. */
  withholdConfirms(withholds: boolean): void {
    this.#withholds = withholds;
  }

  /** Consumers go dumb: those there are get nothing any more. So do those that come, if `newOnes`. */
  dumbConsumers({ newOnes = false } = {}): void {
    for (const queue of this.#queues.values()) for (const consumer of queue.consumers) consumer.isDumb = true;
    this.#dumbsNew = newOnes;
  }

  /** Consumers that come from now on are well. */
  heedNewConsumers(): void {
    this.#dumbsNew = false;
  }

  /** A policy with a length limit and `reject-publish`, met: the queue takes nothing until told that it may again. */
  refusePublishes(name: string, refuses: boolean): void {
    this.queue(name).refusing = refuses;
  }

  /** Publishing a larger message closes the channel. */
  limitMessages(bytes: number): void {
    this.#maxMessageBytes = bytes;
  }

  /** Connections are refused with this error from now on; undefined lets them in again. */
  refuseConnections(error: AmqpError | undefined): void {
    this.#refusal = error;
  }

  /** Cuts all connections, or those of one role. */
  cut(requests: "lost" | "applied", role?: Role): void {
    for (const connection of [...this.connections]) {
      if (role === undefined || connection.role === role) connection.cut(requests);
    }
  }

  /** Everything is cut, and nobody gets in until {@link start}. Queues keep what they hold. */
  stop(): void {
    this.refuseConnections(new AmqpError("connect ECONNREFUSED"));
    this.cut("applied");
  }

  start(): void {
    this.refuseConnections(undefined);
  }

  deleteExchange(name: string): void {
    this.#exchanges.delete(name);
  }

  /** Ready and unacknowledged messages, and consumers, of a queue. */
  depth(name: string): {
    readonly ready: number;
    readonly unacknowledged: number;
    readonly consumers: number;
  } {
    const queue = this.queue(name);
    const unacknowledged = queue.consumers.reduce((sum, consumer) => sum + consumer.unacknowledged, 0);
    return { ready: queue.ready, unacknowledged, consumers: queue.consumers.length };
  }

  /** What a queue has not got rid of: ready, or delivered and unacknowledged. */
  *remaining(name: string): Generator<Buffer> {
    const queue = this.queue(name);
    for (const { content } of queue.waiting()) yield content;
    for (const connection of this.connections) {
      for (const channel of connection.channels) {
        for (const { queue: from, queued } of channel.unacknowledged.values()) {
          if (from === queue) yield queued.message.content;
        }
      }
    }
  }

  /** Throws away what is ready in a queue, as if it had been consumed. */
  purge(name: string): void {
    this.queue(name).purge();
  }

  // What connections ask of it.

  connect(role: Role, events: ConnectionEvents): Promise<Connection> {
    return new Promise((resolve, reject) => {
      this.#clock.defer(() => {
        if (this.#refusal !== undefined) {
          reject(this.#refusal);
          return;
        }
        const connection = new Connection(this, role, this.#clock, events);
        this.connections.add(connection);
        resolve(connection);
      });
    });
  }

  /** Declares what is not there; leaves alone what differs, which shows at the connect that declares it. */
  declare({ exchanges, queues, bindings }: Declarations): void {
    for (const [name, settings] of exchanges)
      if (!this.#exchanges.has(name)) this.assertExchange(name, settings);
    for (const [name, settings] of queues) if (!this.#queues.has(name)) this.assertQueue(name, settings);
    for (const { queue, exchange, key, arguments: table } of bindings) {
      if (this.#queues.has(queue) && this.#exchanges.has(exchange)) this.bind(queue, exchange, key, table);
    }
  }

  exchange(name: string): Exchange {
    const exchange = this.#exchanges.get(name);
    if (exchange === undefined) throw notFound("exchange", name);
    return exchange;
  }

  has(queue: string): boolean {
    return this.#queues.has(queue);
  }

  queue(name: string): Queue {
    const queue = this.#queues.get(name);
    if (queue === undefined) throw notFound("queue", name);
    return queue;
  }

  assertExchange(name: string, settings: ExchangeSettings): void {
    const known = this.#exchanges.get(name);
    if (known === undefined) this.#exchanges.set(name, new Exchange(name, settings));
    else if (known.settings.type !== settings.type) {
      throw inequivalent("type", `exchange '${name}'`, settings.type, known.settings.type);
    } else compare(`exchange '${name}'`, settings, known.settings);
  }

  assertQueue(name: string, settings: QueueSettings): Queue {
    let queue = this.#queues.get(name);
    if (queue === undefined) {
      queue = new Queue(name, settings);
      this.#queues.set(name, queue);
    } else compare(`queue '${name}'`, settings, queue.settings);
    return queue;
  }

  deleteQueue(name: string): void {
    const queue = this.#queues.get(name);
    if (queue === undefined) return;
    this.#queues.delete(name);
    for (const exchange of this.#exchanges.values()) exchange.unbind(queue);
    for (const consumer of queue.consumers.splice(0)) {
      const { channel, tag } = consumer;
      channel.consumers.delete(tag);
      channel.connection.emit({ kind: "cancelled", channel });
    }
  }

  bind(queue: string, exchange: string, key: string, table: FieldTable): void {
    const target = this.queue(queue);
    this.exchange(exchange).bind(target, key, table);
  }

  consume(channel: Channel, name: string, { consumerTag, exclusive }: ConsumerSettings): string {
    const queue = this.queue(name);
    if (queue.consumers.some((other) => other.exclusive || exclusive)) {
      throw new AmqpError(`ACCESS_REFUSED - queue '${name}' in vhost '/' in exclusive use`, {
        replyCode: ReplyCode.accessRefused,
      });
    }
    const tag = consumerTag ?? `embedded-${++this.#consumers}`;
    if (channel.consumers.has(tag)) {
      throw new AmqpError(`NOT_ALLOWED - attempt to reuse consumer tag '${tag}'`, {
        replyCode: ReplyCode.notAllowed,
      });
    }
    const consumer: Consumer = {
      channel,
      tag,
      exclusive,
      prefetch: channel.prefetchCount,
      unacknowledged: 0,
      isDumb: this.#dumbsNew,
    };
    channel.consumers.set(tag, consumer);
    queue.consumers.push(consumer);
    // The answer goes out before the first delivery.
    this.#clock.defer(() => this.#dispatch(queue));
    return tag;
  }

  cancel(channel: Channel, tag: string): void {
    const consumer = channel.consumers.get(tag);
    if (consumer === undefined) return;
    channel.consumers.delete(tag);
    for (const queue of this.#queues.values()) {
      if (!queue.consumers.includes(consumer)) continue;
      queue.removeConsumer(consumer);
      this.#dispatch(queue);
    }
  }

  acknowledge(channel: Channel, tag: number, multiple: boolean): void {
    for (const { queue, consumer } of this.#take(channel, tag, multiple)) {
      consumer.unacknowledged--;
      this.#dispatch(queue);
    }
  }

  reject(channel: Channel, tag: number, requeue: boolean): void {
    for (const { queue, queued, consumer } of this.#take(channel, tag, false)) {
      consumer.unacknowledged--;
      if (requeue) this.#restore(queue, [queued]);
      else this.#deadLetter(queue, queued, "rejected");
      this.#dispatch(queue);
    }
  }

  publish(
    channel: Channel,
    request: {
      readonly tag: number;
      readonly exchange: string;
      readonly routingKey: string;
      readonly content: Buffer;
      readonly settings: PublishSettings;
    },
  ): void {
    const { tag, exchange, routingKey, content, settings } = request;
    if (content.length > this.#maxMessageBytes) {
      throw new AmqpError(
        `PRECONDITION_FAILED - message size ${content.length} is larger than configured max size ${this.#maxMessageBytes}`,
        { replyCode: ReplyCode.preconditionFailed },
      );
    }
    const queues = this.#route(exchange, routingKey, settings.headers);
    if (queues.size === 0 && settings.mandatory) channel.connection.emit({ kind: "returned", channel, tag });
    let taken = true;
    if (queues.size > 0) {
      const message = this.#message(exchange, routingKey, content, settings);
      for (const queue of queues) {
        if (queue.refuses) taken = false;
        else this.#put(queue, message);
      }
      for (const queue of queues) this.#dispatch(queue);
    }
    if (!channel.confirms) return;
    if (this.#withholds) channel.answeredUpTo = -1;
    else channel.answers.push({ tag, taken });
  }

  /** The channel is gone: what was unacknowledged on it goes back to where it was. */
  drop(channel: Channel): void {
    if (!channel.openAtBroker) return;
    channel.openAtBroker = false;
    const touched = new Set<Queue>();
    for (const queue of this.#queues.values()) {
      for (const consumer of channel.consumers.values()) {
        if (!queue.consumers.includes(consumer)) continue;
        queue.removeConsumer(consumer);
        touched.add(queue);
      }
    }
    channel.consumers.clear();
    const back = new Map<Queue, Queued[]>();
    for (const { queue, queued } of channel.unacknowledged.values()) {
      const list = back.get(queue);
      if (list === undefined) back.set(queue, [queued]);
      else list.push(queued);
    }
    channel.unacknowledged.clear();
    for (const [queue, queued] of back) {
      this.#restore(queue, queued);
      touched.add(queue);
    }
    for (const queue of touched) this.#dispatch(queue);
  }

  #message(exchange: string, routingKey: string, content: Buffer, settings: PublishSettings): Message {
    const { mandatory: _, ...properties } = settings;
    return { exchange, routingKey, properties, content, at: this.#clock.wall() };
  }

  #route(exchange: string, routingKey: string, headers: FieldTable): Set<Queue> {
    const queues = new Set<Queue>();
    if (exchange === "") {
      const queue = this.#queues.get(routingKey);
      if (queue !== undefined) queues.add(queue);
      return queues;
    }
    const seen = new Set<string>();
    let next: FieldValue | undefined = exchange;
    for (let first = true; typeof next === "string" && !seen.has(next); first = false) {
      seen.add(next);
      const from: Exchange | undefined = first ? this.exchange(next) : this.#exchanges.get(next);
      from?.route(routingKey, headers, queues);
      if (queues.size > 0) break;
      next = from?.settings.arguments["alternate-exchange"];
    }
    return queues;
  }

  #put(queue: Queue, message: Message): void {
    queue.put(message);
    for (const queued of queue.overflowing()) this.#deadLetter(queue, queued, "maxlen");
  }

  #dispatch(queue: Queue): void {
    for (let next = queue.next(); next !== undefined; next = queue.next()) {
      const { queued, consumer } = next;
      const { channel } = consumer;
      const deliveryTag = channel.nextDelivery++;
      consumer.unacknowledged++;
      channel.unacknowledged.set(deliveryTag, { queue, queued, consumer });
      channel.connection.emit({
        kind: "delivered",
        channel,
        delivery: deliveryOf(queue, queued, deliveryTag),
      });
    }
  }

  /** Takes acknowledged messages off a channel; an unknown tag closes it. */
  *#take(channel: Channel, tag: number, multiple: boolean) {
    const { unacknowledged } = channel;
    if (!unacknowledged.has(tag)) {
      throw new AmqpError(`PRECONDITION_FAILED - unknown delivery tag ${tag}`, {
        replyCode: ReplyCode.preconditionFailed,
      });
    }
    if (!multiple) {
      const one = unacknowledged.get(tag)!;
      unacknowledged.delete(tag);
      yield one;
      return;
    }
    for (const [each, one] of unacknowledged) {
      if (each > tag) return;
      unacknowledged.delete(each);
      yield one;
    }
  }

  #restore(queue: Queue, back: readonly Queued[]): void {
    // What came back to a deleted queue is gone with it.
    if (this.#queues.get(queue.name) !== queue) return;
    const limit = queue.isQuorum ? queue.settings.arguments["x-delivery-limit"] : undefined;
    const kept: Queued[] = [];
    for (const queued of back) {
      queued.redelivered = true;
      queued.returns++;
      if (typeof limit === "number" && limit >= 0 && queued.returns > limit) {
        this.#deadLetter(queue, queued, "delivery_limit");
      } else kept.push(queued);
    }
    queue.restore(kept);
  }

  #deadLetter(queue: Queue, { message }: Queued, reason: "rejected" | "maxlen" | "delivery_limit"): void {
    const exchange = queue.settings.arguments["x-dead-letter-exchange"];
    if (typeof exchange !== "string") return;
    const key = queue.settings.arguments["x-dead-letter-routing-key"];
    const routingKey = typeof key === "string" ? key : message.routingKey;
    const deaths = deathsOf(message.properties);
    // Round and round, with nobody rejecting it, it would go for ever: the broker drops it.
    const cycles = deaths.some((death) => death.queue === queue.name);
    if (cycles && reason !== "rejected" && !deaths.some((death) => death.reason === "rejected")) return;
    const { expiration: _, ...properties } = message.properties;
    const headers = {
      ...properties.headers,
      "x-first-death-exchange": properties.headers?.["x-first-death-exchange"] ?? message.exchange,
      "x-first-death-queue": properties.headers?.["x-first-death-queue"] ?? queue.name,
      "x-first-death-reason": properties.headers?.["x-first-death-reason"] ?? reason,
      "x-death": addDeath(deaths, queue.name, reason, message, Math.floor(this.#clock.wall() / 1_000)),
    };
    const letter: Message = { ...message, exchange, routingKey, properties: { ...properties, headers } };
    if (exchange !== "" && !this.#exchanges.has(exchange)) return;
    const targets = this.#route(exchange, routingKey, headers);
    for (const target of targets) this.#put(target, letter);
    for (const target of targets) this.#dispatch(target);
  }
}

function deliveryOf(queue: Queue, { message, redelivered, returns }: Queued, deliveryTag: number): Delivery {
  const { exchange, routingKey, content } = message;
  // Quorum queues count.
  const properties =
    queue.isQuorum && returns > 0
      ? { ...message.properties, headers: { ...message.properties.headers, "x-delivery-count": returns } }
      : message.properties;
  return { fields: { deliveryTag, redelivered, exchange, routingKey }, properties, content };
}

type Death = FieldTable & { readonly queue: string; readonly reason: string; readonly count: number };

function deathsOf(properties: Properties): readonly Death[] {
  const deaths = properties.headers?.["x-death"];
  return Array.isArray(deaths) ? (deaths as readonly Death[]) : [];
}

/** Deaths for one reason in one queue are counted; the latest comes first. */
function addDeath(
  deaths: readonly Death[],
  queue: string,
  reason: string,
  { exchange, routingKey }: Message,
  time: number,
): readonly Death[] {
  const same = deaths.find((death) => death.queue === queue && death.reason === reason);
  if (same !== undefined) {
    return [{ ...same, count: same.count + 1 }, ...deaths.filter((death) => death !== same)];
  }
  const death = {
    count: 1,
    reason,
    queue,
    time: { "!": "timestamp", value: time } as const,
    exchange,
    "routing-keys": [routingKey],
  };
  return [death, ...deaths];
}

function notFound(kind: string, name: string): AmqpError {
  return new AmqpError(`NOT_FOUND - no ${kind} '${name}' in vhost '/'`, { replyCode: ReplyCode.notFound });
}

function inequivalent(argument: string, what: string, received: string, current: string): AmqpError {
  return new AmqpError(
    `PRECONDITION_FAILED - inequivalent arg '${argument}' for ${what} in vhost '/': received ${received} but current is ${current}`,
    { replyCode: ReplyCode.preconditionFailed },
  );
}

function compare(what: string, wanted: QueueSettings, known: QueueSettings): void {
  if (wanted.durable !== known.durable)
    throw inequivalent("durable", what, `'${wanted.durable}'`, `'${known.durable}'`);
  const names = new Set([...Object.keys(wanted.arguments), ...Object.keys(known.arguments)]);
  for (const name of names) {
    const [received, current] = [wanted.arguments[name], known.arguments[name]];
    const asDefault = (value: FieldValue | undefined) =>
      name === "x-queue-type" ? (value ?? "classic") : value;
    if (JSON.stringify(asDefault(received)) === JSON.stringify(asDefault(current))) continue;
    throw inequivalent(name, what, shown(received), shown(current));
  }
}

function shown(value: FieldValue | undefined): string {
  return value === undefined ? "none" : `the value '${String(value)}'`;
}
