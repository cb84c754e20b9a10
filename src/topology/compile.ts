import { basename } from "node:path";
import type { Connection, Requirement } from "../component/connection.ts";
import type { Location } from "../component/location.ts";
import type { OptionProblem } from "../component/options.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import { checkClaims } from "./claims.ts";
import type { Declaration, DeclaredNode } from "./declaration.ts";
import { orderGraph } from "./graph.ts";
import { checkLoops, flowsOf } from "./loops.ts";
import { nameNodes } from "./names.ts";
import { checkPaths } from "./paths.ts";
import type { Plan, PlanInput, PlanNode } from "./plan.ts";
import { type Problem, ProblemList } from "./problem.ts";
import { Topology } from "./topology.ts";

/** What became of a topology. */
export interface Compilation {
  /** Undefined when there is an error among the problems. */
  readonly plan: Plan | undefined;
  /** Every mistake and warning, by file and line. */
  readonly problems: readonly Problem[];
}

/** What became of several topologies that are to run together. */
export interface CompilationOfAll {
  /** In the order given; undefined when there is an error among the problems. */
  readonly plans: readonly Plan[] | undefined;
  readonly problems: readonly Problem[];
}

/**
 * Checks a topology and makes the plan that a run follows. Opens nothing, throws nothing, and reports every
 * mistake at once, each with its place in the file and what to do.
 */
export function compile(topology: Topology): Compilation {
  const declaration = Topology.declarationOf(topology);
  const problems = new ProblemList(declaration.problems);
  const { nodes } = declaration;
  checkComponents(declaration, problems);
  const names = nameNodes(nodes, problems);
  const { order, cycles } = orderGraph(nodes, (node) => node.inputs.map((input) => input.node));
  for (const cycle of cycles) {
    const start = Math.max(
      0,
      cycle.findIndex(({ kind }) => kind === "merge"),
    );
    const way = [...cycle.slice(start), ...cycle.slice(0, start + 1)].map((node) => names.get(node)!);
    problems.error(
      "topology-cycle",
      `messages would go in a circle: ${way.join(" → ")}`,
      "lead one of these streams elsewhere",
      cycle[start]!.location,
    );
  }
  if (!declaration.broken) {
    checkShape(topology, declaration, names, problems);
    checkPaths(order, names, problems);
    checkLoops(flowsOf(order), declaration, problems);
    checkClaims([declaration], problems);
  }
  const sorted = problems.sorted;
  return { plan: problems.failed ? undefined : makePlan(topology, order, names, sorted), problems: sorted };
}

/**
 * Compiles topologies that are to run together.
 *
 * @param found problems found before, as by loading their files; reported with the others
 */
export function compileAll(
  topologies: readonly Topology[],
  found: readonly Problem[] = [],
): CompilationOfAll {
  const problems = new ProblemList(found);
  const named = new Map<string, Topology>();
  const plans: Plan[] = [];
  for (const topology of topologies) {
    const other = named.get(topology.name);
    if (other !== undefined) {
      const place = other.location === undefined ? "" : `, the other one in ${shortPlace(other.location)}`;
      problems.error(
        "topology-duplicate-name",
        `two topologies are named "${topology.name}"${place}`,
        "give each a name of its own",
        topology.location,
      );
    }
    named.set(topology.name, topology);
    const compilation = compile(topology);
    problems.addAll(compilation.problems);
    if (compilation.plan !== undefined) plans.push(compilation.plan);
  }
  // What one topology found by itself is found again, and is the same problem.
  checkClaims(topologies.map(Topology.declarationOf), problems);
  return { plans: problems.failed ? undefined : Object.freeze(plans), problems: problems.sorted };
}

/** The mistakes in options, each component's and each connection's once. */
function checkComponents(declaration: Declaration, problems: ProblemList): void {
  const components = new Set<unknown>();
  const connections = new Set<Connection>();
  const check = (component: Source | Sink | undefined, usedAt: Location | undefined) => {
    if (component === undefined || components.has(component)) return;
    components.add(component);
    const { connection } = component;
    const shared = connection.problems ?? [];
    const location = component.location ?? usedAt;
    problems.options(without(component.problems, shared), location);
    if (connections.has(connection)) return;
    connections.add(connection);
    problems.options(shared, connection.location ?? location);
  };
  for (const node of declaration.nodes) {
    if (node.kind === "source") {
      if (node.source !== undefined && components.has(node.source)) {
        problems.error(
          "topology-duplicate-name",
          `the source "${node.source.name}" is read twice`,
          "keep the stream of the first t.from() and use that twice: every use gets every message",
          node.location,
        );
      }
      check(node.source, node.location);
    } else if (node.kind === "sink") {
      check(node.sink, node.location);
      check(node.audit, node.location);
    } else if (node.kind !== "merge") {
      const step = node.kind === "route" ? node.router : node.operator;
      if (components.has(step)) continue;
      components.add(step);
      problems.options(step.problems, node.location);
    }
  }
  for (const { sink, location } of declaration.deadLetters) check(sink, location);
}

function without(
  problems: readonly OptionProblem[],
  others: readonly OptionProblem[],
): readonly OptionProblem[] {
  return problems.filter((problem) => !others.some(({ message }) => message === problem.message));
}

