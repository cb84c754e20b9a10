import { componentLabel, labelOf, shortText } from "./label.ts";
import type { Plan, PlanNode } from "./plan.ts";

/** The forms in which a plan can be drawn. */
export const drawingFormats = ["mermaid", "dot", "text"] as const;
export type DrawingFormat = (typeof drawingFormats)[number];

/**
 * Draws a plan: for Mermaid (in Markdown), for Graphviz, or as text for a terminal. The same plan always gives
 * the same drawing; secrets and addresses are not in it.
 */
export function describePlan(plan: Plan, format: DrawingFormat): string {
  switch (format) {
    case "mermaid":
      return mermaid(plan);
    case "dot":
      return dot(plan);
    case "text":
      return text(plan);
  }
}

interface Edge {
  readonly from: string;
  readonly to: string;
  readonly label: string | undefined;
  /** Not the way of the messages: rejections and audit events. */
  readonly aside: boolean;
}

interface Box {
  readonly id: string;
  readonly label: string;
  readonly kind: PlanNode["kind"];
}

/** Boxes and arrows, named so that no name of an author can be mistaken for syntax. */
function boxesOf(plan: Plan): { readonly boxes: readonly Box[]; readonly edges: readonly Edge[] } {
  const ids = new Map(plan.nodes.map(({ name }, index) => [name, `n${index + 1}`]));
  const boxes: Box[] = [];
  const edges: Edge[] = [];
  const audits = new Map<unknown, string>();
  for (const node of plan.nodes) {
    const id = ids.get(node.name)!;
    boxes.push({ id, label: labelOf(node), kind: node.kind });
    for (const { node: from, branch } of node.inputs) {
      edges.push({
        from: ids.get(from)!,
        to: id,
        label: branch === undefined ? undefined : shortText(branch),
        aside: false,
      });
    }
  }
  for (const node of plan.nodes) {
    if (node.kind !== "sink" || node.audit === undefined) continue;
    let audit = audits.get(node.audit);
    if (audit === undefined) {
      audit = `audit${audits.size + 1}`;
      audits.set(node.audit, audit);
      boxes.push({ id: audit, label: componentLabel(node.audit), kind: "sink" });
    }
    edges.push({ from: ids.get(node.name)!, to: audit, label: "audit", aside: true });
  }
  if (plan.deadLetters !== undefined) {
    boxes.push({ id: "dead", label: componentLabel(plan.deadLetters.sink), kind: "sink" });
    for (const node of plan.nodes) {
      if (!rejects(node)) continue;
      edges.push({ from: ids.get(node.name)!, to: "dead", label: "rejected", aside: true });
    }
  }
  return { boxes, edges };
}

function rejects(node: PlanNode): boolean {
  if (node.kind === "operator") return node.operator.rejects;
  return node.kind === "route" && node.router.rejects;
}

const mermaidShapes = {
  source: ['(["', '"])'],
  operator: ['["', '"]'],
  route: ['{"', '"}'],
  merge: ['(("', '"))'],
  sink: ['[("', '")]'],
} as const;

function mermaid(plan: Plan): string {
  const { boxes, edges } = boxesOf(plan);
  const lines = ["flowchart LR"];
  for (const { id, label, kind } of boxes) {
    const [open, close] = mermaidShapes[kind];
    lines.push(`  ${id}${open}${mermaidText(label)}${close}`);
  }
  for (const { from, to, label, aside } of edges) {
    const arrow = aside ? "-.->" : "-->";
    lines.push(`  ${from} ${arrow}${label === undefined ? "" : `|"${mermaidText(label)}"|`} ${to}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Mermaid takes characters by number; a backtick or `<` would start Markdown or HTML, `"` would end the label. */
function mermaidText(label: string): string {
  return label.replaceAll(/["#&<>`\\|{}[\];]/g, (letter) => `#${letter.codePointAt(0)!};`);
}

const dotShapes = {
  source: "cds",
  operator: "box",
  route: "diamond",
  merge: "circle",
  sink: "cylinder",
} as const;

function dot(plan: Plan): string {
  const { boxes, edges } = boxesOf(plan);
  const lines = [`digraph ${dotText(plan.name)} {`, "  rankdir=LR;"];
  for (const { id, label, kind } of boxes) {
    lines.push(`  ${id} [label=${dotText(label)}, shape=${dotShapes[kind]}];`);
  }
  for (const { from, to, label, aside } of edges) {
    const attributes = [
      ...(label === undefined ? [] : [`label=${dotText(label)}`]),
      ...(aside ? ["style=dashed"] : []),
    ];
    lines.push(`  ${from} -> ${to}${attributes.length === 0 ? "" : ` [${attributes.join(", ")}]`};`);
  }
  lines.push("}");
  return `${lines.join("\n")}\n`;
}

function dotText(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}

/**
 * ```
 * kafka orders
 * │ decode (json)
 * ├─ big
 * │  │ batch (count 100)
 * │  ▼ kafka orders.big
 * └─▶ kafka orders.rest
 *
 * rejected
 * ▼ kafka orders.dead
 * ```
 */
function text(plan: Plan): string {
  const sections: string[][] = [];
  for (const node of plan.nodes) {
    // A merge ends each stream that it joins and begins a section of its own.
    if (node.kind === "source" || node.kind === "merge") {
      sections.push([labelOf(node), ...below(plan, node, "")]);
    }
  }
  if (plan.deadLetters !== undefined) {
    sections.push(["rejected", `▼ ${componentLabel(plan.deadLetters.sink)}`]);
  }
  return `${sections.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** The lines for what comes after a node. */
function below(plan: Plan, node: PlanNode, indent: string): string[] {
  const ways: { readonly branch: string | undefined; readonly next: readonly PlanNode[] }[] =
    node.kind === "route"
      ? node.router.branches.map((branch) => ({ branch, next: usersOf(plan, node, branch) }))
      : [{ branch: undefined, next: usersOf(plan, node, undefined) }];
  const [only] = ways;
  if (ways.length === 1 && only!.branch === undefined && only!.next.length === 1) {
    return straight(plan, only!.next[0]!, indent);
  }
  // A branch that is used twice is named before each use.
  const turns = ways.flatMap(({ branch, next }) => next.map((user) => ({ branch, user })));
  return turns.flatMap(({ branch, user }, index) => {
    const last = index === turns.length - 1;
    const [corner, deeper] = last ? ["└─", `${indent}   `] : ["├─", `${indent}│  `];
    if (branch !== undefined)
      return [`${indent}${corner} ${shortText(branch)}`, ...straight(plan, user, deeper)];
    if (ends(user)) return [`${indent}${corner}▶ ${ending(user)}`];
    return [`${indent}${corner} ${labelOf(user)}`, ...below(plan, user, deeper)];
  });
}

function straight(plan: Plan, node: PlanNode, indent: string): string[] {
  if (ends(node)) return [`${indent}▼ ${ending(node)}`];
  return [`${indent}│ ${labelOf(node)}`, ...below(plan, node, indent)];
}

function ends(node: PlanNode): boolean {
  return node.kind === "sink" || node.kind === "merge";
}

function ending(node: PlanNode): string {
  if (node.kind !== "sink" || node.audit === undefined) return labelOf(node);
  return `${labelOf(node)} (audit: ${componentLabel(node.audit)})`;
}

/** In the plan's order; a stream merged with itself is there twice. */
function usersOf(plan: Plan, node: PlanNode, branch: string | undefined): PlanNode[] {
  return plan.nodes.flatMap((other) =>
    other.inputs.filter((input) => input.node === node.name && input.branch === branch).map(() => other),
  );
}
