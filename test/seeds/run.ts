/** npm run seeds: each line of the checklist, the tests that show it, and whether they pass. */
import { globSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { run } from "node:test";
import { lineNumbers, linesNamedBy, seeds } from "./checklist.ts";

const root = join(import.meta.dirname, "../..");

interface Shown {
  readonly title: string;
  readonly file: string;
  readonly how: "pass" | "FAIL" | "skipped";
}

const files = globSync("{src,topologies,test}/**/*.test.ts", { cwd: root })
  .filter((file) => /"seeds? \d{3}\.\d/.test(readFileSync(join(root, file), "utf8")))
  .toSorted();
const shown = new Map<string, Shown[]>(lineNumbers.map((number) => [number, []]));

const stream = run({
  cwd: root,
  files: files.map((file) => join(root, file)),
  concurrency: 2,
  execArgv: ["--conditions=millrace:source"],
  testNamePatterns: [/^seeds? \d{3}\.\d/],
});
const note = (how: Shown["how"], title: string, file = "") => {
  for (const number of linesNamedBy(title)) {
    shown.get(number)?.push({ title, file: relative(root, file), how });
  }
};
stream.on("test:pass", ({ name, file, skip }) => note(skip === undefined ? "pass" : "skipped", name, file));
stream.on("test:fail", ({ name, file }) => note("FAIL", name, file));
for await (const _ of stream);

let missing = 0;
for (const [seed, { title, lines }] of Object.entries(seeds)) {
  process.stdout.write(`\nseed ${seed}: ${title}\n`);
  lines.forEach((line, i) => {
    const number = `${seed}.${i + 1}`;
    const tests = shown.get(number)!;
    const passes = tests.length > 0 && tests.every(({ how }) => how === "pass");
    if (!passes) missing++;
    process.stdout.write(`  ${passes ? "✔" : "✖"} ${number} ${line}\n`);
    for (const { title: test, file, how } of tests) {
      process.stdout.write(`      ${how}  ${file}: ${test.replace(/^seeds? [^:]*: /, "")}\n`);
    }
    if (tests.length === 0) process.stdout.write("      no test names it\n");
  });
}
process.stdout.write(`\n${lineNumbers.length - missing} of ${lineNumbers.length} lines shown\n`);
process.exitCode = missing === 0 ? 0 : 1;
