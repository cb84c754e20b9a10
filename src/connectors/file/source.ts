import { constants, type FileHandle, open, stat } from "node:fs/promises";
import { pause } from "../../component/backoff.ts";
import type { Time, Timer } from "../../component/context.ts";
import type { SourceContext, SourceSession, SourceStatus } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Lane } from "../../message/lane.ts";
import type { Records } from "../../message/records.ts";
import { Checkpoint } from "./checkpoint.ts";
import { LineSplitter, LineTooLong } from "./lines.ts";
import { pathToRead, pathToWrite } from "./path.ts";

export interface LineSourceOptions {
  /** For logs and status. */
  readonly name: string;
  readonly root?: string;
  readonly path?: string;
  /** The bytes, where they come from no file. */
  readonly bytes?: () => NodeJS.ReadableStream;
  readonly checkpoint?: string;
  readonly follow?: boolean;
  readonly maxLineBytes: number;
}

/** How often a moved checkpoint is written, and a followed file looked at, ms. */
const checkpointEvery = 1_000;
const lookEvery = 500;
/** Read at a time. */
const blockLength = 256 * 1024;

/** Where bytes come from. */
interface ByteSource {
  /** The next bytes, which are the caller's to keep. Null: there are none now, and perhaps never will be. */
  read(): Promise<Buffer | null>;
  close(): Promise<void>;
}

/**
 * Reads lines: one lane, whose positions are bytes. A last line without a line feed is a message too; where the
 * file is followed it waits for its line feed, since the writer may not be done with it.
 */
export async function openLineSource(
  context: SourceContext,
  options: LineSourceOptions,
): Promise<SourceSession> {
  const { root = ".", path, checkpoint } = options;
  if (path === undefined) {
    return new LineSession(context, options, new StreamBytes(options.bytes!()), 0, undefined);
  }
  const real = await pathToRead(root, path);
  const handle = await openFile(real, path);
  try {
    const memory =
      checkpoint === undefined
        ? undefined
        : await Checkpoint.open(await pathToWrite(root, checkpoint), handle, options.follow !== true);
    const start = memory?.start ?? 0;
    return new LineSession(context, options, new FileBytes(real, handle, start), start, memory);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openFile(real: string, path: string): Promise<FileHandle> {
  const missing = (why: string, cause?: unknown) =>
    new MillraceError("target-missing", `file "${path}" cannot be read: ${why}`, {
      remedy: "check the path, and the root given to file({ root })",
      cause,
    });
  let handle: FileHandle;
  try {
    // O_NONBLOCK: a pipe without a writer would hold up the start, before it can be told that it is one.
    handle = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw missing(messageOf(error), error);
  }
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw missing("it is no regular file");
}

class LineSession implements SourceSession {
  readonly #context: SourceContext;
  readonly #options: LineSourceOptions;
  readonly #bytes: ByteSource;
  readonly #memory: Checkpoint | undefined;
  readonly #splitter: LineSplitter;
  readonly #lane: Lane;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #wake: (() => void) | undefined;
  #atEnd = false;
  #timer: Timer | undefined;
  #error: { readonly message: string; readonly at: number } | undefined;

  constructor(
    context: SourceContext,
    options: LineSourceOptions,
    bytes: ByteSource,
    start: number,
    memory: Checkpoint | undefined,
  ) {
    this.#context = context;
    this.#options = options;
    this.#bytes = bytes;
    this.#memory = memory;
    this.#splitter = new LineSplitter(start, options.maxLineBytes);
    this.#lane = context.intake.open({
      origin: { target: options.name },
      epoch: 1,
      ack: "cumulative",
      start,
      onProgress: (lane) => this.#progress(lane),
      onDrained: () => this.#wake?.(),
    });
    this.#done = this.#read().catch((error) => this.#fail(error));
  }

  get stream() {
    return this.#context.intake.stream;
  }

  stopIntake(): void {
    this.#stop.abort();
    this.#wake?.();
    this.#context.intake.stop();
  }

  async commit(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    await this.#memory?.save(this.#lane.checkpoint);
  }

  async close(_deadline: Time): Promise<void> {
    this.stopIntake();
    this.#timer?.cancel();
    this.#timer = undefined;
    await this.#bytes.close();
    if (this.#options.path !== undefined) await this.#done;
    this.#context.intake.end(this.#lane);
  }

  status(): SourceStatus {
    const error = this.#error;
    return error === undefined
      ? { ready: true, lastErrors: [] }
      : { ready: false, reason: error.message, lastErrors: [error] };
  }

  async atEnd(): Promise<boolean> {
    return this.#atEnd && this.#context.intake.waiting(this.#lane) === 0;
  }

  async #read(): Promise<void> {
    const { clock } = this.#context;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      if (this.#context.intake.waiting(this.#lane) > 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
        continue;
      }
      const bytes = await this.#bytes.read();
      if (signal.aborted) return;
      const now = Math.round(clock.wall());
      if (bytes !== null) {
        this.#atEnd = false;
        this.#offer(this.#splitter.push(bytes, now));
        continue;
      }
      if (this.#options.follow !== true) {
        this.#offer(this.#splitter.end(now));
        this.#atEnd = true;
        return;
      }
      this.#atEnd = true;
      await pause({ clock, signal: AbortSignal.any([signal, this.#context.signal]) }, lookEvery).catch(
        () => {},
      );
      if (this.#context.signal.aborted) return;
    }
  }

  #offer(records: Records | undefined): void {
    if (records !== undefined) this.#context.intake.offer(this.#lane, records);
  }

  #fail(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    const { name } = this.#options;
    const failure =
      error instanceof MillraceError
        ? error
        : error instanceof LineTooLong
          ? new MillraceError("option-invalid", `${name}: ${error.message}`, {
              remedy: "raise maxLineBytes, or mend the file",
            })
          : new MillraceError("disk-failed", `${name} cannot be read: ${messageOf(error)}`, { cause: error });
    this.#error = { message: failure.message, at: this.#context.clock.wall() };
    this.#context.intake.fail(failure);
  }

  #progress(lane: Lane): void {
    lane.readCheckpoint();
    if (this.#memory === undefined || this.#timer !== undefined || this.#stop.signal.aborted) return;
    this.#timer = this.#context.clock.after(checkpointEvery, () => {
      this.#timer = undefined;
      lane.readCheckpoint();
      this.#memory!.save(lane.checkpoint).catch((error) => this.#fail(error));
    });
  }
}

