/**
 * What the connector relies on of a broker, one scenario for each fact, run against the embedded broker and,
 * where there is one, against the real RabbitMQ through amqplib. A fact that holds for one of them only is a
 * failure: simulations would prove nothing.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { freshName, needs, sharedRabbitmq } from "../../../../test/brokers/index.ts";
import { until } from "../../../../test/brokers/until.ts";
import { systemClock, systemRandom } from "../../../component/system.ts";
import { testContext } from "../../../testing/context.ts";
import {
  type AmqpChannel,
  type AmqpConnection,
  type AmqpDriver,
  AmqpError,
  type AmqpPublisher,
  type Delivery,
  type FieldTable,
  type PublishSettings,
} from "../driver.ts";
import { differenceOf, isInUse, isMissing } from "../errors.ts";
import { type Broker, readRabbitmqOptions } from "../options.ts";
import { headersOf } from "../properties.ts";
import { amqplibDriver } from "./amqplib/driver.ts";
import { EmbeddedRabbitmq } from "./embedded/broker.ts";
import { embeddedDriver } from "./embedded/driver.ts";

/** A driver with a broker behind it, and what a scenario needs to write short. */
class Bed {
  readonly #t: TestContext;
  readonly #driver: AmqpDriver;
  readonly #broker: Broker;
  readonly #names = new Map<string, string>();

  constructor(t: TestContext, driver: AmqpDriver, broker: Broker) {
    this.#t = t;
    this.#driver = driver;
    this.#broker = broker;
  }

  /** The same name for the same word, fresh in each scenario. */
  name(word: string): string {
    let name = this.#names.get(word);
    if (name === undefined) {
      name = freshName(`conformance-${word}`);
      this.#names.set(word, name);
    }
    return name;
  }

  async connect(): Promise<AmqpConnection> {
    const context = { ...testContext(), clock: systemClock, random: systemRandom };
    const connection = await this.#driver.connect(this.#broker, "check", context, {
      closed() {},
      blocked() {},
      unblocked() {},
    });
    this.#t.after(() => connection.close(systemClock.now() + 2_000));
    return connection;
  }

  async channel(connection?: AmqpConnection): Promise<Ear> {
    const ear = new Ear();
    ear.channel = await (connection ?? (await this.connect())).openChannel(ear);
    return ear;
  }

  async publisher(connection?: AmqpConnection): Promise<Mouth> {
    const mouth = new Mouth();
    mouth.channel = await (connection ?? (await this.connect())).openPublisher(mouth);
    return mouth;
  }

  async queue(word: string, table: FieldTable = {}): Promise<string> {
    const name = this.name(word);
    const { channel } = await this.channel();
    await channel.assertQueue(name, { durable: true, arguments: table });
    this.#t.after(async () => {
      const { channel: last } = await this.channel();
      await last.deleteQueue(name);
    });
    return name;
  }

  /** A queue with messages "0", "1", … in it. */
  async filled(word: string, count: number, table: FieldTable = {}): Promise<string> {
    const name = await this.queue(word, table);
    const mouth = await this.publisher();
    for (let i = 0; i < count; i++) mouth.say("", name, String(i));
    await mouth.confirmedAll();
    return name;
  }
}

class Ear {
  channel!: AmqpChannel;
  readonly deliveries: Delivery[] = [];
  cancels = 0;
  end: { error: AmqpError | undefined } | undefined;

  closed(error: AmqpError | undefined): void {
    this.end = { error };
  }

  delivered(delivery: Delivery): void {
    this.deliveries.push(delivery);
  }

  cancelled(): void {
    this.cancels++;
  }

  async consume(queue: string, prefetch: number, exclusive = false): Promise<string> {
    await this.channel.prefetch(prefetch);
    return this.channel.consume(queue, { consumerTag: undefined, exclusive });
  }

  /** Bodies, with "r" behind a redelivered one. */
  get heard(): string {
    return this.deliveries
      .map(({ content, fields }) => `${content}${fields.redelivered ? "r" : ""}`)
      .join(",");
  }

  async hears(expected: string): Promise<void> {
    const count = expected === "" ? 0 : expected.split(",").length;
    await until(`${expected} is heard, not only ${this.heard}`, () => this.deliveries.length >= count);
    // Whatever was sent too much has arrived after a round trip.
    if (this.end === undefined) await this.channel.prefetch(1);
    assert.equal(this.heard, expected);
  }

