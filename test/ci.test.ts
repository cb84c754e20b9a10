/** What `npm test` makes of a run that tests less than it seems to, tried on made-up test files. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "./brokers/run.ts";
import { freshFolder } from "./millrace.ts";

const program = fileURLToPath(new URL("../.ci/test.mjs", import.meta.url));

const passing = 'test("passes", () => {});';
const skipped = 'test("waits for a broker", { skip: "needs Kafka" }, () => {});';
const failing = 'test("fails", () => { throw new Error("on purpose"); });';

/** Runs `.ci/test.mjs` on one file for each body: "exit code 0" or another, and what it printed. */
async function verdict(
  t: TestContext,
  bodies: readonly string[],
  { required, flags = [] }: { readonly required: boolean; readonly flags?: readonly string[] },
): Promise<string> {
  const folder = freshFolder(t);
  const files = bodies.map((body, i) => {
    const file = join(folder, `made-up-${i}.test.ts`);
    writeFileSync(file, `import { test } from "node:test";\n${body}\n`);
    return file;
  });
  const env: NodeJS.ProcessEnv = { ...process.env, MILLRACE_REQUIRE_BROKERS: required ? "1" : "" };
  delete env.NODE_OPTIONS;
  // Set by a test runner for its files: another one started in it would run nothing.
  delete env.NODE_TEST_CONTEXT;
  return run(process.execPath, [program, ...flags, ...files], { env }).then(
    ({ stdout }) => `exit code 0\n${stdout}`,
    ({ message }: Error) => message,
  );
}

test("where brokers are required, tests that all run and pass are a success", async (t) => {
  const said = await verdict(t, [passing], { required: true });
  assert.match(said, /^exit code 0$/m);
  assert.match(said, /✔ passes/);
});

test("a failure exits 1, whether brokers are required or not", async (t) => {
  for (const required of [true, false])
    assert.match(await verdict(t, [passing, failing], { required }), /exit code 1/);
});

test("a skip exits 1 and is named where brokers are required, and only there", async (t) => {
  const complaint = await verdict(t, [passing, skipped], { required: true });
  assert.match(complaint, /: exit code 1/);
  assert.match(complaint, /^skipped: .*made-up-1\.test\.ts: waits for a broker \(needs Kafka\)$/m);
  assert.match(await verdict(t, [passing, skipped], { required: false }), /^exit code 0$/m);
});

test("a file that holds no test exits 1 and is named", async (t) => {
  const complaint = await verdict(t, [passing, ""], { required: true });
  assert.match(complaint, /: exit code 1/);
  assert.match(complaint, /^.*made-up-1\.test\.ts holds no test$/m);
});

test("a run in which no test is left exits 1", async (t) => {
  const complaint = await verdict(t, [passing], {
    required: true,
    // In one process Node counts no file as a test.
    flags: ["--test-isolation=none", "--test-name-pattern=no test has this name"],
  });
  assert.match(complaint, /: exit code 1/);
  assert.match(complaint, /^no test was run$/m);
});
