import fc from "fast-check";
import { map as each, filter as passing } from "rxjs";
import type { Clock } from "../../src/component/context.ts";
import type { Operator } from "../../src/component/operator.ts";
import type { Sink } from "../../src/component/sink.ts";
import type { Source } from "../../src/component/source.ts";
import { MillraceError } from "../../src/errors.ts";
import {
  batch,
  compile,
  compress,
  decode,
  decompress,
  dedup,
  encode,
  filter,
  headers,
  key,
  map,
  mapAsync,
  merge,
  type Plan,
  reject,
  stage,
  topology,
  validate,
} from "../../src/index.ts";
import type { Codec } from "../../src/message/batch.ts";
import type { Stream } from "../../src/topology/stream.ts";

/** What a message says. Copies of one id differ in `uid` alone. */
export interface Content {
  readonly uid: string;
  readonly id: string;
  readonly key: string;
  /** The branches it came by, written on the way. */
  readonly path: string;
  /** Makes it larger than any Kafka topic of an output takes. */
  readonly pad?: string;
}

export type Step =
  | {
      readonly kind: "filter" | "map" | "reject" | "stage" | "headers" | "validate";
      readonly salt: number;
    }
  | {
      readonly kind: "mapAsync";
      readonly order: "lane" | "key";
      readonly salt: number;
      readonly concurrency: number;
      /** Longest time of a call that goes well, ms. */
      readonly slowest: number;
    }
  | { readonly kind: "dedup"; readonly scope: "lane" | "topology" };

/** A `batch` step before a sink. */
export interface Window {
  readonly count: number;
  /** ms */
  readonly within: number;
  readonly per: "destination" | "key" | "all";
}

export type End =
  | {
      readonly kind: "sink";
      readonly sink: number;
      readonly window: Window | undefined;
      /** Where the sink is Kafka's: elsewhere compressed payloads would have to be read back. */
      readonly codec: Exclude<Codec, "none"> | undefined;
    }
  /** All branches get every message, or each message goes to one of them. */
  | { readonly kind: "fanOut" | "route"; readonly salt: number; readonly branches: readonly Flow[] }
  /** The same, and the branches are merged again. */
  | {
      readonly kind: "rejoin";
      readonly how: "fanOut" | "route";
      readonly salt: number;
      readonly branches: readonly (readonly Step[])[];
      readonly onward: Flow;
    };

export interface Flow {
  readonly steps: readonly Step[];
  readonly end: End;
}

export type Broker = "kafka" | "rabbitmq";

export interface Graph {
  readonly sources: readonly {
    readonly broker: Broker;
    /** Messages in flight: Kafka's credit, RabbitMQ's prefetch. */
    readonly credit: number;
    readonly chunk: number;
  }[];
  /** Where several sources lead: all into the first flow, or each into one of its own. */
  readonly merged: boolean;
  readonly flows: readonly Flow[];
  readonly sinks: readonly Broker[];
  readonly deadLetters: Broker;
  /** Every sink tells of each batch. */
  readonly audit: boolean;
}

const salt = fc.nat(9_999);
const broker = fc.constantFrom<Broker>("kafka", "kafka", "rabbitmq");

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("filter", "map", "reject", "stage", "headers", "validate"),
    salt,
  }),
  fc.record({
    kind: fc.constant("mapAsync" as const),
    order: fc.constantFrom("lane" as const, "key" as const),
    salt,
    concurrency: fc.integer({ min: 1, max: 6 }),
    slowest: fc.constantFrom(0, 20, 400),
  }),
  fc.record({
    kind: fc.constant("dedup" as const),
    scope: fc.constantFrom("lane" as const, "topology" as const),
  }),
);
const steps = fc.array(step, { maxLength: 3 });

/** How many sinks there are to choose from. */
const sinks = 3;

interface Shape {
  readonly count: fc.Arbitrary<number>;
  readonly within: fc.Arbitrary<number>;
  readonly credit: fc.Arbitrary<number>;
}

