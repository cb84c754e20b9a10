/**
 * One lane that stands still, twins, windows by key, calls in the order of the lane and of keys, and a slow sink, all at
 * once. For any such load: the other lanes go on; the lane that stands still is kept within its span and, after a
 * while, within its reserve of credit; batches do not shrink to single messages; and when the stuck call ends,
 * everything arrives.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import {
  type Bytes,
  batch,
  compile,
  decode,
  dedup,
  encode,
  kafka,
  key,
  mapAsync,
  type Operator,
  topology,
} from "../../src/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";

const partitions = 4;
const credit = 80;
const span = 4 * credit;

interface Item {
  readonly id: string;
  readonly key: string;
}

const load = fc.record({
  seed: fc.nat(),
  /** Of a write, ms. */
  latency: fc.integer({ min: 20, max: 300 }),
  /** Longest call that ends, ms. */
  slowest: fc.integer({ min: 0, max: 20 }),
  window: fc.record({
    count: fc.integer({ min: 5, max: 20 }),
    within: fc.integer({ min: 20, max: 100 }),
    per: fc.constantFrom("destination" as const, "key" as const),
  }),
  /** Every so many-th message is a copy of the one before it. */
  twin: fc.integer({ min: 3, max: 9 }),
  /** Where in its lane the message is whose call does not end. */
  stuckAt: fc.nat(50),
});

test("a lane that stands still holds up no other, and keeps within its span; batches stay batches", async () => {
  await fc.assert(
    fc.asyncProperty(load, async ({ seed, latency, slowest, window, twin, stuckAt }) => {
      const { clock, random, work, logger } = testContext(seed);
      const brokers = new RunEmbeddedBrokers();
      const cluster = brokers.of("kafka", "simulated:9092", () => new EmbeddedKafka(clock, { partitions }));
      cluster.faults.latency = latency;
      const sizes: number[] = [];
      const produce = cluster.produce.bind(cluster);
      cluster.produce = (batches) => {
        sizes.push(...batches.map(({ values }) => values.length));
        return produce(batches);
      };
      let goOn = () => {};
      const stuck = new Promise<void>((resolve) => {
        goOn = resolve;
      });
      const connection = kafka({ brokers: "simulated:9092" });
      const { plan, problems } = compile(
        topology("fair", (t) => {
          t.from(
            connection.source({ topics: ["in"], group: "g", credit, chunk: 10, commitInterval: "100ms" }),
          )
            .pipe(
              decode("json") as Operator<Bytes, Item>,
              key((item: Item) => item.key),
              dedup({ id: (item: Item) => item.id }),
              mapAsync(
                async (item: Item) => {
                  if (item.id === "stuck") await stuck;
                  else
                    await new Promise<void>(
                      (resolve) => void clock.after(item.id.length % (slowest + 1), resolve),
                    );
                  return item;
                },
                { concurrency: 16, timeout: 3_600_000 },
              ),
              mapAsync(async (item: Item) => item, { order: "key", concurrency: 8 }),
              encode("json"),
              batch(window),
            )
            .to(connection.sink({ topic: "out" }));
          t.deadLetters(connection.sink({ topic: "dead" }));
        }),
      );
      assert.ok(plan, problems.map(({ message }) => message).join("\n"));
      // Of each partition more than its span, so that what is not read would be seen.
      const each = 600;
      const numberOf = (n: number) => (n % twin === twin - 1 ? n - 1 : n);
      const messages = Array.from({ length: partitions * each }, (_, i) => {
        const partition = i % partitions;
        const n = Math.floor(i / partitions);
        const number = numberOf(n);
        const id = partition === 0 && number === numberOf(stuckAt) ? "stuck" : `${partition}-${number}`;
        return {
          partition,
          key: Buffer.from(`k${i % 28}`),
          value: Buffer.from(JSON.stringify({ id, key: `k${i % 28}` })),
        };
      });
      cluster.feed("in", messages);
      for (const topic of ["out", "dead"]) cluster.feed(topic, []);
      const run = start(plan, { clock, random, work, logger, embedded: brokers });
      const lanes = () =>
        new Map(run.status().sources[0]!.lanes.map((lane) => [Number(lane.name.split("/")[1]), lane]));
      const isDone = () => [1, 2, 3].every((partition) => lanes().get(partition)?.checkpoint === each);
      for (let turn = 0; turn < 600 && !isDone(); turn++) {
        await clock.run(500);
        const { conservation } = run.status().sources[0]!;
        assert.ok(conservation.inFlight <= credit, `${conservation.inFlight} in flight`);
        for (const lane of lanes().values())
          assert.ok(lane.span <= span, `span ${lane.span} of ${lane.name}`);
      }
      assert.ok(isDone(), "the other lanes go on to their end");
      const held = lanes().get(0)!;
      assert.ok(
        held.checkpoint <= stuckAt + 1,
        "the stuck lane's checkpoint stands before the stuck message",
      );
      const written = sizes.reduce((sum, size) => sum + size, 0);
      const mean = written / sizes.length;
      // A window for each of 28 keys shares out 80 messages of credit among so many that few meet in one.
      if (window.per === "destination") assert.ok(mean >= 1.5, `batches of ${mean.toFixed(2)} messages`);
      goOn();
      for (let turn = 0; turn < 600 && lanes().get(0)!.checkpoint < each; turn++) await clock.run(500);
      assert.equal(lanes().get(0)!.checkpoint, each, "and the stuck one, once it may");
      const { conservation } = run.status();
      assert.equal(conservation.delivered + conservation.duplicate, partitions * each);
      run.abort(new Error("the test is over"));
      await clock.run(1_000);
    }),
    propertyRuns(200),
  );
});
