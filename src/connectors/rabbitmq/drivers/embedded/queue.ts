import type { Properties, QueueSettings } from "../../driver.ts";
import type { Channel } from "./channel.ts";

/** A message as it was published: the same object in each queue that took it. */
export interface Message {
  readonly exchange: string;
  readonly routingKey: string;
  readonly properties: Properties;
  readonly content: Buffer;
  /** Wall clock at which the broker took it, ms. */
  readonly at: number;
}

/** A message in one queue. */
export interface Queued {
  readonly message: Message;
  /** Place in the queue: what goes back goes back to it. */
  readonly place: number;
  redelivered: boolean;
  /** Deliveries that came back. */
  returns: number;
}

export interface Consumer {
  readonly channel: Channel;
  readonly tag: string;
  readonly exclusive: boolean;
  /** Most unacknowledged; 0 is unlimited. */
  readonly prefetch: number;
  unacknowledged: number;
  /** Gets nothing, and nobody knows why. */
  isDumb: boolean;
}

/** Ready messages of one priority, by place. */
class Ready {
  #items: Queued[] = [];
  #from = 0;

  get length(): number {
    return this.#items.length - this.#from;
  }

  push(queued: Queued): void {
    this.#items.push(queued);
  }

  shift(): Queued | undefined {
    if (this.#from === this.#items.length) return undefined;
    const queued = this.#items[this.#from++]!;
    if (this.#from > 1_024 && this.#from * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#from);
      this.#from = 0;
    }
    return queued;
  }

  [Symbol.iterator](): Iterator<Queued> {
    return this.#items.slice(this.#from).values();
  }

  /** Puts messages back to where they were. */
  restore(back: readonly Queued[]): void {
    this.#items = [...back, ...this.#items.slice(this.#from)].sort((a, b) => a.place - b.place);
    this.#from = 0;
  }
}

export class Queue {
  readonly name: string;
  readonly settings: QueueSettings;
  /** A policy makes it refuse whatever is published. */
  refusing = false;
  /** Everything that was ever put into it. */
  readonly history: Message[] = [];
  readonly consumers: Consumer[] = [];
  /** By priority, the highest last. */
  readonly #ready: Ready[];
  #next = 0;
  #turn = 0;

  constructor(name: string, settings: QueueSettings) {
    this.name = name;
    this.settings = settings;
    const highest = settings.arguments["x-max-priority"];
    this.#ready = Array.from({ length: (typeof highest === "number" ? highest : 0) + 1 }, () => new Ready());
  }

  get ready(): number {
    let count = 0;
    for (const ready of this.#ready) count += ready.length;
    return count;
  }

  /** What is ready, the lowest priority first. */
  *waiting(): Generator<Message> {
    for (const ready of this.#ready) for (const { message } of ready) yield message;
  }

  /** Throws away what is ready. */
  purge(): void {
    for (const ready of this.#ready) while (ready.shift() !== undefined);
  }

  get isQuorum(): boolean {
    return this.settings.arguments["x-queue-type"] === "quorum";
  }

  /** Full, and it is the newest that it refuses. */
  get refuses(): boolean {
    if (this.refusing) return true;
    const { "x-max-length": most, "x-overflow": overflow } = this.settings.arguments;
    return typeof most === "number" && overflow === "reject-publish" && this.ready >= most;
  }

  put(message: Message): void {
    this.history.push(message);
    const queued = { message, place: this.#next++, redelivered: false, returns: 0 };
    this.#readyFor(message).push(queued);
  }

  /** What is too much, oldest first, where the oldest make room. */
  *overflowing(): Generator<Queued> {
    const { "x-max-length": most, "x-overflow": overflow } = this.settings.arguments;
    if (typeof most !== "number" || (overflow ?? "drop-head") !== "drop-head") return;
    while (this.ready > most) yield this.#lowest()!;
  }

  restore(back: readonly Queued[]): void {
    for (const ready of this.#ready) {
      const own = back.filter(({ message }) => this.#readyFor(message) === ready);
      if (own.length > 0) ready.restore(own);
    }
  }

  /** The next message and who gets it; undefined when there is no message, or nobody has room. */
  next(): { queued: Queued; consumer: Consumer } | undefined {
    const consumer = this.#nextConsumer();
    if (consumer === undefined) return undefined;
    for (let priority = this.#ready.length - 1; priority >= 0; priority--) {
      const queued = this.#ready[priority]!.shift();
      if (queued !== undefined) {
        this.#turn++;
        return { queued, consumer };
      }
    }
    return undefined;
  }

  removeConsumer(consumer: Consumer): void {
    const index = this.consumers.indexOf(consumer);
    if (index >= 0) this.consumers.splice(index, 1);
  }

  #nextConsumer(): Consumer | undefined {
    const eligible =
      this.settings.arguments["x-single-active-consumer"] === true
        ? this.consumers.slice(0, 1)
        : this.consumers;
    for (let i = 0; i < eligible.length; i++) {
      const consumer = eligible[(this.#turn + i) % eligible.length]!;
      if (consumer.isDumb) continue;
      if (consumer.prefetch === 0 || consumer.unacknowledged < consumer.prefetch) return consumer;
    }
    return undefined;
  }

  #lowest(): Queued | undefined {
    for (const ready of this.#ready) if (ready.length > 0) return ready.shift();
    return undefined;
  }

  #readyFor(message: Message): Ready {
    const priority = Math.min(message.properties.priority ?? 0, this.#ready.length - 1);
    return this.#ready[priority]!;
  }
}