  async closesWith(code: number): Promise<AmqpError> {
    await until("the channel is closed", () => this.end);
    assert.equal(this.end!.error?.replyCode, code);
    return this.end!.error!;
  }
}

class Mouth extends Ear {
  declare channel: AmqpPublisher;
  readonly events: string[] = [];
  #said = 0;
  #answered = new Set<number>();

  confirmed(tag: number, multiple: boolean, taken: boolean): void {
    const from = multiple ? 1 : tag;
    for (let each = from; each <= tag; each++) {
      if (this.#answered.has(each)) continue;
      this.#answered.add(each);
      this.events.push(`${taken ? "ack" : "nack"} ${each}`);
    }
  }

  returned(tag: number): void {
    this.events.push(`return ${tag}`);
  }

  drained(): void {}

  say(exchange: string, key: string, body: string | Buffer, settings: Partial<PublishSettings> = {}): number {
    this.#said++;
    return this.channel.publish(exchange, key, Buffer.from(body), {
      headers: {},
      mandatory: true,
      deliveryMode: 2,
      ...settings,
    });
  }

  async confirmedAll(): Promise<readonly string[]> {
    await until("all is confirmed", () => this.#answered.size === this.#said);
    return this.events;
  }
}

const scenarios: Record<string, (bed: Bed) => Promise<void>> = {
  "a message nobody takes is returned, and then confirmed as taken": async (bed) => {
    const queue = await bed.queue("there");
    const mouth = await bed.publisher();
    assert.equal(mouth.say("", bed.name("nowhere"), "x"), 1);
    assert.equal(mouth.say("", queue, "y"), 2);
    assert.equal(mouth.say("", bed.name("nowhere"), "x"), 3);
    const events = await mouth.confirmedAll();
    assert.deepEqual(
      events.filter((event) => event.startsWith("return")),
      ["return 1", "return 3"],
    );
    for (const tag of [1, 3]) {
      assert.ok(events.indexOf(`return ${tag}`) < events.indexOf(`ack ${tag}`), String(events));
    }
  },

  "without mandatory nothing is returned": async (bed) => {
    const mouth = await bed.publisher();
    mouth.say("", bed.name("nowhere"), "x", { mandatory: false });
    assert.deepEqual(await mouth.confirmedAll(), ["ack 1"]);
  },

  "a publish to a missing exchange closes its channel, and no confirm comes": async (bed) => {
    const connection = await bed.connect();
    const mouth = await bed.publisher(connection);
    mouth.say(bed.name("missing"), "key", "x");
    const error = await mouth.closesWith(404);
    assert.match(error.message, /no exchange/);
    assert.deepEqual(mouth.events, []);
    assert.throws(() => mouth.say("", "x", "y"), AmqpError);
    // The connection and its other channels live on.
    const queue = await bed.queue("other");
    const other = await bed.publisher(connection);
    other.say("", queue, "z");
    assert.deepEqual(await other.confirmedAll(), ["ack 1"]);
  },

  "a full queue with reject-publish refuses the newest": async (bed) => {
    const queue = await bed.queue("full", { "x-max-length": 2, "x-overflow": "reject-publish" });
    const mouth = await bed.publisher();
    for (const body of ["0", "1"]) mouth.say("", queue, body);
    await mouth.confirmedAll();
    mouth.say("", queue, "2");
    assert.deepEqual(await mouth.confirmedAll(), ["ack 1", "ack 2", "nack 3"]);
    const ear = await bed.channel();
    await ear.consume(queue, 10);
    await ear.hears("0,1");
  },

  "a full queue with drop-head gives up the oldest, to its dead-letter exchange": async (bed) => {
    const letters = await bed.queue("letters");
    const queue = await bed.filled("full", 3, {
      "x-max-length": 2,
      "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": letters,
    });
    const ear = await bed.channel();
    await ear.consume(letters, 10);
    await ear.hears("0");
    const headers = Object.fromEntries(headersOf(ear.deliveries[0]!));
    assert.equal(headers["x-first-death-reason"], "maxlen");
    const rest = await bed.channel();
    await rest.consume(queue, 10);
    await rest.hears("1,2");
  },

  "no more are delivered than the prefetch allows": async (bed) => {
    const queue = await bed.filled("jobs", 6);
    const ear = await bed.channel();
    await ear.consume(queue, 4);
    await ear.hears("0,1,2,3");
    ear.channel.ack(2, true);
    await ear.hears("0,1,2,3,4,5");
  },

  "an unknown delivery tag closes the channel; what it held comes again, marked, in its order": async (
    bed,
  ) => {
    const queue = await bed.filled("jobs", 6);
    const ear = await bed.channel();
    await ear.consume(queue, 4);
    await ear.hears("0,1,2,3");
    ear.channel.ack(2, true);
    await ear.hears("0,1,2,3,4,5");
    ear.channel.ack(2, false);
    const error = await ear.closesWith(406);
    assert.match(error.message, /unknown delivery tag 2/);
    ear.channel.ack(3, false);
    ear.channel.reject(4, false);
    const next = await bed.channel();
    await next.consume(queue, 10);
    await next.hears("2r,3r,4r,5r");
  },

  "a tag acknowledged by itself must not be named with multiple": async (bed) => {
    const queue = await bed.filled("jobs", 4);
    const ear = await bed.channel();
    await ear.consume(queue, 4);
    await ear.hears("0,1,2,3");
    ear.channel.ack(2, false);
    ear.channel.ack(2, true);
    await ear.closesWith(406);
  },

  "multiple passes over tags acknowledged by themselves": async (bed) => {
    const queue = await bed.filled("jobs", 4);
    const ear = await bed.channel();
    await ear.consume(queue, 4);
    await ear.hears("0,1,2,3");
    ear.channel.ack(2, false);
    ear.channel.ack(3, true);
    await ear.channel.close();
    const next = await bed.channel();
    await next.consume(queue, 10);
    await next.hears("3r");
  },

  "what is answered on a channel comes after the acknowledgements before it": async (bed) => {
    const queue = await bed.filled("jobs", 3);
    const connection = await bed.connect();
    const ear = await bed.channel(connection);
    await ear.consume(queue, 3);
    await ear.hears("0,1,2");
    ear.channel.ack(1, false);
    await ear.channel.prefetch(3);
    await connection.close(systemClock.now() + 2_000);
    const next = await bed.channel();
    await next.consume(queue, 10);
    await next.hears("1r,2r");
  },

  "a deleted queue ends its consumer; acknowledging what it gave harms nothing": async (bed) => {
    const queue = await bed.filled("jobs", 3);
    const ear = await bed.channel();
    await ear.consume(queue, 3);
    await ear.hears("0,1,2");
    const other = await bed.channel();
    await other.channel.deleteQueue(queue);
    await until("the consumer is cancelled", () => ear.cancels === 1);
    ear.channel.ack(1, false);
    ear.channel.ack(3, true);
    // A new queue of that name can be consumed on the same channel, and its tags go on.
    await other.channel.assertQueue(queue, { durable: true, arguments: {} });
    await ear.consume(queue, 3);
    const mouth = await bed.publisher();
    mouth.say("", queue, "new");
    await ear.hears("0,1,2,new");
    assert.equal(ear.deliveries.at(-1)!.fields.deliveryTag, 4);
    assert.equal(ear.end, undefined);
  },

  "a lost consumer's messages come after those another one already has": async (bed) => {
    const queue = await bed.filled("jobs", 8);
    const first = await bed.channel();
    await first.consume(queue, 4);
    await first.hears("0,1,2,3");
    const second = await bed.channel();
    await second.consume(queue, 1);
    await until("4 is delivered", () => second.deliveries.length === 1);
    await first.channel.close();
    for (let tag = 1; tag <= 7; tag++) {
      second.channel.ack(tag, false);
      await until(`delivery ${tag + 1}`, () => second.deliveries.length === tag + 1);
    }
    assert.equal(second.heard, "4,0r,1r,2r,3r,5,6,7");
  },

  "a cancelled consumer keeps what it was given until the channel closes": async (bed) => {
    const queue = await bed.filled("jobs", 4);
    const ear = await bed.channel();
    const tag = await ear.consume(queue, 2);
    await ear.hears("0,1");
    await ear.channel.cancel(tag);
    ear.channel.ack(1, false);
    await ear.channel.prefetch(2);
    assert.deepEqual(await ear.channel.checkQueue(queue), { messageCount: 2, consumerCount: 0 });
    await ear.channel.close();
    assert.deepEqual(ear.end, { error: undefined });
    const next = await bed.channel();
    await next.consume(queue, 10);
    await next.hears("1r,2,3");
  },

  "an exclusive consumer shuts out others, and the refusal says so": async (bed) => {
    const queue = await bed.filled("jobs", 1);
    const first = await bed.channel();
    await first.consume(queue, 1, true);
    const second = await bed.channel();
    await assert.rejects(second.consume(queue, 1), (error) => isInUse(error));
    const third = await bed.channel();
    await assert.rejects(third.consume(queue, 1, true), (error) => isInUse(error));
    await first.channel.close();
    const fourth = await bed.channel();
    await fourth.consume(queue, 1, true);
    await fourth.hears("0r");
  },

  "with a single active consumer the others stand by": async (bed) => {
    const queue = await bed.filled("jobs", 3, { "x-single-active-consumer": true });
    const first = await bed.channel();
    await first.consume(queue, 1);
    const second = await bed.channel();
    await second.consume(queue, 10);
    await first.hears("0");
    await second.hears("");
    await first.channel.close();
    await second.hears("0r,1,2");
  },

  "a priority queue gives the highest first": async (bed) => {
    const queue = await bed.queue("ranked", { "x-max-priority": 3 });
    const mouth = await bed.publisher();
    for (const [body, priority] of [
      ["low", 0],
      ["high", 3],
      ["middle", 1],
      ["above", 200],
      ["none", undefined],
    ] as const) {
      mouth.say("", queue, body, priority === undefined ? {} : { priority });
    }
    await mouth.confirmedAll();
    const ear = await bed.channel();
    await ear.consume(queue, 10);
    await ear.hears("high,above,middle,low,none");
  },

  "a quorum queue counts deliveries and gives up at its limit": async (bed) => {
    const letters = await bed.queue("letters");
    const queue = await bed.filled("poison", 1, {
      "x-queue-type": "quorum",
      "x-delivery-limit": 2,
      "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": letters,
    });
    const ear = await bed.channel();
    await ear.consume(queue, 1);
    for (let count = 1; count <= 3; count++) {
      await until(`delivery ${count}`, () => ear.deliveries.length === count);
      ear.channel.reject(count, true);
    }
    assert.deepEqual(
      ear.deliveries.map(({ properties }) => properties.headers?.["x-delivery-count"]),
      [undefined, 1, 2],
    );
    const last = await bed.channel();
    await last.consume(letters, 1);
    await last.hears("0");
    const deaths = last.deliveries[0]!.properties.headers!["x-death"] as FieldTable[];
    assert.equal(deaths[0]!.reason, "delivery_limit");
    assert.equal(deaths[0]!.queue, queue);
  },

  "a rejected message goes to the dead-letter exchange with its history": async (bed) => {
    const letters = await bed.queue("letters");
    const queue = await bed.filled("jobs", 2, {
      "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": letters,
    });
    const ear = await bed.channel();
    await ear.consume(queue, 2);
    await ear.hears("0,1");
    ear.channel.reject(1, false);
    const last = await bed.channel();
    await last.consume(letters, 1);
    await last.hears("0");
    const headers = last.deliveries[0]!.properties.headers!;
    const [death] = headers["x-death"] as FieldTable[];
    assert.deepEqual(
      { ...death, time: undefined },
      {
        count: 1,
        reason: "rejected",
        queue,
        time: undefined,
        exchange: "",
        "routing-keys": [queue],
      },
    );
    assert.deepEqual(Object.keys(death!.time as object), ["!", "value"]);
    assert.equal(headers["x-first-death-queue"], queue);
    ear.channel.reject(2, true);
    await ear.hears("0,1,1r");
  },

  "exchanges route by type, each message once to a queue": async (bed) => {
    const { channel } = await bed.channel();
    const queues: Record<string, string> = {};
    for (const word of ["a", "b", "c"]) queues[word] = await bed.queue(word);
    const made = async (type: string, table: FieldTable = {}) => {
      const exchange = bed.name(type);
      await channel.assertExchange(exchange, { type, durable: true, arguments: table });
      return exchange;
    };
    const direct = await made("direct");
    await channel.bindQueue(queues.a!, direct, "red", {});
    await channel.bindQueue(queues.a!, direct, "red", {});
    await channel.bindQueue(queues.b!, direct, "blue", {});
    const fanout = await made("fanout");
    for (const queue of Object.values(queues)) await channel.bindQueue(queue, fanout, "", {});
    const topic = await made("topic");
    await channel.bindQueue(queues.a!, topic, "*.order.#", {});
    await channel.bindQueue(queues.a!, topic, "eu.#", {});
    await channel.bindQueue(queues.b!, topic, "#", {});
    const headers = await made("headers");
    await channel.bindQueue(queues.a!, headers, "", { "x-match": "all", kind: "ct", size: 1 });
    await channel.bindQueue(queues.b!, headers, "", { "x-match": "any", kind: "mr", size: 1 });
    const spare = bed.name("spare");
    await channel.assertExchange(spare, {
      type: "direct",
      durable: true,
      arguments: { "alternate-exchange": fanout },
    });

    const mouth = await bed.publisher();
    mouth.say(direct, "red", "1");
    mouth.say(direct, "green", "2");
    mouth.say(fanout, "any", "3");
    mouth.say(topic, "eu.order.new.big", "4");
    mouth.say(topic, "us.order", "5");
    mouth.say(topic, "us.bill", "6");
    mouth.say(headers, "", "7", { headers: { kind: "ct", size: 1 } });
    mouth.say(headers, "", "8", { headers: { kind: "mr" } });
    mouth.say(headers, "", "9", { headers: { kind: "xx" } });
    mouth.say(spare, "", "10");
    const events = await mouth.confirmedAll();
    assert.deepEqual(
      events.filter((event) => event.startsWith("return")),
      ["return 2", "return 9"],
    );
    for (const [word, expected] of [
      ["a", "1,3,4,5,7,10"],
      ["b", "3,4,5,6,7,8,10"],
      ["c", "3,10"],
    ] as const) {
      const ear = await bed.channel();
      await ear.consume(queues[word]!, 20);
      await ear.hears(expected);
    }
  },

  "a missing queue or exchange is a 404 that closes the channel that asks": async (bed) => {
    const connection = await bed.connect();
    const missing = bed.name("missing");
    for (const ask of [
      (channel: AmqpChannel) => channel.checkQueue(missing),
      (channel: AmqpChannel) => channel.checkExchange(missing),
      (channel: AmqpChannel) => channel.consume(missing, { consumerTag: undefined, exclusive: false }),
      (channel: AmqpChannel) => channel.bindQueue(missing, "amq.direct", "", {}),
    ]) {
      const ear = await bed.channel(connection);
      await assert.rejects(ask(ear.channel), (error) => isMissing(error));
      await ear.closesWith(404);
      await assert.rejects(ear.channel.checkExchange("amq.direct"), AmqpError);
    }
  },

  "what exists with other settings is a 406 that says what differs": async (bed) => {
    const connection = await bed.connect();
    const queue = await bed.queue("jobs", { "x-max-length": 5 });
    const refused = async (ask: (channel: AmqpChannel) => Promise<unknown>, expected: string) => {
      const ear = await bed.channel(connection);
      await assert.rejects(ask(ear.channel), (error) => {
        assert.ok(error instanceof AmqpError);
        assert.equal(error.replyCode, 406);
        assert.equal(differenceOf(error), expected);
        return true;
      });
    };
    await refused(
      (channel) => channel.assertQueue(queue, { durable: false, arguments: { "x-max-length": 5 } }),
      '"durable" is declared as false and is true on the broker',
    );
    await refused(
      (channel) => channel.assertQueue(queue, { durable: true, arguments: { "x-max-length": 7 } }),
      '"x-max-length" is declared as 7 and is 5 on the broker',
    );
    await refused(
      (channel) => channel.assertQueue(queue, { durable: true, arguments: {} }),
      '"x-max-length" is declared as not set and is 5 on the broker',
    );
    await refused(
      (channel) =>
        channel.assertQueue(queue, {
          durable: true,
          arguments: { "x-max-length": 5, "x-queue-type": "quorum" },
        }),
      '"x-queue-type" is declared as quorum and is not set on the broker',
    );
    await refused(
      (channel) => channel.assertExchange("amq.topic", { type: "fanout", durable: true, arguments: {} }),
      '"type" is declared as fanout and is topic on the broker',
    );
    const ear = await bed.channel(connection);
    await ear.channel.assertQueue(queue, {
      durable: true,
      arguments: { "x-max-length": 5, "x-queue-type": "classic" },
    });
  },

  "a queue's depth counts what is ready, not what is delivered": async (bed) => {
    const queue = await bed.filled("jobs", 5);
    const ear = await bed.channel();
    await ear.consume(queue, 2);
    await ear.hears("0,1");
    assert.deepEqual(await ear.channel.checkQueue(queue), { messageCount: 3, consumerCount: 1 });
  },

  "properties and headers arrive as they were sent": async (bed) => {
    const queue = await bed.queue("jobs");
    const mouth = await bed.publisher();
    const headers = Object.assign(Object.create(null), {
      text: "grüß Gott",
      empty: "",
      whole: 42,
      large: 2 ** 40,
      negative: -1,
      half: 0.5,
      yes: true,
      nothing: null,
      bytes: Buffer.from([0xff, 0x00]),
      when: { "!": "timestamp", value: 1_760_000_000 },
      list: ["a", 1, null],
      table: { inner: { deep: "x" } },
    });
    const properties = {
      contentType: "application/json",
      contentEncoding: "gzip",
      correlationId: "c-1",
      replyTo: "answers",
      messageId: "m-1",
      type: "order",
      appId: "shop",
      expiration: "600000",
      priority: 7,
      timestamp: 1_760_000_000,
      deliveryMode: 2,
    };
    const content = Buffer.from([0, 1, 2, 0xff]);
    mouth.say("", queue, content, { ...properties, headers });
    mouth.say("", queue, "");
    await mouth.confirmedAll();
    const ear = await bed.channel();
    await ear.consume(queue, 2);
    await until("both arrive", () => ear.deliveries.length === 2);
    const [first, second] = ear.deliveries;
    assert.deepEqual(first!.content, content);
    assert.equal(second!.content.length, 0);
    const { headers: received, ...rest } = first!.properties;
    const named = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
    assert.deepEqual(named, properties);
    assert.deepEqual(headersOf({ ...first!, properties: { headers: received! } }), [
      ["text", "grüß Gott"],
      ["empty", ""],
      ["whole", 42],
      ["large", 2 ** 40],
      ["negative", -1],
      ["half", 0.5],
      ["yes", true],
      ["nothing", null],
      ["bytes", Buffer.from([0xff, 0x00])],
      ["when", 1_760_000_000],
      ["list", '["a",1,null]'],
      ["table", '{"inner":{"deep":"x"}}'],
    ]);
  },

  "many publishes are all confirmed, and arrive in order": async (bed) => {
    const queue = await bed.filled("jobs", 500);
    const ear = await bed.channel();
    await ear.consume(queue, 1_000);
    await ear.hears(Array.from({ length: 500 }, (_, i) => i).join(","));
  },

  "closing a connection in good order is no error to anyone": async (bed) => {
    const connection = await bed.connect();
    const ear = await bed.channel(connection);
    await ear.channel.close();
    assert.deepEqual(ear.end, { error: undefined });
    await connection.close(systemClock.now() + 2_000);
    await connection.close(systemClock.now() + 2_000);
    await assert.rejects(connection.openChannel({ closed() {} }), AmqpError);
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  test(`embedded: ${name}`, async (t) => {
    const { broker } = readRabbitmqOptions({ url: "amqp://127.0.0.1" });
    await scenario(new Bed(t, embeddedDriver(new EmbeddedRabbitmq(systemClock)), broker!));
  });

  test(`RabbitMQ: ${name}`, needs("rabbitmq"), async (t) => {
    const { url } = await sharedRabbitmq();
    const { broker } = readRabbitmqOptions({ url });
    const bed = new Bed(t, amqplibDriver, broker!);
    t.after(async () => {
      const admin = await connect(url);
      const channel = await admin.createChannel();
      for (const type of ["direct", "fanout", "topic", "headers", "spare"]) {
        await channel.deleteExchange(bed.name(type));
      }
      await admin.close();
    });
    await scenario(bed);
  });
}
