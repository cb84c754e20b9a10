import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../../errors.ts";
import { Outcome } from "../../message/outcome.ts";
import { settlePromises } from "../../testing/clock.ts";
import { type TestContext, testContext } from "../../testing/context.ts";
import { SourceBed } from "../../testing/session-bed.ts";
import { AmqpError } from "./driver.ts";
import { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { embeddedDriver } from "./drivers/embedded/driver.ts";
import { Link } from "./link.ts";
import {
  type RabbitmqOptions,
  type RabbitmqSourceOptions,
  rabbitmqCredit,
  readRabbitmqOptions,
} from "./options.ts";
import { openRabbitmqSource } from "./source.ts";

interface Given extends Partial<Omit<RabbitmqSourceOptions, "queue">> {
  /** Messages in the queue before; undefined: there is no queue. */
  readonly count?: number;
  readonly connection?: Partial<RabbitmqOptions>;
  readonly prepare?: (broker: EmbeddedRabbitmq) => void;
}

const bodies = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i));

/** A source of queue "jobs" on an embedded broker that makes no queue by itself, under virtual time. */
function begin({ count, connection, prepare, ...options }: Given = {}) {
  const context = testContext();
  const { clock } = context;
  const broker = new EmbeddedRabbitmq(clock);
  const fed = (from: number, to: number) =>
    broker.feed(
      "jobs",
      bodies(from, to).map((value) => ({ value: Buffer.from(value) })),
    );
  if (count !== undefined) fed(0, count);
  prepare?.(broker);
  const read = readRabbitmqOptions({ url: "amqp://u:canary@127.0.0.1", ...connection });
  assert.deepEqual(read.problems, []);
  const { broker: settings, declarations } = read;
  const sourceOptions = { queue: "jobs", ...options };
  const bed = new SourceBed(context, rabbitmqCredit(sourceOptions));
  const link = new Link(embeddedDriver(broker), "consume", settings!, declarations, context);
  const setting = { link, declarations, address: settings!.address, creates: false };
  const opening = openRabbitmqSource(bed.context, setting, sourceOptions);
  opening.catch(() => {});
  return { context, clock, broker, bed, opening, fed, setting };
}

/** The same, opened and with what it was given first. */
async function open(given: Given = {}) {
  const begun = begin(given);
  await begun.clock.run(20);
  return { ...begun, session: await begun.opening };
}

/** Messages of the queue that nobody acknowledged. */
function left(broker: EmbeddedRabbitmq): number {
  const { ready, unacknowledged } = broker.depth("jobs");
  return ready + unacknowledged;
}

function neverClosedForATag(context: TestContext): void {
  assert.deepEqual(
    context.logged.filter((line) => line.includes("delivery tag")),
    [],
  );
}

test("it hands on a queue's messages in order and acknowledges each once it is settled", async () => {
  const { context, clock, broker, bed } = await open({ count: 5 });
  assert.deepEqual(bed.payloads, ["0", "1", "2", "3", "4"]);
  assert.equal(left(broker), 5);
  bed.settle(0, 3);
  await clock.run(1);
  assert.equal(left(broker), 2);
  bed.settle();
  await clock.run(1);
  assert.equal(left(broker), 0);
  neverClosedForATag(context);
});

test("messages above an unsettled one are acknowledged after 100 ms", async () => {
  const { clock, broker, bed } = await open({ count: 10, prefetch: 10 });
  bed.settle(5, 2);
  await clock.run(90);
  assert.equal(left(broker), 10);
  await clock.run(30);
  assert.equal(left(broker), 8);
  // The hole closes: everything below goes as one, passing over what went before.
  bed.settle();
  await clock.run(5);
  assert.equal(left(broker), 0);
});

test("when they are more than a quarter of the prefetch they are acknowledged at once", async () => {
  const { clock, broker, bed } = await open({ count: 30, prefetch: 20 });
  bed.settle(1, 6);
  await clock.run(1);
  assert.equal(broker.depth("jobs").ready, 4);
  assert.deepEqual(
    bed.open.map(({ payload }) => payload),
    ["0", ...bodies(7, 26)],
  );
  // One stuck message never fills the window: everything else goes through.
  for (let round = 0; round < 10; round++) {
    bed.settle(1);
    await clock.run(120);
  }
  assert.deepEqual(bed.payloads.length, 30);
  assert.equal(left(broker), 1);
});

