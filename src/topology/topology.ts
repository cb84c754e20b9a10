import { collectUnset, type UnsetVariable, unsetMessage, unsetRemedy } from "../component/environment.ts";
import { callerLocation, errorLocation, type Location } from "../component/location.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import { MillraceError, messageOf } from "../errors.ts";
import type { Bytes } from "../message/chunk.ts";
import { Declaration, type DeclaredNode, describeGiven, nameProblem, type Verbs } from "./declaration.ts";
import type { Problem } from "./problem.ts";
import { asSink, merge, Stream } from "./stream.ts";

/** What a topology is declared with. */
export interface TopologyBuilder {
  /** The messages of a source, as bytes. */
  from(source: Source): Stream<Bytes>;
  /** One stream of the messages of several. */
  merge: typeof merge;
  /**
   * Where every rejected message goes, with its original bytes and the reason in `millrace-error-*` headers.
   * Once for each topology. Without it the first rejected message stops the run.
   */
  deadLetters(sink: Sink): void;
}

/** A declared topology: what a topology file exports. It opens nothing and may hold mistakes: `compile` tells. */
export class Topology {
  readonly name: string;
  readonly location: Location | undefined;
  readonly #declaration: Declaration;

  /** For the builder; topologies come from `topology()`. */
  constructor(name: string, location: Location | undefined, declaration: Declaration) {
    this.name = name;
    this.location = location;
    this.#declaration = declaration;
  }

  /** The graph as it was declared, for the compiler. */
  static declarationOf(topology: Topology): Declaration {
    return topology.#declaration;
  }
}

/**
 * Declares a topology: `declare` is called once, at once, and leads streams from sources through operators to
 * sinks. Throws nothing: mistakes, also an error thrown by `declare`, are kept for `compile`, which reports all
 * of them together.
 *
 * @param name Names the topology in status, metrics and logs: letters, digits, ".", "_" and "-".
 */
export type TopologyFunction = (name: string, declare: (t: TopologyBuilder) => void) => Topology;

/** Makes the function `topology`. The verbs are handed in: the graph itself knows no operator. */
export function topologyWith(verbs: Verbs): TopologyFunction {
  return (name, declare) => {
    const location = callerLocation();
    const declaration = new Declaration(verbs);
    const problem = nameProblem("the name of a topology", name);
    if (problem !== undefined) declaration.mistakes([problem], location);
    const unset: UnsetVariable[] = [];
    try {
      const returned = collectUnset(unset, () =>
        declaration.declare(() => declare(new Builder(declaration))),
      );
      if (isThenable(returned)) {
        declaration.mistake(
          "option-invalid",
          "the function that declares a topology is asynchronous",
          "await before topology(), and declare the graph without await",
          location,
        );
        declaration.abandon();
      }
    } catch (error) {
      declaration.problems.push(thrownProblem(error, location));
      declaration.abandon();
    }
    declaration.problems.push(...unset.map(unsetProblem));
    return new Topology(String(name), location, declaration);
  };
}

class Builder implements TopologyBuilder {
  readonly #declaration: Declaration;
  readonly merge = merge;

  constructor(declaration: Declaration) {
    this.#declaration = declaration;
  }

  from(source: Source): Stream<Bytes> {
    const location = callerLocation();
    if (!this.#open(location)) return new Stream(undefined, undefined);
    const given = (source as Source | null | undefined)?.kind === "source" ? source : undefined;
    if (given === undefined) {
      this.#declaration.mistake(
        "option-invalid",
        `from() takes a source, and was given ${describeGiven(source)}`,
        "give a source, as in cluster.source({ … })",
        location,
      );
    }
    const node: DeclaredNode = { kind: "source", source: given, location, inputs: [], given: undefined };
    this.#declaration.nodes.push(node);
    return new Stream(this.#declaration, { node, branch: undefined });
  }

  deadLetters(sink: Sink): void {
    const location = callerLocation();
    if (!this.#open(location)) return;
    const given = asSink("deadLetters() takes a sink", sink, this.#declaration, location);
    if (given !== undefined) this.#declaration.deadLetters.push({ sink: given, location });
  }

  #open(location: Location | undefined): boolean {
    if (Declaration.current === this.#declaration) return true;
    (Declaration.current ?? this.#declaration).mistake(
      "topology-foreign-stream",
      "a topology is added to outside of the function that declares it",
      "use what topology() gives to its function only there",
      location,
    );
    return false;
  }
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** An error thrown while a topology was declared or its file was evaluated. */
export function thrownProblem(error: unknown, fallback: Location | undefined): Problem {
  const known = error instanceof MillraceError;
  return {
    severity: "error",
    code: known ? error.code : "author-error",
    message: known ? error.message : `the topology's code threw: ${messageOf(error)}`,
    remedy: (known ? error.remedy : undefined) ?? "correct the code, or what it was given",
    location: errorLocation(error) ?? fallback,
  };
}

/** An environment variable that is needed and not set. */
export function unsetProblem({ name, location }: UnsetVariable): Problem {
  return {
    severity: "error",
    code: "env-missing",
    message: unsetMessage(name),
    remedy: unsetRemedy(name),
    location,
  };
}
