import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * Makes a folder, and those that it is in, if they are not there. One after the other: Node's own recursive way
 * goes round for ever where a file system takes no folders and says that they are missing, as /proc does.
 *
 * Throws the system's error where one cannot be made, and an Error where something else has its name.
 */
export function makeFolder(path: string): void {
  const missing: string[] = [];
  let at = resolve(path);
  for (; !existsSync(at); at = dirname(at)) missing.unshift(at);
  if (!statSync(at).isDirectory()) throw new Error(`${at} is no folder`);
  for (const folder of missing) {
    try {
      mkdirSync(folder);
    } catch (error) {
      // Another process may have been faster; a link that leads nowhere is told apart by what it leads to.
      if ((error as { code?: unknown }).code !== "EEXIST" || !existsSync(folder)) throw error;
    }
  }
}
