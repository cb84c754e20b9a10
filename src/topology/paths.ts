import type { Source } from "../component/source.ts";
import type { DeclaredNode } from "./declaration.ts";
import type { ProblemList } from "./problem.ts";

/** What a value is on its way: the bytes as fetched; decoded; or changed, so that the bytes no longer stand for it. */
type ValueState = "bytes" | "value" | "changed";

/** What the compiler knows of the messages that leave a node. */
interface Passing {
  /** The sources they may come from. */
  readonly sources: ReadonlySet<Source>;
  /** What their values may be, and the name of the step that made them so. */
  readonly values: ReadonlyMap<ValueState, string>;
  /** The name of the step that gathered them into batches, if any did. */
  readonly batchedBy: string | undefined;
  /** The names of the steps that said how the sink is to compress, if any did. */
  readonly compressedBy: ReadonlySet<string>;
}

/** The step that turns messages into batches, and those that work on batches as well as on messages. */
const batching = "batch";
const compressing = "compress";
const takesBatches = new Set([compressing]);

/**
 * Follows the messages from the sources down, and tells where a step is given what it cannot work on. After a
 * mistake it goes on as if the step had been given what it needs, so that one mistake is told once.
 */
export function checkPaths(
  order: readonly DeclaredNode[],
  names: ReadonlyMap<DeclaredNode, string>,
  problems: ProblemList,
): void {
  const passing = new Map<DeclaredNode, Passing>();
  for (const node of order) {
    const name = names.get(node)!;
    const given = joined(node.inputs.flatMap((input) => passing.get(input.node) ?? []));
    switch (node.kind) {
      case "source":
        passing.set(node, {
          sources: new Set(node.source === undefined ? [] : [node.source]),
          values: new Map([["bytes", name]]),
          batchedBy: undefined,
          compressedBy: new Set(),
        });
        break;
      case "operator": {
        const { operator, location } = node;
        const { type, holds, holdsFor } = operator;
        if (given.batchedBy !== undefined && !takesBatches.has(type)) {
          const twice = type === batching;
          problems.error(
            "step-after-batch",
            twice
              ? `${name} batches again what ${given.batchedBy} has batched`
              : `${name} works on messages, and ${given.batchedBy} before it hands on whole batches`,
            twice ? "keep one of them" : `move ${type} before ${batching}`,
            location,
          );
        }
        const compressed = [...given.compressedBy][0];
        if (type === compressing && compressed !== undefined) {
          problems.error(
            "step-repeated",
            `${name} says how to compress, and ${compressed} before it has said so: only the last one would count`,
            "keep one of them",
            location,
          );
        }
        if (holds !== undefined) checkHolds(name, holds, given.sources, node, problems);
        if (holdsFor !== undefined) checkHoldsFor(name, holdsFor, given.sources, node, problems);
        passing.set(node, {
          sources: given.sources,
          values: valuesAfter(node, name, given.values, problems),
          batchedBy: type === batching ? name : given.batchedBy,
          compressedBy: type === compressing ? new Set([name]) : given.compressedBy,
        });
        break;
      }
      case "route":
        if (given.batchedBy !== undefined) {
          problems.error(
            "step-after-batch",
            `${name} parts messages, and ${given.batchedBy} before it hands on whole batches`,
            `route first, and give each branch a ${batching} of its own`,
            node.location,
          );
        }
        passing.set(node, { ...given, batchedBy: undefined });
        break;
      case "merge":
        passing.set(node, given);
        break;
      case "sink":
        if (given.values.has("changed") && node.sink?.readsValues !== true) {
          problems.error(
            "encode-missing",
            `${given.values.get("changed")!} changes the values, and they reach ${name} without being encoded`,
            'put encode("json") after the last step that changes them',
            node.location,
          );
        }
        break;
    }
  }
  checkBatchesStayWhole(order, names, passing, problems);
  for (const node of order) {
    if (node.kind === "sink" && node.stopAtFirst) checkOneByOne(node, order, names, problems);
  }
}

/**
 * What leads to a sink that stops at the first failure: every message by one way and to it alone, and one by one. If
 * messages could overtake each other on the way, twins in a dedup might wait for messages that wait for them.
 */
function checkOneByOne(
  sink: DeclaredNode & { kind: "sink" },
  order: readonly DeclaredNode[],
  names: ReadonlyMap<DeclaredNode, string>,
  problems: ProblemList,
): void {
  const refuse = (why: string, remedy: string) =>
    problems.error(
      "order-impossible",
      `${names.get(sink)!} stops at the first failure, and ${why}`,
      remedy,
      sink.location,
    );
  const seen = new Set<DeclaredNode>();
  const open: { readonly node: DeclaredNode; readonly dedup: string | undefined }[] = [
    { node: sink, dedup: undefined },
  ];
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const { node } = step;
    let { dedup } = step;
    if (seen.has(node)) continue;
    seen.add(node);
    const name = names.get(node)!;
    const uses = order.flatMap(({ inputs }) => inputs).filter((input) => input.node === node);
    if (node.kind === "route" || uses.length > 1) {
      refuse(
        `the messages of ${name} go several ways: behind one that fails, others would be written elsewhere`,
        "lead the source to this sink alone, or leave out onFailure",
      );
    }
    if (node.kind === "operator") {
      const { type, options } = node.operator;
      if (type === batching) {
        refuse(
          `${name} would hand on several messages at once, of which it can write one alone`,
          `remove ${batching}, or leave out onFailure`,
        );
      } else if (options.order === "key") {
        refuse(`${name} lets messages of other keys go ahead`, 'keep order: "lane", or leave out onFailure');
      } else if (type === "dedup") dedup ??= name;
      else if (type === "stage" && dedup !== undefined) {
        refuse(
          `the messages that ${dedup} gets from ${name} may come in any order, and wait for each other for ever`,
          `move ${dedup} before ${name}, or leave out onFailure`,
        );
      }
    }
    for (const input of node.inputs) open.push({ node: input.node, dedup });
  }
}

