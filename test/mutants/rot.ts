import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Mutant } from "./mutants.ts";

const root = join(import.meta.dirname, "../..");

/** Why the mutant can no longer be made; undefined when it can. */
export function rotOf({ name, file, text, becomes }: Mutant): string | undefined {
  const found = readFileSync(join(root, file), "utf8").split(text).length - 1;
  if (found !== 1) return `"${name}": its text is ${found} times in ${file}, and must be there once`;
  if (text === becomes) return `"${name}" changes nothing`;
  return undefined;
}
