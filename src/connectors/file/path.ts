import { realpathSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { makeFolder } from "../../component/folder.ts";
import type { OptionProblem } from "../../component/options.ts";
import { MillraceError, messageOf } from "../../errors.ts";

/** Longest name that common file systems take, in bytes. */
const longestName = 255;

/**
 * What is wrong with a path before any file is looked at: it must stay within the root by its words alone.
 *
 * @param beside the longest ending of names that are made beside the file.
 */
export function pathProblem(owner: string, path: unknown, beside = ""): OptionProblem[] {
  if (typeof path !== "string" || path === "") return [];
  const parts = path.split(/[/\\]/);
  const longest = longestName - beside.length;
  let fault: string | undefined;
  if (path.includes("\0")) fault = "holds a NUL character";
  else if (isAbsolute(path)) fault = "is absolute";
  else if (parts.includes("..")) fault = "leads out of its folder";
  else if (["", "."].includes(parts.at(-1)!)) fault = "names a folder";
  else if (parts.some((part) => Buffer.byteLength(part) > longest)) {
    fault = `has a name longer than ${longest} bytes`;
  }
  if (fault === undefined) return [];
  return [
    {
      code: "option-invalid",
      message: `${owner}: the path ${fault}`,
      remedy: "give the path of a file within the root of file({ root })",
    },
  ];
}

/**
 * Where a file is or would be, by links that are there now: one text for one file, whatever root and path lead to
 * it. Undefined when the path is none, or leads out of the root by its words.
 */
export function placeOf(root: string, path: unknown): string | undefined {
  if (typeof path !== "string" || path === "" || pathProblem("", path).length > 0) return undefined;
  const place = resolve(root, path);
  for (let at = place; ; at = dirname(at)) {
    try {
      return join(realpathSync(at), relative(at, place));
    } catch {
      // It is not there yet, or may not be looked at: what leads to it may be.
    }
    if (at === dirname(at)) return place;
  }
}

/**
 * The real path of a file to read. Makes nothing.
 *
 * @throws MillraceError `target-missing` when it cannot be reached, `access-refused` when a link leads out of the root
 */
export async function pathToRead(root: string, path: string): Promise<string> {
  try {
    const base = await realpath(root);
    return confined(base, await realpath(join(base, path)), root, path);
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError(
      "target-missing",
      `file "${path}" cannot be read in ${root}: ${messageOf(error)}`,
      {
        remedy: "check the path, and the root given to file({ root })",
        cause: error,
      },
    );
  }
}

/**
 * The real path of a file to write, which need not be there; its folder is made, and so is the root. Whoever
 * opens it says O_NOFOLLOW, so that a link put there afterwards, or one that leads nowhere yet, is not followed.
 *
 * @throws MillraceError `disk-failed` when its folder cannot be made, `access-refused` when a link leads out of the root
 */
export async function pathToWrite(root: string, path: string): Promise<string> {
  try {
    makeFolder(root);
    const base = await realpath(root);
    const folder = join(base, dirname(path));
    // A folder that is there may be a link: nothing is made behind it before it is known where that is.
    confined(base, await realpathOfNearest(folder), root, path);
    makeFolder(folder);
    const wanted = join(confined(base, await realpath(folder), root, path), basename(path));
    return confined(base, (await realpathIfThere(wanted)) ?? wanted, root, path);
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError(
      "disk-failed",
      `file "${path}" cannot be written in ${root}: ${messageOf(error)}`,
      {
        remedy: "check the path, the root given to file({ root }), and the rights of this user",
        cause: error,
      },
    );
  }
}

function confined(base: string, real: string, root: string, path: string): string {
  const way = relative(base, real);
  if (way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way)) return real;
  throw new MillraceError("access-refused", `the path "${path}" leads out of ${root} by a link`, {
    remedy: "remove the link, or name another root in file({ root })",
  });
}

async function realpathIfThere(path: string): Promise<string | undefined> {
  try {
    return await realpath(path);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

async function realpathOfNearest(folder: string): Promise<string> {
  for (let at = resolve(folder); ; at = dirname(at)) {
    const real = await realpathIfThere(at);
    if (real !== undefined) return real;
  }
}