test("never more are in flight and waiting than the prefetch", async () => {
  const { clock, broker, bed } = await open({ count: 50, prefetch: 7 });
  assert.equal(bed.open.length, 7);
  for (let rounds = 0; rounds < 60 && left(broker) > 0; rounds++) {
    bed.settle(rounds % 3, 2);
    await clock.run(150);
    assert.ok(bed.open.length <= 7, String(bed.open.length));
  }
  assert.equal(left(broker), 0);
});

test("a lost connection ends the lane: messages come again, and late settlements do nothing", async () => {
  const { context, clock, broker, bed, session } = await open({ count: 4 });
  bed.settle(0, 1);
  await clock.run(1);
  broker.cut("applied");
  const stale = bed.open.splice(0);
  await clock.run(1);
  assert.deepEqual(
    bed.controls.map(({ kind }) => kind),
    ["revoke"],
  );
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /connection lost/);
  assert.equal(bed.intake.credit.conservation().returned, 3);
  await clock.run(500);
  assert.equal(session.status().ready, true);
  assert.deepEqual(
    bed.open.map(({ payload }) => payload),
    ["1", "2", "3"],
  );
  assert.deepEqual([...new Set(bed.open.map(({ chunk }) => chunk.lane.epoch))], [2]);
  for (const { chunk, index } of stale) chunk.settle(index, Outcome.delivered);
  await clock.run(200);
  assert.equal(left(broker), 3);
  bed.settle();
  await clock.run(1);
  assert.equal(left(broker), 0);
  assert.equal(broker.connections.size, 1);
  assert.equal(broker.depth("jobs").consumers, 1);
  neverClosedForATag(context);
});

test("the prefetch holds after a reconnect", async () => {
  const { clock, broker, bed } = await open({ count: 9, prefetch: 3 });
  broker.cut("lost");
  await clock.run(500);
  bed.forgetEnded();
  assert.equal(bed.open.length, 3);
});

test("a broker that is away is waited for, however long, with waits that grow to 30 s", async () => {
  const { context, clock, broker, bed, opening } = begin({
    count: 2,
    prepare: (own) => own.stop(),
  });
  await clock.run(10 * 60_000);
  const attempts = context.logged.filter((line) => line.includes("cannot connect")).length;
  assert.ok(attempts > 20 && attempts < 120, String(attempts));
  broker.start();
  await clock.run(31_000);
  await opening;
  assert.equal(bed.open.length, 2);
});

test("refused credentials are believed at the third try, and named without the secret", async () => {
  const refusal = new AmqpError("ACCESS_REFUSED - Login was refused", { replyCode: 403 });
  const { context, clock, opening, broker } = begin({
    count: 1,
    prepare: (own) => own.refuseConnections(refusal),
  });
  await clock.run(60_000);
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof MillraceError);
    assert.equal(error.code, "access-refused");
    assert.match(error.message, /127\.0\.0\.1:5672\/%2f refuses access/);
    return true;
  });
  assert.equal(context.logged.filter((line) => line.includes("cannot connect")).length, 3);
  assert.deepEqual(
    context.logged.filter((line) => line.includes("canary")),
    [],
  );
  assert.equal(broker.connections.size, 0);
  assert.equal(clock.pending, 0);
});

test("credentials refused while running stop the run after ten tries", async () => {
  const { clock, broker, bed } = await open({ count: 1 });
  broker.refuseConnections(new AmqpError("ACCESS_REFUSED", { replyCode: 403 }));
  broker.cut("lost");
  const failure = () => bed.failure as MillraceError | undefined;
  await clock.run(1_000);
  assert.equal(failure(), undefined);
  await clock.run(10 * 60_000);
  assert.equal(failure()?.code, "access-refused");
});

test("a missing queue is named, with what to do", async () => {
  const { clock, opening } = begin();
  await clock.run(100);
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof MillraceError);
    assert.equal(error.code, "target-missing");
    assert.match(error.message, /queue "jobs" does not exist on 127\.0\.0\.1:5672\/%2f/);
    assert.match(error.remedy!, /--create/);
    return true;
  });
});

