import { constants } from "node:fs";
import { link, open, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import type { Random } from "../../component/context.ts";
import { MillraceError } from "../../errors.ts";

/** A process, told apart from a later one with its number where the system tells when it began. */
interface Owner {
  readonly host: string;
  readonly pid: number;
  /** Boot and moment of the start; null where the system does not say. */
  readonly started: string | null;
  /** Of this taking, so that two in one process are told apart. */
  readonly token: string;
}

/** Takings by this process that have not been let go of. */
const ours = new Set<string>();
let takings = 0;

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;

/**
 * A file that says which process uses what lies beside it.
 *
 * Node has no locks that die with their process, so a killed one leaves its file behind. It is taken over when its
 * process is known to be gone, or is one of another machine, of which nothing can be known. Whoever was alive all
 * the same finds out by {@link OwnerFile.check} before it writes again.
 */
export class OwnerFile {
  readonly #path: string;
  readonly #token: string;

  private constructor(path: string, token: string) {
    this.#path = path;
    this.#token = token;
  }

  /**
   * @param what it guards, for errors.
   * @param tookOver told which process had it, if one did that seems to be gone.
   * @throws MillraceError `topology-conflict` while another run is known to have it
   */
  static async take(
    path: string,
    what: string,
    random: Random,
    tookOver: (owner: string) => void,
  ): Promise<OwnerFile> {
    const before = await ownerIn(path);
    if (before !== undefined) {
      if (await isAlive(before)) throw inUse(what, describe(before), path);
      tookOver(describe(before));
      await rm(path, { force: true });
    }
    const { pid } = process;
    // Unlike all others of this process by its number, and those of others by chance.
    const token = `${pid}-${++takings}-${random.next().toString(36).slice(2)}`;
    const text = JSON.stringify({ host: hostname(), pid, started: (await startOf(pid)) ?? null, token });
    // Whole before it is there: nobody reads half of it, and of two that come at once one finds the other.
    const draft = `${path}.${token}`;
    const handle = await open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644);
    try {
      await handle.writeFile(`${text}\n`).finally(() => handle.close());
      await link(draft, path);
    } catch (error) {
      if ((error as { code?: unknown }).code !== "EEXIST") throw error;
      throw inUse(what, "another process that started just now", path);
    } finally {
      await rm(draft, { force: true });
    }
    ours.add(token);
    return new OwnerFile(path, token);
  }

  /** The process that is known to use it now, in words. */
  static async user(path: string): Promise<string | undefined> {
    const owner = await ownerIn(path);
    return owner !== undefined && (await isAlive(owner)) ? describe(owner) : undefined;
  }

  /** Whether it is still ours. */
  async check(): Promise<boolean> {
    return (await ownerIn(this.#path))?.token === this.#token;
  }

  async letGo(): Promise<void> {
    ours.delete(this.#token);
    if (await this.check()) await rm(this.#path, { force: true });
  }
}

function inUse(what: string, owner: string, path: string): MillraceError {
  return new MillraceError("topology-conflict", `${what} is used by ${owner}`, {
    remedy: `give each process a store of its own; if nothing uses this one, remove ${path}`,
  });
}

function describe({ pid, host }: Owner): string {
  return pid === process.pid && host === hostname() ? "this process" : `process ${pid} on ${host}`;
}

/** Who a file names. One that says nothing is what a crash left of a taking. */
async function ownerIn(path: string): Promise<Owner | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const owner = JSON.parse(text) as Owner;
    if (typeof owner.token === "string" && Number.isSafeInteger(owner.pid)) return owner;
  } catch {}
  return { host: "", pid: 0, started: null, token: "" };
}

async function isAlive({ host, pid, started, token }: Owner): Promise<boolean> {
  if (host !== hostname()) return false;
  if (pid === process.pid && (started === null || started === ((await startOf(pid)) ?? null))) {
    return ours.has(token);
  }
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ESRCH") return false;
  }
  const start = await startOf(pid);
  return started === null || start === undefined || start === started;
}

/** When a process of this machine began, where the system says so: on Linux. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    // The second field is a name in brackets, with anything in it; the start is the 22nd.
    return `${boot} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!}`;
  } catch {
    return undefined;
  }
}
