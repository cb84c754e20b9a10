import type { Connection } from "../component/connection.ts";
import { stdout } from "../connectors/file/index.ts";
import type { Message } from "../message/chunk.ts";
import { encode } from "../operators/encode.ts";
import { map } from "../operators/map.ts";
import { route } from "../operators/route.ts";
import { compile } from "../topology/compile.ts";
import type { Plan } from "../topology/plan.ts";
import { topologyWith } from "../topology/topology.ts";
import { recordForm } from "./dump.ts";
import { type ExitCode, UsageError } from "./exit-code.ts";
import { loadTopologies } from "./loading.ts";
import type { LogLevel } from "./logger.ts";
import { runCommand } from "./run-command.ts";

export interface TapOptions {
  readonly group: string;
  /** Undefined where the topology reads only one. */
  readonly topic: string | undefined;
  readonly untilIdle: boolean;
  readonly logLevel: LogLevel;
}

/**
 * `millrace tap`: one topic of a topology on standard output, read under a consumer group of its own, so that the
 * flow beside it goes on untouched. It is a run like any other: of a topology from that topic to standard output.
 */
export function tapCommand(
  file: string,
  { group, topic, untilIdle, logLevel }: TapOptions,
): Promise<ExitCode> {
  const options = {
    embedded: false,
    feed: [],
    dump: undefined,
    untilIdle,
    create: false,
    http: undefined,
    drain: 10_000,
    json: false,
    logLevel,
    workers: 1,
    worker: undefined,
  };
  return runCommand([file], options, async (files, stopping) => {
    const { plans, problems } = await loadTopologies(files, stopping);
    if (plans === undefined) return { plans, problems };
    const { plan, problems: ownProblems } = compile(tapOf(plans, group, topic));
    return { plans: plan === undefined ? undefined : [plan], problems: ownProblems };
  });
}

/** A topic or queue that a topology reads or writes. */
interface Target {
  readonly name: string;
  readonly kind: string;
  readonly connection: Connection;
  readonly isRead: boolean;
}

function tapOf(plans: readonly Plan[], group: string, topic: string | undefined) {
  const target = targetToTap(targetsOf(plans), topic);
  const source = target.connection.tap?.(target.name, group);
  if (source === undefined) {
    throw new UsageError(
      `${target.kind} "${target.name}" gives each message to one consumer only: a tap would take them away; ` +
        "bind a queue of your own to the exchange that feeds it, and read that one",
    );
  }
  const taken = new Set(
    plans
      .flatMap(({ nodes }) =>
        nodes.flatMap((node) => (node.kind === "source" ? (node.source.claims ?? []) : [])),
      )
      .map(({ place }) => place),
  );
  if (source.claims?.some(({ place }) => taken.has(place))) {
    throw new UsageError(
      `--group ${group}: the topology reads "${target.name}" with this group, and the tap would take part of its ` +
        "messages; give a name of your own",
    );
  }
  return topologyWith({ route })("tap", (t) => {
    t.from(source).pipe(map(lineOf), encode("text")).to(stdout());
  });
}

function lineOf(value: Buffer | null, { key, headers, timestamp, origin }: Message<Buffer | null>): string {
  const { partition = 0, position } = origin;
  return recordForm({ partition, position, key, value, headers, timestamp });
}

/** Every target once, those that are read first. */
function targetsOf(plans: readonly Plan[]): readonly Target[] {
  const targets: Target[] = [];
  const add = (
    {
      targets: names,
      targetKind = "target",
      connection,
    }: Pick<Connected, "targets" | "targetKind" | "connection">,
    isRead: boolean,
  ) => {
    for (const name of names) {
      const known = targets.some((target) => target.name === name && target.connection === connection);
      if (!known) targets.push({ name, kind: targetKind, connection, isRead });
    }
  };
  const nodes = plans.flatMap((plan) => plan.nodes);
  for (const node of nodes) if (node.kind === "source") add(node.source, true);
  for (const node of nodes) {
    if (node.kind !== "sink") continue;
    add(node.sink, false);
    if (node.audit !== undefined) add(node.audit, false);
  }
  for (const { deadLetters } of plans) if (deadLetters !== undefined) add(deadLetters.sink, false);
  return targets;
}

interface Connected {
  readonly targets: readonly string[];
  readonly targetKind?: string;
  readonly connection: Connection;
}

function targetToTap(targets: readonly Target[], topic: string | undefined): Target {
  const tappable = targets.filter(({ connection }) => connection.tap !== undefined);
  const choice =
    tappable.length === 0 ? "it has no topic" : `it has ${tappable.map(({ name }) => name).join(", ")}`;
  if (topic !== undefined) {
    const found = targets.find(({ name }) => name === topic);
    if (found === undefined)
      throw new UsageError(`--topic ${topic}: the topology does not name it; ${choice}`);
    return found;
  }
  const read = targets.filter(({ isRead }) => isRead);
  if (read.length !== 1) {
    throw new UsageError(`--topic is needed, since the topology reads ${read.length} targets; ${choice}`);
  }
  return read[0]!;
}
