// npm run test:properties -- [--runs N] [--seed S [--path P]] [--test-name-pattern=…] [file…]: properties over
// schedules and topologies, each tried N times (1,000 unless told otherwise), on simulated brokers in virtual time.
// A failure names its seed and path; given back, with the file and the test's name, they replay it.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const root = join(import.meta.dirname, "..");
const globs = [
  "test/properties/*.test.ts",
  "src/**/*.property.test.ts",
  "src/connectors/kafka/drivers/embedded/schedules.test.ts",
];

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: "string" },
      seed: { type: "string" },
      path: { type: "string" },
      "test-name-pattern": { type: "string" },
    },
  });
  const files = positionals.length > 0 ? positionals : globs.flatMap((glob) => fs.globSync(glob)).toSorted();
  const env = { ...process.env };
  if (values.runs !== undefined) env.MILLRACE_PROPERTY_RUNS = values.runs;
  if (values.seed !== undefined) env.MILLRACE_PROPERTY_SEED = values.seed;
  if (values.path !== undefined) env.MILLRACE_PROPERTY_PATH = values.path;
  const pattern = values["test-name-pattern"];
  const { status } = spawnSync(
    process.execPath,
    [
      "--conditions=millrace:source",
      "--test",
      "--test-concurrency=2",
      ...(pattern === undefined ? [] : [`--test-name-pattern=${pattern}`]),
      ...files,
    ],
    { env, stdio: "inherit" },
  );
  return status ?? 1;
}

process.chdir(root);
process.exitCode = main();
