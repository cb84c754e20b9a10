import { crc32 } from "node:zlib";
import type { DoneId, IdMeaning } from "../../component/id-store.ts";
import { MillraceError } from "../../errors.ts";
import { AppendFile, type AppendHandle } from "./append-file.ts";

/** The files of a log, as little of a file system as it needs. */
export interface LogDisk {
  /** Opens the log for reading and appending; undefined when there is none. */
  open(): Promise<AppendHandle | undefined>;
  /** Opens a draft, emptied, for appending. */
  draft(): Promise<AppendHandle>;
  /** Puts the draft, which is whole and synced, in the place of the log, for good. */
  install(): Promise<void>;
}

export interface LogTold {
  /** Bytes at the end that a crash had torn were cut off. */
  torn(bytes: number): void;
  /** Bytes in the middle are not what was written, and were passed over. */
  skipped(bytes: number): void;
}

const version = 1;
export const saltLength = 8;
/** Salt, length of the content, checksum of length and content. */
const frameHead = saltLength + 8;
/** A frame is closed at the first id that brings it to so many bytes. */
const frameBytes = 256 * 1024;
/** No frame is longer: a length beyond it is damage. */
const longestFrame = 2 ** 28;
const readBlock = 1024 * 1024;
const longestTitle = 64 * 1024;
/** Time, length of the scope, length of the id. */
const recordHead = 8 + 4 + 4;
const lineFeed = 0x0a;

/**
 * A log of done ids, on a disk that may stop at any moment.
 *
 * Why not SQLite, which Node has: it is synchronous, so that each commit would stop the event loop for as long as the
 * disk takes to sync, and until a late release Node warns users that it is experimental. What is needed is less than a database: append,
 * read all, and now and then write anew what still counts.
 *
 * ```
 *   {"millrace":"ids","version":1,"scope":"lane","from":"/id","salt":"…"} ⏎
 *   frame*        salt · length · checksum · content
 *   content       (time · scope · id)*
 * ```
 * A frame is what was added at once, so that what a crash tears is exactly what had not been acknowledged. It is
 * told by its checksum. Where a frame in the middle is damaged, reading goes on at the next one, found by the salt:
 * chance drawn when the log was made, so that no id that someone chooses can pass for a frame.
 */
export class IdLog {
  /** See {@link IdStoreSession.damaged}. */
  damaged: boolean;
  readonly #disk: LogDisk;
  readonly #meaning: IdMeaning;
  readonly #salt: Buffer;
  #handle: AppendHandle;
  #file: AppendFile;
  #count = 0;

  private constructor(
    disk: LogDisk,
    meaning: IdMeaning,
    salt: Buffer,
    handle: AppendHandle,
    damaged: boolean,
  ) {
    this.#disk = disk;
    this.#meaning = meaning;
    this.#salt = salt;
    this.#handle = handle;
    this.#file = new AppendFile(handle);
    this.damaged = damaged;
  }

