import { type FileHandle, open } from "node:fs/promises";
import { Backoff } from "../../component/backoff.ts";
import type { Context, Time } from "../../component/context.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { classify, MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import { Outcome } from "../../message/outcome.ts";
import { resolveInside } from "./path.ts";

export interface LineSinkOptions {
  readonly root?: string;
  readonly path?: string;
  /** Where the lines go when they go into no file. */
  readonly stream?: NodeJS.WritableStream;
}

const lineFeed = 0x0a;

/**
 * Appends each payload as a line. A file is synced before its messages count as delivered; a line that a crash left
 * torn at its end is closed with a line feed when the file is opened again, so that it never runs into the next
 * one. A payload that holds a line feed, or none at all, is no line and is refused.
 */
export async function openLineSink(context: Context, options: LineSinkOptions): Promise<SinkSession> {
  const { root = ".", path, stream } = options;
  if (stream !== undefined) return new LineSinkSession(context, "stdout", streamWriter(stream));
  const handle = await open(await resolveInside(root, path!), "a+").catch((error) => {
    throw new MillraceError("disk-failed", `file "${path}" cannot be written: ${messageOf(error)}`, {
      cause: error,
    });
  });
  const { size } = await handle.stat();
  if (size > 0) {
    const last = Buffer.alloc(1);
    await handle.read(last, 0, 1, size - 1);
    if (last[0] !== lineFeed) await handle.appendFile("\n");
  }
  return new LineSinkSession(context, path!, fileWriter(handle));
}

/** Somewhere that takes bytes, and says when they are safe. */
interface Writer {
  write(bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

function fileWriter(handle: FileHandle): Writer {
  return {
    async write(bytes) {
      await handle.appendFile(bytes);
      await handle.datasync();
    },
    close: () => handle.close(),
  };
}

function streamWriter(stream: NodeJS.WritableStream): Writer {
  // Without a listener a reader that goes away would end the process; each write is told of it anyway.
  stream.on("error", () => {});
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        stream.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
    close: async () => {},
  };
}

class LineSinkSession implements SinkSession {
  readonly #context: Context;
  readonly #writer: Writer;
  readonly #destination: Destination;
  #last: Promise<unknown> = Promise.resolve();
  #trouble: { readonly message: string; readonly at: number } | undefined;

  constructor(context: Context, name: string, writer: Writer) {
    this.#context = context;
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
    const refusals: Refusal[] = [];
    const lines: Buffer[] = [];
    const taken: number[] = [];
    for (let entry = 0; entry < batch.length; entry++) {
      const payload = batch.payload(entry);
      const fault = faultOf(batch, payload);
      if (fault !== undefined) {
        refusals.push({ entry, failure: { class: "business", code: "record-refused", message: fault } });
        continue;
      }
      lines.push(payload!, newLine);
      taken.push(entry);
    }
    if (taken.length > 0) await this.#untilWritten(Buffer.concat(lines));
    for (const entry of taken) batch.settle(entry, Outcome.delivered);
    return refusals;
  }

  async #untilWritten(bytes: Buffer): Promise<void> {
    const backoff = new Backoff(this.#context, { initial: 50, max: 5_000 });
    for (;;) {
      try {
        await this.#writer.write(bytes);
        this.#trouble = undefined;
        return;
      } catch (error) {
        const message = `${this.#destination.name}: ${messageOf(error)}`;
        const code = (error as { code?: unknown }).code;
        if (
          classify(error, "component") === "system" ||
          code === "EPIPE" ||
          code === "ERR_STREAM_DESTROYED"
        ) {
          throw new MillraceError("disk-failed", message, {
            remedy: code === "EPIPE" ? "whoever read the output has gone" : "make room, and start again",
            cause: error,
          });
        }
        this.#trouble = { message, at: this.#context.clock.wall() };
        this.#context.logger.warn({ node: this.#context.node, error: message }, "cannot write, retrying");
        await backoff.wait();
      }
    }
  }
}

const newLine = Buffer.from("\n");

function faultOf(batch: Batch, payload: Buffer | null): string | undefined {
  if (payload === null) return "a message without a value is no line";
  if (batch.codec !== "none" || batch.framing !== "record") return "compressed payloads are no lines";
  return payload.includes(lineFeed) ? "the payload holds a line feed, so it is no line" : undefined;
}
