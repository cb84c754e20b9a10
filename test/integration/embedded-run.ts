import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Conservation } from "../../src/runtime/credit.ts";
import type { RunStatus } from "../../src/runtime/status.ts";
import { type DumpedRecord, dumped, freshFolder, runMillrace } from "../millrace.ts";

/** Stands in payloads, keys and headers that must never turn up in what the runner prints. */
export const canary = "cAnArY7f3e";

/** A record to feed. Bytes that are not given are null; `partition` is 0 unless said. */
export interface Fed {
  readonly value: Buffer | string | null;
  readonly key?: Buffer | string | null;
  readonly headers?: readonly (readonly [string, string | Buffer | null])[];
  readonly partition?: number;
}

/** What `--json` prints. */
export interface JsonReport {
  readonly exitCode: number;
  readonly conservation: Conservation;
  readonly topologies: readonly (RunStatus & { readonly result: { readonly how: string } })[];
  readonly problems: readonly { readonly code: string; readonly message: string; readonly remedy: string }[];
}

export interface EmbeddedRun {
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: JsonReport;
  /** What a topic or queue held at the end, by partition and offset. */
  records(name: string): Promise<DumpedRecord[]>;
}

/** A topology file outside of the repository. */
export function topologyFile(t: TestContext, text: string, name = "topology.ts"): string {
  const file = join(freshFolder(t), name);
  writeFileSync(file, text);
  return file;
}

/** The line of a feed file that stands for exactly these bytes. */
export function feedLine({ value, key = null, headers = [], partition = 0 }: Fed): string {
  const field = (bytes: Buffer | string | null) =>
    bytes === null ? null : { base64: Buffer.from(bytes).toString("base64") };
  return JSON.stringify({
    value: field(value),
    key: field(key),
    partition,
    headers: headers.map(([name, content]) => [name, field(content)]),
  });
}

/** Feeds topics or queues of the embedded brokers, runs until idle, and dumps. */
export async function runEmbedded(
  t: TestContext,
  topology: string,
  feeds: Readonly<Record<string, Iterable<Fed>>>,
  env: NodeJS.ProcessEnv = {},
): Promise<EmbeddedRun> {
  const file = topologyFile(t, topology);
  const folder = freshFolder(t);
  const args = Object.entries(feeds).flatMap(([target, records], i) => {
    const feed = join(folder, `${i}.ndjson`);
    writeFileSync(feed, [...records].map((record) => `${feedLine(record)}\n`).join(""));
    return ["--feed", `${target}=${feed}`];
  });
  const out = join(folder, "out");
  const all = ["run", file, "--embedded", ...args, "--until-idle", "--json", "--dump", out];
  const ended = await runMillrace(t, all, env);
  assert.match(ended.stdout, /^\{.*\}\n$/, `no report: ${ended.stderr.slice(-3_000)}`);
  return {
    ...ended,
    report: JSON.parse(ended.stdout) as JsonReport,
    records: async (name) =>
      (await dumped(out, name)).sort((a, b) => a.partition - b.partition || a.offset - b.offset),
  };
}

/** The bytes of a dumped key, value or header. */
export function bytesOf(field: unknown): Buffer | null {
  if (field === null) return null;
  if (typeof field === "string") return Buffer.from(field);
  return Buffer.from((field as { base64: string }).base64, "base64");
}

/** The headers that say why a record is among the dead letters. The last of one name counts. */
export function reasonOf({ headers }: DumpedRecord): Readonly<Record<string, string>> {
  const named = headers.filter(([name]) => name.startsWith("millrace-error-"));
  return Object.fromEntries(named) as Record<string, string>;
}

/** The headers that came with a dead letter. */
export function ownHeaders({ headers }: DumpedRecord): readonly (readonly [string, unknown])[] {
  return headers.filter(([name]) => !name.startsWith("millrace-error-"));
}
