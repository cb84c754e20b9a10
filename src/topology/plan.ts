import type { Connection, Requirement } from "../component/connection.ts";
import type { Location } from "../component/location.ts";
import type { Operator, Router } from "../component/operator.ts";
import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import type { Problem } from "./problem.ts";

/** Where a node's messages come from: another node's output, by name of the branch where that node is a route. */
export interface PlanInput {
  readonly node: string;
  readonly branch?: string;
}

interface NodeBase {
  /** Unique in the plan: "quakes.polls", "dedup-3". */
  readonly name: string;
  readonly location: Location | undefined;
  /** More than one only for `merge`. Empty for a source. */
  readonly inputs: readonly PlanInput[];
}

export type PlanNode =
  | (NodeBase & { readonly kind: "source"; readonly source: Source })
  | (NodeBase & { readonly kind: "operator"; readonly operator: Operator<never, unknown> })
  | (NodeBase & { readonly kind: "route"; readonly router: Router })
  | (NodeBase & { readonly kind: "merge" })
  | (NodeBase & {
      readonly kind: "sink";
      readonly sink: Sink;
      readonly audit: Sink | undefined;
      readonly stopAtFirst?: boolean;
    });

/** Where rejected messages go. */
export interface DeadLetterTarget {
  readonly sink: Sink;
  readonly location: Location | undefined;
}

/** A compiled topology: frozen, in topological order, every reference checked. What the runtime runs. */
export interface Plan {
  readonly name: string;
  /** Inputs before the nodes that use them; an output used by several nodes is a fan-out. */
  readonly nodes: readonly PlanNode[];
  readonly deadLetters: DeadLetterTarget | undefined;
  /** Each connection once, with everything the plan needs of it. */
  readonly connections: readonly {
    readonly connection: Connection;
    readonly requirements: readonly Requirement[];
  }[];
  readonly warnings: readonly Problem[];
}
