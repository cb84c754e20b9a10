import type { Ajv, SchemaValidateFunction } from "ajv";

/**
 * Gives a compiler a `uniqueItems` whose time grows with the size of the list. Ajv's own compares every two items
 * unless all are text or numbers, so that a message of a few thousand objects would hold everything else up.
 */
export function addUniqueItems(ajv: Ajv): void {
  ajv.removeKeyword("uniqueItems");
  ajv.addKeyword({
    keyword: "uniqueItems",
    type: "array",
    schemaType: "boolean",
    errors: true,
    validate: checkUnique,
  });
}

const checkUnique: SchemaValidateFunction = (wanted: boolean, items: readonly unknown[]) => {
  if (!wanted) return true;
  const seen = new Map<unknown, number>();
  for (let i = 0; i < items.length; i++) {
    const identity = identityOf(items[i]);
    const before = seen.get(identity);
    if (before !== undefined) {
      checkUnique.errors = [
        {
          keyword: "uniqueItems",
          message: `must NOT have duplicate items (items ## ${before} and ${i} are identical)`,
          params: { i: before, j: i },
        },
      ];
      return false;
    }
    seen.set(identity, i);
  }
  return true;
};

/** Equal for equal values as JSON has them: numbers by value, objects whatever the order of their members. */
function identityOf(item: unknown): unknown {
  if (typeof item === "object" && item !== null) return canonical(item);
  // Text must not be taken for the canonical form of a list or an object, each of which begins with a bracket.
  return typeof item === "string" ? `"${item}` : item;
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? String(value);
  const members = Object.keys(value)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonical((value as Record<string, unknown>)[name])}`);
  return `{${members.join(",")}}`;
}
