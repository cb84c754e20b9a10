import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { orderGraph } from "./graph.ts";

/** Dependencies of the nodes 0 … n − 1, by node. */
type Graph = readonly (readonly number[])[];

const graphs: fc.Arbitrary<Graph> = fc
  .integer({ min: 0, max: 25 })
  .chain((size) =>
    fc.array(fc.array(fc.nat(Math.max(0, size - 1)), { maxLength: 4 }), { minLength: size, maxLength: size }),
  );
const order = (graph: Graph) => orderGraph([...graph.keys()], (node) => graph[node]!);

/** Whether a node can be reached from itself, found in another way than by the code under test. */
function isCyclic(graph: Graph): boolean {
  const left = new Set(graph.keys());
  for (let removed = true; removed; ) {
    removed = false;
    for (const node of left) {
      if (graph[node]!.some((dependency) => left.has(dependency))) continue;
      left.delete(node);
      removed = true;
    }
  }
  return left.size > 0;
}

test("every node once; each after its dependencies unless they close a cycle; cycles are found when there are any", () => {
  fc.assert(
    fc.property(graphs, (graph) => {
      const { order: nodes, cycles } = order(graph);
      assert.deepEqual([...nodes].sort(byNumber), [...graph.keys()]);
      assert.equal(cycles.length > 0, isCyclic(graph));
      for (const cycle of cycles) {
        cycle.forEach((node, index) => {
          assert.ok(graph[cycle[(index + 1) % cycle.length]!]!.includes(node), "a cycle follows the edges");
        });
      }
      if (cycles.length > 0) return;
      const place = new Map(nodes.map((node, index) => [node, index]));
      graph.forEach((dependencies, node) => {
        for (const dependency of dependencies) assert.ok(place.get(dependency)! < place.get(node)!);
      });
    }),
  );
});

test("nodes given in a sound order stay in it", () => {
  fc.assert(
    fc.property(graphs, (graph) => {
      const sound = graph.map((dependencies, node) => dependencies.filter((dependency) => dependency < node));
      assert.deepEqual(order(sound).order, [...graph.keys()]);
    }),
  );
});

test("a chain of 100,000 given in reverse does not overflow the stack", () => {
  const length = 100_000;
  const { order: nodes, cycles } = orderGraph([...Array(length).keys()], (node) =>
    node + 1 < length ? [node + 1] : [],
  );
  assert.deepEqual([nodes[0], nodes.length, cycles.length], [length - 1, length, 0]);
});

function byNumber(a: number, b: number): number {
  return a - b;
}
