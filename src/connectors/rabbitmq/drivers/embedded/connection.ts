import type { Clock, Time } from "../../../../component/context.ts";
import {
  type AmqpChannel,
  type AmqpConnection,
  AmqpError,
  type AmqpPublisher,
  type ChannelEvents,
  type ConnectionEvents,
  type Delivery,
  type PublisherEvents,
  type PublishSettings,
  type Role,
} from "../../driver.ts";
import type { EmbeddedRabbitmq } from "./broker.ts";
import { Channel } from "./channel.ts";

/** What a client sends. */
type Request =
  | {
      readonly kind: "call";
      readonly channel: Channel;
      /** Does it at the broker; returns what gives the client its answer. Throws an {@link AmqpError}, which closes the channel. */
      readonly run: () => () => void;
      readonly fail: (error: AmqpError) => void;
    }
  | { readonly kind: "ack"; readonly channel: Channel; readonly tag: number; readonly multiple: boolean }
  | { readonly kind: "reject"; readonly channel: Channel; readonly tag: number; readonly requeue: boolean }
  | {
      readonly kind: "publish";
      readonly channel: Channel;
      readonly tag: number;
      readonly exchange: string;
      readonly routingKey: string;
      readonly content: Buffer;
      readonly settings: PublishSettings;
    }
  | { readonly kind: "close"; readonly channel: Channel };

/** What the broker sends. */
type Event =
  | { readonly kind: "answer"; readonly tell: () => void }
  | { readonly kind: "delivered"; readonly channel: Channel; readonly delivery: Delivery }
  | { readonly kind: "cancelled"; readonly channel: Channel }
  | {
      readonly kind: "confirmed";
      readonly channel: Channel;
      readonly tag: number;
      readonly multiple: boolean;
      readonly taken: boolean;
    }
  | { readonly kind: "returned"; readonly channel: Channel; readonly tag: number }
  | { readonly kind: "closed"; readonly channel: Channel; readonly error: AmqpError | undefined };

/**
 * A connection to the embedded broker. Requests and events each travel one turn of the event loop, in order;
 * {@link cut} loses what is under way.
 */
export class Connection implements AmqpConnection {
  readonly broker: EmbeddedRabbitmq;
  readonly role: Role;
  readonly channels = new Set<Channel>();
  readonly #clock: Clock;
  readonly #events: ConnectionEvents;
  #requests: Request[] = [];
  #replies: Event[] = [];
  #requestsScheduled = false;
  #repliesScheduled = false;
  #blocked = false;
  #lost = false;

  constructor(broker: EmbeddedRabbitmq, role: Role, clock: Clock, events: ConnectionEvents) {
    this.broker = broker;
    this.role = role;
    this.#clock = clock;
    this.#events = events;
  }

  async openChannel(events: ChannelEvents): Promise<AmqpChannel> {
    return this.#open(events, false);
  }

  async openPublisher(events: PublisherEvents): Promise<AmqpPublisher> {
    return this.#open(events, true);
  }

