import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

const module = new URL("heap-growth.ts", import.meta.url).href;

/** MiB that a process has for new objects after a second of work in which many survive for a while. */
async function afterWork(before: string): Promise<number> {
  const program = `
    import { getHeapSpaceStatistics } from "node:v8";
    import { setImmediate as turn } from "node:timers/promises";
    ${before}
    let kept = [];
    for (let i = 0; i < 3_000_000; i++) {
      kept.push({ i, list: [i] });
      if (kept.length > 40_000) kept = [];
      if (i % 5_000 === 0) await turn();
    }
    console.log(getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space").space_size / 2 ** 20);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program]);
  return Number(stdout);
}

test("what is kept for new objects stays small, however much survives for a while", async () => {
  const bounded = await afterWork(
    `const { boundHeapGrowth } = await import(${JSON.stringify(module)}); boundHeapGrowth();`,
  );
  assert.ok(bounded >= 16 && bounded <= 48, `${bounded} MiB`);
});