/** A file from a position on, to its end and whatever is appended. */
class FileBytes implements ByteSource {
  readonly #path: string;
  readonly #handle: FileHandle;
  #at: number;

  constructor(path: string, handle: FileHandle, start: number) {
    this.#path = path;
    this.#handle = handle;
    this.#at = start;
  }

  async read(): Promise<Buffer | null> {
    const block = Buffer.allocUnsafeSlow(blockLength);
    const { bytesRead } = await this.#handle.read(block, 0, block.length, this.#at);
    if (bytesRead === 0) {
      await this.#check();
      return null;
    }
    this.#at += bytesRead;
    // Messages keep the whole block alive: one that is mostly empty is not worth it.
    return bytesRead * 2 < block.length
      ? Buffer.from(block.subarray(0, bytesRead))
      : block.subarray(0, bytesRead);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  /** Nothing more would ever be read from a file that was cut or replaced by another. */
  async #check(): Promise<void> {
    const own = await this.#handle.stat();
    const there = await stat(this.#path).catch(() => undefined);
    const fault =
      own.size < this.#at
        ? `it was cut to ${own.size} bytes after ${this.#at} had been read`
        : there !== undefined && (there.ino !== own.ino || there.dev !== own.dev)
          ? "another file has taken its place"
          : undefined;
    if (fault === undefined) return;
    throw new MillraceError("disk-failed", `${this.#path} cannot be followed: ${fault}`, {
      remedy: "start again; with a checkpoint, remove it first",
    });
  }
}

/** Bytes that come once, such as standard input's. */
class StreamBytes implements ByteSource {
  readonly #stream: NodeJS.ReadableStream;
  readonly #chunks: AsyncIterator<Buffer | string>;

  constructor(stream: NodeJS.ReadableStream) {
    this.#stream = stream;
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async read(): Promise<Buffer | null> {
    const { value, done } = await this.#chunks.next();
    if (done === true) return null;
    return typeof value === "string" ? Buffer.from(value) : value;
  }

  /** Lets the process end while the other side still holds the stream open. */
  async close(): Promise<void> {
    this.#stream.pause();
    if ("unref" in this.#stream) (this.#stream as { unref(): void }).unref();
  }
}
