import { createReadStream } from "node:fs";
import { open, readFile, rename, rm } from "node:fs/promises";
import type { Time, Timer } from "../../component/context.ts";
import type { SourceContext, SourceSession, SourceStatus } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Lane } from "../../message/lane.ts";
import { noHeaders, type PlainRecord, PlainRecords } from "../../message/records.ts";
import { resolveInside } from "./path.ts";

export interface LineSourceOptions {
  /** For logs and status. */
  readonly name: string;
  readonly root?: string;
  readonly path?: string;
  /** The bytes, where they come from no file. */
  readonly bytes?: () => NodeJS.ReadableStream;
  readonly checkpoint?: string;
  readonly maxLineBytes: number;
}

/** How often a moved checkpoint is written, ms. */
const checkpointEvery = 1_000;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/**
 * Reads lines. A line's position is its last byte, the line feed; so the checkpoint, the lowest position not settled
 * or the byte after the last one, always lies in the line to read next. Where one is kept it is written to a file of
 * its own, synced, and renamed into place, so that it is always whole. A last line without a line feed is a message
 * too. The carriage return of CRLF does not belong to a line.
 */
export async function openLineSource(
  context: SourceContext,
  options: LineSourceOptions,
): Promise<SourceSession> {
  const { root = ".", path, checkpoint } = options;
  const real = path === undefined ? undefined : await resolveInside(root, path);
  const memory = checkpoint === undefined ? undefined : await resolveInside(root, checkpoint);
  const checkpointAt = memory === undefined ? 0 : await readCheckpoint(memory);
  const start = real === undefined ? 0 : await lineStart(real, path!, checkpointAt);
  const stream = real === undefined ? options.bytes!() : createReadStream(real, { start });
  return new LineSession(context, options, stream, start, memory);
}

class LineSession implements SourceSession {
  readonly #context: SourceContext;
  readonly #options: LineSourceOptions;
  readonly #stream: NodeJS.ReadableStream;
  readonly #memory: string | undefined;
  readonly #lane: Lane;
  #rest: Buffer = Buffer.alloc(0);
  /** Byte position of the first byte of `rest`. */
  #at: number;
  #ended = false;
  #stopped = false;
  #saved: number;
  #timer: Timer | undefined;
  #saving: Promise<void> = Promise.resolve();
  #error: { readonly message: string; readonly at: number } | undefined;

