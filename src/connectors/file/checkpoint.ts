import { createHash } from "node:crypto";
import { constants, type FileHandle, open, readFile, rename, rm } from "node:fs/promises";
import { MillraceError, messageOf } from "../../errors.ts";

/** How much of a file's beginning tells it from another. */
const headLength = 4_096;
const readBlock = 64 * 1024;
const lineFeed = 0x0a;

/** Ending of the name under which a checkpoint is written before it takes the place of the old one. */
export const draftEnding = ".draft";

interface Saved {
  readonly position: number;
  /** Digest of the file's first bytes, at most up to the position: tells whether it is still the same file. */
  readonly head?: string;
}

/**
 * Remembers in a file how far another one is settled. It is written under another name, synced, and renamed into
 * place, so that it is whole at any time; after a crash it may be older than what was settled, never newer.
 */
export class Checkpoint {
  /** Where reading goes on: the beginning of a line. */
  readonly start: number;
  readonly #path: string;
  readonly #data: FileHandle;
  #saved: number;
  #whole: string | undefined;
  #saving: Promise<void> = Promise.resolve();

  private constructor(path: string, data: FileHandle, start: number) {
    this.#path = path;
    this.#data = data;
    this.start = start;
    this.#saved = start;
  }

  /**
   * @param path the checkpoint's file, which need not be there.
   * @param data the file that it is about.
   * @param unended a last line without a line feed counts: where all is settled, the end of the file is where
   *   reading goes on, and not the beginning of that line.
   * @throws MillraceError `target-mismatch` when it is about another file, or is none
   */
  static async open(path: string, data: FileHandle, unended: boolean): Promise<Checkpoint> {
    const saved = await readSaved(path);
    if (saved === undefined) return new Checkpoint(path, data, 0);
    const { size } = await data.stat();
    const another =
      saved.position > size
        ? `it is ${size} bytes long and the checkpoint lies at byte ${saved.position}`
        : saved.head !== undefined && saved.head !== (await headOf(data, saved.position))
          ? "it begins differently"
          : undefined;
    if (another !== undefined) {
      throw new MillraceError(
        "target-mismatch",
        `the file is not the one that ${path} is about: ${another}`,
        {
          remedy: "to read the file from its start, remove the checkpoint",
        },
      );
    }
    const ended = unended && saved.position === size;
    return new Checkpoint(path, data, ended ? size : await lineStart(data, saved.position));
  }

  /** Writes the position unless it is the one last written; one write after the other. */
  save(position: number): Promise<void> {
    const write = this.#saving.then(async () => {
      if (position <= this.#saved) return;
      const head = this.#whole ?? (await headOf(this.#data, position));
      if (position >= headLength) this.#whole = head;
      await replace(this.#path, `${JSON.stringify({ position, head })}\n`);
      this.#saved = position;
    });
    this.#saving = write.catch(() => {});
    return write.catch((error) => {
      throw new MillraceError(
        "disk-failed",
        `the checkpoint ${this.#path} cannot be written: ${messageOf(error)}`,
        {
          remedy: "make room or mend the rights, and start again: what was not saved is read once more",
          cause: error,
        },
      );
    });
  }
}

async function readSaved(path: string): Promise<Saved | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw new MillraceError("target-mismatch", `the checkpoint ${path} cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  try {
    const { position, head } = JSON.parse(text) as { position?: unknown; head?: unknown };
    if (Number.isSafeInteger(position) && (position as number) >= 0 && typeof head === "string") {
      return { position: position as number, head };
    }
  } catch {}
  throw new MillraceError("target-mismatch", `the file ${path} is no checkpoint`, {
    remedy: "name another file for the checkpoint, or remove this one to read from the start",
  });
}

async function headOf(data: FileHandle, position: number): Promise<string> {
  const head = await readFully(data, Buffer.alloc(Math.min(headLength, position)), 0);
  return createHash("sha256").update(head).digest("hex");
}

/** Where the line begins that the byte at `position` belongs to, or would. */
async function lineStart(data: FileHandle, position: number): Promise<number> {
  const block = Buffer.alloc(readBlock);
  for (let end = position; end > 0; ) {
    const from = Math.max(0, end - block.length);
    const read = await readFully(data, block.subarray(0, end - from), from);
    const found = read.lastIndexOf(lineFeed);
    if (found >= 0) return from + found + 1;
    end = from;
  }
  return 0;
}

async function readFully(data: FileHandle, target: Buffer, from: number): Promise<Buffer> {
  let length = 0;
  while (length < target.length) {
    const { bytesRead } = await data.read(target, length, target.length - length, from + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return target.subarray(0, length);
}

/** Replaces a file's content: whoever reads it sees the old one or the new one. */
async function replace(path: string, text: string): Promise<void> {
  const draft = `${path}${draftEnding}`;
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const handle = await open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o644);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  try {
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
