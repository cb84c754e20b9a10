import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import pg from "pg";
import { Home } from "./home.ts";
import { freePort } from "./port.ts";
import { findProgram } from "./program.ts";
import { run } from "./run.ts";
import { Server } from "./server.ts";
import { until } from "./until.ts";

/** Debian keeps the server's programs out of the PATH, a folder for each version: the newest comes first. */
const FOLDERS = globSync("/usr/lib/postgresql/*/bin").toSorted((a, b) => versionOf(b) - versionOf(a));

function versionOf(folder: string): number {
  return Number(/\d+/.exec(folder)?.[0]);
}

/** Why PostgreSQL cannot be started on this machine; undefined if it can. */
export function postgresAbsence(): string | undefined {
  const missing = ["initdb", "postgres"].filter((name) => findProgram(name, FOLDERS) === undefined);
  return missing.length === 0 ? undefined : `PostgreSQL is not installed (no ${missing.join(", no ")})`;
}

/** A PostgreSQL server to talk to, ours or not. */
export class Postgres {
  /** A `postgres:` URL with user and password, of a user who may create databases. */
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** A new, empty database; its URL. It goes with the test. Takes about 0.1 s. */
  async freshDatabase(t: TestContext): Promise<string> {
    const name = `test_${randomBytes(6).toString("hex")}`;
    await this.query(`CREATE DATABASE ${name}`);
    t.after(() => this.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
    const url = new URL(this.url);
    url.pathname = `/${name}`;
    return url.href;
  }

  /** Runs a statement on a connection of its own. */
  async query(text: string): Promise<readonly Record<string, unknown>[]> {
    const client = new pg.Client(this.url);
    await client.connect();
    try {
      return (await client.query(text)).rows as Record<string, unknown>[];
    } finally {
      await client.end();
    }
  }
}

/** A server of ours, which may be stopped, killed and frozen. */
export class PostgresServer extends Postgres {
  readonly #home: Home;
  readonly #server: Server;

  constructor(url: string, home: Home, server: Server) {
    super(url);
    this.#home = home;
    this.#server = server;
  }

  /** Starts the server if it was killed; one that runs is first stopped in good order. Same port, same data. */
  async restart(): Promise<void> {
    await this.#server.stop();
    await this.start();
  }

  /** SIGKILL, to the server and all its processes: they are in process groups of their own. */
  async kill(): Promise<void> {
    const children = this.#children();
    await this.#server.kill();
    signalAll(children, "SIGKILL");
    await until("the server's processes are gone", () => children.every(isGone));
  }

  /** SIGSTOP: connections stay open, nothing is answered. */
  pause(): void {
    this.#server.pause();
    signalAll(this.#children(), "SIGSTOP");
  }

  resume(): void {
    signalAll(this.#children(), "SIGCONT");
    this.#server.resume();
  }

  /** Ends the server and throws its data away. Idempotent. */
  async stop(): Promise<void> {
    if (this.#server.running) await this.kill();
    await this.#home.remove();
  }

  start(): Promise<void> {
    return this.#server.start(() =>
      this.query("SELECT 1").then(
        () => true,
        () => false,
      ),
    );
  }

  #children(): number[] {
    const parent = readFileSync(join(this.#home.path, "postgres.pid"), "utf8").trim();
    return globSync("[0-9]*", { cwd: "/proc" })
      .filter((pid) => processOf(pid)?.parent === parent)
      .map(Number);
  }
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** A process's state and its parent's number. */
function processOf(pid: string | number): { readonly state: string; readonly parent: string } | undefined {
  try {
    // The name in parentheses may hold anything, spaces and parentheses too.
    const [state, parent] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
    return { state: state!, parent: parent! };
  } catch {
    return undefined;
  }
}

/** What has ended and was not asked for its exit code yet is gone too. */
function isGone(pid: number): boolean {
  return [undefined, "Z", "X"].includes(processOf(pid)?.state);
}

/**
 * Starts a server with a data directory of its own on a free loopback port, in about 2 s. Root may not run it: then
 * it runs as the user of Debian's package, or as nobody.
 */
export async function startPostgres(): Promise<PostgresServer> {
  const home = new Home("postgres");
  try {
    const user = process.getuid?.() === 0 ? unprivileged() : undefined;
    const data = join(home.path, "data");
    const passwordFile = join(home.path, "password");
    const password = randomBytes(16).toString("hex");
    mkdirSync(data, { mode: 0o700 });
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (user !== undefined)
      for (const path of [home.path, data, passwordFile]) chownSync(path, user.uid, user.gid);
    const postgres = findProgram("postgres", FOLDERS)!;
    const env = { ...withoutPostgres(process.env), HOME: home.path, LC_ALL: "C" };
    await run(
      findProgram("initdb", FOLDERS)!,
      [
        "-D",
        data,
        "-U",
        "tester",
        "-A",
        "scram-sha-256",
        `--pwfile=${passwordFile}`,
        "-E",
        "UTF8",
        "--no-sync",
      ],
      { cwd: home.path, env, ...user },
    );
    const port = await freePort();
    // Killed servers keep what they wrote; only a machine that loses power would not.
    const settings = { listen_addresses: "127.0.0.1", port, unix_socket_directories: "", fsync: "off" };
    const server = new Server(home, {
      name: "postgres",
      file: postgres,
      args: ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
      env,
      ...user,
    });
    const started = new PostgresServer(
      `postgres://tester:${password}@127.0.0.1:${port}/postgres`,
      home,
      server,
    );
    await started.start();
    return started;
  } catch (error) {
    await home.remove();
    throw error;
  }
}

function unprivileged(): { readonly uid: number; readonly gid: number } {
  for (const name of ["postgres", "nobody"]) {
    try {
      const [uid, gid] = ["-u", "-g"].map((of) => Number(execFileSync("id", [of, name], { stdio: "pipe" })));
      return { uid: uid!, gid: gid! };
    } catch {
      // There is no such user.
    }
  }
  throw new Error("root may not run PostgreSQL, and there is neither a user postgres nor nobody");
}

function withoutPostgres(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("PG")));
}
