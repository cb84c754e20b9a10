import { Backoff } from "../../component/backoff.ts";
import type { Context, Time } from "../../component/context.ts";
import { isPlain } from "../../component/payloads.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { classify, MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import type { Bytes } from "../../message/chunk.ts";
import { Outcome } from "../../message/outcome.ts";
import { readable, readableHeaders } from "../../message/record-form.ts";
import { AppendFile } from "./append-file.ts";
import { pathToWrite } from "./path.ts";

/** How a message becomes a line: its payload, or JSON with its key, headers and timestamp too. */
export type LineFormat = "lines" | "record";

export interface LineSinkOptions {
  readonly root?: string;
  readonly path?: string;
  /** Where the lines go when they go into no file. */
  readonly stream?: NodeJS.WritableStream;
  readonly format?: LineFormat;
}

const lineFeed = 0x0a;
const newLine = Buffer.from("\n");

/** Failures of a file that waiting does not mend. */
const lasting: ReadonlySet<unknown> = new Set([
  "ENOSPC",
  "EDQUOT",
  "EFBIG",
  "EROFS",
  "EACCES",
  "EPERM",
  "EBADF",
  "ESTALE",
  "EISDIR",
]);

/** Appends lines to a file, or to a stream that someone reads. */
export async function openLineSink(context: Context, options: LineSinkOptions): Promise<SinkSession> {
  const { root = ".", path, stream, format = "lines" } = options;
  if (stream !== undefined)
    return new LineSinkSession(context, "stdout", format, new StreamWriter(context, stream));
  const real = await pathToWrite(root, path!);
  const appending = await AppendFile.open(real, (bytes) => {
    context.logger.warn(
      { node: context.node, bytes },
      `${path} ended within a line, which a crash had torn: it was moved to ${path}.torn`,
    );
  });
  return new LineSinkSession(context, path!, format, {
    write: (bytes) => appending.append(bytes),
    close: () => AppendFile.close(real),
    explain: (error) => (isLasting(error) ? "make room or mend the rights, and start again" : undefined),
  });
}

function isLasting(error: unknown): boolean {
  return lasting.has((error as { code?: unknown }).code) || classify(error, "component") === "system";
}

/** Somewhere that takes bytes, and says when they are safe. */
export interface Writer {
  /** May be called again with the same bytes after it has failed. */
  write(bytes: Buffer): Promise<void>;
  close(): Promise<void>;
  /** What to do about an error that another attempt does not mend; undefined where it may. */
  explain(error: unknown): string | undefined;
}

/** A stream's bytes are safe once they have left the process, which they do at its reader's pace. */
class StreamWriter implements Writer {
  readonly #context: Context;
  readonly #stream: NodeJS.WritableStream;

  constructor(context: Context, stream: NodeJS.WritableStream) {
    this.#context = context;
    this.#stream = stream;
    // Without a listener a reader that goes away would end the process; each write is told of it anyway.
    stream.on("error", () => {});
  }

  write(bytes: Buffer): Promise<void> {
    const { signal } = this.#context;
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      // A reader that has stopped reading must not hold up the end of the run.
      const abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.#stream.write(bytes, (error) => {
        signal.removeEventListener("abort", abort);
        if (error) reject(error);
        else resolve();
      });
    });
  }

  async close(): Promise<void> {}

  /** A stream that has failed takes nothing any more, and a part of the lines may have been read. */
  explain(error: unknown): string {
    const code = (error as { code?: unknown }).code;
    return code === "EPIPE" || code === "ERR_STREAM_DESTROYED"
      ? "whoever read the output has gone; start both again"
      : "start again";
  }
}

export class LineSinkSession implements SinkSession {
  readonly #context: Context;
  readonly #writer: Writer;
  readonly #format: LineFormat;
  readonly #destination: Destination;
  #last: Promise<unknown> = Promise.resolve();
  #trouble: { readonly message: string; readonly at: number } | undefined;

  constructor(context: Context, name: string, format: LineFormat, writer: Writer) {
    this.#context = context;
    this.#format = format;
    this.#writer = writer;
    this.#destination = { name };
  }

  destinationOf(): Destination {
    return this.#destination;
  }

  /** One write after the other. */
  write(batch: Batch): Promise<readonly Refusal[]> {
    const write = this.#last.then(() => this.#append(batch));
    this.#last = write.catch(() => {});
    return write;
  }

  async close(_deadline: Time): Promise<void> {
    await this.#last;
    await this.#writer.close();
  }

  status(): SinkStatus {
    const trouble = this.#trouble;
    if (trouble === undefined) return { ready: true, lastErrors: [] };
    return { ready: false, reason: trouble.message, lastErrors: [trouble] };
  }

  async #append(batch: Batch): Promise<readonly Refusal[]> {
    // No fault of the messages, so they are not refused one by one.
    if (!isPlain(batch)) {
      throw new MillraceError(
        "option-invalid",
        `${this.#destination.name} takes lines, and compress was asked for`,
        {
          remedy: "take compress out of the way to this sink",
        },
      );
    }
    const refusals: Refusal[] = [];
    const pieces: Buffer[] = [];
    const taken: number[] = [];
    for (let entry = 0; entry < batch.length; entry++) {
      const line = this.#format === "record" ? recordLine(batch, entry) : batch.payload(entry);
      const fault = faultOf(line);
      if (fault !== undefined) {
        refusals.push({ entry, failure: { class: "business", code: "record-refused", message: fault } });
        continue;
      }
      pieces.push(line!, newLine);
      taken.push(entry);
    }
    if (taken.length > 0) await this.#untilWritten(Buffer.concat(pieces));
    for (const entry of taken) batch.settle(entry, Outcome.delivered);
    return refusals;
  }

  async #untilWritten(bytes: Buffer): Promise<void> {
    const { signal, clock, logger, node, meter } = this.#context;
    const backoff = new Backoff(this.#context, { initial: 50, max: 5_000 });
    for (;;) {
      try {
        await this.#writer.write(bytes);
        this.#trouble = undefined;
        return;
      } catch (error) {
        if (signal.aborted) throw error;
        const message = `${this.#destination.name} cannot be written: ${messageOf(error)}`;
        this.#trouble = { message, at: clock.wall() };
        const remedy = this.#writer.explain(error);
        if (remedy !== undefined) throw new MillraceError("disk-failed", message, { remedy, cause: error });
        if (backoff.attempts === 0) logger.warn({ node, error: message }, "cannot write, trying again");
        meter.count("write_retries_total");
        await backoff.wait();
      }
    }
  }
}

/** The record form, as the runner's `--dump` writes it and its `--feed` reads it, without the place in a broker. */
function recordLine(batch: Batch, entry: number): Buffer {
  return Buffer.from(
    JSON.stringify({
      key: readable(batch.key(entry)),
      value: readable(batch.payload(entry)),
      headers: readableHeaders(batch.headers(entry)),
      timestamp: batch.timestamp(entry),
    }),
  );
}

function faultOf(line: Bytes): string | undefined {
  if (line === null) return 'a message without a value is no line; format: "record" can write it';
  if (line.includes(lineFeed))
    return 'the payload holds a line feed, so it is no line; format: "record" can write it';
  return undefined;
}
