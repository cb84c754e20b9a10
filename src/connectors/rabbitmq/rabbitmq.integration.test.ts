/**
 * Sources and sinks of a real RabbitMQ in a real run, with what goes wrong there: connections cut in either
 * direction, the broker killed, frozen and out of memory, queues deleted, credentials refused.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect as dial, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import { freshName, needs, ownRabbitmq, sharedRabbitmq } from "../../../test/brokers/index.ts";
import { freePort } from "../../../test/brokers/port.ts";
import { findProgram } from "../../../test/brokers/program.ts";
import { run } from "../../../test/brokers/run.ts";
import { until } from "../../../test/brokers/until.ts";
import type { LogFields, Logger } from "../../component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../../component/system.ts";
import { MillraceError } from "../../errors.ts";
import { type Run, start } from "../../runtime/run.ts";
import { testContext } from "../../testing/context.ts";
import { SourceBed } from "../../testing/session-bed.ts";
import type { Plan } from "../../topology/plan.ts";
import {
  type RabbitmqOptions,
  type RabbitmqSinkOptions,
  type RabbitmqSourceOptions,
  rabbitmq,
} from "./index.ts";

const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i));

/** Someone who fills queues and looks into them, apart from what is tested. */
class Hand {
  readonly #model: ChannelModel;
  readonly channel: ConfirmChannel;

  private constructor(model: ChannelModel, channel: ConfirmChannel) {
    this.#model = model;
    this.channel = channel;
  }

  static async of(url: string): Promise<Hand> {
    const model = await connect(url);
    model.on("error", () => {});
    const channel = await model.createConfirmChannel();
    channel.on("error", () => {});
    return new Hand(model, channel);
  }

  async queue(t: TestContext, url: string, table: object = {}): Promise<string> {
    const name = freshName("it");
    await this.channel.assertQueue(name, { durable: true, arguments: table });
    t.after(async () => {
      const hand = await Hand.of(url);
      await hand.channel.deleteQueue(name);
      await hand.close();
    });
    return name;
  }

  async fill(queue: string, bodies: readonly string[], options: object = {}): Promise<void> {
    for (const body of bodies)
      this.channel.sendToQueue(queue, Buffer.from(body), { persistent: true, ...options });
    await this.channel.waitForConfirms();
  }

  /** What is ready in a queue, taken out. */
  async take(queue: string): Promise<string[]> {
    const { messageCount } = await this.channel.checkQueue(queue);
    const bodies: string[] = [];
    const channel = await this.#model.createChannel();
    const { consumerTag } = await channel.consume(
      queue,
      (message) => message !== null && bodies.push(message.content.toString()),
      { noAck: true },
    );
    await until("the queue is read", () => bodies.length >= messageCount);
    // What is given out until then is taken too.
    await channel.cancel(consumerTag);
    await channel.close();
    return bodies;
  }

  async close(): Promise<void> {
    await this.#model.close().catch(() => {});
  }
}

/** Stands between a client and the broker, and breaks what goes through. */
class Tap {
  readonly #sockets = new Set<{ client: Socket; broker: Socket }>();
  readonly #server = createServer((client) => this.#pair(client));
  readonly #port: number;
  #deaf = false;

  constructor(port: number) {
    this.#port = port;
  }

