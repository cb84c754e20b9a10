import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../../errors.ts";
import type { Message } from "../../message/chunk.ts";
import { decompress } from "../../operators/decompress.ts";
import { settlePromises } from "../../testing/clock.ts";
import { testContext } from "../../testing/context.ts";
import { OperatorBed } from "../../testing/operator-bed.ts";
import { SinkBed, type Written } from "../../testing/session-bed.ts";
import type { AmqpDriver, AmqpPublisher } from "./driver.ts";
import { AmqpError } from "./driver.ts";
import { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { embeddedDriver } from "./drivers/embedded/driver.ts";
import { Link } from "./link.ts";
import { type RabbitmqOptions, type RabbitmqSinkOptions, readRabbitmqOptions } from "./options.ts";
import { openRabbitmqSink } from "./sink.ts";

interface Given extends Partial<RabbitmqSinkOptions> {
  readonly connection?: Partial<RabbitmqOptions>;
  readonly prepare?: (broker: EmbeddedRabbitmq) => void;
  /** Stands between the session and the publisher. */
  readonly wrap?: (publisher: AmqpPublisher) => AmqpPublisher;
}

const durable = { durable: true, arguments: {} };
const text = (...values: string[]) => values.map((value) => ({ value }));
const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i));

/** A sink on an embedded broker with queues "jobs" and "other", both bound to the direct exchange "work". */
function begin({ connection, prepare, wrap, ...options }: Given = {}) {
  const context = testContext();
  const broker = new EmbeddedRabbitmq(context.clock);
  broker.assertExchange("work", { type: "direct", ...durable });
  for (const queue of ["jobs", "other"]) {
    broker.assertQueue(queue, durable);
    broker.bind(queue, "work", queue, {});
  }
  prepare?.(broker);
  const {
    broker: settings,
    declarations,
    problems,
  } = readRabbitmqOptions({ url: "amqp://127.0.0.1", ...connection });
  assert.deepEqual(problems, []);
  const plain = embeddedDriver(broker);
  const driver: AmqpDriver = {
    name: "embedded",
    async connect(...args) {
      const own = await plain.connect(...args);
      if (wrap === undefined) return own;
      return {
        openChannel: (events) => own.openChannel(events),
        openPublisher: async (events) => wrap(await own.openPublisher(events)),
        close: (deadline) => own.close(deadline),
      };
    },
  };
  const link = new Link(driver, "publish", settings!, declarations, context);
  const setting = { link, declarations, address: settings!.address, creates: false };
  const target = options.queue === undefined && options.exchange === undefined ? { queue: "jobs" } : {};
  const opening = openRabbitmqSink(context, setting, { ...target, ...options });
  opening.catch(() => {});
  return { context, clock: context.clock, broker, opening };
}

async function open(given: Given = {}) {
  const begun = begin(given);
  await begun.clock.run(20);
  const session = await begun.opening;
  return { ...begun, session, bed: new SinkBed(begun.context, session) };
}

function stored(broker: EmbeddedRabbitmq, queue = "jobs"): string[] {
  return [...broker.contents(queue)].map(({ value }) => String(value));
}

const outcomes = (written: readonly Written[]) => written.flatMap((one) => one.outcomes);

test("messages are delivered once the broker has confirmed them, and not before", async () => {
  const { clock, broker, bed } = await open();
  const [written] = bed.write(text("a", "b", "c"));
  assert.deepEqual(written!.outcomes, ["inFlight", "inFlight", "inFlight"]);
  await clock.run(1);
  assert.deepEqual(written!.outcomes, ["delivered", "delivered", "delivered"]);
  assert.deepEqual(written!.refusals, []);
  assert.deepEqual(stored(broker), ["a", "b", "c"]);
});

test("confirms settle a batch bit by bit", async () => {
  const { clock, broker, bed } = await open({ unconfirmed: 2 });
  const [written] = bed.write(text(...numbers(0, 5)));
  const seen = new Set<number>();
  while (written!.refusals === undefined) {
    seen.add(written!.outcomes.filter((outcome) => outcome === "delivered").length);
    clock.step();
    await settlePromises();
  }
  assert.ok(seen.has(2) && seen.has(4), String([...seen]));
  assert.deepEqual(stored(broker), numbers(0, 5));
});