  /**
   * Opens the log, or makes one, and visits all ids in it. Bytes that a crash has torn are cut off.
   *
   * @param name for errors.
   * @param newSalt {@link saltLength} random bytes, for a log that is made.
   * @throws MillraceError `target-mismatch` when the file is none, or its ids mean something else
   */
  static async open(
    disk: LogDisk,
    name: string,
    meaning: IdMeaning,
    newSalt: () => Buffer,
    visit: (done: DoneId) => void,
    told: LogTold,
  ): Promise<IdLog> {
    const handle = await disk.open();
    if (handle === undefined) {
      const salt = newSalt();
      const { handle: made } = await write(disk, meaning, salt, []);
      return new IdLog(disk, meaning, salt, made, false);
    }
    try {
      const { size } = await handle.stat();
      const window = new Window(handle, size);
      const { salt, length } = await readTitle(window, name, meaning);
      let count = 0;
      const { end, skipped } = await eachFrame(window, length, salt, (done) => {
        count++;
        visit(done);
      });
      if (skipped > 0) told.skipped(skipped);
      if (end < size) {
        told.torn(size - end);
        await handle.truncate(end);
      }
      // A process whose last sync failed has left bytes that can be read, and that a power cut would take away.
      await handle.datasync();
      const log = new IdLog(disk, meaning, salt, handle, skipped > 0);
      log.#count = count;
      return log;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Resolves when the ids are on the disk. */
  async add(ids: Iterable<DoneId>): Promise<void> {
    const frames = [...framesOf(ids, this.#salt)];
    await this.#file.append(Buffer.concat(frames.map(({ bytes }) => bytes)));
    for (const { count } of frames) this.#count += count;
  }

  /** Writes the log anew: these ids alone are in it then. After a failure it is as it was. */
  async replace(ids: Iterable<DoneId>): Promise<void> {
    const { handle, count } = await write(this.#disk, this.#meaning, this.#salt, ids);
    const old = this.#handle;
    this.#handle = handle;
    this.#file = new AppendFile(handle);
    this.#count = count;
    this.damaged = false;
    await old.close();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** Writes a log under another name, frame by frame, and puts it in place. */
async function write(disk: LogDisk, meaning: IdMeaning, salt: Buffer, ids: Iterable<DoneId>) {
  const handle = await disk.draft();
  try {
    const file = new AppendFile(handle);
    const title = { millrace: "ids", version, ...meaning, salt: salt.toString("hex") };
    await file.append(Buffer.from(`${JSON.stringify(title)}\n`));
    let total = 0;
    for (const { bytes, count } of framesOf(ids, salt)) {
      await file.append(bytes);
      total += count;
    }
    await disk.install();
    return { handle, count: total };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readTitle(window: Window, name: string, { scope, from }: IdMeaning) {
  const head = await window.bytes(0, Math.min(longestTitle, window.size));
  const length = head.indexOf(lineFeed) + 1;
  let title: Record<string, unknown> | undefined;
  try {
    title = JSON.parse(head.toString("utf8", 0, length)) as Record<string, unknown>;
  } catch {}
  const salt = Buffer.from(typeof title?.salt === "string" ? title.salt : "", "hex");
  if (title?.millrace !== "ids" || title.version !== version || salt.length !== saltLength) {
    throw new MillraceError("target-mismatch", `${name} is damaged, or is none`, {
      remedy: "name another one, or remove this one: what was delivered so far may then be delivered again",
    });
  }
  if (title.scope !== scope || title.from !== from) {
    const was = `scope "${String(title.scope)}" made from ${String(title.from)}`;
    throw new MillraceError(
      "target-mismatch",
      `${name} holds ids of another dedup: with ${was}, and this one has scope "${scope}" and makes them from ${from}`,
      {
        remedy:
          "name another one: ids that mean something else would pass for those of messages never delivered",
      },
    );
  }
  return { salt, length };
}

interface Frame {
  readonly bytes: Buffer;
  /** Ids in it. */
  readonly count: number;
}

function* framesOf(ids: Iterable<DoneId>, salt: Buffer): Generator<Frame> {
  let records: DoneId[] = [];
  let bytes = 0;
  for (const done of ids) {
    records.push(done);
    bytes += recordHead + Buffer.byteLength(done.scope) + Buffer.byteLength(done.id);
    if (bytes < frameBytes) continue;
    yield frameOf(records, bytes, salt);
    records = [];
    bytes = 0;
  }
  if (records.length > 0) yield frameOf(records, bytes, salt);
}

function frameOf(records: readonly DoneId[], length: number, salt: Buffer): Frame {
  const frame = Buffer.allocUnsafe(frameHead + length);
  salt.copy(frame);
  frame.writeUInt32LE(length, saltLength);
  let at = frameHead;
  for (const { scope, id, at: time } of records) {
    frame.writeDoubleLE(time, at);
    const scopeAt = at + recordHead;
    const scopeLength = frame.write(scope, scopeAt);
    const idLength = frame.write(id, scopeAt + scopeLength);
    frame.writeUInt32LE(scopeLength, at + 8);
    frame.writeUInt32LE(idLength, at + 12);
    at = scopeAt + scopeLength + idLength;
  }
  frame.writeUInt32LE(checksumOf(frame, frame.subarray(frameHead)), saltLength + 4);
  return { bytes: frame, count: records.length };
}

/** Of a frame's length and content. */
function checksumOf(head: Buffer, content: Buffer): number {
  return crc32(content, crc32(head.subarray(saltLength, saltLength + 4)));
}

/** The ids of a frame's content; undefined when it has not the form of any. */
function idsIn(content: Buffer): DoneId[] | undefined {
  const ids: DoneId[] = [];
  for (let at = 0; at < content.length; ) {
    if (at + recordHead > content.length) return undefined;
    const time = content.readDoubleLE(at);
    const scopeAt = at + recordHead;
    const idAt = scopeAt + content.readUInt32LE(at + 8);
    const end = idAt + content.readUInt32LE(at + 12);
    if (end > content.length) return undefined;
    ids.push({
      at: time,
      scope: content.toString("utf8", scopeAt, idAt),
      id: content.toString("utf8", idAt, end),
    });
    at = end;
  }
  return ids;
}

/**
 * Visits what is in all whole frames. Returns where the last of them ends, and how many bytes before that are in
 * none.
 */
async function eachFrame(
  window: Window,
  from: number,
  salt: Buffer,
  visit: (done: DoneId) => void,
): Promise<{ readonly end: number; readonly skipped: number }> {
  let end = from;
  let skipped = 0;
  for (let at = from; at + frameHead <= window.size; ) {
    const frame = await frameAt(window, at, salt);
    if (frame === undefined) {
      at = await window.find(salt, at + 1);
      continue;
    }
    for (const done of frame.ids) visit(done);
    skipped += at - end;
    at += frame.length;
    end = at;
  }
  return { end, skipped };
}

async function frameAt(window: Window, at: number, salt: Buffer) {
  const head = Buffer.from(await window.bytes(at, frameHead));
  const length = head.readUInt32LE(saltLength);
  if (!head.subarray(0, saltLength).equals(salt) || length > longestFrame) return undefined;
  if (at + frameHead + length > window.size) return undefined;
  const content = await window.bytes(at + frameHead, length);
  if (checksumOf(head, content) !== head.readUInt32LE(saltLength + 4)) return undefined;
  const ids = idsIn(content);
  return ids === undefined ? undefined : { ids, length: frameHead + length };
}

/** A file as it was when it was opened, read a block at a time. */
class Window {
  readonly size: number;
  readonly #handle: AppendHandle;
  #block: Buffer = Buffer.alloc(0);
  #from = 0;

  constructor(handle: AppendHandle, size: number) {
    this.#handle = handle;
    this.size = size;
  }

  /** Bytes that lie within the file; good until the next call. */
  async bytes(at: number, length: number): Promise<Buffer> {
    if (at < this.#from || at + length > this.#from + this.#block.length) {
      const block = Buffer.allocUnsafe(Math.max(length, Math.min(readBlock, this.size - at)));
      let filled = 0;
      while (filled < block.length) {
        const { bytesRead } = await this.#handle.read(block, filled, block.length - filled, at + filled);
        if (bytesRead === 0) throw new Error("it was cut while it was read");
        filled += bytesRead;
      }
      this.#block = block;
      this.#from = at;
    }
    return this.#block.subarray(at - this.#from, at - this.#from + length);
  }

  /** Where these bytes are next, from `at` on; the end of the file when they are not. */
  async find(bytes: Buffer, at: number): Promise<number> {
    for (let from = at; from + bytes.length <= this.size; from += readBlock - bytes.length) {
      const block = await this.bytes(from, Math.min(readBlock, this.size - from));
      const found = block.indexOf(bytes);
      if (found >= 0) return from + found;
    }
    return this.size;
  }
}
