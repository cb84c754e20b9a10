import type { Sink } from "../component/sink.ts";
import type { Source } from "../component/source.ts";
import { messageOf } from "../errors.ts";
import type { PlanNode } from "./plan.ts";

const longestText = 30;
const mostTargets = 3;

/**
 * What a drawing says of a node: "dedup (id, capacity 100000, ttl 10m)", "kafka orders". A function appears as the
 * field it reads, where it does no more than that; objects, and with them schemas and secrets, do not appear.
 */
export function labelOf(node: PlanNode): string {
  switch (node.kind) {
    case "source":
      return named(node.name, componentLabel(node.source), node.source.name || node.kind);
    case "sink":
      return named(
        node.name,
        `${componentLabel(node.sink)}${node.stopAtFirst === true ? " (stopAtFirst)" : ""}`,
        node.sink.name || node.kind,
      );
    case "operator":
      return named(node.name, stepLabel(node.operator.type, node.operator.options), node.operator.type);
    case "route":
      return named(node.name, stepLabel(node.router.type, {}), node.router.type);
    case "merge":
      return node.name;
  }
}

/** "kafka orders.dead". */
export function componentLabel({ type, targets }: Source | Sink): string {
  const shown = targets.slice(0, mostTargets).map(shortText).join(", ");
  const more = targets.length > mostTargets ? `, … (${targets.length})` : "";
  // stdin is both the kind of source and what it reads.
  return shown === type ? type : `${type} ${shown}${more}`.trim();
}

/** Puts the author's name before the label; names that the compiler gave say nothing more than the label. */
function named(name: string, label: string, automatic: string): string {
  const isAutomatic = name === automatic || name.replace(/-\d+$/, "") === automatic;
  return isAutomatic ? label : `${name}: ${label}`;
}

function stepLabel(type: string, options: Readonly<Record<string, unknown>>): string {
  const shown: string[] = [];
  for (const [index, [option, value]] of Object.entries(options).entries()) {
    const text = optionText(option, value, index === 0);
    if (text !== undefined) shown.push(text);
  }
  return shown.length === 0 ? type : `${type} (${shown.join(", ")})`;
}

function optionText(option: string, value: unknown, first: boolean): string | undefined {
  switch (typeof value) {
    case "function":
      return fieldRead(value as () => unknown);
    case "string":
      // The first option is what the verb is about: decode (json), key (/customer). A sentence speaks for itself.
      return first || /\S\s+\S/.test(value) ? shortText(value) : `${option} ${shortText(value)}`;
    case "number":
    case "boolean":
    case "bigint":
      return `${option} ${value}`;
    default:
      return undefined;
  }
}

/** The field that `(o) => o.a.b` or `({ a }) => a` reads: "a.b". */
function fieldRead(read: () => unknown): string | undefined {
  const code = Function.prototype.toString.call(read).replaceAll(/\s+/g, " ").trim();
  const path = /^\(? ?([\w$]+) ?\)? => \1((?:\.[\w$]+)+)$/.exec(code);
  if (path !== null) return path[2]!.slice(1);
  return /^\( ?\{ ?([\w$]+) ?\} ?\) => \1$/.exec(code)?.[1];
}

/** On one line, without credentials, and not long. */
export function shortText(text: unknown): string {
  const line = messageOf(text).replaceAll(/[\s\p{Cc}]+/gu, " ");
  const letters = [...line];
  return letters.length <= longestText ? line : `${letters.slice(0, longestText - 1).join("")}…`;
}
