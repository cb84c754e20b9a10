import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../../errors.ts";
import { topology } from "../../index.ts";
import { testContext } from "../../testing/context.ts";
import { inertSink } from "../../testing/inert.ts";
import { SourceBed } from "../../testing/session-bed.ts";
import { compile } from "../../topology/compile.ts";
import { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { embeddedDriver } from "./drivers/embedded/driver.ts";
import { type RabbitmqGate, rabbitmq } from "./index.ts";
import { Link } from "./link.ts";
import { rabbitmqCredit, readRabbitmqOptions } from "./options.ts";
import { openRabbitmqSource } from "./source.ts";

const elsewhere = rabbitmq({ url: "amqp://downstream" });
const gate: RabbitmqGate = { on: elsewhere, queues: ["next", "last"], closeAt: 10, openAt: 4, every: "1s" };
const prefetch = 20;

/** A gated source of "jobs" on one broker, with "next" and "last" on another, which it does not consume from. */
function begin(prepare: (downstream: EmbeddedRabbitmq) => void = () => {}) {
  const context = testContext();
  const { clock } = context;
  const upstream = new EmbeddedRabbitmq(clock);
  const downstream = new EmbeddedRabbitmq(clock);
  const messages = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ value: Buffer.from(`${i}`) }));
  const deepen = (queue: string, count: number) => downstream.feed(queue, messages(count));
  for (const queue of ["next", "last"]) deepen(queue, 0);
  upstream.feed("jobs", messages(100));
  prepare(downstream);
  const { broker, declarations } = readRabbitmqOptions({ url: "amqp://upstream" });
  const { broker: watched } = readRabbitmqOptions({ url: "amqp://downstream" });
  const options = { queue: "jobs", prefetch, gate };
  const bed = new SourceBed(context, rabbitmqCredit(options));
  const link = new Link(embeddedDriver(upstream), "consume", broker!, declarations, context);
  const watching = new Link(embeddedDriver(downstream), "check", watched!, declarations, context);
  const opening = openRabbitmqSource(
    bed.context,
    {
      link,
      declarations,
      address: broker!.address,
      creates: false,
      gate: { link: watching, address: watched!.address },
    },
    options,
  );
  opening.catch(() => {});
  return { context, clock, upstream, downstream, bed, opening, deepen };
}

async function open(prepare?: (downstream: EmbeddedRabbitmq) => void) {
  const begun = begin(prepare);
  await begun.clock.run(20);
  return { ...begun, session: await begun.opening };
}

test("it closes at closeAt and opens at openAt: between the two it stays as it was", async () => {
  const { clock, bed, session, deepen, downstream, upstream } = await open();
  assert.equal(bed.payloads.length, prefetch);
  deepen("last", 9);
  await clock.run(1_000);
  bed.settle();
  await clock.run(10);
  assert.equal(bed.payloads.length, 2 * prefetch, "9 are fewer than 10");
  deepen("last", 1);
  await clock.run(1_000);
  bed.settle();
  await clock.run(5_000);
  assert.equal(bed.payloads.length, 2 * prefetch, "what was in flight goes on, and nothing follows");
  assert.equal(upstream.depth("jobs").unacknowledged, prefetch, "the prefetch fills");
  assert.equal(
    session.status().reason,
    'the gate is closed: queue "last" on downstream:5672/%2f holds 10 messages, and opens it at 4',
  );
  assert.equal(session.status().ready, true, "to wait is what it is for");
  const looking = session.atEnd();
  await clock.run(10);
  assert.equal(await looking, false);
  downstream.purge("last");
  deepen("last", 5);
  await clock.run(1_000);
  assert.equal(bed.payloads.length, 2 * prefetch, "5 are more than 4");
  downstream.purge("last");
  deepen("next", 4);
  await clock.run(1_000);
  assert.equal(bed.payloads.length, 3 * prefetch);
  assert.equal(session.status().reason, undefined);
});

test("nothing is taken in before the first look", async () => {
  const { bed, upstream, context } = await open((downstream) =>
    downstream.feed("next", Array(10).fill({ value: Buffer.from("x") })),
  );
  assert.deepEqual(bed.payloads, []);
  assert.equal(upstream.depth("jobs").unacknowledged, prefetch);
  assert.equal(context.counted.get("gate_closings_total"), 1);
  assert.ok(context.logged.some((line) => line.startsWith("info the gate closes")));
});

test("it goes by what it last saw while it cannot look", async () => {
  const { clock, bed, session, deepen, downstream } = await open();
  downstream.stop();
  deepen("next", 50);
  await clock.run(60_000);
  bed.settle();
  await clock.run(10);
  assert.equal(bed.payloads.length, 2 * prefetch, "open it was");
  downstream.start();
  await clock.run(60_000);
  bed.settle();
  await clock.run(10);
  assert.equal(bed.payloads.length, 2 * prefetch);
  downstream.stop();
  await clock.run(60_000);
  bed.settle();
  assert.equal(bed.payloads.length, 2 * prefetch, "and closed it stays");
  assert.match(session.status().reason ?? "", /the gate is closed/);
});

test("it waits at the start for the broker it looks at, and names a queue that is missing there", async () => {
  const away = begin((downstream) => downstream.stop());
  await away.clock.run(30_000);
  assert.equal(away.upstream.depth("jobs").consumers, 0);
  away.downstream.start();
  await away.clock.run(60_000);
  await away.opening;
  assert.equal(away.bed.payloads.length, prefetch);

  const missing = begin((downstream) => downstream.deleteQueue("last"));
  await missing.clock.run(1_000);
  await assert.rejects(missing.opening, (error) => {
    assert.ok(error instanceof MillraceError);
    assert.equal(error.code, "target-missing");
    assert.match(error.message, /queue "last" does not exist on downstream:5672/);
    return true;
  });
  assert.equal(missing.downstream.connections.size + missing.upstream.connections.size, 0);
});

test("a stopped source leaves both brokers", async () => {
  const { clock, session, upstream, downstream } = await open();
  const closing = session.close(clock.now() + 1_000);
  await clock.run(100);
  await closing;
  assert.equal(upstream.connections.size + downstream.connections.size, 0);
  await clock.run(10_000);
});

test("mistakes in a gate are told before anything is opened", () => {
  const problemsOf = (given: unknown) =>
    compile(
      topology("gated", (t) => {
        t.from(elsewhere.source({ queue: "jobs", gate: given as RabbitmqGate })).to(inertSink("out"));
      }),
    ).problems.map(({ message }) => message);
  assert.deepEqual(problemsOf(gate), []);
  assert.deepEqual(problemsOf({ ...gate, openAt: 10 }), [
    "rabbitmq source: gate.openAt is 10, and gate.closeAt 10",
  ]);
  assert.deepEqual(problemsOf({ ...gate, every: "1ms" }), ["rabbitmq source: gate.every is 1 ms"]);
  assert.deepEqual(problemsOf({ ...gate, on: "amqp://downstream" }), [
    'rabbitmq source: "gate.on" must be a RabbitMQ connection',
  ]);
  assert.equal(problemsOf({ ...gate, on: rabbitmq({ url: "http://x" }) }).length, 1);
});