function flowOf({ count, within }: Shape): fc.Arbitrary<Flow> {
  const window: fc.Arbitrary<Window | undefined> = fc.option(
    fc.record({
      count,
      within,
      per: fc.constantFrom("destination" as const, "key" as const, "all" as const),
    }),
    { nil: undefined, freq: 3 },
  );
  const codec = fc.option(
    fc.constantFrom("gzip" as const, "snappy" as const, "lz4" as const, "zstd" as const),
    {
      nil: undefined,
      freq: 2,
    },
  );
  const { flow } = fc.letrec<{ flow: Flow; end: End }>((tie) => ({
    flow: fc.record({ steps, end: tie("end") }),
    end: fc.oneof(
      { maxDepth: 2, depthSize: "small" },
      fc.record({ kind: fc.constant("sink" as const), sink: fc.nat(sinks - 1), window, codec }),
      fc.record({
        kind: fc.constantFrom("fanOut" as const, "route" as const),
        salt,
        branches: fc.array(tie("flow"), { minLength: 2, maxLength: 3 }),
      }),
      fc.record({
        kind: fc.constant("rejoin" as const),
        how: fc.constantFrom("fanOut" as const, "route" as const),
        salt,
        branches: fc.array(steps, { minLength: 2, maxLength: 3 }),
        onward: tie("flow"),
      }),
    ),
  }));
  return flow;
}

export function graphOf(shape: Shape): fc.Arbitrary<Graph> {
  return fc.record({
    sources: fc.array(fc.record({ broker, credit: shape.credit, chunk: fc.integer({ min: 1, max: 12 }) }), {
      minLength: 1,
      maxLength: 3,
    }),
    merged: fc.boolean(),
    flows: fc.array(flowOf(shape), { minLength: 3, maxLength: 3 }),
    sinks: fc.array(broker, { minLength: sinks, maxLength: sinks }),
    deadLetters: broker,
    audit: fc.boolean(),
  });
}

/** The flow that a source's messages go into. */
export function flowNumber(graph: Graph, source: number): number {
  return graph.merged ? 0 : source;
}

// The graph as a topology.

/** What the nodes are made of. */
export interface Parts {
  readonly clock: Clock;
  source(number: number): Source;
  sink(number: number): Sink;
  readonly deadLetters: Sink;
  readonly audit: Sink;
}

/** How long a call may take, ms. */
const timeout = 2_000;

export function planOf(graph: Graph, parts: Parts): Plan {
  const declared = topology("random", (t) => {
    const credit = Math.min(...graph.sources.map((source) => source.credit));
    const streams = graph.sources.map((_, number) =>
      t.from(parts.source(number)).pipe(
        decompress(),
        decode("json") as Operator<unknown, Content>,
        key((content: Content) => content.key),
        map((content: Content) => ({ ...content, path: String(flowNumber(graph, number)) })),
      ),
    );
    const lead = (stream: Stream<Content>, flow: Flow) => {
      const end = flow.end;
      const before = through(stream, flow.steps, parts.clock);
      if (end.kind === "sink") {
        const encoded = before.pipe(encode("json"));
        const { window } = end;
        const last =
          window === undefined
            ? encoded
            : encoded.pipe(
                batch({
                  count: Math.min(window.count, credit),
                  within: window.within,
                  per: window.per,
                }),
              );
        const compressed =
          end.codec === undefined || graph.sinks[end.sink] !== "kafka"
            ? last
            : last.pipe(compress(end.codec));
        compressed.to(parts.sink(end.sink), {
          name: `sink-${++ends}`,
          ...(graph.audit ? { audit: parts.audit } : {}),
        });
      } else if (end.kind === "rejoin") {
        const branches = parted(before, end.how, end.salt, end.branches.length);
        lead(
          merge(...branches.map((branch, i) => through(branch, end.branches[i]!, parts.clock))),
          end.onward,
        );
      } else {
        parted(before, end.kind, end.salt, end.branches.length).forEach((branch, i) => {
          lead(
            branch.pipe(map((content) => ({ ...content, path: `${content.path}.${i}` }))),
            end.branches[i]!,
          );
        });
      }
    };
    let ends = 0;
    if (graph.merged) lead(streams.length === 1 ? streams[0]! : merge(...streams), graph.flows[0]!);
    else for (const [number, stream] of streams.entries()) lead(stream, graph.flows[number]!);
    t.deadLetters(parts.deadLetters);
  });
  const { plan, problems } = compile(declared);
  if (plan === undefined) throw new Error(problems.map(({ message }) => message).join("\n"));
  return plan;
}

