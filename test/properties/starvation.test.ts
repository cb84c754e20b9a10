import assert from "node:assert/strict";
import { test } from "node:test";
import type { Flow, Graph } from "./graph.ts";
import { World } from "./world.ts";

const window = (count: number): Flow => ({
  steps: [],
  end: { kind: "sink", sink: 0, window: { count, within: 600_000, per: "key" } },
});

test("a flow that is starved gets its window open though another flow's is older", async () => {
  const source = { broker: "kafka", credit: 4, chunk: 1 } as const;
  const graph: Graph = {
    sources: [source, source],
    merged: false,
    flows: [window(2), window(2), window(2)],
    sinks: ["kafka", "kafka", "kafka"],
    deadLetters: "kafka",
  };
  const world = new World(graph, 1);
  await world.begin();
  world.feed(0, 1);
  await world.context.clock.run(1_000);
  world.feed(1, 5);
  await world.context.clock.run(10_000);
  const waiting = world.status.sources.map(({ backlog }) => backlog);
  assert.deepEqual(waiting, [0, 0], "nothing waits for credit");
  await world.finish();
});
