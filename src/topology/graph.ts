/** Nodes in an order in which each comes after all it depends on, and the cycles that leave no such order. */
export interface Ordering<N> {
  /** All nodes; dependencies first but for those that close a cycle. */
  readonly order: readonly N[];
  /** Each as the nodes on it, in the direction from dependency to dependent. */
  readonly cycles: readonly (readonly N[])[];
}

/**
 * Orders a graph. Nodes that could stand in either order stay in the order given, so the result is stable. The
 * stack is its own, so that a long chain given in reverse is no danger.
 */
export function orderGraph<N>(nodes: readonly N[], dependenciesOf: (node: N) => readonly N[]): Ordering<N> {
  const order: N[] = [];
  const cycles: N[][] = [];
  const state = new Map<N, "open" | "done">();
  for (const root of nodes) {
    if (state.has(root)) continue;
    state.set(root, "open");
    const path = [{ node: root, dependencies: dependenciesOf(root), next: 0 }];
    while (path.length > 0) {
      const top = path.at(-1)!;
      const dependency = top.dependencies[top.next++];
      if (dependency === undefined) {
        state.set(top.node, "done");
        order.push(top.node);
        path.pop();
      } else if (state.get(dependency) === "open") {
        const start = path.findIndex(({ node }) => node === dependency);
        cycles.push(
          path
            .slice(start)
            .map(({ node }) => node)
            .reverse(),
        );
      } else if (!state.has(dependency)) {
        state.set(dependency, "open");
        path.push({ node: dependency, dependencies: dependenciesOf(dependency), next: 0 });
      }
    }
  }
  return { order, cycles };
}
