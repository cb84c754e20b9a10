import { fileURLToPath } from "node:url";
import { run } from "../test/brokers/run.ts";
import type { Sample } from "./sample.ts";

/** Runs a script of this folder to its end, and returns what it prints as JSON. */
export async function outputOfScript<T>(command: readonly string[]): Promise<T> {
  const [script, ...args] = command;
  const path = fileURLToPath(new URL(script!, import.meta.url));
  const { stdout } = await run(
    process.execPath,
    ["--expose-gc", "--conditions=millrace:source", path, ...args],
    {
      within: 600_000,
      env: process.env,
    },
  );
  return JSON.parse(stdout) as T;
}

/** The sample of a script that does nothing but the job, warm: its time is all steady. */
export async function sampleOfScript(command: readonly string[]): Promise<Sample> {
  const { throughput, cpu, peakMiB } = await outputOfScript<{
    throughput: number;
    cpu: number;
    peakMiB: number;
  }>(command);
  return { whole: throughput, steady: throughput, cpu, steadyCpu: cpu, peakMiB };
}