test("no more are unconfirmed than allowed, by count and by bytes", async () => {
  for (const [options, most] of [
    [{ unconfirmed: 7 }, 7],
    [{ unconfirmedBytes: 100 }, 10],
    [{ unconfirmedBytes: 5 }, 1],
  ] as const) {
    const { clock, broker, bed } = await open({ ...options, prepare: (own) => own.withholdConfirms(true) });
    bed.write(Array.from({ length: 50 }, () => ({ value: "0123456789" })));
    await clock.run(50);
    assert.equal(stored(broker).length, most);
  }
});

test("a message that no queue takes is refused; its neighbours are delivered", async () => {
  const { clock, broker, bed } = await open({
    exchange: "work",
    key: (message: Message) => String(message.value),
  });
  const written = bed.write(text("jobs", "nowhere", "other", "jobs"));
  await clock.run(5);
  assert.deepEqual(
    written.map(({ outcomes }) => outcomes),
    [["delivered", "delivered"], ["inFlight"], ["delivered"]],
  );
  assert.deepEqual(written[1]!.refusals, [
    {
      entry: 0,
      failure: {
        class: "business",
        code: "unroutable",
        message: 'no queue is bound to exchange "work" for the routing key "nowhere"',
      },
    },
  ]);
  assert.deepEqual(stored(broker), ["jobs", "jobs"]);
  assert.deepEqual(stored(broker, "other"), ["other"]);
});

test("without mandatory what no queue takes counts as delivered", async () => {
  const { clock, bed } = await open({ exchange: "work", key: "nowhere", mandatory: false });
  const written = bed.write(text("a"));
  await clock.run(5);
  assert.deepEqual(outcomes(written), ["delivered"]);
});

test("a full queue is waited for, and its order is kept as well as may be", async () => {
  const { clock, broker, bed, session } = await open({
    queue: "small",
    prepare: (own) =>
      own.assertQueue("small", {
        durable: true,
        arguments: { "x-max-length": 3, "x-overflow": "reject-publish" },
      }),
  });
  const written = [...bed.write(text(...numbers(0, 4))), ...bed.write(text(...numbers(4, 8)))];
  await clock.run(3_000);
  assert.deepEqual(stored(broker, "small"), ["0", "1", "2"]);
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /the broker refuses messages for small/);
  assert.equal(outcomes(written).filter((outcome) => outcome === "delivered").length, 3);
  for (let round = 0; round < 20; round++) {
    broker.purge("small");
    await clock.run(5_000);
  }
  assert.deepEqual(new Set(outcomes(written)), new Set(["delivered"]));
  assert.deepEqual(stored(broker, "small"), numbers(0, 8));
  assert.equal(session.status().ready, true);
});

test("after a refusal one message at a time is tried, and messages are persistent", async () => {
  let published = 0;
  const { clock, broker, bed } = await open({
    queue: "small",
    prepare: (own) =>
      own.assertQueue("small", {
        durable: true,
        arguments: { "x-max-length": 3, "x-overflow": "reject-publish" },
      }),
    wrap: publishing((target, ...args) => {
      published++;
      assert.equal(args[3].deliveryMode, 2);
      return target.publish(...args);
    }),
  });
  bed.write(text(...numbers(0, 100)));
  await clock.run(20);
  published = 0;
  await clock.run(60_000);
  assert.ok(published >= 3 && published < 60, `${published} attempts in a minute`);
  assert.equal(stored(broker, "small").length, 3);
});

test("a full queue does not hold up another destination", async () => {
  const { clock, broker, bed } = await open({
    exchange: "work",
    key: (message: Message) => String(message.value),
    prepare: (own) => {
      own.deleteQueue("jobs");
      own.assertQueue("jobs", {
        durable: true,
        arguments: { "x-max-length": 1, "x-overflow": "reject-publish" },
      });
      own.bind("jobs", "work", "jobs", {});
    },
  });
  bed.write(text("jobs", "jobs", "jobs"));
  await clock.run(50);
  const written = bed.write(text("other", "other"));
  await clock.run(50);
  assert.deepEqual(outcomes(written), ["delivered", "delivered"]);
  assert.equal(stored(broker).length, 1);
});