test("a declared queue is made", async () => {
  const { broker } = await open({ connection: { queues: { jobs: { type: "classic", maxLength: 9 } } } });
  assert.deepEqual(broker.queue("jobs").settings.arguments, { "x-queue-type": "classic", "x-max-length": 9 });
});

test("a queue that is not as declared is named, with the difference", async () => {
  const { clock, opening } = begin({ count: 1, connection: { queues: { jobs: { maxLength: 9 } } } });
  await clock.run(100);
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof MillraceError);
    assert.equal(error.code, "target-mismatch");
    assert.match(error.message, /queue "jobs".*"x-max-length" is declared as 9 and is not set on the broker/);
    return true;
  });
});

for (const [type, what] of [
  ["stream", "a stream is refused at its first message"],
  ["classic", "a queue is read on, though what it holds came out of a stream once"],
] as const) {
  test(what, async () => {
    const { clock, bed } = await open({
      prepare: (broker) => {
        broker.assertQueue("jobs", {
          durable: true,
          arguments: { "x-queue-type": type, "x-max-length-bytes": 9_000, "x-max-age": "1h" },
        });
        broker.feed("jobs", [{ value: Buffer.from("a"), headers: [["x-stream-offset", "0"]] }]);
      },
    });
    await clock.run(100);
    assert.deepEqual(bed.payloads, ["a"]);
    if (type === "stream") assert.match(String(bed.failure), /"jobs" on \S+ is a stream/);
    else assert.equal(bed.failure, undefined);
  });
}

test("a stream that gives nothing of what it holds is refused once somebody asks why", async () => {
  for (const ask of ["lag", "atEnd"] as const) {
    const { clock, bed, session } = await open({
      prepare: (broker) => {
        broker.assertQueue("jobs", { durable: true, arguments: { "x-queue-type": "stream" } });
        broker.feed("jobs", [{ value: Buffer.from("a") }]);
        broker.dumbConsumers({ newOnes: true });
      },
    });
    assert.equal(bed.failure, undefined);
    await Promise.all([session[ask]!(), clock.run(100)]);
    assert.match(String(bed.failure), /"jobs" on \S+ is a stream/);
  }
});

test("a deleted queue shows in status; a declared one is made again and read on", async () => {
  const { context, clock, broker, bed, session, fed } = await open({
    count: 2,
    connection: { queues: { jobs: {} } },
  });
  broker.deleteQueue("jobs");
  await clock.run(1);
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /cancelled the consumer of queue "jobs"/);
  await clock.run(500);
  assert.equal(session.status().ready, true);
  fed(5, 7);
  await clock.run(5);
  assert.deepEqual(bed.payloads, ["0", "1", "5", "6"]);
  // What it had given is in flight still; nobody would give it again.
  assert.deepEqual(bed.controls, []);
  bed.settle();
  await clock.run(5);
  assert.equal(left(broker), 0);
  neverClosedForATag(context);
});

test("a deleted queue that nothing declares is waited for", async () => {
  const { clock, broker, bed, session, fed } = await open({ count: 1 });
  broker.deleteQueue("jobs");
  await clock.run(5_000);
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /queue "jobs" does not exist/);
  fed(1, 2);
  await clock.run(60_000);
  assert.equal(session.status().ready, true);
  assert.deepEqual(bed.payloads, ["0", "1"]);
});

test("a queue that another consumer has for itself is stood by for", async () => {
  const { clock, bed, broker, session } = await open({
    count: 1,
    prepare: (own) => {
      // Someone else's connection.
      own.connect("consume", { closed() {}, blocked() {}, unblocked() {} }).then(async (connection) => {
        const channel = await connection.openChannel({ closed() {} });
        await channel.consume("jobs", { consumerTag: "theirs", exclusive: true });
      });
    },
  });
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /in exclusive use/);
  const [theirs] = broker.connections;
  theirs!.cut("lost");
  await clock.run(60_000);
  assert.equal(session.status().ready, true);
  assert.deepEqual(bed.payloads, ["0"]);
});

