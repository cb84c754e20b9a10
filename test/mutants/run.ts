/**
 * npm run test:mutants [-- <part of a name>…]: puts one fault at a time into a copy of our own code and runs the
 * test that must notice it. Fails when a fault survives, when a killer is red without it, and when the text that
 * a fault replaces is no longer in the source: then the mutant has to be written anew.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { run } from "node:test";
import { type Mutant, mutants } from "./mutants.ts";
import { rotOf } from "./rot.ts";

const root = join(import.meta.dirname, "../..");
/** What tests need of the tree. */
const copied = ["src", "test", "topologies", "bin", "package.json", "tsconfig.json"];
const atOnce = 2;
/** A fault may make its killer run for ever, which is as good as a failure, ms. */
const limit = 120_000;
/** Runs of a property whose test leaves the number to its caller. */
const propertyRuns = "300";

interface Verdict {
  readonly mutant: Mutant;
  readonly how: "killed" | "killed: never ends" | "SURVIVED" | "BROKEN";
  /** Why it is broken, in words. */
  readonly why: string;
  readonly seconds: number;
}

async function main(wanted: readonly string[]): Promise<number> {
  const chosen = mutants.filter(
    ({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)),
  );
  if (chosen.length === 0) return complain(`no mutant's name has ${wanted.join(" or ")} in it`);
  const rotten = chosen.flatMap((mutant) => rotOf(mutant) ?? []);
  if (rotten.length > 0) return complain(rotten.join("\n"));
  const folders = Array.from({ length: Math.min(atOnce, chosen.length) }, copyTree);
  process.env.MILLRACE_PROPERTY_RUNS = propertyRuns;
  try {
    const red = await inTurn(folders, killersOf(chosen), async (folder, killer) => {
      const { failed, ran } = await runTests(folder, killer.file, killer.tests);
      const missing = killer.tests.filter((test) => !ran.has(test));
      return [
        ...missing.map((test) => `there is no test "${test}" in ${killer.file}`),
        ...[...failed].map((test) => `"${test}" of ${killer.file} fails without any fault`),
      ];
    });
    if (red.flat().length > 0) return complain(red.flat().join("\n"));
    const verdicts = await inTurn(folders, chosen, async (folder, mutant) => {
      const verdict = await tryOn(folder, mutant);
      console.log(lineOf(verdict));
      return verdict;
    });
    return tell(verdicts);
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  }
}

function copyTree(): string {
  const folder = mkdtempSync(join(tmpdir(), "millrace-mutants-"));
  for (const part of copied) cpSync(join(root, part), join(folder, part), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  return folder;
}

/** Every file with the tests in it that some mutant names. */
function killersOf(
  chosen: readonly Mutant[],
): { readonly file: string; readonly tests: readonly string[] }[] {
  const byFile = Map.groupBy(chosen, ({ killer }) => killer.file);
  return [...byFile].map(([file, of]) => ({
    file,
    tests: [...new Set(of.map(({ killer }) => killer.test))],
  }));
}

/** Works through the items, one at a time in each folder. */
async function inTurn<T, R>(
  folders: readonly string[],
  items: readonly T[],
  work: (folder: string, item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = new Array(items.length);
  const left = [...items.entries()];
  await Promise.all(
    folders.map(async (folder) => {
      for (let next = left.shift(); next !== undefined; next = left.shift()) {
        results[next[0]] = await work(folder, next[1]);
      }
    }),
  );
  return results;
}

async function tryOn(folder: string, mutant: Mutant): Promise<Verdict> {
  const path = join(folder, mutant.file);
  const whole = readFileSync(path, "utf8");
  const start = performance.now();
  writeFileSync(
    path,
    whole.replace(mutant.text, () => mutant.becomes),
  );
  try {
    const { file, test } = mutant.killer;
    const { failed, ran, ended } = await runTests(folder, file, [test]);
    const seconds = (performance.now() - start) / 1_000;
    if (!ended) return { mutant, how: "killed: never ends", why: "", seconds };
    if (failed.has(test)) return { mutant, how: "killed", why: "", seconds };
    if (!ran.has(test)) return { mutant, how: "BROKEN", why: "its code cannot be loaded", seconds };
    return { mutant, how: "SURVIVED", why: "", seconds };
  } finally {
    writeFileSync(path, whole);
  }
}

interface Ran {
  readonly ran: ReadonlySet<string>;
  readonly failed: ReadonlySet<string>;
  /** False when the time was up first. */
  readonly ended: boolean;
}

/** Runs the tests of those names, whole, at the top of a file. */
async function runTests(folder: string, file: string, tests: readonly string[]): Promise<Ran> {
  const ran = new Set<string>();
  const failed = new Set<string>();
  const signal = AbortSignal.timeout(limit);
  const events = run({
    cwd: folder,
    files: [join(folder, file)],
    concurrency: 1,
    execArgv: ["--conditions=millrace:source", "--import", join(folder, "test/mutants/first-failure.ts")],
    testNamePatterns: tests.map((name) => new RegExp(`^${name.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&")}$`)),
    signal,
  });
  events.on("test:pass", ({ name, nesting, skip }) => {
    if (nesting === 0 && skip === undefined) ran.add(name);
  });
  events.on("test:fail", ({ name, nesting }) => {
    if (nesting !== 0) return;
    ran.add(name);
    failed.add(name);
  });
  events.resume();
  await new Promise<void>((resolve) => {
    events.on("end", () => resolve());
    events.on("error", () => resolve());
  });
  // A file that cannot be loaded is a failed test by its own name.
  return { ran, failed: new Set(tests.filter((test) => failed.has(test))), ended: !signal.aborted };
}

function lineOf({ mutant, how, why, seconds }: Verdict): string {
  const { file, test } = mutant.killer;
  const killer = `${relative("src", file).startsWith("..") ? file : relative("src", file)}: ${test}`;
  const fault = why === "" ? "" : ` (${why})`;
  return `${how.padEnd(8)} ${seconds.toFixed(1).padStart(6)} s  ${mutant.breaks.padEnd(3)} ${mutant.name}${fault}  ←  ${killer}`;
}

function tell(verdicts: readonly Verdict[]): number {
  const alive = verdicts.filter(({ how }) => !how.startsWith("killed"));
  const seconds = verdicts.reduce((sum, verdict) => sum + verdict.seconds, 0);
  console.log(
    `${verdicts.length} mutants, ${verdicts.length - alive.length} killed, ${alive.length} alive, ${seconds.toFixed(0)} s of tests`,
  );
  for (const verdict of alive) console.log(lineOf(verdict));
  return alive.length === 0 ? 0 : 1;
}

function complain(what: string): number {
  process.stderr.write(`${what}\n`);
  return 1;
}

process.exitCode = await main(process.argv.slice(2));