for (const requests of ["lost", "applied"] as const) {
  test(`what was unconfirmed when the connection broke (${requests}) is sent again in order`, async () => {
    const { clock, broker, bed, session } = await open({ unconfirmed: 4 });
    const written = [...bed.write(text(...numbers(0, 6))), ...bed.write(text(...numbers(6, 9)))];
    broker.cut(requests);
    await clock.run(1);
    assert.equal(session.status().ready, false);
    await clock.run(1_000);
    assert.deepEqual(new Set(outcomes(written)), new Set(["delivered"]));
    const again = requests === "lost" ? [] : numbers(0, 4);
    assert.deepEqual(stored(broker), [...again, ...numbers(0, 9)]);
    assert.equal(session.status().ready, true);
  });
}

test("confirms that never come are made good by the next connection", async () => {
  const { clock, broker, bed } = await open({ prepare: (own) => own.withholdConfirms(true) });
  const written = bed.write(text("a", "b"));
  await clock.run(1_000);
  assert.deepEqual(outcomes(written), ["inFlight", "inFlight"]);
  broker.withholdConfirms(false);
  broker.cut("applied");
  await clock.run(1_000);
  assert.deepEqual(outcomes(written), ["delivered", "delivered"]);
});

/** A publisher whose `publish` is another. */
function publishing(
  publish: (target: AmqpPublisher, ...args: Parameters<AmqpPublisher["publish"]>) => number,
) {
  return (publisher: AmqpPublisher) =>
    new Proxy(publisher, {
      get(target, name) {
        if (name === "publish") return publish.bind(undefined, target);
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
}

test("an alarm stops publishing and shows; its end resumes", async () => {
  let published = 0;
  const { clock, broker, bed, session } = await open({
    wrap: publishing((target, ...args) => {
      published++;
      return target.publish(...args);
    }),
  });
  broker.setAlarm("low on memory");
  // The broker says so only when it is given something.
  const written = bed.write(text(...numbers(0, 3)));
  await clock.run(1);
  written.push(...bed.write(text(...numbers(3, 9))));
  await clock.run(60_000);
  assert.equal(published, 3);
  assert.equal(session.status().ready, false);
  assert.equal(session.status().reason, "blocked by an alarm of the broker: low on memory");
  assert.deepEqual(stored(broker), []);
  broker.setAlarm(undefined);
  await clock.run(10);
  assert.deepEqual(new Set(outcomes(written)), new Set(["delivered"]));
  assert.deepEqual(stored(broker), numbers(0, 9));
  assert.equal(session.status().ready, true);
});

test("a missing queue or exchange is named at the start", async () => {
  for (const [options, kind] of [
    [{ queue: "missing" }, "queue"],
    [{ exchange: "missing", key: "k" }, "exchange"],
  ] as const) {
    const { clock, opening } = begin(options);
    await clock.run(50);
    await assert.rejects(opening, (error) => {
      assert.ok(error instanceof MillraceError);
      assert.equal(error.code, "target-missing");
      assert.match(error.message, new RegExp(`${kind} "missing" does not exist`));
      return true;
    });
  }
});

test("an exchange that vanishes is no message's fault: the sink waits for it", async () => {
  const { clock, broker, bed, session } = await open({ exchange: "work", key: "jobs" });
  broker.deleteExchange("work");
  const written = bed.write(text("a", "b"));
  await clock.run(10_000);
  assert.deepEqual(outcomes(written), ["inFlight", "inFlight"]);
  assert.match(session.status().reason!, /exchange "work" does not exist/);
  broker.assertExchange("work", { type: "direct", ...durable });
  broker.bind("jobs", "work", "jobs", {});
  await clock.run(60_000);
  assert.deepEqual(outcomes(written), ["delivered", "delivered"]);
  assert.deepEqual(written[0]!.refusals, []);
});

test("a declared exchange that vanishes is made again, with its bindings", async () => {
  const { clock, broker, bed } = await open({
    exchange: "work",
    key: "jobs",
    connection: {
      exchanges: { work: { type: "direct" } },
      bindings: [{ queue: "jobs", exchange: "work", key: "jobs" }],
    },
  });
  broker.deleteExchange("work");
  const written = bed.write(text("a"));
  await clock.run(5_000);
  assert.deepEqual(outcomes(written), ["delivered"]);
});

test("the sink of a queue that vanishes waits for the queue: nothing is refused", async () => {
  const { clock, broker, bed, session } = await open({ maxBackoff: "1s" });
  broker.deleteQueue("jobs");
  const written = bed.write(text(...numbers(0, 5)));
  await clock.run(10_000);
  assert.deepEqual(new Set(outcomes(written)), new Set(["inFlight"]));
  assert.equal(session.status().reason, 'queue "jobs" does not exist');
  broker.assertQueue("jobs", durable);
  await clock.run(2_000);
  assert.deepEqual(new Set(outcomes(written)), new Set(["delivered"]));
  assert.deepEqual(stored(broker), numbers(0, 5));
  assert.equal(session.status().ready, true);
});

test("a message that is too large is refused before it is sent", async () => {
  const { clock, broker, bed } = await open({ maxMessageBytes: 20_000 });
  const written = bed.write(text("a", "x".repeat(20_001), "b"));
  await clock.run(5);
  assert.deepEqual(written[0]!.outcomes, ["delivered", "inFlight", "delivered"]);
  assert.deepEqual(
    written[0]!.refusals!.map(({ entry, failure }) => [entry, failure.code]),
    [[1, "record-too-large"]],
  );
  assert.equal(stored(broker).length, 2);
});

test("the broker's own limit is learned when it objects, and only what exceeds it is refused", async () => {
  const { context, clock, bed, broker } = await open({ prepare: (own) => own.limitMessages(50_000) });
  const written = bed.write(text("a", "x".repeat(60_000), "b"));
  await clock.run(5_000);
  assert.deepEqual(written[0]!.outcomes, ["delivered", "inFlight", "delivered"]);
  assert.deepEqual(
    written[0]!.refusals!.map(({ entry, failure }) => [entry, failure.code, failure.message]),
    [[1, "record-too-large", "the message has 60000 bytes; jobs takes 50000"]],
  );
  assert.equal(context.counted.get("publisher_restarts_total"), 1);
  assert.ok(!stored(broker).some((value) => value.startsWith("x")));
});

test("an absurd limit of the broker is the broker's fault", async () => {
  const { clock, bed, session } = await open({ prepare: (own) => own.limitMessages(10) });
  const written = bed.write(text("x".repeat(100)));
  await clock.run(60_000);
  assert.deepEqual(written[0]!.outcomes, ["inFlight"]);
  assert.equal(written[0]!.refusals, undefined);
  assert.match(session.status().reason!, /message size 100 is larger than configured max size 10/);
});

test("headers, a key or a routing key that AMQP cannot carry are the message's own fault", async () => {
  const { clock, bed } = await open({ exchange: "work", key: (message: Message) => String(message.key) });
  const jobs = Buffer.from("jobs");
  const written = bed.write([
    { key: jobs, value: "good" },
    { key: jobs, value: "headers", headers: [["a", "x".repeat(70_000)]] },
    { key: jobs, value: "name", headers: [["n".repeat(256), "x"]] },
    { key: Buffer.from("k".repeat(256)), value: "key" },
  ]);
  await clock.run(5);
  assert.deepEqual(
    written.map(({ refusals }) =>
      refusals!.map(({ entry, failure }) => [entry, failure.code, failure.class]),
    ),
    [
      [
        [1, "record-too-large", "business"],
        [2, "record-refused", "business"],
      ],
      [[0, "record-refused", "business"]],
    ],
  );
});

test("a message that the client library cannot write is refused, and takes no tag", async () => {
  const { clock, bed } = await open({
    wrap: publishing((target, ...args) => {
      if (args[2].toString() === "bad") throw new TypeError("Field 'x' is the wrong type");
      return target.publish(...args);
    }),
  });
  const written = bed.write(text("a", "bad", "b"));
  await clock.run(5);
  assert.deepEqual(written[0]!.outcomes, ["delivered", "inFlight", "delivered"]);
  assert.deepEqual(
    written[0]!.refusals!.map(({ failure }) => failure.code),
    ["record-refused"],
  );
});

test("a channel that closes in the middle of a batch loses nothing, even if nothing was under way", async () => {
  let calls = 0;
  const { clock, broker, bed } = await open({
    wrap: publishing((target, ...args) => {
      if (++calls === 1) {
        broker.cut("lost");
        throw new AmqpError("the channel is closed");
      }
      return target.publish(...args);
    }),
  });
  const written = bed.write(text("a", "b"));
  await clock.run(1_000);
  assert.deepEqual(outcomes(written), ["delivered", "delivered"]);
  assert.deepEqual(stored(broker), ["a", "b"]);
});

test("a key function that fails condemns its message alone", async () => {
  const { clock, session, bed } = await open({
    exchange: "work",
    key: (message: Message) => {
      const value = String(message.value);
      if (value === "throw") throw new Error("no such field");
      return value === "number" ? (7 as unknown as string) : "jobs";
    },
  });
  assert.equal(session.bytesOnly, false, "it is asked again why, and needs the value");
  const written = bed.write(text("a", "throw", "number", "b"));
  await clock.run(5);
  assert.deepEqual(written[0]!.outcomes, ["delivered", "delivered"]);
  assert.deepEqual(
    written[1]!.refusals!.map(({ failure }) => [failure.class, failure.code, failure.message]),
    [
      ["application", "author-error", 'the function "key" failed: no such field'],
      ["application", "author-error", 'the function "key" gave number, not text'],
    ],
  );
});

test("a destination is the same object for as long as someone holds it", async () => {
  const { session, bed, clock } = await open({
    exchange: "work",
    key: (message: Message) => String(message.value),
  });
  const seen: unknown[] = [];
  bed.write(text("jobs", "other", "jobs"), (batch) => seen.push(batch.destination));
  bed.write(text("other", "jobs"), (batch) => seen.push(batch.destination));
  assert.equal(seen[0], seen[3]);
  assert.equal(seen[1], seen[2]);
  assert.deepEqual(
    seen.map((destination) => (destination as { name: string }).name),
    ["work/jobs", "work/other", "work/other", "work/jobs"],
  );
  await clock.run(5);
  assert.equal(session.status().ready, true);
});

test("keys, nulls, headers and properties reach the queue", async () => {
  const { clock, broker, bed } = await open();
  bed.write([
    {
      key: Buffer.from("k"),
      value: "v",
      timestamp: 1_760_000_000_123,
      headers: [
        ["content-type", "application/json"],
        ["amqp-message-id", "m-1"],
        ["amqp-priority", 4],
        ["amqp-routing-key", "earlier"],
        ["CC", "elsewhere"],
        ["twice", 1],
        ["twice", Buffer.from("two")],
        ["__proto__", "harmless"],
      ],
    },
    { key: Buffer.alloc(0), value: null },
    { key: null, value: "" },
    { key: Buffer.from([0xff]), value: "binary key" },
  ]);
  await clock.run(5);
  const messages = [...broker.contents("jobs")];
  assert.deepEqual(
    messages.map(({ key, value }) => [key?.toString("hex"), value?.toString()]),
    [
      ["6b", "v"],
      ["", undefined],
      [undefined, ""],
      ["ff", "binary key"],
    ],
  );
  assert.deepEqual(messages[0]!.headers, [
    ["content-type", "application/json"],
    ["amqp-message-id", "m-1"],
    ["amqp-priority", 4],
    ["twice", '[1,"two"]'],
    ["__proto__", "harmless"],
  ]);
  assert.equal(messages[0]!.timestamp, 1_760_000_000_000);
});

/** What a topology that reads the queue with `decompress` would see. */
async function restored(broker: EmbeddedRabbitmq) {
  const bed = new OperatorBed(decompress());
  bed.send(
    [...broker.contents("jobs")].map(({ key, value, headers, timestamp }) => ({
      key,
      value,
      headers,
      timestamp,
    })),
  );
  await bed.context.clock.run(5);
  return bed.emitted().map(({ key, payload }) => [key, payload]);
}

for (const framing of ["record", "batch"] as const) {
  test(`a codec is applied to each ${framing}, and order holds while it works`, async () => {
    const { clock, broker, bed } = await open();
    const compressed = bed.write(
      [
        { key: Buffer.from("a"), value: "x".repeat(100_000) },
        { key: null, value: "y" },
      ],
      (batch) => {
        batch.codec = "zstd";
        batch.framing = framing;
      },
    );
    const plain = bed.write(text("after"));
    assert.deepEqual(stored(broker), []);
    await clock.run(5);
    assert.deepEqual(outcomes([...compressed, ...plain]), ["delivered", "delivered", "delivered"]);
    assert.equal(stored(broker).length, framing === "batch" ? 2 : 3);
    assert.deepEqual(await restored(broker), [
      ["a", "x".repeat(100_000)],
      [null, "y"],
      [null, "after"],
    ]);
  });
}

test("a frame with no queue to take it is refused message by message", async () => {
  const { clock, bed } = await open({ exchange: "work", key: "nowhere" });
  const [written] = bed.write(text("a", "b", "c"), (batch) => {
    batch.framing = "batch";
  });
  await clock.run(5);
  assert.deepEqual(
    written!.refusals!.map(({ entry, failure }) => [entry, failure.code]),
    [
      [0, "unroutable"],
      [1, "unroutable"],
      [2, "unroutable"],
    ],
  );
});

test("a frame that is too large is halved until it fits; only what is too large alone is refused", async () => {
  const { clock, broker, bed } = await open({ maxMessageBytes: 20_000 });
  const values = ["a", "b".repeat(9_000), "c".repeat(30_000), "d".repeat(9_000), "e".repeat(9_000), "f"];
  const [written] = bed.write(text(...values), (batch) => {
    batch.framing = "batch";
  });
  const after = bed.write(text("after"));
  await clock.run(5);
  assert.deepEqual(
    written!.refusals!.map(({ entry, failure }) => [entry, failure.code]),
    [[2, "record-too-large"]],
  );
  assert.deepEqual(written!.outcomes, [
    "delivered",
    "delivered",
    "inFlight",
    "delivered",
    "delivered",
    "delivered",
  ]);
  assert.deepEqual(outcomes(after), ["delivered"]);
  const kept = [...values.toSpliced(2, 1), "after"].map((value) => [null, value]);
  assert.deepEqual(await restored(broker), kept);
});

test("closing waits for what is under way, until its deadline", async () => {
  const { clock, broker, bed, session } = await open();
  const [quick] = bed.write(text("a"));
  const closing = session.close(clock.now() + 1_000);
  await clock.run(50);
  await closing;
  assert.deepEqual(quick!.outcomes, ["delivered"]);
  assert.equal(broker.connections.size, 0);
  assert.equal(clock.pending, 0);

  const other = await open({ prepare: (own) => own.withholdConfirms(true) });
  const [stuck] = other.bed.write(text("a"));
  const end = other.session.close(other.clock.now() + 1_000);
  await other.clock.run(1_100);
  await end;
  assert.deepEqual(stuck!.outcomes, ["inFlight"]);
  assert.ok(stuck!.failure instanceof MillraceError);
  assert.equal(other.clock.pending, 0);
});

test("an aborted run ends every write, and nothing of it is settled", async () => {
  const { context, clock, broker, bed } = await open({ prepare: (own) => own.withholdConfirms(true) });
  const [written] = bed.write(text("a"));
  await clock.run(5);
  context.abort(new Error("stop"));
  await clock.run(5);
  assert.deepEqual(written!.outcomes, ["inFlight"]);
  assert.equal((written!.failure as Error).message, "stop");
  const [late] = bed.write(text("b"));
  await clock.run(5);
  assert.equal((late!.failure as Error).message, "stop");
  assert.deepEqual(stored(broker), ["a"]);
});

test("refused access while running fails the writes", async () => {
  const { clock, broker, bed } = await open();
  broker.refuseConnections(new AmqpError("ACCESS_REFUSED", { replyCode: 403 }));
  broker.cut("lost");
  const [written] = bed.write(text("a"));
  await clock.run(10 * 60_000);
  assert.equal((written!.failure as MillraceError).code, "access-refused");
});

test("a limit that the broker told is learned anew after a reconnect", async () => {
  const { clock, broker, bed } = await open({ prepare: (it) => it.limitMessages(100_000) });
  const large = [{ value: "x".repeat(150_000) }];
  const [first] = bed.write(large);
  await clock.run(5_000);
  assert.equal(first!.refusals?.[0]?.failure.code, "record-too-large");
  broker.limitMessages(200_000);
  broker.cut("applied");
  await clock.run(60_000);
  const [second] = bed.write(large);
  await clock.run(60_000);
  assert.deepEqual([second!.outcomes, second!.refusals], [["delivered"], []]);
});
