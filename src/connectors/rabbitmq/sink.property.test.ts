/**
 * For any batches to several destinations and any losses of connections, requests, answers and confirms:
 *
 * - a message is delivered only when it is in its queue, and refused only where no queue is bound;
 * - in each queue messages first arrive in the order they were written;
 * - nothing is repeated where no answer was lost;
 * - in the end every message is delivered or refused, once.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Message } from "../../message/chunk.ts";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { settlePromises } from "../../testing/clock.ts";
import { testContext } from "../../testing/context.ts";
import { propertyRuns } from "../../testing/property-runs.ts";
import { SinkBed, type Written } from "../../testing/session-bed.ts";
import type { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { rabbitmq } from "./index.ts";

const keys = ["a", "b", "nowhere"] as const;

type Step =
  | { readonly kind: "write"; readonly to: readonly (typeof keys)[number][] }
  | { readonly kind: "turns"; readonly count: number }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "cut"; readonly requests: "lost" | "applied" }
  | { readonly kind: "alarm" | "calm" | "withhold" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      to: fc.array(fc.constantFrom(...keys), { minLength: 1, maxLength: 30 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("turns" as const), count: fc.integer({ min: 1, max: 6 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 500 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("cut" as const),
      requests: fc.constantFrom("lost" as const, "applied" as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom("alarm" as const, "calm" as const, "withhold" as const) }),
  },
);

async function history(unconfirmed: number, steps: readonly Step[]): Promise<void> {
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  const { clock } = context;
  const connection = rabbitmq({
    url: "amqp://simulated",
    exchanges: { work: { type: "direct" } },
    queues: { a: {}, b: {} },
    bindings: [
      { queue: "a", exchange: "work", key: "a" },
      { queue: "b", exchange: "work", key: "b" },
    ],
  });
  const broker = connection.embedded(context) as EmbeddedRabbitmq;
  const sink = connection.sink({
    exchange: "work",
    key: (message: Message) => String(message.key),
    unconfirmed,
  });
  const opening = sink.open(context);
  await clock.run(5);
  const bed = new SinkBed(context, await opening);
  const written: { readonly key: string; readonly ids: readonly string[]; readonly it: Written }[] = [];
  let next = 0;
  let answersLost = false;

  const stored = (queue: string) => [...broker.contents(queue)].map(({ value }) => String(value));
  const check = () => {
    const held = { a: new Set(stored("a")), b: new Set(stored("b")), nowhere: new Set<string>() };
    for (const { key, ids, it } of written) {
      const own = held[key as keyof typeof held];
      it.outcomes.forEach((outcome, entry) => {
        if (outcome !== "inFlight")
          assert.ok(own.has(ids[entry]!), `${ids[entry]} is ${outcome} and not in ${key}`);
      });
      for (const { entry, failure } of it.refusals ?? []) {
        assert.equal(key, "nowhere", `${ids[entry]} is refused: ${failure.message}`);
      }
      assert.equal(it.failure, undefined);
    }
    for (const queue of ["a", "b"]) {
      const first = [...new Set(stored(queue))].map(Number);
      assert.deepEqual(
        first,
        first.toSorted((a, b) => a - b),
        `order in ${queue}`,
      );
      if (!answersLost) assert.equal(stored(queue).length, first.length, `repeats in ${queue}`);
    }
  };
  const cut = (requests: "lost" | "applied") => {
    // Answers under way are lost either way, and so are confirms that were withheld.
    answersLost = true;
    broker.withholdConfirms(false);
    broker.cut(requests);
  };

  for (const it of steps) {
    switch (it.kind) {
      case "write": {
        const messages = it.to.map((key) => ({ key: Buffer.from(key), value: String(next++) }));
        const byKey = new Map<string, string[]>();
        for (const { key, value } of messages)
          byKey.set(String(key), [...(byKey.get(String(key)) ?? []), value]);
        const results = bed.write(messages);
        [...byKey].forEach(([key, ids], index) => {
          written.push({ key, ids, it: results[index]! });
        });
        break;
      }
      case "turns":
        for (let i = 0; i < it.count; i++) {
          clock.step(clock.now());
          await settlePromises();
        }
        break;
      case "wait":
        await clock.run(it.ms);
        break;
      case "cut":
        cut(it.requests);
        break;
      case "alarm":
        broker.setAlarm("memory");
        break;
      case "calm":
        broker.setAlarm(undefined);
        break;
      case "withhold":
        broker.withholdConfirms(true);
        break;
    }
    check();
  }
  broker.setAlarm(undefined);
  cut("applied");
  for (let turn = 0; turn < 200 && written.some(({ it }) => it.refusals === undefined); turn++)
    await clock.run(500);
  check();
  for (const { key, ids, it } of written) {
    const refused = it.refusals?.length;
    const delivered = it.outcomes.filter((outcome) => outcome === "delivered").length;
    assert.deepEqual(
      { refused, delivered },
      key === "nowhere" ? { refused: ids.length, delivered: 0 } : { refused: 0, delivered: ids.length },
    );
  }
  const closing = bed.session.close(clock.now() + 1_000);
  await clock.run(2_000);
  await closing;
  assert.equal(broker.connections.size, 0);
  assert.equal(clock.pending, 0);
}

test("a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks", async () => {
  const steps = fc.array(step, { minLength: 1, maxLength: 60, size: "max" });
  await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 40 }), steps, history), propertyRuns());
});
