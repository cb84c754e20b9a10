import { execFile } from "node:child_process";
import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, extname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { collectUnset, type UnsetVariable } from "../component/environment.ts";
import type { Location } from "../component/location.ts";
import { nearest } from "../component/options.ts";
import { messageOf } from "../errors.ts";
import { type CompilationOfAll, compileAll } from "./compile.ts";
import type { Problem } from "./problem.ts";
import { importSelfByName, markTopologyFile, modulesOf, ownIndex } from "./self-import.ts";
import { Topology, thrownProblem, unsetProblem } from "./topology.ts";

/** What a topology file gave. */
export interface Loaded {
  /** Undefined when the file cannot be read, or exports something else. */
  readonly topology: Topology | undefined;
  /** Mistakes found while loading; those of the topology itself are the compiler's to find. */
  readonly problems: readonly Problem[];
}

const extensions = [".ts", ".mts", ".js", ".mjs"];

/**
 * Variables that were asked for in vain, by the module that asked. A module is evaluated once in a process, so
 * a file that imports it later must learn here what it lacks.
 */
const unsetIn = new Map<string, UnsetVariable[]>();

/**
 * Loads a topology file (`.ts`, `.js`, `.mjs`) from anywhere: an ES module whose default export is a topology.
 * In it and in what it imports, `millrace` is this running package. Types are stripped, not checked.
 *
 * Throws nothing: whatever keeps the file from giving a topology is reported as a problem.
 */
export async function load(path: string): Promise<Loaded> {
  const file = resolve(path);
  const unreadable = await unreadableProblem(file);
  if (unreadable !== undefined) return { topology: undefined, problems: [unreadable] };
  // The real path is what Node names a module by, and so what stack traces say.
  const { href } = pathToFileURL(await realpath(file));
  importSelfByName();
  markTopologyFile(href);
  const unset: UnsetVariable[] = [];
  let exported: unknown;
  let failure: Problem | undefined;
  try {
    exported = await collectUnset(unset, () => import(href));
  } catch (error) {
    failure = await importProblem(error, fileURLToPath(href));
  }
  const problems = [...unsetOf(href, unset)].map(unsetProblem);
  const topology = (exported as { default?: unknown } | undefined)?.default;
  if (failure !== undefined) problems.push(failure);
  else if (topology instanceof Topology) return { topology, problems };
  else problems.push(noTopologyProblem(fileURLToPath(href), exported as object));
  return { topology: undefined, problems };
}

/** Loads topology files and compiles what they export, to run together; all mistakes in all files are reported. */
export async function compileFiles(paths: readonly string[]): Promise<CompilationOfAll> {
  const topologies: Topology[] = [];
  const problems: Problem[] = [];
  for (const path of paths) {
    const loaded = await load(path);
    problems.push(...loaded.problems);
    if (loaded.topology !== undefined) topologies.push(loaded.topology);
  }
  return compileAll(topologies, problems);
}

/** What this load asked for in vain, and what modules that were evaluated before it had. */
function unsetOf(href: string, unset: readonly UnsetVariable[]): ReadonlySet<UnsetVariable> {
  for (const variable of unset) {
    const module = variable.location === undefined ? href : pathToFileURL(variable.location.file).href;
    unsetIn.set(module, [...(unsetIn.get(module) ?? []), variable]);
  }
  return new Set([...unset, ...modulesOf(href).flatMap((module) => unsetIn.get(module) ?? [])]);
}

async function unreadableProblem(file: string): Promise<Problem | undefined> {
  const problem = (message: string, remedy: string): Problem => ({
    severity: "error",
    code: "file-unreadable",
    message,
    remedy,
    location: { file, line: 1, column: 1 },
  });
  let isFile: boolean;
  try {
    isFile = (await stat(file)).isFile();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      return problem(
        `the topology file cannot be read: ${messageOf(error)}`,
        "check its path and permissions",
      );
    }
    const others = await readdir(dirname(file)).catch(() => []);
    const near = nearest(
      basename(file),
      others.filter((name) => extensions.includes(extname(name)) && !name.includes(".test.")),
    );
    return problem(
      "there is no such file",
      near === undefined ? "give the path of a topology file" : `did you mean "${near}"?`,
    );
  }
  if (!isFile) return problem("this is not a file", "give the path of a topology file");
  if (extensions.includes(extname(file))) return undefined;
  return problem("this is not a file of code", `give a file that ends in ${extensions.join(", ")}`);
}

