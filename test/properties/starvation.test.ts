/**
 * Starvation. A flow is starved when no credit is left and all that is in flight is held by windows or waits for
 * what is; then, and only then, the oldest window opens before its time. For any topology whose windows want
 * nearly all the credit there is and would wait for ten minutes, with copies of one id, slow steps, and a sink
 * that stands still for a while:
 *
 * - no deadlock: once the sink goes on, nothing waits for credit for longer than the slowest call (`stuck`);
 * - only when starved: a window is opened early only in a turn that began with some flow without credit, all of
 *   whose messages were held or waiting (where no message is in several parts: those are counted by part);
 * - held and waiting never exceed what is in flight there, and come back to nothing.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { RunStatus } from "../../src/runtime/status.ts";
import { settlePromises } from "../../src/testing/clock.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";
import { type Flow, type Graph, graphOf } from "./graph.ts";
import { World } from "./world.ts";

const tenMinutes = 600_000;
const window = (count: number): Flow => ({
  steps: [],
  end: { kind: "sink", sink: 0, window: { count, within: tenMinutes, per: "key" }, codec: undefined },
});
const source = { broker: "kafka", credit: 4, chunk: 1 } as const;

function graphWith(sources: number, flow: Flow): Graph {
  return {
    sources: Array.from({ length: sources }, () => source),
    merged: false,
    flows: [flow, flow, flow],
    sinks: ["kafka", "kafka", "kafka"],
    deadLetters: "kafka",
    audit: false,
  };
}

const backlogs = (world: World) => world.status.sources.map(({ backlog }) => backlog);
const early = (status: RunStatus) => status.counters.starvation_flushes_total ?? 0;

test("a flow that is starved gets its window open though another flow's is older", async () => {
  const world = new World(graphWith(2, window(2)), 1);
  await world.begin();
  world.feed(0, 1);
  await world.context.clock.run(1_000);
  world.feed(1, 5);
  await world.context.clock.run(10_000);
  assert.deepEqual(backlogs(world), [0, 0], "nothing waits for credit");
  await world.finish();
});

test("the oldest window opens, and the others stay", async () => {
  const world = new World(graphWith(1, window(3)), 1);
  await world.begin();
  for (let fed = 0; fed < 4; fed++) {
    world.feed(0, 1);
    await world.context.clock.run(100);
  }
  world.collect();
  assert.equal(early(world.status), 1);
  assert.equal(world.history.missing(world.history.fed.get("u0")!), undefined, "the first was written");
  for (const uid of ["u1", "u2", "u3"])
    assert.notEqual(world.history.missing(world.history.fed.get(uid)!), undefined, `${uid} waits on`);
  await world.finish();
});

test("a drain opens all windows at once", async () => {
  const world = new World(graphWith(1, window(3)), 1);
  await world.begin();
  world.feed(0, 3);
  await world.context.clock.run(1_000);
  const { clock } = world.context;
  const began = clock.now();
  let ended: number | undefined;
  world.run.drain().then(() => {
    ended = clock.now();
  });
  await clock.run(2_000);
  assert.ok(ended !== undefined && ended - began < 200, `after ${ended! - began} ms`);
});

/** Whether some message of the topology goes on in several parts. */
function parts(flow: Flow): boolean {
  const { end } = flow;
  if (end.kind === "sink") return false;
  if (end.kind === "fanOut" || (end.kind === "rejoin" && end.how === "fanOut")) return true;
  return end.kind === "rejoin" ? parts(end.onward) : end.branches.some(parts);
}

const starving = graphOf({
  count: fc.integer({ min: 2, max: 30 }),
  within: fc.constant(tenMinutes),
  credit: fc.integer({ min: 2, max: 12 }),
});

const feeds = fc.array(
  fc.record({ source: fc.nat(2), count: fc.integer({ min: 1, max: 30 }), twin: fc.constantFrom(0, 1, 2, 4) }),
  { minLength: 1, maxLength: 12 },
);

test("with less credit than its windows want, no topology comes to a stand, and none opens a window without need", async () => {
  await fc.assert(
    fc.asyncProperty(starving, fc.nat(), feeds, fc.nat(3), async (graph, seed, given, stalled) => {
      const world = new World(graph, seed);
      const whole = !graph.flows.some(parts);
      await world.begin();
      await world.do({ kind: "stall", target: stalled });
      const { clock } = world.context;
      /** Turn by turn, so that what a window was opened for can be seen. */
      const turns = async (until: number, wanted: number) => {
        for (let turn = 0; turn < wanted; turn++) {
          const before = world.status;
          if (!clock.step(until)) break;
          await settlePromises();
          const after = world.status;
          for (const { held, waiting, conservation } of after.sources) {
            if (whole) assert.ok(held + waiting <= conservation.inFlight, "held and waiting are in flight");
          }
          if (!whole || early(after) === early(before)) continue;
          const starved = before.sources.some(
            ({ held, waiting, conservation: { inFlight }, backlog, creditMessages }) =>
              inFlight > 0 && held + waiting === inFlight && (backlog > 0 || inFlight >= creditMessages),
          );
          assert.ok(starved, "a window opens before its time, and no flow is starved");
        }
      };
      for (const { source, count, twin } of given) {
        world.feed(source % graph.sources.length, count, twin);
        await turns(clock.now() + 500, 60);
        world.check();
      }
      await world.do({ kind: "release" });
      let ended = -1;
      for (let still = 0; still < 60 && backlogs(world).some((backlog) => backlog > 0); still++) {
        await clock.run(500);
        const { accepted, inFlight } = world.status.conservation;
        if (accepted - inFlight !== ended) still = 0;
        ended = accepted - inFlight;
      }
      assert.deepEqual(
        backlogs(world),
        graph.sources.map(() => 0),
        "nothing waits for credit that stands still",
      );
      await world.finish();
    }),
    propertyRuns(),
  );
});
