// npm run check: everything that can be found wrong without a broker. Every step runs, whatever the others found.
import { spawnSync } from "node:child_process";
import { delimiter, join } from "node:path";

const root = join(import.meta.dirname, "..");
const tests = ["test/architecture.test.ts", "test/package.test.ts"];
const steps = [
  { name: "types", run: ["tsc"] },
  { name: "lint and format", run: ["biome", "check", "--error-on-warnings"] },
  { name: "dead code", run: ["knip", "--treat-config-hints-as-errors"] },
  { name: "build", run: ["tsc", "-p", "tsconfig.build.json"] },
  { name: "packed package", run: ["publint", "run", "--strict", "--pack", "npm"] },
  { name: "architecture and package", run: ["node", "--conditions=millrace:source", "--test", ...tests] },
];

const env = { ...process.env, PATH: join(root, "node_modules/.bin") + delimiter + process.env.PATH };
const failed = [];
for (const { name, run } of steps) {
  const [program, ...args] = run;
  const start = performance.now();
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, env, encoding: "utf8" });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${seconds.padStart(5)} s  ${name}  (${run.join(" ")})`);
  if (status !== 0) {
    failed.push(name);
    console.log(`${stdout ?? ""}${stderr ?? ""}${error ?? ""}`);
  }
}
if (failed.length > 0) {
  console.log(`failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