  close(_deadline: Time): Promise<void> {
    // What was sent before is still worked off, as the closing handshake of AMQP has it.
    return new Promise((resolve) => {
      this.#clock.defer(() => {
        if (!this.#lost) {
          this.#work();
          this.#end(undefined);
        }
        resolve();
      });
    });
  }

  /**
   * The network fails. Requests under way are `lost`, or `applied` while their answers are lost; events under
   * way are lost.
   */
  cut(requests: "lost" | "applied"): void {
    if (this.#lost) return;
    if (requests === "applied") this.#work();
    this.#end(new AmqpError("the connection is lost"));
  }

  send(request: Request): void {
    if (this.#lost) return;
    this.#requests.push(request);
    this.#scheduleWork();
  }

  emit(event: Event): void {
    if (this.#lost) return;
    this.#replies.push(event);
    if (this.#repliesScheduled) return;
    this.#repliesScheduled = true;
    this.#clock.defer(() => {
      this.#repliesScheduled = false;
      this.#deliver();
    });
  }

  /** The alarm was raised or is over. */
  alarmChanged(): void {
    if (!this.#blocked || this.broker.alarm !== undefined) return;
    this.#blocked = false;
    this.#clock.defer(() => {
      if (!this.#lost) this.#events.unblocked();
    });
    this.#scheduleWork();
  }

  async #open(events: ChannelEvents & Partial<PublisherEvents>, confirms: boolean): Promise<Channel> {
    if (this.#lost) throw new AmqpError("the connection is lost");
    const channel = new Channel(this, events, confirms);
    this.channels.add(channel);
    // A round trip, as opening one has it.
    await channel.prefetch(0);
    return channel;
  }

  #scheduleWork(): void {
    if (this.#requestsScheduled) return;
    this.#requestsScheduled = true;
    this.#clock.defer(() => {
      this.#requestsScheduled = false;
      this.#work();
    });
  }

  #work(): void {
    const requests = this.#requests;
    let done = 0;
    // An alarm stops the reading of a connection at its next publish.
    while (done < requests.length && !this.#lost && !this.#mustBlock(requests[done]!))
      this.#do(requests[done++]!);
    if (this.#lost) return;
    this.#requests = requests.slice(done);
    for (const channel of this.channels) if (channel.answers.length > 0) this.#confirm(channel);
  }

  #mustBlock(request: Request): boolean {
    const { alarm } = this.broker;
    if (alarm === undefined || (request.kind !== "publish" && !this.#blocked)) return false;
    if (!this.#blocked) {
      this.#blocked = true;
      this.#clock.defer(() => {
        if (!this.#lost) this.#events.blocked(alarm);
      });
    }
    return true;
  }

  #do(request: Request): void {
    const { channel } = request;
    if (!channel.openAtBroker) return;
    try {
      switch (request.kind) {
        case "call":
          this.emit({ kind: "answer", tell: request.run() });
          break;
        case "ack":
          this.broker.acknowledge(channel, request.tag, request.multiple);
          break;
        case "reject":
          this.broker.reject(channel, request.tag, request.requeue);
          break;
        case "publish":
          this.broker.publish(channel, request);
          break;
        case "close":
          this.#closeChannel(channel, undefined);
          break;
      }
    } catch (error) {
      if (!(error instanceof AmqpError)) throw error;
      if (request.kind === "call") this.emit({ kind: "answer", tell: () => request.fail(error) });
      this.#closeChannel(channel, error);
    }
  }

  #closeChannel(channel: Channel, error: AmqpError | undefined): void {
    this.channels.delete(channel);
    this.broker.drop(channel);
    this.emit({ kind: "closed", channel, error });
  }

  /** Answers that follow each other go out as one. */
  #confirm(channel: Channel): void {
    const answers = channel.answers.splice(0);
    for (let from = 0; from < answers.length; ) {
      const { taken } = answers[from]!;
      let to = from;
      while (to + 1 < answers.length && answers[to + 1]!.taken === taken) to++;
      const contiguous =
        channel.answeredUpTo >= 0 && answers[to]!.tag - channel.answeredUpTo === to - from + 1;
      if (contiguous) {
        const { tag } = answers[to]!;
        channel.answeredUpTo = tag;
        this.emit({ kind: "confirmed", channel, tag, multiple: to > from, taken });
      } else {
        channel.answeredUpTo = -1;
        for (let each = from; each <= to; each++) {
          this.emit({ kind: "confirmed", channel, tag: answers[each]!.tag, multiple: false, taken });
        }
      }
      from = to + 1;
    }
  }

  #deliver(): void {
    const events = this.#replies;
    this.#replies = [];
    for (const event of events) {
      if (this.#lost) return;
      switch (event.kind) {
        case "answer":
          event.tell();
          break;
        case "delivered":
          event.channel.delivered(event.delivery);
          break;
        case "cancelled":
          event.channel.cancelled();
          break;
        case "confirmed":
          event.channel.confirmed(event.tag, event.multiple, event.taken);
          break;
        case "returned":
          event.channel.returned(event.tag);
          break;
        case "closed":
          event.channel.closed(event.error);
          break;
      }
    }
  }

  #end(error: AmqpError | undefined): void {
    this.#lost = true;
    this.#requests = [];
    // A channel that the broker closed just now does not know it yet.
    const untold = this.#replies.flatMap((event) => (event.kind === "closed" ? [event.channel] : []));
    this.#replies = [];
    this.broker.connections.delete(this);
    const channels = [...this.channels, ...untold];
    this.channels.clear();
    for (const channel of channels) this.broker.drop(channel);
    this.#clock.defer(() => {
      for (const channel of channels) channel.closed(error);
      this.#events.closed(error);
    });
  }
}