  constructor(
    context: SourceContext,
    options: LineSourceOptions,
    stream: NodeJS.ReadableStream,
    start: number,
    memory: string | undefined,
  ) {
    this.#context = context;
    this.#options = options;
    this.#stream = stream;
    this.#memory = memory;
    this.#at = start;
    this.#saved = start;
    this.#lane = context.intake.open({
      origin: { target: options.name },
      epoch: 1,
      ack: "cumulative",
      start,
      onProgress: (lane) => this.#progress(lane),
      onDrained: () => {
        if (!this.#stopped) this.#stream.resume();
      },
    });
    stream.on("data", (bytes) => this.#read(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes)));
    stream.on("end", () => this.#end());
    stream.on("error", (error) => this.#fail(error));
  }

  get stream() {
    return this.#context.intake.stream;
  }

  stopIntake(): void {
    this.#stopped = true;
    this.#stream.pause();
    this.#context.intake.stop();
  }

  async commit(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    await this.#save();
  }

  async close(_deadline: Time): Promise<void> {
    this.#timer?.cancel();
    this.#stream.removeAllListeners("data");
    if ("destroy" in this.#stream && this.#options.path !== undefined) {
      (this.#stream as { destroy(): void }).destroy();
    } else if ("unref" in this.#stream) {
      (this.#stream as { unref(): void }).unref();
    }
    await this.#saving.catch(() => {});
    this.#context.intake.end(this.#lane);
  }

  status(): SourceStatus {
    return { ready: this.#error === undefined, lastErrors: this.#error === undefined ? [] : [this.#error] };
  }

  async atEnd(): Promise<boolean> {
    return this.#ended && this.#context.intake.waiting(this.#lane) === 0;
  }

  #read(bytes: Buffer): void {
    if (this.#stopped) return;
    const data = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const records: PlainRecord[] = [];
    let from = 0;
    for (let end = data.indexOf(lineFeed); end >= 0; end = data.indexOf(lineFeed, from)) {
      records.push(this.#record(data.subarray(from, end), this.#at + end));
      from = end + 1;
    }
    this.#rest = data.subarray(from);
    this.#at += from;
    if (this.#rest.length > this.#options.maxLineBytes) {
      this.#fail(
        new Error(`the line at byte ${this.#at} is longer than ${this.#options.maxLineBytes} bytes`),
      );
      return;
    }
    this.#offer(records);
  }

  #offer(records: readonly PlainRecord[]): void {
    if (records.length === 0) return;
    this.#context.intake.offer(this.#lane, new PlainRecords(records));
    if (this.#context.intake.waiting(this.#lane) > 0) this.#stream.pause();
  }

  #record(line: Buffer, position: number): PlainRecord {
    const end = line.at(-1) === carriageReturn ? line.length - 1 : line.length;
    return {
      position,
      key: null,
      value: line.subarray(0, end),
      headers: noHeaders,
      timestamp: Math.round(this.#context.clock.wall()),
    };
  }

  #end(): void {
    if (this.#rest.length > 0 && !this.#stopped)
      this.#offer([this.#record(this.#rest, this.#at + this.#rest.length - 1)]);
    this.#at += this.#rest.length;
    this.#rest = Buffer.alloc(0);
    this.#ended = true;
  }

  #fail(error: Error): void {
    const message = `${this.#options.name}: ${messageOf(error)}`;
    this.#error = { message, at: this.#context.clock.wall() };
    this.#context.intake.fail(new MillraceError("disk-failed", message, { cause: error }));
  }

  #progress(lane: Lane): void {
    lane.readCheckpoint();
    if (this.#memory === undefined || this.#timer !== undefined) return;
    this.#timer = this.#context.clock.after(checkpointEvery, () => {
      this.#timer = undefined;
      this.#save().catch((error) => this.#fail(error));
    });
  }

  /** One write at a time. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      this.#lane.readCheckpoint();
      const { checkpoint } = this.#lane;
      if (this.#memory === undefined || checkpoint <= this.#saved) return;
      await writeWhole(this.#memory, `${checkpoint}\n`);
      this.#saved = checkpoint;
    });
    return this.#saving;
  }
}

async function openToRead(real: string, path: string) {
  try {
    return await open(real, "r");
  } catch (error) {
    throw new MillraceError("target-missing", `file "${path}" cannot be read: ${messageOf(error)}`, {
      remedy: "check the path, and the root given to file({ root })",
      cause: error,
    });
  }
}

/** Where the line that holds byte `at` begins; the end of the file when it is not that long. */
async function lineStart(real: string, path: string, at: number): Promise<number> {
  const handle = await openToRead(real, path);
  try {
    const { size } = await handle.stat();
    if (at >= size && at > 0) return size;
    const block = Buffer.alloc(64 * 1024);
    for (let end = at; end > 0; ) {
      const from = Math.max(0, end - block.length);
      const { bytesRead } = await handle.read(block, 0, end - from, from);
      const found = block.subarray(0, bytesRead).lastIndexOf(lineFeed);
      if (found >= 0) return from + found + 1;
      end = from;
    }
    return 0;
  } finally {
    await handle.close();
  }
}

async function readCheckpoint(memory: string): Promise<number> {
  let text: string;
  try {
    text = await readFile(memory, "utf8");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return 0;
    throw error;
  }
  const position = /^\d+\n$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(position)) return position;
  throw new MillraceError("option-invalid", `the checkpoint file ${memory} holds no position`, {
    remedy: "remove it to read from the start",
  });
}

/** Replaces a file's content: whoever reads it sees the old one or the new one. */
async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.draft`;
  const handle = await open(draft, "w");
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