/** Every content follows it. */
const contentSchema = {
  type: "object",
  required: ["uid", "id", "key"],
  properties: { uid: { type: "string" }, id: { type: "string", pattern: "^(?:s\\d+-\\d+)$" } },
} as const;

function through(stream: Stream<Content>, steps: readonly Step[], clock: Clock): Stream<Content> {
  return steps.reduce((before, step) => before.pipe(operatorOf(step, clock)), stream);
}

function parted(
  stream: Stream<Content>,
  how: "fanOut" | "route",
  salt: number,
  count: number,
): Stream<Content>[] {
  if (how === "fanOut") return Array.from({ length: count }, () => stream);
  const predicates = Object.fromEntries(
    Array.from({ length: count }, (_, i) => [
      `b${i}`,
      (content: Content) => branchOf(salt, content, count) === i,
    ]),
  );
  return Object.values(stream.route(predicates) as Record<string, Stream<Content>>);
}

function operatorOf(step: Step, clock: Clock): Operator<Content, Content> {
  switch (step.kind) {
    case "filter":
      return filter((content: Content) => passes(step.salt, content));
    case "map":
      return map((content: Content) => ({ ...content }));
    case "headers":
      return headers({ step: ({ key }: Content) => key, id: undefined });
    case "validate":
      return validate<Content>(contentSchema);
    case "stage":
      return stage<Content, Content>((messages) =>
        messages.pipe(
          passing((message) => {
            if (passes(step.salt, message.value)) return true;
            message.drop();
            return false;
          }),
          each((message) => message.with({ ...message.value })),
        ),
      );
    case "reject":
      return reject((content: Content) => isPoison(step.salt, content), "it is poison");
    case "dedup":
      return dedup({ id: (content: Content) => content.id, scope: step.scope });
    case "mapAsync": {
      const attempts = new Map<string, number>();
      return mapAsync(
        async (content: Content) => {
          const { fate, delay } = callOf(step, content);
          if (delay > 0) await new Promise<void>((resolve) => void clock.after(delay, resolve));
          const attempt = (attempts.get(content.uid) ?? 0) + 1;
          attempts.set(content.uid, attempt);
          if (fate === "fails") throw new MillraceError("rule-broken", "the call refuses it");
          if (fate === "never") return new Promise<Content>(() => {});
          if (fate === "away" && attempt < 3) throw new MillraceError("connection-lost", "the call is away");
          return { ...content };
        },
        { concurrency: step.concurrency, timeout, order: step.order },
      );
    }
  }
}

// What every message decides, from its own content alone.

