import { constants, type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { MillraceError, messageOf } from "../../errors.ts";

/** Ending of the name of the file that torn lines are put into. */
export const tornEnding = ".torn";

const lineFeed = 0x0a;
const readBlock = 64 * 1024;

/** What of a file's handle is used. */
export type AppendHandle = Pick<FileHandle, "stat" | "read" | "write" | "truncate" | "datasync" | "close">;

/** One for each file of the process, however many sinks write it: they must not cut off each other's bytes. */
const openFiles = new Map<string, { readonly file: Promise<AppendFile>; users: number }>();

/**
 * A file that whole lines are appended to, one write after the other, each safe on the disk when it resolves.
 *
 * A write that fails may have left a part of its bytes. They are cut off before anything is written again, since
 * what comes after them would become part of their line.
 */
export class AppendFile {
  readonly #handle: AppendHandle;
  /** End of what is whole, while a failed write is to be undone. */
  #undoTo: number | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(handle: AppendHandle) {
    this.#handle = handle;
  }

  /**
   * Opens a file, or joins those who have it open; each closes it once. A last line without a line feed was never
   * acknowledged: it is moved to a file of its own beside it, so that nobody takes it for a message.
   *
   * @param torn told how many bytes were moved.
   * @throws MillraceError `disk-failed`
   */
  static async open(path: string, torn: (bytes: number) => void): Promise<AppendFile> {
    let entry = openFiles.get(path);
    if (entry === undefined) {
      entry = { file: openWhole(path, torn), users: 0 };
      openFiles.set(path, entry);
    }
    entry.users++;
    try {
      return await entry.file;
    } catch (error) {
      openFiles.delete(path);
      throw error;
    }
  }

  /** Lets go of the file; the last one to do so closes it. */
  static async close(path: string): Promise<void> {
    const entry = openFiles.get(path);
    if (entry === undefined || --entry.users > 0) return;
    openFiles.delete(path);
    await (await entry.file).#close();
  }

  /** Resolves when the bytes are on the disk. Can be called again with the same bytes after it has failed. */
  append(bytes: Buffer): Promise<void> {
    const write = this.#last.then(() => this.#write(bytes));
    this.#last = write.catch(() => {});
    return write;
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.#undoTo !== undefined) await this.#handle.truncate(this.#undoTo);
    this.#undoTo = (await this.#handle.stat()).size;
    for (let at = 0; at < bytes.length; ) {
      at += (await this.#handle.write(bytes, at, bytes.length - at)).bytesWritten;
    }
    // A failed sync may have dropped the bytes without another saying so: then they are written anew.
    await this.#handle.datasync();
    this.#undoTo = undefined;
  }

  async #close(): Promise<void> {
    await this.#last;
    await this.#handle.close();
  }
}

const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;

async function openWhole(path: string, torn: (bytes: number) => void): Promise<AppendFile> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o644);
    const status = await handle.stat();
    if (!status.isFile()) throw new Error("it is no regular file");
    const whole = await wholeLines(handle, status.size);
    if (whole < status.size) {
      await moveTorn(path, handle, whole, status.size);
      torn(status.size - whole);
    }
    // The entry of a new file must survive a power cut as its content does.
    if (status.size === 0) await syncFolder(dirname(path));
    return new AppendFile(handle);
  } catch (error) {
    await handle?.close();
    throw new MillraceError("disk-failed", `${path} cannot be written: ${messageOf(error)}`, {
      remedy: "check the path and the rights of this user, and that there is room",
      cause: error,
    });
  }
}

/** The length of a file up to its last line feed. */
async function wholeLines(handle: AppendHandle, size: number): Promise<number> {
  const block = Buffer.alloc(readBlock);
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - block.length);
    const { bytesRead } = await handle.read(block, 0, end - from, from);
    const found = block.subarray(0, bytesRead).lastIndexOf(lineFeed);
    if (found >= 0) return from + found + 1;
    end = from;
  }
  return 0;
}

/** First there, then gone here: a crash between leaves it twice. */
async function moveTorn(path: string, handle: AppendHandle, from: number, to: number): Promise<void> {
  const aside = await open(`${path}${tornEnding}`, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o644);
  try {
    const block = Buffer.alloc(readBlock);
    for (let at = from; at < to; ) {
      const { bytesRead } = await handle.read(block, 0, Math.min(block.length, to - at), at);
      if (bytesRead === 0) break;
      await aside.appendFile(block.subarray(0, bytesRead));
      at += bytesRead;
    }
    await aside.appendFile("\n");
    await aside.sync();
  } finally {
    await aside.close();
  }
  await syncFolder(dirname(path));
  await handle.truncate(from);
  await handle.datasync();
}

/** Makes what was done to the names in a folder survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