function noTopologyProblem(file: string, exported: object): Problem {
  const given = (exported as { default?: unknown }).default;
  const named = Object.entries(exported).find(([, value]) => value instanceof Topology)?.[0];
  const other = (given as object | null | undefined)?.constructor?.name === Topology.name;
  const [message, remedy] = other
    ? ["the topology was made by another copy of millrace", 'import from "millrace", by that name']
    : given === undefined
      ? [
          "the file has no default export",
          named === undefined ? "export default topology(…)" : `write export default before "${named}"`,
        ]
      : [`the default export is ${describeExport(given)}, not a topology`, "export default topology(…)"];
  return {
    severity: "error",
    code: "file-no-topology",
    message,
    remedy,
    location: { file, line: 1, column: 1 },
  };
}

function describeExport(given: unknown): string {
  if (typeof given === "function") return "a function";
  if (given === null) return "null";
  if (Array.isArray(given)) return "an array";
  if (given instanceof Promise) return "a promise";
  return typeof given === "object" ? "an object" : `a ${typeof given}`;
}

/** Why a file could not be imported, and the line. */
async function importProblem(error: unknown, file: string): Promise<Problem> {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  const start: Location = { file, line: 1, column: 1 };
  const unreadable = (message: string, remedy: string, location: Location): Problem => ({
    severity: "error",
    code: "file-unreadable",
    message,
    remedy,
    location,
  });
  if (code === "ERR_MODULE_NOT_FOUND" || code === "ERR_UNSUPPORTED_DIR_IMPORT") {
    const [what, importer] = messageOf(error).split(" imported from ");
    return unreadable(
      `an import cannot be resolved: ${what!}`,
      "check the path, with its file extension, or install the package",
      { ...start, file: importer ?? file },
    );
  }
  if (!(error instanceof SyntaxError)) return thrownProblem(error, start);
  const location = headedLocation(error.stack) ?? (await syntaxErrorLocation(file)) ?? start;
  const missing = /'([^']+)' does not provide an export named '([^']+)'/.exec(error.message);
  if (missing !== null) {
    const [, module, name] = missing;
    const near = module === "millrace" ? nearest(name!, await ownExports()) : undefined;
    return unreadable(
      `"${module!}" exports no "${name!}"`,
      near === undefined ? "check the name" : `did you mean "${near}"?`,
      location,
    );
  }
  if (code === "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") {
    return unreadable(
      error.message,
      "use only syntax that vanishes when types are stripped: no enums, no namespaces",
      location,
    );
  }
  return unreadable(`the code is not valid: ${error.message}`, "correct the syntax", location);
}

async function ownExports(): Promise<string[]> {
  return Object.keys((await import(ownIndex)) as object);
}

/** The place that heads the stack of a syntax error: `file:///orders.ts:3`, the lines up to it, `^^` below the place. */
function headedLocation(stack: string | undefined): Location | undefined {
  const match = /^(file:\/\/\S+|\/.+?|[A-Za-z]:\\.+?):(\d+)\n(?:.*\n)+?(\s*)\^/.exec(stack ?? "");
  if (match === null) return undefined;
  const [, place, line, indent] = match;
  const file = place!.startsWith("file:") ? fileURLToPath(place!) : place!;
  return { file, line: Number(line), column: indent!.length + 1 };
}

/** Node tells where a syntax error is in a module of plain JavaScript only to `node --check`. */
async function syntaxErrorLocation(file: string): Promise<Location | undefined> {
  for (const module of modulesOf(pathToFileURL(file).href)) {
    if (!/\.m?js$/.test(module)) continue;
    try {
      await promisify(execFile)(process.execPath, ["--check", fileURLToPath(module)]);
    } catch (error) {
      const location = headedLocation((error as { stderr?: string }).stderr);
      if (location !== undefined) return location;
    }
  }
  return undefined;
}