function chance(salt: number, text: string): number {
  let hash = salt ^ 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

function passes(salt: number, { id }: Content): boolean {
  return chance(salt, id) % 4 !== 0;
}

function branchOf(salt: number, { id }: Content, count: number): number {
  return chance(salt, id) % count;
}

function isPoison(salt: number, { uid }: Content): boolean {
  return chance(salt, uid) % 6 === 0;
}

function callOf(
  { salt, slowest }: { readonly salt: number; readonly slowest: number },
  { uid }: Content,
): { fate: "well" | "fails" | "never" | "away"; delay: number } {
  const n = chance(salt, uid);
  const fate = (["fails", "never", "away"] as const)[(n >>> 8) % 24] ?? "well";
  return { fate, delay: slowest === 0 ? 0 : n % slowest };
}

// The same, by the book.

/** What must become of one message. */
export interface Expected {
  /** The sinks that must hold its id, each with the path it says it came by. */
  readonly at: readonly { readonly sink: number; readonly path: string; readonly ordered: boolean }[];
  /** A step sends it to the dead letters, and no dedup before that step can make it a duplicate. */
  readonly rejected: boolean;
  /**
   * Where steps behind dedups send it to the dead letters, by the dedups on the way, the nearest last. It need not
   * get there if another message of its id came well through the nearest.
   */
  readonly rejectedBehind: readonly (readonly string[])[];
  /** It may be sent to the dead letters. */
  readonly mayBeRejected: boolean;
  /** Most often that one copy of it can arrive at one sink by one path. */
  readonly times: number;
}

/** The dedups that a message has passed, or `unclear` where its parts have passed different ones. */
type Passed = readonly string[] | "unclear";

export function expectedOf(graph: Graph, source: number, content: Content): Expected {
  const at: Expected["at"][number][] = [];
  const rejectedBehind: (readonly string[])[] = [];
  let rejected = false;
  let mayBeRejected = false;
  let most = 1;
  /** Undefined when the message goes no further. */
  const passesAll = (steps: readonly Step[], dedups: Passed, place: string): Passed | undefined => {
    let passed = dedups;
    for (const [i, step] of steps.entries()) {
      const drops = step.kind === "filter" || step.kind === "stage";
      if (drops && !passes(step.salt, content)) return undefined;
      if (step.kind === "dedup" && passed !== "unclear") passed = [...passed, `${place}-${i}`];
      const fate = step.kind === "mapAsync" ? callOf(step, content).fate : "well";
      if (fate === "fails" || fate === "never" || (step.kind === "reject" && isPoison(step.salt, content))) {
        isRejected(passed);
        return undefined;
      }
    }
    return passed;
  };
  const isRejected = (passed: Passed) => {
    mayBeRejected = true;
    if (passed.length === 0) rejected = true;
    else if (passed !== "unclear") rejectedBehind.push(passed);
  };
  const follow = (
    flow: Flow,
    place: string,
    path: string,
    ordered: boolean,
    times: number,
    dedups: Passed,
  ) => {
    const passed = passesAll(flow.steps, dedups, place);
    if (passed === undefined) return;
    const { end } = flow;
    if (end.kind === "sink") {
      if (content.pad !== undefined && graph.sinks[end.sink] === "kafka") return isRejected(passed);
      at.push({ sink: end.sink, path, ordered });
      most = Math.max(most, times);
    } else if (end.kind === "rejoin") {
      const parts = takenOf(end.how, end.salt, content, end.branches.length)
        .map((i) => passesAll(end.branches[i]!, passed, `${place}.${i}`))
        .filter((part) => part !== undefined);
      if (parts.length === 0) return;
      const alike = parts.every((part) => String(part) === String(parts[0]));
      follow(end.onward, `${place}+`, path, false, times * parts.length, alike ? parts[0]! : "unclear");
    } else {
      for (const i of takenOf(end.kind, end.salt, content, end.branches.length))
        follow(end.branches[i]!, `${place}.${i}`, `${path}.${i}`, ordered, times, passed);
    }
  };
  const number = flowNumber(graph, source);
  follow(graph.flows[number]!, String(number), String(number), true, 1, []);
  return { at, rejected, rejectedBehind, mayBeRejected, times: most };
}

function takenOf(how: "fanOut" | "route", salt: number, content: Content, count: number): number[] {
  return how === "route" ? [branchOf(salt, content, count)] : Array.from({ length: count }, (_, i) => i);
}