  async listen(t: TestContext): Promise<string> {
    await new Promise<void>((resolve) => {
      this.#server.listen(0, "127.0.0.1", resolve);
    });
    t.after(() => {
      this.cut();
      this.#server.close();
    });
    return `amqp://guest:guest@127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Breaks all connections. */
  cut(): void {
    for (const { client, broker } of this.#sockets) {
      client.destroy();
      broker.destroy();
    }
  }

  /** From now on nothing that the broker says arrives: what is asked is done all the same. */
  setDeaf(deaf: boolean): void {
    this.#deaf = deaf;
  }

  /** Breaks the client's side only: the broker thinks the connection still lives. */
  abandon(): () => void {
    const abandoned = [...this.#sockets];
    for (const { client } of abandoned) client.destroy();
    return () => {
      for (const { broker } of abandoned) broker.destroy();
    };
  }

  get open(): number {
    return this.#sockets.size;
  }

  #pair(client: Socket): void {
    const broker = dial(this.#port, "127.0.0.1");
    const pair = { client, broker };
    let kept = true;
    this.#sockets.add(pair);
    client.on("data", (data) => broker.write(data));
    broker.on("data", (data) => {
      if (!this.#deaf) client.write(data);
    });
    broker.on("close", () => {
      this.#sockets.delete(pair);
      client.destroy();
    });
    client.on("close", () => {
      this.#sockets.delete(pair);
      // An abandoned broker's side is closed by whoever abandoned it.
      if (kept && !client.destroyed) broker.destroy();
      kept = false;
    });
    client.on("end", () => broker.end());
    for (const socket of [client, broker]) socket.on("error", () => {});
  }
}

interface Relay {
  readonly run: Run;
  readonly logged: string[];
}

interface RelayOptions {
  readonly url: string;
  /** Where the sink is, if on another broker. */
  readonly sinkUrl?: string;
  readonly connection?: Partial<RabbitmqOptions>;
  readonly source: RabbitmqSourceOptions;
  readonly sink: RabbitmqSinkOptions;
  readonly deadLetters?: RabbitmqSinkOptions;
}

/** A run from a queue to a sink. */
function relay(t: TestContext, options: RelayOptions): Relay {
  const { url, sinkUrl = url, connection, source, sink, deadLetters } = options;
  const broker = rabbitmq({ url, connectTimeout: "3s", ...connection });
  const far = sinkUrl === url ? broker : rabbitmq({ url: sinkUrl, connectTimeout: "3s" });
  const nodes = { source: broker.source(source), sink: far.sink(sink) };
  assert.deepEqual([...broker.problems!, ...nodes.source.problems, ...nodes.sink.problems], []);
  const plan: Plan = {
    name: "relay",
    nodes: [
      { kind: "source", name: "in", location: undefined, inputs: [], source: nodes.source },
      {
        kind: "sink",
        name: "out",
        location: undefined,
        inputs: [{ node: "in" }],
        sink: nodes.sink,
        audit: undefined,
      },
    ],
    deadLetters:
      deadLetters === undefined ? undefined : { sink: broker.sink(deadLetters), location: undefined },
    connections: [],
    warnings: [],
  };
  const logged: string[] = [];
  const log = (fields: LogFields, text: string) => {
    logged.push(`${text} ${JSON.stringify(fields)}`);
  };
  const logger: Logger = { debug: log, info: log, warn: log, error: log };
  const run = start(plan, { clock: systemClock, random: systemRandom, work: new PooledWork(), logger });
  run.started.catch(() => {});
  t.after(async () => {
    run.abort(new Error("the test is over"));
    await run.finished;
    assert.deepEqual(
      logged.filter((line) => /guest:guest|canary|delivery tag/.test(line)),
      [],
    );
  });
  return { run, logged };
}

function firstOnes(bodies: readonly string[]): string[] {
  return [...new Set(bodies)];
}

test(
  "20,000 messages go from queue to queue, in order, and a clean stop repeats nothing",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const [from, to] = [await hand.queue(t, url), await hand.queue(t, url)];
    await hand.fill(from, numbers(20_000));
    const { run } = relay(t, { url, source: { queue: from, exclusive: true }, sink: { queue: to } });
    await run.started;
    await until("a good part is through", () => run.status().conservation.delivered > 5_000);
    assert.deepEqual(await run.drain(), { how: "done" });
    const second = relay(t, { url, source: { queue: from }, sink: { queue: to } });
    await second.run.untilIdle();
    const { conservation } = second.run.status();
    assert.equal(conservation.accepted, conservation.delivered);
    assert.deepEqual(await second.run.drain(), { how: "done" });
    assert.deepEqual(await hand.take(to), numbers(20_000));
    assert.equal((await hand.channel.checkQueue(from)).messageCount, 0);
  },
);

test("properties and headers go from RabbitMQ to RabbitMQ unharmed", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const [from, to] = [await hand.queue(t, url), await hand.queue(t, url, { "x-max-priority": 9 })];
  const properties = {
    contentType: "text/plain",
    contentEncoding: "gzip",
    correlationId: "c",
    replyTo: "r",
    messageId: "m",
    timestamp: 1_700_000_000,
    type: "t",
    appId: "a",
    priority: 3,
  };
  const headers = { text: "ü", number: 7, half: 0.25, flag: false, none: null, bytes: Buffer.from([255]) };
  await hand.fill(from, ["x"], {
    ...properties,
    headers,
    userId: "guest",
    expiration: "500000",
    CC: ["elsewhere"],
  });
  const { run } = relay(t, { url, source: { queue: from }, sink: { queue: to } });
  await run.untilIdle();
  const message = await hand.channel.get(to, { noAck: true });
  assert.ok(message);
  const { headers: received, deliveryMode, ...rest } = message.properties;
  assert.equal(deliveryMode, 2);
  assert.deepEqual(
    Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)),
    properties,
  );
  // The number is ours, for returns.
  assert.deepEqual(
    { ...received, "millrace-tag": 0 },
    { "amqp-expiration": "500000", "amqp-user-id": "guest", ...headers, "millrace-tag": 0 },
  );
});

test(
  "connections cut again and again, with answers lost: nothing is lost, one consumer stays",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const [from, to] = [await hand.queue(t, url), await hand.queue(t, url)];
    const proxy = new Tap(Number(new URL(url).port));
    const proxied = await proxy.listen(t);
    const { run } = relay(t, {
      url: proxied,
      source: { queue: from, prefetch: 200 },
      sink: { queue: to, unconfirmed: 100 },
    });
    await run.started;
    let fed = 0;
    for (let round = 0; round < 12; round++) {
      const bodies = numbers(2_500).map((_, i) => String(fed + i));
      fed += bodies.length;
      const before = run.status().conservation.delivered;
      await hand.fill(from, bodies);
      await until("some went through", () => run.status().conservation.delivered > before);
      if (round % 2 === 1) {
        // What is published now is stored, and nobody hears of it.
        proxy.setDeaf(true);
        await new Promise((resolve) => setImmediate(resolve));
      }
      proxy.cut();
      proxy.setDeaf(false);
      await until("it is back", () => run.status().ready);
    }
    await run.untilIdle();
    assert.equal(run.status().conservation.inFlight, 0);
    assert.ok(run.status().conservation.returned > 0);
    assert.equal((await hand.channel.checkQueue(from)).consumerCount, 1);
    assert.equal(proxy.open, 2);
    assert.deepEqual(await run.drain(), { how: "done" });
    const bodies = await hand.take(to);
    assert.equal(new Set(bodies).size, fed, "lost");
    assert.equal((await hand.channel.checkQueue(from)).messageCount, 0);
  },
);

test(
  "a publishing connection cut in the middle: what was unconfirmed is sent again in order",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const [from, to] = [await hand.queue(t, url), await hand.queue(t, url)];
    await hand.fill(from, numbers(3_000));
    const proxy = new Tap(Number(new URL(url).port));
    const proxied = await proxy.listen(t);
    // The source reads directly, so that only the sink is disturbed.
    const { run } = relay(t, {
      url,
      sinkUrl: proxied,
      source: { queue: from, exclusive: true },
      sink: { queue: to, unconfirmed: 300 },
    });
    await run.started;
    for (let cut = 0; cut < 4; cut++) {
      const before = run.status().conservation.delivered;
      await until(
        "some went through",
        () => run.status().conservation.delivered > before || before === 3_000,
      );
      proxy.setDeaf(cut % 2 === 0);
      proxy.cut();
      proxy.setDeaf(false);
    }
    await run.untilIdle();
    await run.drain();
    assert.deepEqual(firstOnes(await hand.take(to)), numbers(3_000));
  },
);

test(
  "an exclusive consumer waits for its own ghost after a lost connection",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const [from, to] = [await hand.queue(t, url), await hand.queue(t, url)];
    const proxy = new Tap(Number(new URL(url).port));
    const proxied = await proxy.listen(t);
    const { run } = relay(t, { url: proxied, source: { queue: from, exclusive: true }, sink: { queue: to } });
    await run.started;
    const bury = proxy.abandon();
    await until("it stands by", () => /in exclusive use/.test(run.status().sources[0]!.reason ?? ""));
    bury();
    await hand.fill(from, numbers(5));
    await until("it reads again", () => run.status().conservation.delivered === 5);
    assert.equal(run.status().ready, true);
  },
);

test("a queue deleted under its consumer is made again if it is declared", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const [from, to] = [await hand.queue(t, url), await hand.queue(t, url)];
  const { run, logged } = relay(t, {
    url,
    connection: { queues: { [from]: {} } },
    source: { queue: from },
    sink: { queue: to },
  });
  await run.started;
  await hand.fill(from, ["before"]);
  await until("one went through", () => run.status().conservation.delivered === 1);
  await hand.channel.deleteQueue(from);
  await until("it is told", () => logged.some((line) => line.includes("cancelled the consumer")));
  await until("the queue is there again", () => run.status().ready);
  await hand.fill(from, ["after"]);
  await until("the next went through", () => run.status().conservation.delivered === 2);
  assert.deepEqual(await hand.take(to), ["before", "after"]);
});

test("a stream is refused, by its name, whether or not it gives anything", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const to = await hand.queue(t, url);
  for (const after of [true, false]) {
    const from = await hand.queue(t, url, {
      "x-queue-type": "stream",
      "x-max-length-bytes": 10_000_000,
      "x-max-age": "1h",
    });
    await hand.fill(from, ["before"]);
    const { run } = relay(t, { url, source: { queue: from, stallTimeout: "2s" }, sink: { queue: to } });
    await run.started;
    if (after) await hand.fill(from, ["after"]);
    const result = await run.finished;
    assert.equal(result.how, "failed");
    assert.match((result as { error: Error }).error.message, new RegExp(`"${from}" on \\S+ is a stream`));
  }
  const classic = await hand.queue(t, url, { "x-max-length": 50 });
  await hand.fill(classic, ["out of a stream"], { headers: { "x-stream-offset": 7 } });
  const { run } = relay(t, { url, source: { queue: classic }, sink: { queue: to } });
  await until("it went through", () => run.status().conservation.delivered === 1);
  assert.deepEqual(await run.drain(), { how: "done" });
});

test(
  "a message that no queue takes goes to the dead letters with the reason",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const [from, to, dead] = [await hand.queue(t, url), await hand.queue(t, url), await hand.queue(t, url)];
    const exchange = freshName("it");
    t.after(async () => {
      const last = await Hand.of(url);
      await last.channel.deleteExchange(exchange);
      await last.close();
    });
    await hand.fill(from, ["bound", "lost", "bound", "lost", "bound"]);
    const { run } = relay(t, {
      url,
      connection: {
        exchanges: { [exchange]: { type: "direct" } },
        bindings: [{ queue: to, exchange, key: "bound" }],
      },
      source: { queue: from },
      sink: { exchange, key: (message) => String(message.value) },
      deadLetters: { queue: dead },
    });
    await run.untilIdle();
    const { delivered, deadLettered } = run.status().conservation;
    assert.deepEqual({ delivered, deadLettered }, { delivered: 3, deadLettered: 2 });
    assert.deepEqual(await hand.take(to), ["bound", "bound", "bound"]);
    const letter = await hand.channel.get(dead, { noAck: true });
    assert.ok(letter);
    assert.equal(letter.content.toString(), "lost");
    assert.equal(letter.properties.headers?.["millrace-error-code"], "unroutable");
  },
);

test("a full queue is waited for", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const from = await hand.queue(t, url);
  const to = await hand.queue(t, url, { "x-max-length": 50, "x-overflow": "reject-publish" });
  await hand.fill(from, numbers(200));
  const { run } = relay(t, { url, source: { queue: from }, sink: { queue: to, maxBackoff: "200ms" } });
  await run.started;
  await until("the sink says so", () => /refuses messages/.test(run.status().sinks[0]!.reason ?? ""));
  const bodies: string[] = [];
  await until("all is through", async () => {
    bodies.push(...(await hand.take(to)));
    return run.status().conservation.delivered === 200;
  });
  bodies.push(...(await hand.take(to)));
  assert.equal(bodies.length, 200, "repeats");
  assert.equal(new Set(bodies).size, 200, "lost");
});

test(
  "what is too old is given back before the broker takes it, and tried one by one",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    const queue = await hand.queue(t, url);
    await hand.fill(queue, numbers(5));
    const controller = new AbortController();
    const context = { ...testContext(), clock: systemClock, random: systemRandom, signal: controller.signal };
    const source = rabbitmq({ url }).source({ queue, consumerTimeout: "1s" });
    const bed = new SourceBed(context, source.credit);
    const session = await source.open(bed.context);
    t.after(() => session.close(systemClock.now() + 2_000));
    await until("it is given back", () => bed.open.some(({ chunk }) => chunk.lane.epoch > 1));
    bed.forgetEnded();
    assert.deepEqual(
      bed.open.map(({ payload }) => payload),
      ["0"],
    );
    await until("all is through", () => {
      bed.forgetEnded();
      bed.settle();
      return firstOnes(bed.payloads as string[]).length === 5;
    });
    assert.deepEqual(firstOnes(bed.payloads as string[]), numbers(5));
  },
);

test("at its end is never said too early", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const queue = await hand.queue(t, url);
  const context = { ...testContext(), clock: systemClock, random: systemRandom };
  const source = rabbitmq({ url }).source({ queue });
  const bed = new SourceBed(context, source.credit);
  const session = await source.open(bed.context);
  t.after(() => session.close(systemClock.now() + 2_000));
  for (let round = 1; round <= 50; round++) {
    await hand.fill(queue, numbers(20));
    await until("it is at its end", () => session.atEnd());
    assert.equal(bed.payloads.length, round * 20);
    bed.settle();
  }
});

test(
  "wrong credentials and a missing vhost are told after three tries, without secrets",
  needs("rabbitmq"),
  async (t) => {
    const { url } = await sharedRabbitmq();
    const { host } = new URL(url);
    for (const [wrong, said] of [
      [`amqp://guest:canary@${host}`, /refuses access: ACCESS_REFUSED - Login was refused/],
      [`amqp://guest:guest@${host}/no-such-vhost`, /the vhost "no-such-vhost" does not exist/],
    ] as const) {
      const { run, logged } = relay(t, { url: wrong, source: { queue: "q" }, sink: { queue: "q" } });
      await assert.rejects(run.started, (error) => {
        assert.ok(error instanceof MillraceError);
        assert.equal(error.code, "access-refused");
        assert.match(error.message, said);
        assert.doesNotMatch(`${error.message} ${error.remedy} ${error.stack}`, /canary/);
        return true;
      });
      assert.equal(logged.filter((line) => line.startsWith("cannot connect")).length, 3);
      assert.doesNotMatch(logged.join("\n"), /canary/);
    }
  },
);