function joined(all: readonly Passing[]): Passing {
  return {
    sources: new Set(all.flatMap(({ sources }) => [...sources])),
    values: new Map(all.flatMap(({ values }) => [...values])),
    compressedBy: new Set(all.flatMap(({ compressedBy }) => [...compressedBy])),
    batchedBy: all.find(({ batchedBy }) => batchedBy !== undefined)?.batchedBy,
  };
}

function valuesAfter(
  node: DeclaredNode & { kind: "operator" },
  name: string,
  given: ReadonlyMap<ValueState, string>,
  problems: ProblemList,
): ReadonlyMap<ValueState, string> {
  const { takes, leaves } = node.operator.effect;
  let values = new Map(given);
  const undecoded = values.get("bytes");
  const decoded = values.get("value") ?? values.get("changed");
  if (takes === "value" && undecoded !== undefined) {
    problems.error(
      "decode-missing",
      `${name} works on decoded values, and gets the bytes of ${undecoded}`,
      'put decode("json") before it',
      node.location,
    );
    values.delete("bytes");
    if (values.size === 0) values.set("value", undecoded);
  } else if (takes === "bytes" && decoded !== undefined) {
    problems.error(
      "decode-repeated",
      `${name} works on bytes, and gets the values that ${decoded} has decoded`,
      `remove it, or put it before the step that decodes`,
      node.location,
    );
    values = new Map([["bytes", undecoded ?? decoded]]);
  }
  if (leaves === "same") return values;
  const changed = values.get("changed");
  // A step that leaves decoded values cannot give back the bytes that stood for them before a change.
  if (leaves === "value" && changed !== undefined) return new Map([["changed", changed]]);
  return new Map([[leaves, name]]);
}

/** A window that waits for more messages than may be in flight would wait for ever. */
function checkHolds(
  name: string,
  holds: number,
  sources: ReadonlySet<Source>,
  node: DeclaredNode,
  problems: ProblemList,
): void {
  for (const source of sources) {
    const credit = source.credit.messages;
    if (holds > credit) {
      problems.error(
        "batch-exceeds-credit",
        `${name} waits for ${holds} messages, and ${source.name} lets only ${credit} be in flight`,
        `lower the count to ${credit} or less, or raise what the source lets be in flight`,
        node.location,
      );
    } else if (source.lanes !== undefined && source.lanes * (holds - 1) >= credit) {
      problems.warn(
        "batch-may-starve",
        `windows of ${holds} messages for each of ${source.lanes} lanes could hold all ${credit} that ${source.name} lets be in flight: batches would then go out before they are full`,
        `lower the count below ${Math.ceil(credit / source.lanes) + 1}, or raise what the source lets be in flight`,
        node.location,
      );
    }
  }
}

/** What a window keeps for longer than its source does comes again and again, and never gets through. */
function checkHoldsFor(
  name: string,
  holdsFor: number,
  sources: ReadonlySet<Source>,
  node: DeclaredNode,
  problems: ProblemList,
): void {
  for (const { name: source, ackWithin } of sources) {
    if (ackWithin === undefined || holdsFor < ackWithin) continue;
    problems.error(
      "batch-outlasts-ack",
      `${name} keeps messages for up to ${seconds(holdsFor)}, and ${source} gives them back to its broker after ${seconds(ackWithin)} without an acknowledgement`,
      "make the time of the window shorter, or the broker's time-out and what the source knows of it longer",
      node.location,
    );
  }
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1_000)} s`;
}

/** A batch belongs to one destination, so it cannot be copied. */
function checkBatchesStayWhole(
  order: readonly DeclaredNode[],
  names: ReadonlyMap<DeclaredNode, string>,
  passing: ReadonlyMap<DeclaredNode, Passing>,
  problems: ProblemList,
): void {
  const used = new Set<DeclaredNode>();
  for (const node of order) {
    for (const input of node.inputs) {
      const batchedBy = passing.get(input.node)?.batchedBy;
      if (batchedBy !== undefined && used.has(input.node)) {
        problems.error(
          "step-after-batch",
          `the batches of ${batchedBy} go to one sink, and ${names.get(node)!} is one more use of them`,
          `use the stream before ${batchedBy} twice, and give each use a ${batching} of its own`,
          node.location,
        );
      }
      used.add(input.node);
    }
  }
}
