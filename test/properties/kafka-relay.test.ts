/**
 * For any schedule of faults between two topics of the simulated Kafka (requests and answers lost, batches
 * refused or left out of an answer, leaders moved, connections cut, members joining and expelled, sessions
 * expired, the runner killed and started again, or stopped in good order):
 *
 * - at least once: when the faults have stopped, every message of the input is in the output;
 * - no early commit: at no time does the group's committed offset exceed what the output holds without a gap;
 * - order: each key's messages arrive in order, repeats apart, while no member is expelled; and where the driver
 *   cannot hold a rebalance back, while nobody rebalances;
 * - a clean stop repeats nothing, nor does a rebalance that waits: without a crash or a lost answer each message
 *   arrives once;
 * - conservation: accepted is the sum of all outcomes and what is in flight, at every step.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Context } from "../../src/component/context.ts";
import type { RebalanceManner } from "../../src/connectors/kafka/drivers/embedded/group.ts";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import { kafka } from "../../src/connectors/kafka/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";
import type { Plan } from "../../src/topology/plan.ts";

const partitions = 2;

type Step =
  | { readonly kind: "feed"; readonly count: number }
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "dropRequest" | "dropResponse"; readonly api: "produce" | "fetch" | "commit" }
  | { readonly kind: "refuse" | "omit" | "moveLeader"; readonly partition: number; readonly applied: boolean }
  | { readonly kind: "cut"; readonly ms: number }
  | { readonly kind: "rebalance" | "expire" | "join" | "leave" | "stall" | "release" | "kill" | "stop" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("feed" as const), count: fc.integer({ min: 1, max: 60 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("time" as const), ms: fc.integer({ min: 0, max: 3_000 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("dropRequest" as const, "dropResponse" as const),
      api: fc.constantFrom("produce" as const, "fetch" as const, "commit" as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("refuse" as const, "omit" as const, "moveLeader" as const),
      partition: fc.nat(partitions - 1),
      applied: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("cut" as const), ms: fc.integer({ min: 1, max: 8_000 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "rebalance" as const,
        "expire" as const,
        "join" as const,
        "leave" as const,
        "stall" as const,
        "release" as const,
        "kill" as const,
        "stop" as const,
      ),
    }),
  },
);

class World {
  readonly context = testContext();
  readonly brokers = new RunEmbeddedBrokers();
  readonly cluster: EmbeddedKafka;
  readonly #manner: RebalanceManner;
  readonly #plan: Plan;
  run: Run | undefined;
  fed = 0;
  repeatsAllowed = false;
  orderHolds = true;
  #leave: (() => void) | undefined;
  #stalledSince: number | undefined;

  constructor(manner: RebalanceManner) {
    this.#manner = manner;
    const connection = kafka({ brokers: "simulated:9092" });
    const source = connection.source({
      topics: ["in"],
      group: "g",
      credit: 50,
      chunk: 7,
      commitInterval: "200ms",
      sessionTimeout: "6s",
    });
    const sink = connection.sink({ topic: "out" });
    this.cluster = this.brokers.of(
      "kafka",
      "simulated:9092",
      () => new EmbeddedKafka(this.context.clock, { partitions, rebalance: manner }),
    );
    this.cluster.faults.latency = 15;
    this.cluster.feed("in", []);
    this.cluster.feed("out", []);
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
    const { clock, random, work, logger } = this.context as Context;
    this.run = start(this.#plan, { clock, random, work, logger, embedded: this.brokers });
    this.run.started.catch(() => {});
    await this.context.clock.run(0);
  }

  async do(step: Step): Promise<void> {
    const { faults } = this.cluster;
    const { clock } = this.context;
    switch (step.kind) {
      case "feed":
        this.cluster.feed(
          "in",
          Array.from({ length: step.count }, () => {
            const id = this.fed++;
            return { key: Buffer.from(`k${id % 5}`), value: Buffer.from(String(id)) };
          }),
        );
        break;
      case "time":
        await clock.run(step.ms);
        break;
      case "dropRequest":
        faults.dropRequest(step.api);
        break;
      case "dropResponse":
        this.repeatsAllowed = true;
        faults.dropResponse(step.api);
        break;
      case "refuse":
        faults.refuse("retry", 1, { topic: "out", partition: step.partition });
        break;
      case "omit":
        if (step.applied) this.repeatsAllowed = true;
        faults.omit(step.applied, 1, { topic: "out", partition: step.partition });
        break;
      case "moveLeader":
        faults.moveLeader(step.applied ? "out" : "in", step.partition, 500);
        break;
      case "cut":
        this.disturbed();
        faults.cut(step.ms);
        break;
      case "rebalance":
        this.rebalanced();
        faults.rebalance("g");
        break;
      case "expire":
        this.disturbed();
        faults.expireSession("g");
        break;
      case "join":
        this.rebalanced();
        this.#leave ??= faults.join("g", ["in"], this.#manner);
        break;
      case "leave":
        this.leave();
        break;
      case "stall":
        this.#stalledSince ??= clock.now();
        faults.stall("out");
        break;
      case "release":
        this.#stalledSince = undefined;
        faults.release();
        break;
      case "kill":
        // Order is kept: the new run reads on from the checkpoint. What came after it is repeated.
        this.repeatsAllowed = true;
        faults.kill();
        await this.begin();
        break;
      case "stop": {
        const run = this.run!;
        const drained = run.drain();
        let result: unknown;
        drained.then((it) => {
          result = it.how;
        });
        for (let turn = 0; turn < 400 && result === undefined; turn++) await clock.run(100);
        assert.ok(result !== undefined, "a drain ends");
        if (result !== "done") this.repeatsAllowed = true;
        await this.begin();
        break;
      }
    }
    // A request that got no answer in time is sent again, and the broker carries out both in the end.
    if (clock.now() - (this.#stalledSince ?? clock.now()) > 20_000) this.repeatsAllowed = true;
    this.check();
  }

  disturbed(): void {
    this.repeatsAllowed = true;
    this.orderHolds = false;
  }

  rebalanced(): void {
    if (this.#manner === "eager") this.disturbed();
  }

  leave(): void {
    if (this.#leave === undefined) return;
    this.rebalanced();
    this.#leave();
    this.#leave = undefined;
  }

  output(): number[] {
    return [...this.cluster.contents("out")].map(({ value }) => Number(value!.toString()));
  }

  check(): void {
    const { accepted, inFlight, ...outcomes } = this.run!.status().conservation;
    assert.equal(
      accepted,
      inFlight + Object.values(outcomes).reduce((sum, count) => sum + count, 0),
      "conservation",
    );
    // A lane that joins others gets its reserve at once, though they may hold all the credit there was.
    const limit = this.#manner === "incremental" ? 75 : 50;
    assert.ok(inFlight >= 0 && inFlight <= limit, `credit: ${inFlight} in flight`);
    const stored = new Set(this.output());
    const perPartition = Map.groupBy(this.cluster.contents("in"), ({ partition }) => partition);
    for (const [partition, committed] of this.cluster.group("g").committed("in")) {
      for (const { position, value } of perPartition.get(partition) ?? []) {
        if (position < committed)
          assert.ok(
            stored.has(Number(value!.toString())),
            `early commit: ${partition}/${position} < ${committed}`,
          );
      }
    }
  }

  async finish(): Promise<void> {
    this.leave();
    this.cluster.faults.release();
    for (let turn = 0; turn < 600 && new Set(this.output()).size < this.fed; turn++)
      await this.context.clock.run(500);
    const output = this.output();
    assert.equal(new Set(output).size, this.fed, "at least once: every message arrives");
    if (!this.repeatsAllowed) assert.equal(output.length, this.fed, "nothing is repeated without a reason");
    if (!this.orderHolds) return;
    for (const own of Map.groupBy(output, (id) => id % 5).values()) {
      let highest = -1;
      const seen = new Set<number>();
      for (const id of own) {
        if (!seen.has(id)) assert.ok(id > highest, `order: ${id} first arrives after ${highest}`);
        seen.add(id);
        highest = Math.max(highest, id);
      }
    }
  }
}

async function relay(manner: RebalanceManner, steps: readonly Step[]): Promise<void> {
  const world = new World(manner);
  await world.begin();
  for (const it of steps) await world.do(it);
  await world.finish();
  world.run!.abort(new Error("the test is over"));
  await world.context.clock.run(10_000);
}

const schedule = { minLength: 1, maxLength: 60, size: "max" } as const;

for (const manner of ["eager", "held", "incremental"] as const) {
  test(`a relay between two topics keeps its promises under any schedule of faults, rebalances ${manner}`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, schedule), (steps) => relay(manner, steps)),
      propertyRuns(),
    );
  });
}

/** Those after which nothing may be repeated and order holds. */
const calm = step.filter(
  (it) =>
    !["dropResponse", "cut", "rebalance", "expire", "join", "leave", "kill"].includes(it.kind) &&
    !(it.kind === "omit" && it.applied),
);

test("stopped and started again, with requests lost and batches refused, it repeats nothing", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(calm, schedule), (steps) => relay("eager", steps)),
    propertyRuns(),
  );
});

/** The same, and rebalances that wait. */
const held = fc.oneof(
  calm,
  fc.record({ kind: fc.constantFrom("rebalance" as const, "join" as const, "leave" as const) }),
);

for (const manner of ["held", "incremental"] as const) {
  test(`rebalances that wait repeat nothing and keep order: ${manner}`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(held, schedule), (steps) => relay(manner, steps)),
      propertyRuns(),
    );
  });
}