/** What is missing of the graph, or there twice. */
function checkShape(
  topology: Topology,
  declaration: Declaration,
  names: ReadonlyMap<DeclaredNode, string>,
  problems: ProblemList,
): void {
  const { nodes, deadLetters } = declaration;
  if (nodes.length === 0) {
    problems.error(
      "topology-empty",
      `the topology "${topology.name}" has no flow`,
      "lead a source to a sink: t.from(source).pipe(…).to(sink)",
      topology.location,
    );
  }
  const used = new Map<DeclaredNode, Set<string | undefined>>();
  for (const { node, branch } of nodes.flatMap(({ inputs }) => inputs)) {
    used.set(node, (used.get(node) ?? new Set()).add(branch));
  }
  for (const node of nodes) {
    if (node.kind === "sink") continue;
    const outlets = node.kind === "route" ? node.router.branches : [undefined];
    for (const branch of outlets) {
      if (used.get(node)?.has(branch)) continue;
      const what = branch === undefined ? names.get(node)! : `the branch "${branch}" of ${names.get(node)!}`;
      problems.error(
        "topology-dangling",
        `what comes out of ${what} leads nowhere`,
        "lead it to a sink with .to(…), or remove it",
        node.location,
      );
    }
  }
  for (const node of nodes) {
    if (node.kind !== "merge" || node.used) continue;
    problems.error(
      "option-missing",
      "merge() was given no stream",
      "give the streams to merge, or add them with .add(…)",
      node.location,
    );
  }
  for (const { location } of deadLetters.slice(1)) {
    problems.error(
      "topology-duplicate-name",
      `the topology "${topology.name}" has dead letters already`,
      "call t.deadLetters() once",
      location,
    );
  }
  const rejecting = nodes.filter(
    (node) =>
      (node.kind === "operator" && node.operator.rejects) || (node.kind === "route" && node.router.rejects),
  );
  if (deadLetters.length === 0 && rejecting.length > 0) {
    problems.warn(
      "dead-letters-missing",
      `${rejecting.map((node) => names.get(node)!).join(", ")} may reject messages, and there are no dead letters: the first rejected message stops the run`,
      "add t.deadLetters(sink)",
      rejecting[0]!.location,
    );
  }
}

function makePlan(
  topology: Topology,
  order: readonly DeclaredNode[],
  names: ReadonlyMap<DeclaredNode, string>,
  problems: readonly Problem[],
): Plan {
  const [deadLetters] = Topology.declarationOf(topology).deadLetters;
  const nodes = order.map((node) => planNode(node, names));
  return Object.freeze({
    name: topology.name,
    nodes: Object.freeze(nodes),
    deadLetters: deadLetters === undefined ? undefined : Object.freeze({ ...deadLetters }),
    connections: connectionsOf(nodes, deadLetters),
    warnings: Object.freeze([...problems]),
  });
}

function planNode(node: DeclaredNode, names: ReadonlyMap<DeclaredNode, string>): PlanNode {
  const inputs = node.inputs.map(
    ({ node: from, branch }): PlanInput =>
      Object.freeze({ node: names.get(from)!, ...(branch === undefined ? {} : { branch }) }),
  );
  const base = { name: names.get(node)!, location: node.location, inputs: Object.freeze(inputs) };
  switch (node.kind) {
    case "source":
      return Object.freeze({ ...base, kind: node.kind, source: node.source! });
    case "operator":
      return Object.freeze({ ...base, kind: node.kind, operator: node.operator });
    case "route":
      return Object.freeze({ ...base, kind: node.kind, router: node.router });
    case "merge":
      return Object.freeze({ ...base, kind: node.kind });
    case "sink":
      return Object.freeze({
        ...base,
        kind: node.kind,
        sink: node.sink!,
        audit: node.audit,
        stopAtFirst: node.stopAtFirst,
      });
  }
}

/** Each connection in the order of its first use, with each target that must be there, once for reading and once for writing. */
function connectionsOf(nodes: readonly PlanNode[], deadLetters: Plan["deadLetters"]): Plan["connections"] {
  const connections = new Map<Connection, Map<string, Requirement>>();
  const need = (
    role: Requirement["role"],
    component: Source | Sink | undefined,
    usedAt: Location | undefined,
  ) => {
    if (component === undefined) return;
    const requirements = connections.get(component.connection) ?? new Map<string, Requirement>();
    connections.set(component.connection, requirements);
    const kind = component.targetKind ?? "target";
    const location = component.location ?? usedAt;
    const at = location === undefined ? "" : shortPlace(location);
    for (const name of component.targets) {
      const key = JSON.stringify([kind, name, role]);
      if (!requirements.has(key)) requirements.set(key, Object.freeze({ kind, name, role, at }));
    }
  };
  for (const node of nodes) {
    if (node.kind === "source") need("source", node.source, node.location);
    if (node.kind !== "sink") continue;
    need("sink", node.sink, node.location);
    need("sink", node.audit, node.location);
  }
  need("sink", deadLetters?.sink, deadLetters?.location);
  return Object.freeze(
    [...connections].map(([connection, requirements]) =>
      Object.freeze({ connection, requirements: Object.freeze([...requirements.values()]) }),
    ),
  );
}

function shortPlace({ file, line }: Location): string {
  return `${basename(file)}:${line}`;
}