test("stopping takes nothing more in; what settles is acknowledged, the rest returns at the close", async () => {
  const { clock, broker, bed, session, fed } = await open({ count: 6, prefetch: 4 });
  session.stopIntake();
  fed(6, 9);
  await clock.run(50);
  assert.equal(bed.payloads.length, 4);
  bed.settle(0, 1);
  bed.settle(1, 1);
  const commit = session.commit();
  await clock.run(5);
  await commit;
  assert.deepEqual(broker.depth("jobs"), { ready: 5, unacknowledged: 0, consumers: 0 });
  bed.settle(0, 1);
  const closing = session.close(clock.now() + 1_000);
  await clock.run(50);
  await closing;
  // Settled after the last commit: closing acknowledges nothing by itself.
  assert.equal(broker.depth("jobs").ready, 7);
  assert.equal(broker.connections.size, 0);
  assert.equal(clock.pending, 0);
});

test("a commit waits until the broker has worked off the acknowledgements", async () => {
  const { clock, broker, bed, session } = await open({ count: 3 });
  bed.settle();
  session.stopIntake();
  const commit = session.commit().then(() => left(broker));
  assert.equal(left(broker), 3);
  await clock.run(5);
  assert.equal(await commit, 0);
});

test("closing is done by its deadline, whatever the broker does", async () => {
  const { clock, broker, session } = await open({ count: 3 });
  broker.setAlarm("memory");
  let closed = false;
  session.close(clock.now() + 2_000).then(() => {
    closed = true;
  });
  await clock.run(2_001);
  assert.equal(closed, true);
});

test("at its end means: no message ready, none under way, none waiting", async () => {
  const { clock, broker, bed, session, fed } = await open({ count: 5, prefetch: 3 });
  const atEnd = async () => {
    const answer = session.atEnd();
    await clock.run(10);
    return answer;
  };
  assert.equal(await atEnd(), false);
  bed.settle();
  await clock.run(10);
  assert.deepEqual(bed.payloads, bodies(0, 5));
  assert.equal(await atEnd(), true);
  bed.settle();
  assert.equal(await atEnd(), true);
  // Whenever it says so, everything that was fed has been handed on.
  for (let from = 5; from < 40; from++) {
    fed(from, from + 1);
    for (let i = 0; i < from % 7; i++) clock.step();
    if (await atEnd()) assert.equal(bed.payloads.length, from + 1);
    bed.settle();
  }
  broker.cut("lost");
  await clock.run(1);
  assert.equal(await session.atEnd(), false);
});

test("bytes beyond the credit wait, and stay unacknowledged", async () => {
  const { clock, broker, bed, session } = await open({ count: 100, prefetch: 100, creditBytes: 20 });
  assert.ok(bed.open.length < 100, String(bed.open.length));
  const atEnd = session.atEnd();
  await clock.run(5);
  assert.equal(await atEnd, false);
  for (let round = 0; round < 200 && left(broker) > 0; round++) {
    bed.settle();
    await clock.run(5);
  }
  assert.deepEqual(bed.payloads, bodies(0, 100));
});

test("before the broker's consumer_timeout everything is given back once, and one message is tried", async () => {
  const { context, clock, broker, bed, session, fed } = await open({
    count: 6,
    prefetch: 4,
    consumerTimeout: "30m",
  });
  await clock.run(17 * 60_000);
  assert.equal(bed.intake.lanes[0]!.epoch, 1);
  await clock.run(3 * 60_000);
  assert.equal(context.counted.get("consumer_recycles_total"), 1);
  bed.forgetEnded();
  assert.deepEqual(
    bed.open.map(({ payload, chunk }) => [payload, chunk.lane.epoch]),
    [["0", 2]],
  );
  assert.equal(session.status().ready, true);
  assert.match(session.status().reason!, /unsettled for \d+ s/);
  // Still stuck: the probe alone is given back again.
  await clock.run(20 * 60_000);
  assert.equal(context.counted.get("consumer_recycles_total"), 2);
  bed.forgetEnded();
  assert.equal(bed.open.length, 1);
  // The sink answers.
  bed.settle();
  await clock.run(50);
  assert.deepEqual(
    bed.open.map(({ payload }) => payload),
    ["1", "2", "3", "4"],
  );
  assert.equal(session.status().reason, undefined);
  fed(6, 7);
  bed.settle();
  await clock.run(50);
  bed.settle();
  await clock.run(50);
  assert.equal(left(broker), 0);
  neverClosedForATag(context);
});

