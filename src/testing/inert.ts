import { EMPTY } from "rxjs";
import type { Connection } from "../component/connection.ts";
import { callerLocation } from "../component/location.ts";
import type { Operator, Router } from "../component/operator.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import type { Predicates, Verbs } from "../topology/declaration.ts";
import { topologyWith } from "../topology/topology.ts";

/** A connection for graphs that are declared, compiled and drawn, and never run. */
export function inertConnection(overrides: Partial<Connection> = {}): Connection {
  return {
    connector: "inert",
    address: "nowhere",
    embedded: () => undefined,
    verify: async () => [],
    create: async () => [],
    ...overrides,
  };
}

const shared = inertConnection();

export function inertSource(target: string, overrides: Partial<Source> = {}): Source {
  return {
    kind: "source",
    type: "inert",
    name: target,
    connection: shared,
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: true, order: "lane" },
    problems: [],
    location: callerLocation(),
    targets: [target],
    targetKind: "topic",
    credit: { messages: 1_000, bytes: 2 ** 20, span: 4_000, chunk: 100 },
    open: never,
    ...overrides,
  };
}

export function inertSink(target: string, overrides: Partial<Sink> = {}): Sink {
  return {
    kind: "sink",
    type: "inert",
    name: target,
    connection: shared,
    capabilities: { order: "always", batches: true },
    problems: [],
    location: callerLocation(),
    targets: [target],
    targetKind: "topic",
    open: never,
    ...overrides,
  };
}

/** An operator that takes and leaves anything unless told otherwise, and lets nothing through. */
export function inertStep<T>(type: string, overrides: Partial<Operator<T, T>> = {}): Operator<T, T> {
  return {
    kind: "operator",
    type,
    options: {},
    location: callerLocation(),
    problems: [],
    effect: { takes: "any", leaves: "same" },
    rejects: false,
    build: () => () => EMPTY,
    ...overrides,
  };
}

/** A router whose branches are those named, and that lets nothing through. */
function inertRouter(branches: Predicates<never>, options: { readonly otherwise?: string }): Router {
  return {
    type: "route",
    branches: [...Object.keys(branches), ...(options.otherwise === undefined ? [] : [options.otherwise])],
    options: {},
    location: callerLocation(),
    problems: [],
    rejects: options.otherwise === undefined,
    build: () => () => [],
  };
}

const verbs: Verbs = { route: inertRouter };

/** `topology`, with inert routes. */
export const inertTopology = topologyWith(verbs);

function never(): Promise<never> {
  return Promise.reject(new Error("an inert component cannot be opened"));
}
