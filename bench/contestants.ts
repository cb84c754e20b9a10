import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { builtOnce, jarsOf, kafkaAbsence } from "../test/brokers/jars.ts";
import { findProgram } from "../test/brokers/program.ts";
import { run } from "../test/brokers/run.ts";
import { order } from "../topologies/orders.schema.ts";
import type { Command } from "./process.ts";

/** A program that does a job. */
export interface Contestant {
  readonly name: string;
  /** Why it cannot run on this machine; undefined if it can. */
  absence?(): string | undefined;
  /** What starts it. It may build something first, and what is built is kept. */
  command(): Promise<Command>;
  /** It does not acknowledge what it has written, nor pass on each message at once: neither is asked of it. */
  readonly promisesLess?: true;
  /**
   * So many orders may come twice: an order and its copy that a rebalance parts, one for each partition that changes
   * hands, since no process knows another's ids.
   * @default 0
   */
  readonly parts?: number;
}

const root = fileURLToPath(new URL("..", import.meta.url));

/** With BENCH_PROFILE, where our own runs leave their CPU profiles. */
function profiling(): string[] {
  const folder = process.env.BENCH_PROFILE;
  return folder ? ["--cpu-prof", `--cpu-prof-dir=${folder}`] : [];
}

let built: Promise<string> | undefined;

/** The runner as it is in the installed package: its sources would first be stripped of their types in each process. */
async function builtRunner(): Promise<string> {
  await run("npm", ["run", "build"], { cwd: root, within: 120_000 });
  return join(root, "dist/runner/main.js");
}

/** The runner as users start it, on a topology file of `topologies/`, with these flags. */
export function ours(
  topology: string,
  env: Readonly<Record<string, string>> = {},
  name = "ours",
  flags: readonly string[] = [],
): Contestant {
  return {
    name,
    async command() {
      built ??= builtRunner();
      const topologyFile = join(root, "bench/topologies", topology);
      const args = [...profiling(), await built, "run", topologyFile, "--log-level", "warn", ...flags];
      return { file: process.execPath, args, env };
    },
  };
}

/** A loop written by hand, of `peers/`. */
export function handWritten(
  script: string,
  env: Readonly<Record<string, string>> = {},
  name = script,
): Contestant {
  return {
    name,
    command: async () => ({
      file: process.execPath,
      args: ["--conditions=millrace:source", join(root, "bench/peers", `${script}.ts`)],
      env,
    }),
  };
}

/** Kafka Streams on two threads, its jars fetched by Maven and its one class compiled at the first use. */
export function kafkaStreams(env: Readonly<Record<string, string>> = {}): Contestant {
  return {
    name: "kafka-streams",
    absence: () =>
      kafkaAbsence() ?? (findProgram("javac") === undefined ? "javac is not installed" : undefined),
    async command() {
      const folder = join(root, "bench/peers/kafka-streams");
      const jars = join(await jarsOf("kafka-streams", join(folder, "pom.xml")), "*");
      const source = join(folder, "Orders.java");
      const classes = await builtOnce("kafka-streams-orders", source, async (unfinished) => {
        await run("javac", ["-cp", jars, "-d", unfinished, source]);
      });
      const schema = join(streamsFolder(), "order.schema.json");
      writeFileSync(schema, JSON.stringify(order));
      const state = join(streamsFolder(), "state");
      return { file: "java", args: ["-Xmx512m", "-cp", `${jars}:${classes}`, "Orders", schema, state], env };
    },
  };
}

let streamsTemporary: string | undefined;

/** For the schema and for what Streams keeps on disk; it goes with this process. */
function streamsFolder(): string {
  if (streamsTemporary === undefined) {
    const folder = mkdtempSync(join(tmpdir(), "millrace-streams-"));
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
    streamsTemporary = folder;
  }
  return streamsTemporary;
}

const goFolders = ["/usr/local/go/bin"];

/** A loop in Go on franz-go, built at the first use. */
export function franzGo(job: "orders" | "relay", env: Readonly<Record<string, string>> = {}): Contestant {
  return {
    name: "franz-go",
    absence: () => (findProgram("go", goFolders) === undefined ? "Go is not installed" : undefined),
    async command() {
      const cwd = join(root, "bench/peers/franz-go");
      const built = await builtOnce("franz-go", join(cwd, "main.go"), async (unfinished) => {
        const go = findProgram("go", goFolders)!;
        await run(go, ["build", "-o", join(unfinished, "bench"), "."], { cwd, within: 300_000 });
      });
      return { file: join(built, "bench"), args: [job], env };
    },
  };
}

/** One kcat writes what another reads; nothing is committed. */
export const kcatIntoKcat: Contestant = {
  name: "kcat into kcat",
  promisesLess: true,
  absence: () => (findProgram("kcat") === undefined ? "kcat is not installed" : undefined),
  command: async () => {
    const reader = String.raw`kcat -b "$KAFKA_BROKERS" -C -q -t "$BENCH_INPUT" -o beginning -e -K "$(printf '\t')"`;
    const writer = String.raw`kcat -b "$KAFKA_BROKERS" -P -t "$BENCH_OUTPUT" -K "$(printf '\t')" -X acks=all -X partitioner=murmur2_random`;
    // The reader prints its last few kilobytes only as it ends; what the two used is asked for afterwards.
    return { file: "sh", args: ["-c", `${reader} | ${writer}; exec sleep 600`] };
  },
};