test("what a connection declares and uses is verified and created", needs("rabbitmq"), async (t) => {
  const { url } = await sharedRabbitmq();
  const hand = await Hand.of(url);
  t.after(() => hand.close());
  const queue = freshName("it");
  t.after(async () => {
    const last = await Hand.of(url);
    await last.channel.deleteQueue(queue);
    await last.close();
  });
  const context = { ...testContext(), clock: systemClock };
  const requirement = { kind: "queue", name: queue, role: "sink", at: "x.ts:1" } as const;
  const plain = rabbitmq({ url });
  const [unmet] = await plain.verify(context, [requirement]);
  assert.match(unmet!.problem, new RegExp(`queue "${queue}" does not exist`));
  assert.deepEqual(await plain.create(context, [requirement]), [requirement]);
  assert.deepEqual(await plain.create(context, [requirement]), []);
  assert.deepEqual(await plain.verify(context, [requirement]), []);
  const [other] = await rabbitmq({ url, queues: { [queue]: { maxLength: 3 } } }).verify(context, [
    requirement,
  ]);
  assert.match(other!.problem, /"x-max-length" is declared as 3 and is not set on the broker/);
  const away = rabbitmq({ url: "amqp://127.0.0.1:1" });
  await assert.rejects(away.verify(context, [requirement]), { code: "connection-lost" });
});

