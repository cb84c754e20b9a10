import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { findProgram } from "./program.ts";
import { run } from "./run.ts";
import { until } from "./until.ts";

const pom = fileURLToPath(new URL("pom.xml", import.meta.url));
const cache = fileURLToPath(new URL("../../.brokers/", import.meta.url));
const BUILD_MS = 300_000;

/** The folder of what is built from this file: a new content is a new folder. */
function folderOf(name: string, file: string): string {
  const digest = createHash("sha256").update(readFileSync(file)).digest("hex");
  return `${cache}${name}-${digest.slice(0, 12)}`;
}

/** Why Kafka cannot be started on this machine; undefined if it can. */
export function kafkaAbsence(): string | undefined {
  if (findProgram("java") === undefined) return "Java, 17 or newer, is not installed";
  const version = javaVersion();
  if (version < 17) return `Java ${version} is installed, Kafka needs 17 or newer`;
  if (!existsSync(folderOf("kafka", pom)) && findProgram("mvn") === undefined) {
    return "Maven, which fetches Kafka's jars, is not installed";
  }
  return undefined;
}

/** The major version: `java -version` says `version "17.0.15"`, and up to Java 8 `version "1.8.0"`. */
function javaVersion(): number {
  const { stderr } = spawnSync("java", ["-version"], { encoding: "utf8" });
  return Number(/version "(\d+)/.exec(stderr)?.[1] ?? 0);
}

/** The folder of Kafka's jars, fetched if it is not here yet. */
export function kafkaJars(): Promise<string> {
  return jarsOf("kafka", pom);
}

/** The folder of the jars that a pom asks for, fetched by Maven if it is not here yet. */
export function jarsOf(name: string, pomFile: string): Promise<string> {
  return builtOnce(name, pomFile, async (unfinished) => {
    process.stderr.write(`fetching the jars of ${name} once into .brokers/ …\n`);
    const args = [
      "-q",
      "-B",
      "-f",
      pomFile,
      "dependency:copy-dependencies",
      `-DoutputDirectory=${unfinished}`,
    ];
    await run("mvn", args, { within: BUILD_MS });
  });
}

/**
 * A folder that `build` fills, the first time that it is asked for with this content of `file`. Many processes may ask
 * at once: one builds, the others wait for it. The folder appears by a rename, so it is there whole or not at all.
 */
export async function builtOnce(
  name: string,
  file: string,
  build: (unfinished: string) => Promise<void>,
): Promise<string> {
  const folder = folderOf(name, file);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const lock = `${folder}.lock`;
  let builds = false;
  await until(
    `another process has built ${folder}`,
    () => {
      builds = takeLock(lock);
      return builds || existsSync(folder);
    },
    BUILD_MS,
  );
  if (!builds) return folder;
  const unfinished = `${folder}.${process.pid}`;
  try {
    if (existsSync(folder)) return folder;
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished);
    await build(unfinished);
    renameSync(unfinished, folder);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    throw new Error(`${name} could not be built from ${file}`, { cause: error });
  } finally {
    rmSync(lock);
  }
  return folder;
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
