import { callerLocation, type Location } from "../component/location.ts";
import type { Operator } from "../component/operator.ts";
import { type OptionsSchema, optionProblems } from "../component/options.ts";
import type { Sink } from "../component/sink.ts";
import type { Message } from "../message/chunk.ts";
import {
  Declaration,
  type DeclaredMerge,
  type DeclaredNode,
  describeGiven,
  type Outlet,
  type Predicates,
} from "./declaration.ts";

export interface SinkOptions {
  /** A name for the sink in drawings, logs and status. @default the topic, queue or file it writes to */
  readonly name?: string;
  /**
   * Another sink that gets an event for every batch written, as JSON: where it was written to and at which offsets, how
   * many messages succeeded and failed, and why (`AuditEvent`). A batch is acknowledged upstream after its event is.
   */
  readonly audit?: Sink;
  /**
   * Allows a sink that writes to what the topology reads, which is otherwise refused as an endless loop: some
   * step lets each message pass only so many times.
   * @default false
   */
  readonly loop?: boolean;
  /**
   * What happens to the messages behind one that fails, in the same Kafka partition or queue. `goOn`: they are
   * written meanwhile. `stopAtFirst`: none is written before it is settled, that is, before its dead letter is
   * acknowledged; without dead letters the run ends there, with all before it acknowledged and nothing after it
   * written. It costs speed: each partition or queue has one message at a time on its way to the sink. So it goes
   * with no `batch`, nor with `order: "key"`; and its messages must come by one way, to this sink alone.
   * @default "goOn"
   */
  readonly onFailure?: "goOn" | "stopAtFirst";
}

const sinkOptionsSchema: OptionsSchema = {
  type: "object",
  additionalProperties: false,
  properties: {
    name: {},
    audit: {},
    loop: { type: "boolean" },
    onFailure: { enum: ["goOn", "stopAtFirst"] },
  },
};

const routeOptionsSchema: OptionsSchema = {
  type: "object",
  additionalProperties: false,
  properties: { otherwise: { type: "string" } },
};

export interface RouteOptions<Otherwise extends string = string> {
  /** Name of one more branch, for the messages that no other one takes. Without it such a message is rejected. */
  readonly otherwise?: Otherwise;
}

type Guard<T, Narrowed extends T> = (value: T, message: Message<T>) => value is Narrowed;

/** The streams that a route makes, by name. A test that narrows its value's type narrows the branch's. */
export type Branches<T, P, Otherwise extends string> = {
  readonly [Name in keyof P]: Stream<P[Name] extends Guard<T, infer Narrowed> ? Narrowed : T>;
} & { readonly [Name in Otherwise]: Stream<T> };

/** The value type of whichever of several streams. */
type ValueOf<S> = S extends Stream<infer T> ? T : never;

/**
 * Messages on their way through a topology, with values of type `T`. Nothing flows while it is declared. Using
 * one stream more than once is a fan-out: every use gets every message, and a message is done when all are.
 */
export class Stream<T> {
  /** Never there: carries the type. */
  declare readonly type?: T;
  /** Undefined where a mistake was noted that leaves nothing to add to. */
  readonly #declaration: Declaration | undefined;
  readonly #outlet: Outlet | undefined;

  /** For the builder; streams come from `t.from`. */
  constructor(declaration: Declaration | undefined, outlet: Outlet | undefined) {
    this.#declaration = declaration;
    this.#outlet = outlet;
  }

