import type { DeclaredNode } from "./declaration.ts";
import type { ProblemList } from "./problem.ts";

/**
 * The names of a topology's nodes: the author's; else a source's or sink's own; else the verb with a number, counted
 * for each verb in the order of declaration, so that one more `dedup` further down renames nothing.
 */
export function nameNodes(
  nodes: readonly DeclaredNode[],
  problems: ProblemList,
): ReadonlyMap<DeclaredNode, string> {
  const names = new Map<DeclaredNode, string>();
  const owners = new Map<string, DeclaredNode>();
  for (const node of nodes) {
    if (node.given === undefined) continue;
    const { name, location } = node.given;
    const owner = owners.get(name);
    if (owner !== undefined) {
      const line = owner.given?.location?.line;
      problems.error(
        "topology-duplicate-name",
        `two steps are named "${name}"${line === undefined ? "" : `, the other one in line ${line}`}`,
        "give each a name of its own",
        location,
      );
    }
    owners.set(name, node);
    names.set(node, name);
  }
  const counts = new Map<string, number>();
  for (const node of nodes) {
    if (names.has(node)) continue;
    const plain = plainName(node);
    const numbered = node.kind !== "source" && node.kind !== "sink";
    let count = (counts.get(plain) ?? 0) + 1;
    const candidate = () => (count === 1 && !numbered ? plain : `${plain}-${count}`);
    while (owners.has(candidate())) count++;
    counts.set(plain, count);
    owners.set(candidate(), node);
    names.set(node, candidate());
  }
  return names;
}

function plainName(node: DeclaredNode): string {
  switch (node.kind) {
    case "source":
      return node.source?.name || "source";
    case "sink":
      return node.sink?.name || "sink";
    case "operator":
      return node.operator.type;
    case "route":
      return node.router.type;
    case "merge":
      return "merge";
  }
}
