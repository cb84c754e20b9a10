import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { freshFolder } from "./millrace.ts";

/**
 * A copy of a topology file outside the repository, with fresh topic, queue and group names, so that tests on a
 * shared broker keep apart. Nothing else in it is changed; what it imports from beside it is copied too.
 */
export function withNames(
  t: TestContext,
  file: string,
  names: readonly string[],
  prefix: string,
): { readonly file: string; readonly topics: Readonly<Record<string, string>>; readonly group: string } {
  const folder = freshFolder(t);
  const from = dirname(file);
  for (const name of readdirSync(from))
    if (name.endsWith(".schema.ts")) copyFileSync(join(from, name), join(folder, name));
  const topics = Object.fromEntries(names.map((name) => [name, `${prefix}.${name}`]));
  const group = `${prefix}.group`;
  let text = readFileSync(file, "utf8");
  for (const [name, fresh] of Object.entries(topics)) text = text.replaceAll(`"${name}"`, `"${fresh}"`);
  text = text.replaceAll(/group: "[^"]+"/g, `group: "${group}"`);
  const copy = join(folder, basename(file));
  writeFileSync(copy, text);
  return { file: copy, topics, group };
}
