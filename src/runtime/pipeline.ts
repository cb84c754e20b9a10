import { type Observable, Subject } from "rxjs";
import type { Context } from "../component/context.ts";
import type { Flowing, OpenedOperator, OperatorContext, Window } from "../component/operator.ts";
import type { SinkSession } from "../component/sink.ts";
import { Batch } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { fanOut } from "../operators/fan-out.ts";
import type { Plan, PlanNode } from "../topology/plan.ts";
import { Credit } from "./credit.ts";
import type { DeadLetters } from "./dead-letter.ts";
import type { LaneIntake } from "./intake.ts";
import { SinkStage, type SinkTarget } from "./sink-stage.ts";

export interface PipelineHooks {
  /** A source's or operator's stream failed, or a node asked to stop the run. */
  fail(error: Error): void;
  contextFor(node: string): Context;
  /** The node's operator as it was opened, where it has a store. */
  opened(node: string): OpenedOperator | undefined;
}

/**
 * A plan's nodes wired together. What one node emits goes to the nodes that use it, in the plan's order: to one
 * as it is, to several as copies whose outcomes join again. Everything is synchronous from the intake to the
 * sink stage, so order along a path is the order of emission.
 */
export class Pipeline {
  readonly sinks: readonly { readonly node: PlanNode & { kind: "sink" }; readonly stage: SinkStage }[];
  readonly #plan: Plan;
  readonly #hooks: PipelineHooks;
  readonly #deadLetters: DeadLetters;
  readonly #targets: ReadonlyMap<string, SinkTarget>;
  readonly #windows = new Set<Window>();
  readonly #outputs = new Map<string, Subject<Flowing>[]>();
  readonly #kept = new Map<string, () => number>();
  #busy = 0;

  constructor(
    plan: Plan,
    intakes: ReadonlyMap<string, LaneIntake>,
    targets: ReadonlyMap<string, SinkTarget>,
    deadLetters: DeadLetters,
    hooks: PipelineHooks,
  ) {
    this.#plan = plan;
    this.#targets = targets;
    this.#deadLetters = deadLetters;
    this.#hooks = hooks;
    const sinks: { node: PlanNode & { kind: "sink" }; stage: SinkStage }[] = [];
    // From the sinks up, so that whoever emits already has listeners.
    for (const node of [...plan.nodes].reverse()) {
      const inputs = node.inputs.map(({ node: from, branch }) => this.#edge(from, branch));
      if (node.kind === "sink") {
        const stage = this.#sinkStage(node);
        sinks.unshift({ node, stage });
        for (const input of inputs) input.subscribe({ next: (item) => stage.next(item), error: hooks.fail });
      } else if (node.kind === "route") {
        this.#route(node, inputs[0]!);
      } else if (node.kind === "operator") {
        const operator = hooks.opened(node.name) ?? node.operator;
        operator.build(this.#operatorContext(node.name))(inputs[0]!).subscribe(this.#emitter(node.name));
      } else if (node.kind === "merge") {
        this.#merge(node.name, inputs);
      } else {
        intakes.get(node.name)!.stream.subscribe(this.#emitter(node.name));
      }
    }
    this.sinks = sinks;
  }

  /** Messages rejected and not yet dead-lettered, and batches being written. */
  get underWay(): number {
    let count = this.#deadLetters.open + this.#busy;
    for (const { stage } of this.sinks) count += stage.writing;
    return count;
  }

  /** Nodes whose author code keeps messages to itself, and how many. */
  get kept(): readonly { readonly node: string; readonly count: number }[] {
    return [...this.#kept]
      .map(([node, count]) => ({ node, count: count() }))
      .filter(({ count }) => count > 0);
  }

  /** Opens the oldest window of all; false when there is none. */
  flushOldest(): boolean {
    let oldest: Window | undefined;
    for (const window of this.#windows) {
      if (oldest === undefined || window.openedAt < oldest.openedAt) oldest = window;
    }
    oldest?.flush();
    return oldest !== undefined;
  }

  /** A stream for one use of a node's output. */
  #edge(from: string, branch: string | undefined): Subject<Flowing> {
    const edge = new Subject<Flowing>();
    const key = outputKey(from, branch);
    const edges = this.#outputs.get(key);
    // Nodes are wired last to first, and emit to their users in the plan's order.
    if (edges === undefined) this.#outputs.set(key, [edge]);
    else edges.unshift(edge);
    return edge;
  }

  #emitter(node: string, branch?: string) {
    const edges = this.#outputs.get(outputKey(node, branch)) ?? [];
    return {
      next:
        edges.length === 1
          ? (item: Flowing) => edges[0]!.next(item)
          : (item: Flowing) => emitToAll(edges, item),
      error: (error: unknown) => this.#hooks.fail(error instanceof Error ? error : new Error(String(error))),
      complete: () => {
        for (const edge of edges) edge.complete();
      },
    };
  }

  #route(node: PlanNode & { kind: "route" }, input: Observable<Flowing>): void {
    const part = node.router.build(this.#operatorContext(node.name));
    const branches = node.router.branches.map((branch) => this.#emitter(node.name, branch));
    input.subscribe({
      next(item) {
        if (!(item instanceof Chunk)) {
          for (const branch of branches) branch.next(item);
          return;
        }
        const parts = part(item);
        for (let i = 0; i < branches.length; i++) {
          const chunk = parts[i];
          if (chunk !== undefined && chunk.live > 0) branches[i]!.next(chunk);
        }
      },
      error: branches[0]!.error,
      complete: () => {
        for (const branch of branches) branch.complete();
      },
    });
  }

  #merge(name: string, inputs: readonly Observable<Flowing>[]): void {
    const output = this.#emitter(name);
    let open = inputs.length;
    for (const input of inputs) {
      input.subscribe({
        next: output.next,
        error: output.error,
        complete: () => {
          if (--open === 0) output.complete();
        },
      });
    }
  }

  #sinkStage(node: PlanNode & { kind: "sink" }): SinkStage {
    return new SinkStage(this.#hooks.contextFor(node.name), this.#targets.get(node.name)!, {
      refuse: (chunk, index, failure) => this.#reject(node.name, chunk, index, failure),
      fail: this.#hooks.fail,
      waiting: (lane, count) => creditOf(lane)?.addWaiting(count),
    });
  }

