/**
 * For any schedule of faults between two queues of the simulated RabbitMQ (connections cut with requests lost or
 * with answers lost, the broker away, alarms, a full queue that refuses, confirms that never come, the runner
 * killed and started again, or stopped in good order):
 *
 * - at least once: when the faults have stopped, every message of the input is in the output;
 * - no early acknowledgement: what has left the input queue is in the output queue, at every step;
 * - order: while the consumer's connection holds and nothing is refused, messages arrive in order, repeats apart;
 * - a clean stop repeats nothing: where no answer is lost, each message arrives once;
 * - conservation: accepted is the sum of all outcomes and what is in flight, at every step;
 * - no acknowledgement names a delivery that its channel does not know: the broker would close it.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { rabbitmq } from "../../src/connectors/rabbitmq/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { settlePromises } from "../../src/testing/clock.ts";
import { testContext } from "../../src/testing/context.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";
import type { Plan } from "../../src/topology/plan.ts";

const prefetch = 40;

type Step =
  | { readonly kind: "feed"; readonly count: number }
  | { readonly kind: "time"; readonly ms: number }
  | {
      readonly kind: "cut";
      readonly requests: "lost" | "applied";
      readonly role: "consume" | "publish" | undefined;
    }
  | { readonly kind: "away"; readonly ms: number }
  | { readonly kind: "steps"; readonly count: number }
  | {
      readonly kind: "alarm" | "calm" | "withhold" | "confirm" | "consumeOutput" | "kill" | "stop";
    };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("feed" as const), count: fc.integer({ min: 1, max: 60 }) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("time" as const), ms: fc.integer({ min: 0, max: 2_000 }) }),
  },
  {
    // So that faults hit between any two turns of the event loop.
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("steps" as const), count: fc.integer({ min: 1, max: 12 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("cut" as const),
      requests: fc.constantFrom("lost" as const, "applied" as const),
      role: fc.constantFrom("consume" as const, "publish" as const, undefined),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("away" as const), ms: fc.integer({ min: 1, max: 60_000 }) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "alarm" as const,
        "calm" as const,
        "withhold" as const,
        "confirm" as const,
        "consumeOutput" as const,
        "kill" as const,
        "stop" as const,
      ),
    }),
  },
);

class World {
  readonly context = testContext();
  readonly brokers = new RunEmbeddedBrokers();
  readonly broker: EmbeddedRabbitmq;
  readonly #plan: Plan;
  readonly #mayRefuse: boolean;
  run: Run | undefined;
  fed = 0;
  repeatsAllowed = false;
  orderHolds = true;

  constructor(mayRefuse: boolean) {
    this.#mayRefuse = mayRefuse;
    const connection = rabbitmq({
      url: "amqp://simulated",
      queues: { in: {}, out: mayRefuse ? { maxLength: 25, overflow: "reject-publish" } : {} },
    });
    const source = connection.source({ queue: "in", prefetch, chunk: 7 });
    const sink = connection.sink({ queue: "out", unconfirmed: 17 });
    this.broker = connection.embedded({ ...this.context, embedded: this.brokers }) as EmbeddedRabbitmq;
    this.#plan = {
      name: "relay",
      nodes: [
        { kind: "source", name: "in", location: undefined, inputs: [], source },
        { kind: "sink", name: "out", location: undefined, inputs: [{ node: "in" }], sink, audit: undefined },
      ],
      deadLetters: undefined,
      connections: [],
      warnings: [],
    };
  }

  async begin(): Promise<void> {
    const { clock, random, work, logger } = this.context;
    this.run = start(this.#plan, { clock, random, work, logger, embedded: this.brokers });
    this.run.started.catch(() => {});
    await this.context.clock.run(0);
  }

  async do(step: Step): Promise<void> {
    const { broker } = this;
    const { clock } = this.context;
    switch (step.kind) {
      case "feed":
        broker.feed(
          "in",
          Array.from({ length: step.count }, () => ({ value: Buffer.from(String(this.fed++)) })),
        );
        break;
      case "time":
        await clock.run(step.ms);
        break;
      case "steps":
        for (let i = 0; i < step.count; i++) {
          clock.step(clock.now());
          await settlePromises();
        }
        break;
      case "cut":
        this.repeatsAllowed = true;
        if (step.role !== "publish") this.orderHolds = false;
        broker.cut(step.requests, step.role);
        break;
      case "away":
        this.disturbed();
        broker.stop();
        await clock.run(step.ms);
        broker.start();
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
      case "confirm":
        this.confirmAgain();
        break;
      case "consumeOutput":
        if (this.#mayRefuse) broker.purge("out");
        break;
      case "kill":
        this.disturbed();
        broker.cut("lost");
        this.run!.abort(new Error("killed"));
        await clock.run(0);
        await this.begin();
        break;
      case "stop":
        await this.stop();
        break;
    }
    this.check();
  }

  /** What was withheld comes no more: only a new connection makes it good. */
  confirmAgain(): void {
    this.broker.withholdConfirms(false);
    this.repeatsAllowed = true;
    this.broker.cut("applied", "publish");
  }

  async stop(): Promise<void> {
    const { clock } = this.context;
    let how: string | undefined;
    this.run!.drain().then((result) => {
      how = result.how;
    });
    for (let turn = 0; turn < 400 && how === undefined; turn++) await clock.run(100);
    assert.ok(how !== undefined, "a drain ends");
    if (how !== "done") this.disturbed();
    await this.begin();
  }

  disturbed(): void {
    this.repeatsAllowed = true;
    this.orderHolds = false;
  }

  output(): number[] {
    return [...this.broker.contents("out")].map(({ value }) => Number(value!.toString()));
  }

  check(): void {
    const { accepted, inFlight, ...outcomes } = this.run!.status().conservation;
    assert.equal(
      accepted,
      inFlight + Object.values(outcomes).reduce((sum, count) => sum + count, 0),
      "conservation",
    );
    assert.ok(inFlight >= 0 && inFlight <= prefetch, `credit: ${inFlight} in flight`);
    const stored = new Set(this.output());
    const remaining = new Set([...this.broker.remaining("in")].map((content) => Number(content.toString())));
    for (let id = 0; id < this.fed; id++) {
      assert.ok(remaining.has(id) || stored.has(id), `early acknowledgement: ${id} is in neither queue`);
    }
    const told = this.context.logged.filter((line) => line.includes("delivery tag"));
    assert.deepEqual(told, [], "unknown delivery tags");
  }

  async finish(): Promise<void> {
    const { broker } = this;
    broker.setAlarm(undefined);
    this.confirmAgain();
    for (let turn = 0; turn < 600 && new Set(this.output()).size < this.fed; turn++) {
      if (this.#mayRefuse) broker.purge("out");
      await this.context.clock.run(500);
    }
    assert.equal(new Set(this.output()).size, this.fed, "at least once: every message arrives");
    if (this.#mayRefuse) broker.purge("out");
    await this.context.clock.run(30_000);
    assert.deepEqual([...broker.remaining("in")], [], "everything is acknowledged");
  }

  checkCalm(): void {
    const output = this.output();
    if (!this.repeatsAllowed) assert.equal(output.length, new Set(output).size, "nothing is repeated");
    if (!this.orderHolds || this.#mayRefuse) return;
    const first = [...new Set(output)];
    assert.deepEqual(
      first,
      first.toSorted((a, b) => a - b),
      "order",
    );
  }
}

async function relay(mayRefuse: boolean, steps: readonly Step[]): Promise<void> {
  const world = new World(mayRefuse);
  await world.begin();
  for (const it of steps) {
    await world.do(it);
    world.checkCalm();
  }
  await world.finish();
  world.checkCalm();
  world.run!.abort(new Error("the test is over"));
  await world.context.clock.run(40_000);
  assert.equal(world.broker.connections.size, 0, "no connection is left");
  assert.equal(world.context.clock.pending, 0, "no timer is left");
}

const schedule = { minLength: 1, maxLength: 60, size: "max" } as const;

test("a relay between two queues keeps its promises under any schedule of faults", async () => {
  await fc.assert(fc.asyncProperty(fc.boolean(), fc.array(step, schedule), relay), propertyRuns());
});

/** Those after which nothing may be repeated and order holds. */
const calm = step.filter(({ kind }) => !["cut", "away", "withhold", "confirm", "kill"].includes(kind));

test("stopped and started again, under alarms and with a full output, it repeats nothing", async () => {
  await fc.assert(fc.asyncProperty(fc.boolean(), fc.array(calm, schedule), relay), propertyRuns());
});