  /** Leads the messages through operators, one after the other. */
  pipe(): Stream<T>;
  pipe<A>(a: Operator<T, A>): Stream<A>;
  pipe<A, B>(a: Operator<T, A>, b: Operator<A, B>): Stream<B>;
  pipe<A, B, C>(a: Operator<T, A>, b: Operator<A, B>, c: Operator<B, C>): Stream<C>;
  pipe<A, B, C, D>(a: Operator<T, A>, b: Operator<A, B>, c: Operator<B, C>, d: Operator<C, D>): Stream<D>;
  pipe<A, B, C, D, E>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
  ): Stream<E>;
  pipe<A, B, C, D, E, F>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
  ): Stream<F>;
  pipe<A, B, C, D, E, F, G>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
  ): Stream<G>;
  pipe<A, B, C, D, E, F, G, H>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
    h: Operator<G, H>,
  ): Stream<H>;
  pipe<A, B, C, D, E, F, G, H, I>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
    h: Operator<G, H>,
    i: Operator<H, I>,
  ): Stream<I>;
  pipe<A, B, C, D, E, F, G, H, I, J>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
    h: Operator<G, H>,
    i: Operator<H, I>,
    j: Operator<I, J>,
  ): Stream<J>;
  pipe<A, B, C, D, E, F, G, H, I, J, K>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
    h: Operator<G, H>,
    i: Operator<H, I>,
    j: Operator<I, J>,
    k: Operator<J, K>,
  ): Stream<K>;
  pipe<A, B, C, D, E, F, G, H, I, J, K, L>(
    a: Operator<T, A>,
    b: Operator<A, B>,
    c: Operator<B, C>,
    d: Operator<C, D>,
    e: Operator<D, E>,
    f: Operator<E, F>,
    g: Operator<F, G>,
    h: Operator<G, H>,
    i: Operator<H, I>,
    j: Operator<I, J>,
    k: Operator<J, K>,
    l: Operator<K, L>,
  ): Stream<L>;
  pipe(...operators: readonly Operator<never, unknown>[]): Stream<unknown> {
    const location = callerLocation();
    const { declaration, outlet } = this.#use(location);
    if (declaration === undefined || outlet === undefined) return new Stream(undefined, undefined);
    let last = outlet;
    operators.forEach((operator, index) => {
      if (operator?.kind !== "operator") {
        declaration.mistake(
          "option-invalid",
          `pipe() takes operators, and number ${index + 1} is ${describeGiven(operator)}`,
          typeof operator === "function"
            ? 'call it, as in decode("json"); an operator of RxJS goes into stage()'
            : 'give operators, as in decode("json")',
          location,
        );
        return;
      }
      const node: DeclaredNode = {
        kind: "operator",
        operator,
        location: operator.location ?? location,
        inputs: [last],
        given: undefined,
      };
      declaration.nodes.push(node);
      last = { node, branch: undefined };
    });
    return new Stream(declaration, last);
  }

  /**
   * Parts the stream: each message goes on in the first branch whose test it passes, in the order given, or in
   * `otherwise`.
   *
   * @example const { big, small } = orders.route({ big: (o) => o.amount > 1_000 }, { otherwise: "small" });
   */
  route<const P extends Predicates<T>, const Otherwise extends string = never>(
    branches: P,
    options: RouteOptions<Otherwise> = {},
  ): Branches<T, P, Otherwise> {
    const location = callerLocation();
    const { declaration, outlet } = this.#use(location);
    const streams: Record<string, Stream<unknown>> = {};
    if (declaration === undefined || outlet === undefined) {
      const names = [
        ...Object.keys(branches ?? {}),
        ...(options?.otherwise === undefined ? [] : [options.otherwise]),
      ];
      for (const name of names) streams[name] = new Stream(undefined, undefined);
    } else {
      declaration.mistakes(optionProblems("route", routeOptionsSchema, options), location);
      const router = declaration.verbs.route(branches as Predicates<never>, options);
      const node: DeclaredNode = {
        kind: "route",
        router,
        location: router.location ?? location,
        inputs: [outlet],
        given: undefined,
      };
      declaration.nodes.push(node);
      for (const branch of router.branches) streams[branch] = new Stream(declaration, { node, branch });
    }
    return streams as Branches<T, P, Otherwise>;
  }

  /** Names the step before, for drawings, logs and status. @default its verb with a number: "dedup-1" */
  as(name: string): this {
    const location = callerLocation();
    const { declaration, outlet } = this.#use(location);
    if (outlet !== undefined) declaration?.name(outlet.node, name, location);
    return this;
  }

  /** Ends a branch: its messages are written to the sink, and are `delivered` when the sink has acknowledged them. */
  to(sink: Sink, options: SinkOptions = {}): void {
    const location = callerLocation();
    const { declaration, outlet } = this.#use(location);
    if (declaration === undefined || outlet === undefined) return;
    declaration.mistakes(optionProblems("to", sinkOptionsSchema, options), location);
    const { name, audit, loop, onFailure } = (options ?? {}) as SinkOptions;
    const node: DeclaredNode = {
      kind: "sink",
      sink: asSink("to() takes a sink", sink, declaration, location),
      audit:
        audit === undefined ? undefined : asSink("to() takes a sink as audit", audit, declaration, location),
      loop: loop === true,
      stopAtFirst: onFailure === "stopAtFirst",
      location,
      inputs: [outlet],
      given: undefined,
    };
    declaration.nodes.push(node);
    if (name !== undefined) declaration.name(node, name, location);
  }

  /** For `merge`: what `stream` gives to another node of `declaration`; notes what keeps it from that. */
  static join(
    stream: unknown,
    declaration: Declaration | undefined,
    location: Location | undefined,
  ): Outlet | undefined {
    if (!(stream instanceof Stream)) {
      declaration?.mistake(
        "option-invalid",
        `merge() takes streams, and was given ${describeGiven(stream)}`,
        "give streams of this topology, declared before",
        location,
      );
      return undefined;
    }
    if (stream.#declaration === undefined) return undefined;
    if (stream.#declaration === declaration) return stream.#outlet;
    noteForeign(stream.#declaration, location);
    return undefined;
  }

  /** Notes a use outside of the topology that the stream belongs to, where the author will see it. */
  #use(location: Location | undefined): { declaration?: Declaration; outlet?: Outlet } {
    if (this.#declaration === undefined || this.#outlet === undefined) return {};
    if (Declaration.current === this.#declaration) {
      return { declaration: this.#declaration, outlet: this.#outlet };
    }
    noteForeign(this.#declaration, location);
    return {};
  }
}

/** Several streams in one. More may be added for as long as the topology is being declared. */
export class MergedStream<T> extends Stream<T> {
  readonly #declaration: Declaration | undefined;
  readonly #node: DeclaredMerge;

  /** For the builder; streams come from `merge`. */
  constructor(declaration: Declaration | undefined, location: Location | undefined) {
    const node: DeclaredMerge = { kind: "merge", location, inputs: [], given: undefined, used: false };
    super(declaration, { node, branch: undefined });
    this.#declaration = declaration;
    this.#node = node;
    declaration?.nodes.push(node);
  }

  /** Leads one more stream into this one. */
  add(stream: Stream<T>): this {
    const location = callerLocation();
    const declaration = this.#declaration;
    this.#node.used = true;
    if (declaration === undefined) return this;
    if (Declaration.current !== declaration) noteForeign(declaration, location);
    else {
      const outlet = Stream.join(stream, declaration, location);
      if (outlet !== undefined) this.#node.inputs.push(outlet);
    }
    return this;
  }
}

/**
 * One stream of the messages of several, and of those added later. Each lane keeps its order; between lanes there
 * is none.
 *
 * @example merge(web, shops).pipe(batch({ count: 100 })).to(all)
 */
export function merge<T = unknown>(): MergedStream<T>;
export function merge<const S extends readonly Stream<unknown>[]>(
  ...streams: S
): MergedStream<ValueOf<S[number]>>;
export function merge(...streams: readonly Stream<unknown>[]): MergedStream<unknown> {
  const location = callerLocation();
  const declaration = Declaration.current;
  const merged = new MergedStream<unknown>(declaration, location);
  for (const stream of streams) {
    if (declaration === undefined) Stream.join(stream, undefined, location);
    else merged.add(stream);
  }
  return merged;
}

/** Notes that a stream of `owner` is used outside of it, where the author of that use will see it. */
function noteForeign(owner: Declaration, location: Location | undefined): void {
  const user = Declaration.current;
  if (user === undefined) {
    owner.mistake(
      "topology-foreign-stream",
      "a stream is used after its topology was declared",
      "use it inside the function given to topology()",
      location,
    );
  } else {
    user.mistake(
      "topology-foreign-stream",
      "a stream of another topology is used",
      "streams cannot cross topologies: read the source here again, or lead the other one to a topic or queue",
      location,
    );
  }
}

/** The sink, or undefined and a mistake noted when something else was given. */
export function asSink(
  what: string,
  given: unknown,
  declaration: Declaration,
  location: Location | undefined,
): Sink | undefined {
  if ((given as Sink | null | undefined)?.kind === "sink") return given as Sink;
  declaration.mistake(
    "option-invalid",
    `${what}, and was given ${describeGiven(given)}`,
    "give a sink, as in cluster.sink({ … })",
    location,
  );
  return undefined;
}
