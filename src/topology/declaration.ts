import type { Location } from "../component/location.ts";
import type { Operator, Router } from "../component/operator.ts";
import type { OptionProblem } from "../component/options.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import type { ErrorCode } from "../errors.ts";
import type { Message } from "../message/chunk.ts";
import type { Problem } from "./problem.ts";

/** Where a declared node takes its messages from. */
export interface Outlet {
  readonly node: DeclaredNode;
  /** Which of its branches, where the node is a route. */
  readonly branch: string | undefined;
}

interface DeclaredBase {
  readonly location: Location | undefined;
  readonly inputs: Outlet[];
  /** The name its author gave it, and where. */
  given: GivenName | undefined;
}

export interface GivenName {
  readonly name: string;
  readonly location: Location | undefined;
}

export type DeclaredSink = DeclaredBase & {
  readonly kind: "sink";
  readonly sink: Sink | undefined;
  readonly audit: Sink | undefined;
  /** It may write to what this topology reads: the author says that the loop ends. */
  readonly loop: boolean;
  /** After a message that fails nothing of its lane is written before it is settled. */
  readonly stopAtFirst: boolean;
};

export type DeclaredMerge = DeclaredBase & {
  readonly kind: "merge";
  /** Something was given to it, even if that was no stream, which was then noted as a mistake. */
  used: boolean;
};

/**
 * A node as it was declared. A source or sink is undefined where something else was given in its place, which
 * was noted as a mistake; the node stays, so that what is said of the others stays true.
 */
export type DeclaredNode =
  | (DeclaredBase & { readonly kind: "source"; readonly source: Source | undefined })
  | (DeclaredBase & { readonly kind: "operator"; readonly operator: Operator<never, unknown> })
  | (DeclaredBase & { readonly kind: "route"; readonly router: Router })
  | DeclaredMerge
  | DeclaredSink;

/** What the graph needs of the operators: the one verb that makes several streams of one. */
export interface Verbs {
  route(branches: Predicates<never>, options: { readonly otherwise?: string }): Router;
}

/** The branches of a route by name, each with the test that lets a message in. */
export type Predicates<T> = Readonly<Record<string, (value: T, message: Message<T>) => boolean>>;

/** Set while a function given to `topology()` runs; such functions are synchronous. */
let current: Declaration | undefined;

/**
 * A graph while it is being declared, and the mistakes that show at once. It checks nothing that needs the
 * whole graph: that is the compiler's work.
 */
export class Declaration {
  readonly verbs: Verbs;
  readonly nodes: DeclaredNode[] = [];
  readonly deadLetters: { readonly sink: Sink; readonly location: Location | undefined }[] = [];
  readonly problems: Problem[] = [];
  #broken = false;

  constructor(verbs: Verbs) {
    this.verbs = verbs;
  }

  /** The graph being declared right now, if any. */
  static get current(): Declaration | undefined {
    return current;
  }

  /** The declaring function did not come to its end: what is missing of the graph is not a mistake of its own. */
  get broken(): boolean {
    return this.#broken;
  }

  declare<R>(body: () => R): R {
    const outer = current;
    current = this;
    try {
      return body();
    } finally {
      current = outer;
    }
  }

  abandon(): void {
    this.#broken = true;
  }

  mistake(code: ErrorCode, message: string, remedy: string, location: Location | undefined): void {
    this.problems.push({ severity: "error", code, message, remedy, location });
  }

  mistakes(problems: readonly OptionProblem[], location: Location | undefined): void {
    for (const { code, message, remedy } of problems) this.mistake(code, message, remedy, location);
  }

  /** Names a node; a name once given stays. */
  name(node: DeclaredNode, name: unknown, location: Location | undefined): void {
    const problem = nameProblem("a name", name);
    if (problem !== undefined) this.mistakes([problem], location);
    else if (node.given === undefined) node.given = { name: String(name), location };
    else if (node.given.name !== name) {
      this.mistake(
        "topology-duplicate-name",
        `"${node.given.name}" cannot be named "${String(name)}" as well`,
        "keep one of the names",
        location,
      );
    }
  }
}

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** Names are used in logs, metrics, status and drawings, so they are kept to what fits all of these. */
export function nameProblem(what: string, name: unknown): OptionProblem | undefined {
  if (typeof name === "string" && namePattern.test(name)) return undefined;
  const given = typeof name === "string" ? `"${name}"` : describeGiven(name);
  return {
    code: "option-invalid",
    message: `${what} cannot be ${given}`,
    remedy: 'give letters, digits, ".", "_" and "-", at most 100, the first a letter or digit',
  };
}

/** What an author gave in place of something else, in words; never its content. */
export function describeGiven(given: unknown): string {
  if (given === undefined || given === null) return String(given);
  if (typeof given === "function") return "a function";
  if (typeof given !== "object") return `a ${typeof given}`;
  if (Array.isArray(given)) return "an array";
  const { kind } = given as { kind?: unknown };
  if (kind === "source" || kind === "sink") return `a ${kind}`;
  if (kind === "operator") return "an operator";
  return "another object";
}
