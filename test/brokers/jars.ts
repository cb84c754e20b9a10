import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { findProgram } from "./program.ts";
import { run } from "./run.ts";
import { until } from "./until.ts";

const pom = fileURLToPath(new URL("pom.xml", import.meta.url));
const cache = fileURLToPath(new URL("../../.brokers/", import.meta.url));
const FETCH_MS = 300_000;

/** The folder of Kafka's jars, named after the pom that asks for them: a new version is a new folder. */
function jarFolder(): string {
  const digest = createHash("sha256").update(readFileSync(pom)).digest("hex");
  return `${cache}kafka-${digest.slice(0, 12)}`;
}

/** Why Kafka cannot be started on this machine; undefined if it can. */
export function kafkaAbsence(): string | undefined {
  if (findProgram("java") === undefined) return "Java, 17 or newer, is not installed";
  const version = javaVersion();
  if (version < 17) return `Java ${version} is installed, Kafka needs 17 or newer`;
  if (!existsSync(jarFolder()) && findProgram("mvn") === undefined) {
    return "Maven, which fetches Kafka's jars, is not installed";
  }
  return undefined;
}

/** The major version: `java -version` says `version "17.0.15"`, and up to Java 8 `version "1.8.0"`. */
function javaVersion(): number {
  const { stderr } = spawnSync("java", ["-version"], { encoding: "utf8" });
  return Number(/version "(\d+)/.exec(stderr)?.[1] ?? 0);
}

/**
 * The folder of Kafka's jars, fetched if it is not here yet. Many processes may ask at once: one fetches, the
 * others wait for it. The folder appears by a rename, so it is there whole or not at all.
 */
export async function kafkaJars(): Promise<string> {
  const folder = jarFolder();
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const lock = `${folder}.lock`;
  let fetches = false;
  await until(
    "another process has fetched Kafka's jars",
    () => {
      fetches = takeLock(lock);
      return fetches || existsSync(folder);
    },
    FETCH_MS,
  );
  if (!fetches) return folder;
  try {
    if (!existsSync(folder)) await fetchJars(folder);
  } finally {
    rmSync(lock);
  }
  return folder;
}

async function fetchJars(folder: string): Promise<void> {
  process.stderr.write("fetching Kafka's jars once into .brokers/ …\n");
  const unfinished = `${folder}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  const args = ["-q", "-B", "-f", pom, "dependency:copy-dependencies", `-DoutputDirectory=${unfinished}`];
  try {
    await run("mvn", args, { within: FETCH_MS });
    renameSync(unfinished, folder);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    throw new Error("Kafka's jars could not be fetched by Maven", { cause: error });
  }
}

/** The lock names its owner, so that one left behind by a killed process is not waited for. */
function takeLock(lock: string): boolean {
  try {
    writeFileSync(lock, String(process.pid), { flag: "wx" });
    return true;
  } catch {
    const owner = Number(readFileSync(lock, "utf8"));
    if (owner > 0 && !isAlive(owner)) rmSync(lock, { force: true });
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