  #reject(
    node: string,
    chunk: Chunk,
    index: number,
    failure: Parameters<OperatorContext["reject"]>[2],
  ): void {
    const source = this.#plan.nodes.find((other) => other.name === chunk.lane.origin.source);
    const kept = source?.kind === "source" && source.source.capabilities.ack === "cumulative";
    this.#deadLetters.reject(node, kept, chunk, index, failure);
  }

  #operatorContext(node: string): OperatorContext {
    const session = this.#sessionAfter(node);
    return {
      ...this.#hooks.contextFor(node),
      reject: (chunk, index, failure) => this.#reject(node, chunk, index, failure),
      held: (lane, count) => creditOf(lane)?.addHeld(count),
      waiting: (lane, count) => creditOf(lane)?.addWaiting(count),
      opened: (window) => this.#windows.add(window),
      closed: (window) => this.#windows.delete(window),
      destinationOf: session && ((chunk, index) => session.destinationOf(chunk, index)),
      bytesOnly: session?.bytesOnly === true,
      busy: () => {
        this.#busy++;
        let over = false;
        return () => {
          if (over) return;
          over = true;
          this.#busy--;
        };
      },
      keeps: (count) => this.#kept.set(node, count),
      fail: this.#hooks.fail,
    };
  }

  /** Of the one sink that the node leads to; undefined where it leads to several. */
  #sessionAfter(node: string): SinkSession | undefined {
    const users = this.#plan.nodes.filter((other) => other.inputs.some((input) => input.node === node));
    const user = users[0];
    if (users.length !== 1 || user === undefined || user.kind === "route") return undefined;
    return user.kind === "sink" ? this.#targets.get(user.name)!.session : this.#sessionAfter(user.name);
  }
}

function creditOf(lane: Lane): Credit | undefined {
  return lane.ledger instanceof Credit ? lane.ledger : undefined;
}

function outputKey(node: string, branch: string | undefined): string {
  return branch === undefined ? node : `${node}\n${branch}`;
}

/** Copies for a fan-out; a batch has one sink by the compiler's rules, so it never comes here. */
function emitToAll(edges: readonly Subject<Flowing>[], item: Flowing): void {
  if (item instanceof Batch) throw new Error("a batch leads to one sink only");
  if (!(item instanceof Chunk)) {
    for (const edge of edges) edge.next(item);
    return;
  }
  const branches = fanOut(item, edges.length);
  for (let i = 0; i < edges.length; i++) edges[i]!.next(branches[i]!);
}
