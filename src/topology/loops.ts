import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import type { Declaration, DeclaredNode, DeclaredSink } from "./declaration.ts";
import { orderGraph } from "./graph.ts";
import type { ProblemList } from "./problem.ts";

/** A source, and the sinks that its messages may reach. */
export interface Flow {
  readonly source: Source;
  readonly sinks: readonly DeclaredSink[];
}

/**
 * Finds loops that close outside of the graph: a topology that writes, straight or through several flows, to
 * what it reads gets every message again, for ever. So it is refused unless its author says that the loop ends.
 */
export function checkLoops(flows: readonly Flow[], declaration: Declaration, problems: ProblemList): void {
  const feeds = ({ sinks }: Flow): Flow[] =>
    flows.filter(({ source }) => sinks.some((sink) => closes(sink, source) !== undefined));
  for (const cycle of orderGraph(flows, feeds).cycles) {
    // A cycle leads from what depends to what it depends on, which is here from the fed flow to its feeder.
    const path = [...cycle].reverse();
    const [last, first] = [path.at(-1)!, path[0]!];
    const sink = last.sinks.find((candidate) => closes(candidate, first.source) !== undefined)!;
    const back = closes(sink, first.source)!;
    const way = [...path.map(({ source }) => source.name), back].join(" → ");
    problems.error(
      "topology-cycle",
      `what is written to "${back}" comes back as input, for ever: ${way}`,
      "write to another target, or give to() the option loop: true if some step ends the loop",
      sink.location,
    );
  }
  for (const { sink, location } of declaration.deadLetters) {
    for (const { source } of flows) {
      const back = sharedTarget(sink, source);
      if (back === undefined) continue;
      problems.error(
        "topology-cycle",
        `dead letters go to "${back}", which the topology reads: a rejected message would come back for ever`,
        "give dead letters a target of their own",
        location,
      );
    }
  }
}

/** The target by which what this sink node writes comes back through the source, if any does. */
function closes({ sink, audit, loop }: DeclaredSink, source: Source): string | undefined {
  if (loop) return undefined;
  for (const written of [sink, audit]) {
    const target = written === undefined ? undefined : sharedTarget(written, source);
    if (target !== undefined) return target;
  }
  return undefined;
}

function sharedTarget(sink: Sink, source: Source): string | undefined {
  if (sink.places !== undefined && source.places !== undefined) {
    const read = source.places;
    const index = sink.places.findIndex((place) => read.includes(place));
    return index < 0 ? undefined : sink.targets[index];
  }
  const [to, from] = [sink.connection, source.connection];
  const known = to.address !== "" && to.connector === from.connector && to.address === from.address;
  if (!(to === from || known) || sink.targetKind !== source.targetKind) return undefined;
  return sink.targets.find((target) => Boolean(target) && source.targets.includes(target));
}

/** The flows of a graph: each source with the sinks after it. */
export function flowsOf(order: readonly DeclaredNode[]): Flow[] {
  const reached = new Map<DeclaredNode, ReadonlySet<Source>>();
  const sinks = new Map<Source, DeclaredSink[]>();
  for (const node of order) {
    const sources = new Set(node.inputs.flatMap((input) => [...(reached.get(input.node) ?? [])]));
    if (node.kind === "source" && node.source !== undefined) {
      sources.add(node.source);
      if (!sinks.has(node.source)) sinks.set(node.source, []);
    }
    reached.set(node, sources);
    if (node.kind === "sink") for (const source of sources) sinks.get(source)!.push(node);
  }
  return [...sinks].map(([source, after]) => ({ source, sinks: after }));
}
