import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "../../test/brokers/run.ts";
import { isKnown } from "./warnings.ts";

/** Node warns of negative timers once in a process, so each asks in one of its own. */
async function warningOfTimerIn(t: TestContext, name: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "millrace-warnings-"));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, name));
  writeFileSync(join(folder, name, "timer.mjs"), "setTimeout(() => {}, -5);");
  const main = join(folder, "main.mjs");
  const warnings = fileURLToPath(new URL("./warnings.ts", import.meta.url));
  writeFileSync(
    main,
    `import { isKnown } from ${JSON.stringify(warnings)};
process.removeAllListeners("warning");
process.on("warning", (warning) => console.log(warning.name, isKnown(warning)));
await import("./${name}/timer.mjs");`,
  );
  const { stdout } = await run(process.execPath, [main]);
  return stdout;
}

test("the negative timers of kafkajs are known, those of anyone else are worth a line", async (t) => {
  assert.equal(await warningOfTimerIn(t, "kafkajs"), "TimeoutNegativeWarning true\n");
  assert.equal(await warningOfTimerIn(t, "topologies"), "TimeoutNegativeWarning false\n");
  assert.equal(isKnown(Object.assign(new Error("x"), { name: "DeprecationWarning" })), false);
});
