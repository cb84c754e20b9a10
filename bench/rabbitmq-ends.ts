import { once } from "node:events";
import { type Channel, type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import { freshName } from "../test/brokers/index.ts";
import { type RabbitmqBroker, startRabbitmq } from "../test/brokers/rabbitmq.ts";
import type { Input, Output } from "./ends.ts";
import type { Order } from "./orders.ts";

/** The broker of the environment, or one of our own, with a connection to look at it. */
export class RabbitmqSide {
  readonly url: string;
  readonly #owned: RabbitmqBroker | undefined;
  readonly #model: ChannelModel;
  readonly channel: ConfirmChannel;

  private constructor(
    url: string,
    owned: RabbitmqBroker | undefined,
    model: ChannelModel,
    channel: ConfirmChannel,
  ) {
    this.url = url;
    this.#owned = owned;
    this.#model = model;
    this.channel = channel;
  }

  static async open(): Promise<RabbitmqSide> {
    const owned = process.env.AMQP_URL ? undefined : await startRabbitmq();
    const url = owned?.url ?? process.env.AMQP_URL!;
    const model = await connect(url);
    return new RabbitmqSide(url, owned, model, await model.createConfirmChannel());
  }

  async createQueue(prefix: string): Promise<string> {
    const { queue } = await this.channel.assertQueue(freshName(prefix), {
      durable: true,
      arguments: { "x-queue-type": "quorum" },
    });
    return queue;
  }

  async remove(queue: string | undefined): Promise<void> {
    if (queue !== undefined) await this.channel.deleteQueue(queue);
  }

  /** Messages that are ready. */
  async ready(queue: string): Promise<number> {
    return (await this.channel.checkQueue(queue)).messageCount;
  }

  openChannel(): Promise<Channel> {
    return this.#model.createChannel();
  }

  async close(): Promise<void> {
    await this.#model.close();
    await this.#owned?.stop();
  }
}

/** Most messages sent to a queue and not yet confirmed while it is filled. */
const window = 2_000;

export class RabbitmqInput implements Input {
  readonly #side: RabbitmqSide;
  readonly #orders: () => Iterable<Order>;
  #queue: string | undefined;

  constructor(side: RabbitmqSide, orders: () => Iterable<Order>) {
    this.#side = side;
    this.#orders = orders;
  }

  async prepare(what: "full" | "empty"): Promise<Record<string, string>> {
    await this.#side.remove(this.#queue);
    this.#queue = await this.#side.createQueue("orders");
    if (what === "full") {
      let part: Order[] = [];
      for (const order of this.#orders()) {
        part.push(order);
        if (part.length < window) continue;
        await this.#publish(part);
        part = [];
      }
      await this.#publish(part);
    }
    return { AMQP_URL: this.#side.url, BENCH_INPUT: this.#queue };
  }

  /** A job that has ended holds nothing any more: what it did not acknowledge is ready again. */
  unacknowledged(): Promise<number> {
    return this.#side.ready(this.#queue!);
  }

  async send(orders: readonly Order[]): Promise<void> {
    await this.#publish(orders);
  }

  async close(): Promise<void> {
    await this.#side.remove(this.#queue);
  }

  async #publish(orders: readonly Order[]): Promise<void> {
    const { channel } = this.#side;
    let room = true;
    for (const { value } of orders) {
      room = channel.sendToQueue(this.#queue!, Buffer.from(value), { persistent: true });
    }
    if (!room) await once(channel, "drain");
    await channel.waitForConfirms();
  }
}

export class RabbitmqOutput implements Output {
  readonly #side: RabbitmqSide;
  #queue: string | undefined;

  constructor(side: RabbitmqSide) {
    this.#side = side;
  }

  async prepare(): Promise<Record<string, string>> {
    await this.close();
    this.#queue = await this.#side.createQueue("accepted");
    return { AMQP_URL: this.#side.url, BENCH_OUTPUT: this.#queue };
  }

  count(): Promise<number> {
    return this.#side.ready(this.#queue!);
  }

  async read(visit: (key: string | null, value: Buffer) => void): Promise<void> {
    let left = await this.count();
    if (left === 0) return;
    const channel = await this.#side.openChannel();
    await new Promise<void>((resolve, reject) => {
      channel
        .consume(
          this.#queue!,
          (message) => {
            if (message === null) return reject(new Error("the output queue is gone"));
            visit(null, message.content);
            if (--left === 0) resolve();
          },
          { noAck: true },
        )
        .catch(reject);
    });
    await channel.close();
  }

  async listen(visit: (key: string | null, value: Buffer) => void): Promise<() => Promise<void>> {
    const channel = await this.#side.openChannel();
    await channel.consume(this.#queue!, (message) => message !== null && visit(null, message.content), {
      noAck: true,
    });
    return () => channel.close();
  }

  async close(): Promise<void> {
    await this.#side.remove(this.#queue);
  }
}
