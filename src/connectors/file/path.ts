import { access, constants, mkdir, realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, sep } from "node:path";
import type { OptionProblem } from "../../component/options.ts";
import { MillraceError } from "../../errors.ts";

/** Longest name that common file systems take, in bytes. */
const longestName = 255;

/** What is wrong with a path before any file is looked at: it must stay within the root by its words alone. */
export function pathProblem(owner: string, path: unknown): OptionProblem[] {
  if (typeof path !== "string" || path === "") return [];
  const parts = path.split(/[/\\]/);
  const fault = path.includes("\0")
    ? "holds a NUL character"
    : isAbsolute(path)
      ? "is absolute"
      : parts.includes("..")
        ? "leads out of its folder"
        : parts.some((part) => Buffer.byteLength(part) > longestName)
          ? `has a name longer than ${longestName} bytes`
          : undefined;
  if (fault === undefined) return [];
  return [
    {
      code: "option-invalid",
      message: `${owner}: the path ${fault}`,
      remedy: "give a path within the root of file({ root })",
    },
  ];
}

/**
 * The real path of a file within the root, with its folder made. Throws `option-invalid` when a link leads out.
 */
export async function resolveInside(root: string, path: string): Promise<string> {
  await mkdir(dirname(join(root, path)), { recursive: true });
  const base = await realpath(root);
  const wanted = join(root, path);
  // The file itself may be a link, or not be there yet.
  const real = await realpath(wanted).catch(async () =>
    join(await realpath(dirname(wanted)), path.split("/").at(-1)!),
  );
  const way = relative(base, real);
  if (way === ".." || way.startsWith(`..${sep}`) || isAbsolute(way)) {
    throw new MillraceError("option-invalid", `the path "${path}" leads out of ${root}`, {
      remedy: "remove the link, or name another root in file({ root })",
    });
  }
  return real;
}

/** Whether a file within the root can be read. */
export async function isInside(root: string, path: string): Promise<boolean> {
  try {
    await access(await resolveInside(root, path), constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
