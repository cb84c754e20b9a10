import { accessSync, constants, statSync } from "node:fs";
import { type FileHandle, open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Context, Time } from "../../component/context.ts";
import type { DoneId, IdMeaning, IdStore, IdStoreProblem, IdStoreSession } from "../../component/id-store.ts";
import { callerLocation } from "../../component/location.ts";
import { type OptionProblem, type OptionsSchema, optionProblems } from "../../component/options.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import { syncFolder } from "./append-file.ts";
import { draftEnding } from "./checkpoint.ts";
import { IdLog, type LogDisk, saltLength } from "./id-log.ts";
import { OwnerFile } from "./owner.ts";
import { pathProblem, pathToWrite, placeOf } from "./path.ts";

export interface IdStoreOptions {
  /** A folder within the root, which is made. One dedup of one process uses it at a time. */
  readonly path: string;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { path: { type: "string", minLength: 1 } },
  required: ["path"],
  additionalProperties: false,
};

const logName = "done.ids";
const ownerName = "owner";

/** A folder with a log of done ids, and a file that says which process uses it. */
export function idStore(root: string, options: IdStoreOptions, shared: readonly OptionProblem[]): IdStore {
  const { path } = options;
  const problems = [...shared, ...optionProblems("id store", schema, options)];
  problems.push(...pathProblem("id store", path));
  const name = `the id store "${path}"`;
  const place = placeOf(root, path);
  return {
    kind: "idStore",
    name,
    problems,
    location: callerLocation(),
    place,
    async verify() {
      const found: IdStoreProblem[] = [];
      const fault = place === undefined ? undefined : unwritable(place);
      if (fault !== undefined) {
        const message = `${name} cannot be written: ${fault}`;
        found.push({ severity: "error", code: "disk-failed", message, remedy: mendIt });
      }
      const user = place === undefined ? undefined : await OwnerFile.user(join(place, ownerName)).catch(none);
      if (user !== undefined) {
        const message = `${name} is used by ${user}: a run cannot start while that one goes on`;
        const remedy = "stop it first, or give each process a store of its own";
        found.push({ severity: "warning", code: "topology-conflict", message, remedy });
      }
      return found;
    },
    async open(context, meaning) {
      if (context.embedded !== undefined) {
        // What is tried out on brokers inside the process must leave no trace in what production relies on.
        context.logger.info({ node: context.node }, `${name} stays unused: the brokers are embedded`);
        return new Forgetful();
      }
      const log = await pathToWrite(root, join(path, logName));
      return openIdStore(context, name, dirname(log), meaning);
    },
  };
}

const mendIt = "check the path, the root given to file({ root }), and the rights of this user";

function none(): undefined {
  return undefined;
}

/** Why nothing can be written to a folder, or made where it will be. */
function unwritable(folder: string): string | undefined {
  for (let at = folder; ; at = dirname(at)) {
    try {
      if (!statSync(at).isDirectory()) return `${at} is no folder`;
      accessSync(at, constants.W_OK | constants.X_OK);
      return undefined;
    } catch (error) {
      if ((error as { code?: unknown }).code !== "ENOENT" || at === dirname(at)) return messageOf(error);
    }
  }
}

async function openIdStore(
  context: Context,
  name: string,
  folder: string,
  meaning: IdMeaning,
): Promise<IdStoreSession> {
  const { logger, node, random } = context;
  const owner = await failing(name, "taken", () =>
    OwnerFile.take(join(folder, ownerName), name, random, (before) => {
      logger.warn(
        { node, before },
        `${name} was left by a process that did not stop cleanly, and is taken over`,
      );
    }),
  );
  return new IdStoreFolder(context, name, new LogFolder(folder), owner, meaning);
}

/** Runs what touches the disk; whatever goes wrong is of class system. */
async function failing<T>(name: string, what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError("disk-failed", `${name} cannot be ${what}: ${messageOf(error)}`, {
      remedy:
        "make room or mend the rights, and start again: what was not written is not acknowledged, and comes again",
      cause: error,
    });
  }
}

const { O_RDWR, O_APPEND, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;

/** The log as a file in a folder. */
class LogFolder implements LogDisk {
  readonly #folder: string;
  readonly #log: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.#log = join(folder, logName);
  }

  async open(): Promise<FileHandle | undefined> {
    try {
      return await open(this.#log, O_RDWR | O_APPEND | O_NOFOLLOW);
    } catch (error) {
      if ((error as { code?: unknown }).code === "ENOENT") return undefined;
      throw error;
    }
  }

  draft(): Promise<FileHandle> {
    const flags = O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW;
    return open(`${this.#log}${draftEnding}`, flags, 0o644);
  }

  async install(): Promise<void> {
    await rename(`${this.#log}${draftEnding}`, this.#log);
    await syncFolder(this.#folder);
  }
}

/** Tells whether a session may still write. */
export type Ownership = Pick<OwnerFile, "check" | "letGo">;

export class IdStoreFolder implements IdStoreSession {
  readonly #context: Context;
  readonly #name: string;
  readonly #disk: LogDisk;
  readonly #owner: Ownership;
  readonly #meaning: IdMeaning;
  #log: IdLog | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(context: Context, name: string, disk: LogDisk, owner: Ownership, meaning: IdMeaning) {
    this.#context = context;
    this.#name = name;
    this.#disk = disk;
    this.#owner = owner;
    this.#meaning = meaning;
  }

  get count(): number {
    return this.#log?.count ?? 0;
  }

  get damaged(): boolean {
    return this.#log?.damaged ?? false;
  }

  async load(visit: (done: DoneId) => void): Promise<void> {
    const { logger, node, random } = this.#context;
    const newSalt = () => Buffer.from(Array.from({ length: saltLength }, () => random.next() * 256));
    this.#log = await failing(this.#name, "read", () =>
      IdLog.open(this.#disk, this.#name, this.#meaning, newSalt, visit, {
        torn: (bytes) =>
          logger.warn(
            { node, bytes },
            `${this.#name} ended within a write, which a crash had torn: it was cut off, and its messages come again`,
          ),
        skipped: (bytes) =>
          logger.error(
            { node, bytes },
            `${this.#name} is damaged, and a part of it was passed over: its messages may be delivered again if they come again`,
          ),
      }),
    );
  }

  add(ids: readonly DoneId[]): Promise<void> {
    return this.#write(() => this.#log!.add(ids));
  }

  replace(ids: Iterable<DoneId>): Promise<void> {
    return this.#write(() => this.#log!.replace(ids));
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#log?.close();
    await this.#owner.letGo();
  }

  #write(run: () => Promise<void>): Promise<void> {
    const write = failing(this.#name, "written", async () => {
      if (await this.#owner.check()) return run();
      throw new MillraceError("gave-up", `${this.#name} was taken over by another process`, {
        remedy: "give each process a store of its own",
      });
    });
    this.#last = write.catch(() => {});
    return write;
  }
}

/** Keeps nothing. */
class Forgetful implements IdStoreSession {
  readonly count = 0;
  readonly damaged = false;

  async load(): Promise<void> {}
  async add(): Promise<void> {}
  async replace(): Promise<void> {}
  async close(_deadline: Time): Promise<void> {}
}
