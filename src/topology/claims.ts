import { basename } from "node:path";
import type { Location } from "../component/location.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import type { Declaration } from "./declaration.ts";
import type { ProblemList } from "./problem.ts";

interface Use {
  readonly component: Source | Sink;
  readonly location: Location | undefined;
  readonly declaration: Declaration;
}

/**
 * Finds what a source needs for itself and another source or sink uses as well: two that read standard input share
 * its lines by chance, and two that keep one checkpoint overwrite each other's. So it is with stores: the ids of one
 * dedup mean nothing to another. Topologies of one process count together.
 */
export function checkClaims(declarations: readonly Declaration[], problems: ProblemList): void {
  checkStores(declarations, problems);
  const uses = declarations.flatMap(usesIn);
  const all = [...new Map(uses.map((use) => [use.component, use])).values()];
  const owners = new Map<string, Use>();
  for (const use of all) {
    for (const { place, what, remedy, among } of claimsOf(use.component)) {
      const claimed = among === "topology" ? `${declarations.indexOf(use.declaration)} ${place}` : place;
      const other = owners.get(claimed);
      if (other === undefined) owners.set(claimed, use);
      else {
        const message = `${what} is used by two sources${whereOther(other, use)}`;
        problems.error("topology-conflict", message, remedy, use.location);
      }
    }
  }
  for (const { component, location } of all) {
    for (const place of component.places ?? []) {
      const owner = owners.get(place);
      if (owner === undefined || owner.component === component) continue;
      const { what, remedy } = claimsOf(owner.component).find((claim) => claim.place === place)!;
      const done = component.kind === "source" ? "read" : "written to";
      const message = `${what} of ${owner.component.name} is also ${done} as ${component.name}`;
      problems.error("topology-conflict", message, remedy, location);
    }
  }
}

/** An operator placed twice has one store twice. */
function checkStores(declarations: readonly Declaration[], problems: ProblemList): void {
  const users = new Map<unknown, { readonly location: Location | undefined }>();
  for (const node of declarations.flatMap(({ nodes }) => nodes)) {
    if (node.kind !== "operator" || node.operator.store === undefined) continue;
    const { store } = node.operator;
    const key = store.place ?? store;
    const other = users.get(key);
    if (other === undefined) users.set(key, node);
    else {
      const message = `${store.name} is used by two steps${whereOther(other, node)}`;
      problems.error("topology-conflict", message, "give each a store of its own", node.location);
    }
  }
}

/** The place of the other use, as short as it can be told from this one's. */
function whereOther({ location: other }: Pick<Use, "location">, { location }: Pick<Use, "location">): string {
  if (other === undefined) return "";
  return `, the other one in ${other.file === location?.file ? "line " : `${basename(other.file)}:`}${other.line}`;
}

function usesIn(declaration: Declaration): Use[] {
  const { nodes, deadLetters } = declaration;
  const uses: Use[] = [];
  const add = (component: Source | Sink | undefined, usedAt: Location | undefined) => {
    if (component !== undefined)
      uses.push({ component, location: component.location ?? usedAt, declaration });
  };
  for (const node of nodes) {
    if (node.kind === "source") add(node.source, node.location);
    if (node.kind !== "sink") continue;
    add(node.sink, node.location);
    add(node.audit, node.location);
  }
  for (const { sink, location } of deadLetters) add(sink, location);
  return uses;
}

function claimsOf(component: Source | Sink) {
  return component.kind === "source" ? (component.claims ?? []) : [];
}
