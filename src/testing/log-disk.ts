import type { Clock, Context, Random } from "../component/context.ts";
import type { IdMeaning, IdStore } from "../component/id-store.ts";
import type { AppendHandle } from "../connectors/file/append-file.ts";
import { IdLog, type LogDisk } from "../connectors/file/id-log.ts";
import { IdStoreFolder } from "../connectors/file/id-store.ts";

interface SimulatedFile {
  bytes: Buffer;
  /** So many of them are safe. */
  synced: number;
}

export interface DiskOptions {
  /** With it, everything takes its `latency`, ms; without, a turn of the promises. */
  readonly clock?: Clock;
  /** Default 0. */
  readonly latency?: number;
}

/**
 * A disk for one log of ids. What was written and not synced is lost in a {@link crash}, or a part of it, or comes
 * back as garbage; operations under way then never end.
 */
export class SimulatedLogDisk {
  /** Syncs so far. */
  syncs = 0;
  readonly #options: DiskOptions;
  #log: SimulatedFile | undefined;
  #draft: SimulatedFile | undefined;
  /** Crashes so far: what began before the last one is over. */
  #life = 0;
  #fault: { readonly code: string; readonly on: "write" | "sync" } | undefined;

  constructor(options: DiskOptions = {}) {
    this.#options = options;
  }

  /** The log as a crash now would leave it at the least. */
  get safe(): Buffer {
    return Buffer.from(this.#log?.bytes.subarray(0, this.#log.synced) ?? "");
  }

  get size(): number {
    return this.#log?.bytes.length ?? 0;
  }

  /** Damages the log: `change` is given its bytes. */
  damage(change: (bytes: Buffer) => Buffer): void {
    const bytes = change(this.#log?.bytes ?? Buffer.alloc(0));
    this.#log = { bytes, synced: bytes.length };
  }

  /** All writes, or all syncs, fail from now on; a write leaves half of its bytes. Undefined: none does. */
  fail(code: string | undefined, on: "write" | "sync" = "write"): void {
    this.#fault = code === undefined ? undefined : { code, on };
  }

  /** The machine goes down and comes back. */
  crash(random: Random): void {
    this.#life++;
    this.#fault = undefined;
    this.#draft = undefined;
    const log = this.#log;
    if (log === undefined) return;
    const unsynced = log.bytes.length - log.synced;
    const end = log.synced + Math.floor(random.next() * (unsynced + 1));
    log.bytes = Buffer.from(log.bytes.subarray(0, end));
    if (random.next() < 0.3) for (let at = log.synced; at < end; at++) log.bytes[at] = random.next() * 256;
    log.synced = log.bytes.length;
  }

  /** The disk as a process sees it until the next crash. */
  mount(): LogDisk {
    const life = this.#life;
    return {
      open: () => this.#do(life, () => (this.#log === undefined ? undefined : this.#handle(life, this.#log))),
      draft: () =>
        this.#do(life, () => {
          this.#draft = { bytes: Buffer.alloc(0), synced: 0 };
          return this.#handle(life, this.#draft);
        }),
      install: () =>
        this.#do(life, () => {
          this.#log = this.#draft;
          this.#draft = undefined;
        }),
    };
  }

  /** Time passes, then it is done; what a crash has overtaken is never done, and never ends. */
  async #do<T>(life: number, effect: () => T): Promise<T> {
    const { clock, latency = 0 } = this.#options;
    if (clock === undefined) await Promise.resolve();
    else await new Promise<void>((resolve) => clock.after(latency, resolve));
    return life === this.#life ? effect() : new Promise<T>(() => {});
  }

  #handle(life: number, file: SimulatedFile): AppendHandle {
    const failing = (on: "write" | "sync") => (this.#fault?.on === on ? this.#fault.code : undefined);
    const failed = (code: string) => Object.assign(new Error(`${code}: no good`), { code });
    const handle = {
      stat: () => this.#do(life, () => ({ size: file.bytes.length })),
      read: (target: Buffer, at: number, length: number, from: number) =>
        this.#do(life, () => ({
          bytesRead: file.bytes.copy(target, at, from, Math.min(from + length, file.bytes.length)),
        })),
      write: (bytes: Buffer, at: number, length: number) =>
        this.#do(life, () => {
          const code = failing("write");
          const part = bytes.subarray(at, at + (code === undefined ? length : length >> 1));
          file.bytes = Buffer.concat([file.bytes, part]);
          if (code !== undefined) throw failed(code);
          return { bytesWritten: part.length };
        }),
      truncate: (size: number) =>
        this.#do(life, () => {
          file.bytes = Buffer.from(file.bytes.subarray(0, size));
          file.synced = Math.min(file.synced, size);
        }),
      datasync: () =>
        this.#do(life, () => {
          const code = failing("sync");
          if (code !== undefined) throw failed(code);
          this.syncs++;
          file.synced = file.bytes.length;
        }),
      close: async () => {},
    };
    return handle as unknown as AppendHandle;
  }
}

/** The id store of a file connection over a simulated disk: the same in all but the disk, and nobody else wants it. */
export function simulatedIdStore(disk: SimulatedLogDisk): IdStore {
  const name = 'the id store "simulated"';
  const owner = { check: async () => true, letGo: async () => {} };
  return {
    kind: "idStore",
    name,
    problems: [],
    location: undefined,
    place: undefined,
    verify: async () => [],
    open: async (context: Context, meaning: IdMeaning) =>
      new IdStoreFolder(context, name, disk.mount(), owner, meaning),
  };
}

/** The ids in the bytes of a log, as a run that began with them would find them. */
export async function idsInLog(bytes: Buffer, meaning: IdMeaning): Promise<string[]> {
  const ids: string[] = [];
  if (bytes.length === 0) return ids;
  const disk = new SimulatedLogDisk();
  disk.damage(() => Buffer.from(bytes));
  const told = { torn: () => {}, skipped: () => {} };
  const newSalt = () => Buffer.alloc(8);
  await IdLog.open(disk.mount(), "the log", meaning, newSalt, ({ id }) => ids.push(id), told);
  return ids;
}