test("a broker of one's own", needs("own rabbitmq"), async (t) => {
  const broker = await ownRabbitmq(t, { settings: { max_message_size: "65536" } });
  const { url } = broker;
  const prepared = async (t: TestContext) => {
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    return { hand, from: await hand.queue(t, url), to: await hand.queue(t, url) };
  };
  const look = async (t: TestContext) => {
    const hand = await Hand.of(url);
    t.after(() => hand.close());
    return hand;
  };

  for (const [how, fault] of [
    ["killed", () => broker.kill()],
    ["shut down", () => broker.shutDown()],
  ] as const) {
    await t.test(
      `is ${how} and started again: nothing is lost, one consumer, the prefetch holds`,
      async (t) => {
        const { hand, from, to } = await prepared(t);
        await broker.settleNames();
        await hand.fill(from, numbers(10_000));
        const { run } = relay(t, { url, source: { queue: from, prefetch: 300 }, sink: { queue: to } });
        await run.started;
        await until("some went through", () => run.status().conservation.delivered > 500);
        await fault();
        await until("it is told", () =>
          /connection lost|cannot connect/.test(run.status().sources[0]!.reason ?? ""),
        );
        await broker.restart();
        await until("it is back", () => run.status().ready, 60_000);
        await run.untilIdle();
        const again = await look(t);
        assert.equal((await again.channel.checkQueue(from)).consumerCount, 1);
        const { stdout } = await broker.ctl("list_consumers", "-q", "queue_name", "prefetch_count");
        assert.deepEqual(
          stdout.split("\n").filter((line) => line.startsWith(from)),
          [`${from}\t300`],
        );
        assert.deepEqual(await run.drain(), { how: "done" });
        assert.equal(new Set(await again.take(to)).size, 10_000);
        assert.equal((await again.channel.checkQueue(from)).messageCount, 0);
      },
    );
  }

  await t.test("is frozen: heartbeats notice, and it goes on where it was", async (t) => {
    const { hand, from, to } = await prepared(t);
    await hand.fill(from, numbers(2_000));
    const { run } = relay(t, {
      url,
      connection: { heartbeat: "1s" },
      source: { queue: from, prefetch: 50 },
      sink: { queue: to, unconfirmed: 10 },
    });
    await run.started;
    await until("some went through", () => run.status().conservation.delivered > 100);
    broker.pause();
    await until("it is noticed", () => !run.status().ready);
    broker.resume();
    await until("it is back", () => run.status().ready, 60_000);
    await run.untilIdle();
    const again = await look(t);
    assert.equal(new Set(await again.take(to)).size, 2_000);
  });

  await t.test("is out of memory: publishing stops and says so, and resumes", async (t) => {
    const { hand, from, to } = await prepared(t);
    await hand.fill(from, numbers(5_000));
    await broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB");
    const { run } = relay(t, { url, source: { queue: from, prefetch: 500 }, sink: { queue: to } });
    await run.started;
    await until("it is told", () => /blocked by an alarm/.test(run.status().sinks[0]!.reason ?? ""));
    assert.equal(run.status().ready, false);
    assert.equal(run.status().conservation.delivered, 0);
    assert.ok(run.status().conservation.inFlight <= 500);
    await broker.ctl("set_vm_memory_high_watermark", "0.6");
    await run.untilIdle();
    assert.equal(run.status().ready, true);
    assert.deepEqual(firstOnes(await hand.take(to)), numbers(5_000));
  });

  await t.test("has a size limit: what exceeds it is dead-lettered, the rest goes through", async (t) => {
    const { hand, to } = await prepared(t);
    const elsewhere = (await sharedRabbitmq()).url;
    const other = await Hand.of(elsewhere);
    t.after(() => other.close());
    const [from, dead] = [await other.queue(t, elsewhere), await other.queue(t, elsewhere)];
    const bodies = ["a", "x".repeat(65_536), "b", "y".repeat(65_537), "c"];
    await other.fill(from, bodies);
    const { run, logged } = relay(t, {
      url: elsewhere,
      sinkUrl: url,
      source: { queue: from },
      sink: { queue: to },
      deadLetters: { queue: dead },
    });
    await run.untilIdle();
    const { delivered, deadLettered } = run.status().conservation;
    assert.deepEqual({ delivered, deadLettered }, { delivered: 4, deadLettered: 1 });
    assert.deepEqual(firstOnes(await hand.take(to)), bodies.toSpliced(3, 1));
    assert.deepEqual(await other.take(dead), [bodies[3]]);
    assert.ok(logged.some((line) => line.includes("limit for a message was learned")));
  });

  await t.test("cannot be left waiting: a run that is stopped while the broker is away ends", async (t) => {
    const { from, to } = await prepared(t);
    const { run } = relay(t, { url, source: { queue: from }, sink: { queue: to } });
    await run.started;
    await broker.kill();
    const before = performance.now();
    assert.deepEqual(await run.drain(), { how: "done" });
    assert.ok(performance.now() - before < 25_000);
    await broker.restart();
  });
});