test("what was given back for its age is not delivered again before the sinks answer, however long that takes", async () => {
  const { context, clock, bed, session, broker } = await open({
    count: 6,
    prefetch: 4,
    consumerTimeout: "30m",
  });
  bed.trouble = "orders.accepted: no broker answers";
  await clock.run(20 * 60_000 + 5_000);
  assert.equal(context.counted.get("consumer_recycles_total"), 1);
  bed.forgetEnded();
  assert.deepEqual(bed.open, []);
  assert.equal(session.status().ready, false);
  assert.match(
    session.status().reason!,
    /nothing is read before the sink answers \(orders\.accepted: no broker/,
  );
  await clock.run(24 * 3_600_000);
  assert.equal(context.counted.get("consumer_recycles_total"), 1, "one delivery, not one every 20 minutes");
  assert.deepEqual(bed.open, []);
  bed.trouble = undefined;
  await clock.run(2_000);
  assert.deepEqual(
    bed.open.map(({ payload }) => payload),
    ["0"],
    "one is tried",
  );
  for (let round = 0; round < 10 && left(broker) > 0; round++) {
    bed.settle();
    await clock.run(200);
  }
  assert.equal(left(broker), 0);
  assert.equal(session.status().ready, true);
});

test("a source that waits for its sinks to answer can be stopped", async () => {
  const { clock, bed, session } = await open({ count: 1, prefetch: 4, consumerTimeout: "30m" });
  bed.trouble = "orders.accepted: no broker answers";
  await clock.run(21 * 60_000);
  const closed = session.close(clock.now() + 5_000);
  await clock.run(10);
  await closed;
});

test("a busy queue is never given back for its age", async () => {
  const { context, clock, broker, bed, fed } = await open({ count: 4, prefetch: 4, consumerTimeout: "1m" });
  for (let i = 0; i < 100; i++) {
    bed.settle(0, 2);
    fed(4 + 2 * i, 6 + 2 * i);
    await clock.run(10_000);
  }
  assert.equal(context.counted.get("consumer_recycles_total"), undefined);
  assert.equal(left(broker), 4);
});

test("an aborted run acknowledges nothing more by itself", async () => {
  const { context, clock, broker, bed } = await open({ count: 3 });
  bed.settle();
  context.abort(new Error("stop"));
  await clock.run(500);
  assert.equal(left(broker), 3);
});

test("a source that cannot open leaves the connection to the others", async () => {
  const { context, clock, broker, setting, session } = await open({ count: 1 });
  for (let attempt = 0; attempt < 2; attempt++) {
    const other = new SourceBed(context, rabbitmqCredit({ queue: "missing" }));
    const opening = openRabbitmqSource(other.context, setting, { queue: "missing" });
    opening.catch(() => {});
    await clock.run(50);
    await assert.rejects(opening, { code: "target-missing" });
  }
  await clock.run(5_000);
  assert.equal(session.status().ready, true);
  const [connection] = broker.connections;
  assert.equal(broker.connections.size, 1);
  assert.equal(connection!.channels.size, 1);
  const closing = session.close(clock.now() + 1_000);
  await clock.run(50);
  await closing;
  assert.equal(broker.connections.size, 0);
});

test("an abort ends the opening", async () => {
  const { context, clock, opening } = begin({ prepare: (own) => own.stop() });
  await clock.run(1_000);
  context.abort(new Error("stop"));
  await assert.rejects(opening, /stop/);
});

test("a queue that is deleted just as its consumer starts is declared again and consumed", async () => {
  const { clock, broker, bed, opening, fed } = begin({ count: 0, connection: { queues: { jobs: {} } } });
  // Until the broker has the consumer; its answer is still under way, and the end of the consumer will be too.
  for (let turn = 0; turn < 1_000 && broker.depth("jobs").consumers === 0; turn++) {
    clock.step(clock.now());
    await settlePromises();
  }
  assert.equal(broker.depth("jobs").consumers, 1);
  broker.deleteQueue("jobs");
  await clock.run(20);
  await opening;
  await clock.run(120_000);
  fed(0, 3);
  await clock.run(100);
  assert.deepEqual(bed.payloads, ["0", "1", "2"]);
});
