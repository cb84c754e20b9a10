import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../../errors.ts";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { testContext } from "../../testing/context.ts";
import type { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { rabbitmq } from "./index.ts";

/** Ranges in a queue on an embedded broker, and a connection to take them from. */
function begin(count: number) {
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  const messaging = rabbitmq({ url: "amqp://messaging", queues: { ranges: {} } });
  const broker = messaging.embedded(context) as EmbeddedRabbitmq;
  broker.feed(
    "ranges",
    Array.from({ length: count }, (_, i) => ({ value: Buffer.from(String(i)) })),
  );
  const left = () => [...broker.remaining("ranges")].map(String).sort();
  const taking = <T>(use: (content: Buffer) => Promise<T>, queue = "ranges") => {
    const taken = messaging.take(context, queue, use);
    taken.catch(() => {});
    return taken;
  };
  return { context, clock: context.clock, broker, left, taking };
}

test("one message is taken, and it is gone once its use is through", async () => {
  const { clock, taking, left, broker } = begin(3);
  let through!: () => void;
  const taken = taking(async (content) => {
    await new Promise<void>((resolve) => (through = resolve));
    return content.toString();
  });
  await clock.run(100);
  assert.deepEqual(left(), ["0", "1", "2"]);
  assert.equal(broker.depth("ranges").ready, 2, "nobody else is given it meanwhile");
  through();
  await clock.run(100);
  assert.equal(await taken, "0");
  assert.deepEqual(left(), ["1", "2"]);
  assert.equal(broker.connections.size, 0);
});

test("two at once get two messages, and an empty queue is told", async () => {
  const { clock, taking } = begin(2);
  const takings = [1, 2, 3].map(() => taking(async (content) => content.toString()));
  await clock.run(5_000);
  assert.deepEqual(new Set(await Promise.all(takings)), new Set(["0", "1", undefined]));
});

test("what fails in its use goes back, and the failure is the user's own", async () => {
  const { clock, taking, left } = begin(1);
  const mine = new Error("the disk is full");
  const taken = taking(() => Promise.reject(mine));
  await clock.run(100);
  await assert.rejects(taken, (error) => error === mine);
  assert.deepEqual(left(), ["0"]);
});

test("a connection that breaks before the acknowledgement was taken gives the message back", async () => {
  const { clock, taking, left, broker } = begin(1);
  const taken = taking(async () => {
    broker.cut("applied");
    await Promise.resolve();
  });
  await clock.run(1_000);
  await assert.rejects(taken, (error) => error instanceof MillraceError && error.code === "connection-lost");
  assert.deepEqual(left(), ["0"]);
});

test("a queue that is missing is named", async () => {
  const { clock, taking } = begin(0);
  const taken = taking(async () => {}, "other");
  await clock.run(1_000);
  await assert.rejects(taken, (error) => {
    assert.ok(error instanceof MillraceError);
    assert.equal(error.code, "target-missing");
    return true;
  });
});
