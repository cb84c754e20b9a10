/**
 * For any topology (sources of Kafka and RabbitMQ; every operator, fan-outs, routes and merges between them; sinks of
 * both, audited or not), with any messages (copies of one id, poison, bytes that nobody can decode, messages larger
 * than a topic takes), under any schedule of faults of both brokers, of topics and queues that refuse everything, of
 * offsets without a message and records that retention deletes, of the wall clock set, of the runner killed and
 * started again, and of stops in good order:
 *
 * - at least once: when the faults have stopped, each message is at every sink, by every path, that its content
 *   says, or among the dead letters if a step rejects it; or a message of its id is, where a dedup is on the way
 *   (else `lost-write` if its broker was told that it need not give it again, and `stuck` if not);
 * - no early acknowledgement: at each commit and each ack, all that it covers is settled as above (`early-ack`);
 * - committed offsets never go back, and nobody commits for a partition that he does not hold
 *   (`commit-regression`, `foreign-commit`); no ack names an unknown delivery;
 * - order: until a rebalance or a reconnect of a consumer, messages of one key from one source first arrive by
 *   each path in the order they were fed (`order-inversion`);
 * - no repeats without a reason: while no answer was lost, and nobody crashed or rebalanced, each message is at a
 *   sink as often as its topology makes copies of it, and no more (`duplicate-beyond-bound`);
 * - nothing is where it does not belong, and no good message is dead-lettered (`misclassified`);
 * - accepted = outcomes + in flight, at every step (`conservation`), and within credit and span
 *   (`memory-overrun`);
 * - progress: with the faults over, nothing waits for credit that stands still, and a drain comes to its end
 *   (`stuck`); after it nothing is left, neither messages nor timers nor connections (`leak`).
 *
 * A failure prints the seed, and the smallest topology and schedule that show it.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { propertyRuns } from "../../src/testing/property-runs.ts";
import { type Flow, type Graph, graphOf } from "./graph.ts";
import { Anomaly } from "./history.ts";
import { calmEvent, type Event, event, World } from "./world.ts";

async function history(graph: Graph, seed: number, events: readonly Event[]): Promise<void> {
  const world = new World(graph, seed);
  await world.begin();
  for (const each of events) await world.do(each);
  await world.finish();
}

const graph = graphOf({
  count: fc.integer({ min: 1, max: 20 }),
  within: fc.constantFrom(0, 5, 50, 600_000),
  credit: fc.integer({ min: 4, max: 60 }),
});
const seed = fc.nat();
const schedule = { minLength: 1, maxLength: 60, size: "max" } as const;

test("any topology keeps its promises under any schedule of faults", async () => {
  await fc.assert(fc.asyncProperty(graph, seed, fc.array(event, schedule), history), propertyRuns());
});

test("any topology, stopped and started again, repeats nothing and keeps its order", async () => {
  await fc.assert(fc.asyncProperty(graph, seed, fc.array(calmEvent, schedule), history), propertyRuns());
});

test("every operator, and sources and sinks of both brokers, take part", async () => {
  const operators = readdirSync(new URL("../../src/operators", import.meta.url))
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .map((file) => import(`../../src/operators/${file}`) as Promise<Record<string, { type?: unknown }>>);
  const all = (await Promise.all(operators))
    .flatMap((module) => Object.entries(module))
    .filter(([name]) => name.endsWith("Definition"))
    .map(([, definition]) => String(definition.type));
  const seen = new Set<string>();
  for (const given of fc.sample(graph, { numRuns: 200, seed: 1 })) {
    const world = new World(given, 1);
    for (const node of world.plan.nodes) {
      if (node.kind === "operator") seen.add(node.operator.type);
      else if (node.kind === "source") seen.add(`source of ${node.source.type}`);
      else if (node.kind === "sink") seen.add(`sink of ${node.sink.type}`);
      else seen.add(node.kind);
    }
  }
  const brokers = ["kafka", "rabbitmq"].flatMap((broker) => [`source of ${broker}`, `sink of ${broker}`]);
  assert.deepEqual([...seen].sort(), [...all, ...brokers, "route", "merge"].sort());
});

/**
 * Killed at any moment, a topology that reads Kafka repeats no more than what it had read and not committed: its
 * span, and what was settled since the last commit.
 */
test("what a crash repeats is within what was read and not committed", async () => {
  const readingKafka = graph.map((given) => ({
    ...given,
    sources: given.sources.map((source) => ({ ...source, broker: "kafka" as const })),
  }));
  const crashing = event.filter(({ kind }) => ["feed", "time", "turns", "kill"].includes(kind));
  await fc.assert(
    fc.asyncProperty(readingKafka, seed, fc.array(crashing, schedule), async (given, from, events) => {
      const world = new World(given, from);
      await world.begin();
      await world.context.clock.run(1_000);
      let allowed = 0;
      for (const each of events) {
        if (each.kind === "kill") allowed += world.replay();
        await world.do(each);
        // Until the group has given up the member that is gone: a rebalance has repeats of its own.
        if (each.kind === "kill") await world.context.clock.run(20_000);
      }
      await world.finish();
      for (const [place, excess] of world.history.excess()) {
        const bound = allowed * world.history.mostTimes;
        if (excess > bound)
          throw new Anomaly("duplicate-beyond-bound", `${excess} repeats in ${place}, and at most ${bound}`);
      }
    }),
    propertyRuns(),
  );
});

/** A Kafka source that cannot connect for so many ms beside a RabbitMQ source that can, both to RabbitMQ. */
async function beginWithKafkaAway(ms: number): Promise<World> {
  const flow: Flow = {
    steps: [{ kind: "mapAsync", order: "lane", salt: 35, concurrency: 4, slowest: 400 }],
    end: { kind: "sink", sink: 0, window: undefined, codec: undefined },
  };
  const world = new World(
    {
      sources: [
        { broker: "kafka", credit: 4, chunk: 1 },
        { broker: "rabbitmq", credit: 4, chunk: 1 },
      ],
      merged: false,
      flows: [flow, flow, flow],
      sinks: ["rabbitmq", "rabbitmq", "rabbitmq"],
      deadLetters: "rabbitmq",
      audit: false,
    },
    1,
  );
  world.cluster.faults.cut(ms);
  await world.begin();
  world.feed(0, 20);
  world.feed(1, 20);
  return world;
}

test("a stop while one source is still connecting finishes what the others have taken in", async () => {
  const world = await beginWithKafkaAway(60_000);
  await world.context.clock.run(1_000);
  const { mode, conservation } = world.status;
  assert.deepEqual([mode, conservation.inFlight], ["starting", 4]);
  assert.equal(await world.drain(), "done");
  assert.equal(world.status.conservation.returned, 0);
  await world.begin();
  await world.finish();
  assert.equal(world.history.repeats, 0);
});

test("a source that connects only when the run is told to stop reads nothing", async () => {
  const world = await beginWithKafkaAway(1_000);
  world.broker.setAlarm("memory");
  await world.context.clock.run(500);
  const { mode, conservation } = world.status;
  assert.deepEqual([mode, conservation.inFlight], ["starting", 4]);
  const drained = world.run.drain();
  await world.context.clock.run(10_000);
  world.broker.setAlarm(undefined);
  await world.context.clock.run(10_000);
  assert.deepEqual(await drained, { how: "done" });
  assert.equal(world.status.sources[0]!.conservation.accepted, 0);
  await world.begin();
  await world.finish();
  assert.equal(world.history.repeats, 0);
});
