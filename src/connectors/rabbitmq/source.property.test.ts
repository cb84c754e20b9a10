/**
 * For any order of settling, any losses of the connection and any moment of stopping:
 *
 * - nothing is acknowledged that is not settled;
 * - no acknowledgement names a delivery that its channel does not know, or knew;
 * - what is settled is acknowledged within 100 ms, whatever stays unsettled before it;
 * - at most `prefetch` messages are in flight, and what a lost channel held comes again;
 * - in the end everything has been handed on, and nothing is left in the queue.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { settlePromises } from "../../testing/clock.ts";
import { testContext } from "../../testing/context.ts";
import { propertyRuns } from "../../testing/property-runs.ts";
import { SourceBed } from "../../testing/session-bed.ts";
import type { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { rabbitmq } from "./index.ts";

type Step =
  | { readonly kind: "feed" | "turns"; readonly count: number }
  | { readonly kind: "settle"; readonly at: number; readonly count: number }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "cut"; readonly requests: "lost" | "applied" }
  | { readonly kind: "recover" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("feed" as const), count: fc.integer({ min: 1, max: 30 }) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("settle" as const),
      at: fc.nat(100),
      count: fc.integer({ min: 1, max: 10 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("turns" as const), count: fc.integer({ min: 1, max: 4 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 150 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("cut" as const),
      requests: fc.constantFrom("lost" as const, "applied" as const),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "recover" as const }) },
);

async function history(prefetch: number, steps: readonly Step[]): Promise<void> {
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  const { clock } = context;
  const connection = rabbitmq({ url: "amqp://simulated", queues: { jobs: {} } });
  const source = connection.source({ queue: "jobs", prefetch, chunk: 5 });
  const broker = connection.embedded(context) as EmbeddedRabbitmq;
  const bed = new SourceBed(context, source.credit);
  const opening = source.open(bed.context);
  await clock.run(5);
  const session = await opening;
  const settled = new Set<string>();
  let fed = 0;

  const remaining = () => new Set([...broker.remaining("jobs")].map(String));
  const check = () => {
    const left = remaining();
    for (let id = 0; id < fed; id++) {
      assert.ok(left.has(String(id)) || settled.has(String(id)), `${id} was acknowledged and is not settled`);
    }
    assert.ok(bed.intake.credit.inFlight <= prefetch, `${bed.intake.credit.inFlight} in flight`);
    assert.deepEqual(
      context.logged.filter((line) => line.includes("delivery tag")),
      [],
    );
  };
  const settle = (at: number, count: number) => {
    if (bed.open.length === 0) return;
    // Stale ones too: what an ended lane left does nothing.
    const from = at % bed.open.length;
    const alive = bed.open.slice(from, from + count).filter(({ chunk }) => !chunk.lane.ended);
    for (const { payload } of alive) settled.add(payload!);
    bed.settle(from, count);
  };

  for (const it of steps) {
    switch (it.kind) {
      case "feed":
        broker.feed(
          "jobs",
          Array.from({ length: it.count }, () => ({ value: Buffer.from(String(fed++)) })),
        );
        break;
      case "settle":
        settle(it.at, it.count);
        break;
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
        broker.cut(it.requests);
        break;
      case "recover":
        await clock.run(2_000);
        // What is settled has been acknowledged; only what is in flight and unread is left.
        if (session.status().ready) {
          const open = new Set(
            bed.open.filter(({ chunk }) => !chunk.lane.ended).map(({ payload }) => payload),
          );
          const seen = new Set(bed.payloads);
          for (const id of remaining())
            assert.ok(open.has(id) || !seen.has(id), `${id} is settled and not acknowledged`);
        }
        break;
    }
    check();
  }
  for (let round = 0; round < 400 && remaining().size > 0; round++) {
    await clock.run(500);
    settle(0, Number.POSITIVE_INFINITY);
  }
  assert.equal(remaining().size, 0, "everything is acknowledged in the end");
  assert.equal(new Set(bed.payloads).size, fed, "everything was handed on");
  session.stopIntake();
  const closing = session.commit().then(() => session.close(clock.now() + 1_000));
  await clock.run(2_000);
  await closing;
  assert.equal(broker.connections.size, 0);
  assert.equal(clock.pending, 0);
}

test("a source acknowledges what is settled and nothing else, whatever happens in whatever order", async () => {
  const steps = fc.array(step, { minLength: 1, maxLength: 80, size: "max" });
  await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 40 }), steps, history), propertyRuns());
});