const openssl = findProgram("openssl");

test(
  "amqps: the broker's certificate is checked, and named when it is not accepted",
  openssl === undefined ? { skip: "needs openssl, which is not installed" } : needs("own rabbitmq"),
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "millrace-tls-"));
    t.after(() => rmSync(folder, { recursive: true }));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    await run(openssl!, [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      ...subject,
      "-keyout",
      key,
      "-out",
      cert,
    ]);
    const port = await freePort();
    await ownRabbitmq(t, {
      settings: {
        "listeners.ssl.default": `127.0.0.1:${port}`,
        "ssl_options.cacertfile": cert,
        "ssl_options.certfile": cert,
        "ssl_options.keyfile": key,
      },
    });
    const url = `amqps://guest:guest@127.0.0.1:${port}`;
    const asked = (tls: RabbitmqOptions["tls"], auth?: "external") => {
      const context = { ...testContext(), clock: systemClock };
      const options: RabbitmqOptions = {
        url,
        ...(tls === undefined ? {} : { tls }),
        ...(auth === undefined ? {} : { auth }),
      };
      const broker = rabbitmq(options);
      assert.deepEqual(broker.problems, []);
      return { context, answer: broker.verify(context, []) };
    };
    assert.deepEqual(await asked({ ca: cert }).answer, []);
    assert.deepEqual(await asked({ ca: readFileSync(cert, "utf8") }).answer, []);
    await assert.rejects(asked(undefined).answer, (error) => {
      assert.ok(error instanceof MillraceError);
      assert.equal(error.code, "access-refused");
      assert.match(error.message, /the broker's certificate is not accepted/);
      return true;
    });
    await assert.rejects(asked({ ca: cert, servername: "elsewhere" }).answer, { code: "access-refused" });
    const { context, answer } = asked({ insecureSkipVerify: true });
    assert.deepEqual(await answer, []);
    assert.match(context.logged.join(), /certificate is not checked/);
    // Without the plugin for it, the broker does not offer to know us by our certificate.
    await assert.rejects(
      asked({ ca: cert, cert, key }, "external").answer,
      /SASL mechanism EXTERNAL is not provided/,
    );
  },
);
