import { Backoff } from "../../component/backoff.ts";
import type { Context, Time } from "../../component/context.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { classify, MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import { Outcome } from "../../message/outcome.ts";
import type { Writer, WriterOptions } from "./index.ts";

/** Upper bound of a wait between attempts, ms. */
const longestWait = 10_000;

export async function openWriterSink(context: Context, options: WriterOptions): Promise<SinkSession> {
  const session = new WriterSession(context, options.name);
  await session.open(options);
  return session;
}

class WriterSession implements SinkSession {
  readonly #context: Context;
  readonly #destination: Destination;
  readonly #errors = new RecentErrors();
  #writer!: Writer;
  #trouble: string | undefined = "opening";
  #last: Promise<unknown> = Promise.resolve();

  constructor(context: Context, name: string) {
    this.#context = context;
    this.#destination = { name };
  }

  async open({ open }: WriterOptions): Promise<void> {
    this.#writer = await this.#untilDone(
      "opened",
      () => open(this.#context),
      (error) => error.class !== "network",
    );
  }

  destinationOf(): Destination {
    return this.#destination;
  }

  write(batch: Batch): Promise<readonly Refusal[]> {
    const write = this.#last.then(() => this.#store(batch));
    this.#last = write.catch(() => {});
    return write;
  }

  async close(_deadline: Time): Promise<void> {
    await this.#last;
    await this.#writer.close?.();
  }

  status(): SinkStatus {
    return {
      ready: this.#trouble === undefined,
      ...(this.#trouble === undefined ? {} : { reason: this.#trouble }),
      lastErrors: this.#errors.list,
    };
  }

  async #store(batch: Batch): Promise<readonly Refusal[]> {
    const entries = Array.from({ length: batch.length }, (_, entry) => entry);
    try {
      await this.#attempt(batch, entries);
      batch.settleAll(Outcome.delivered);
      return [];
    } catch (error) {
      if (!isBlame(error)) throw error;
      return entries.length === 1 ? [refusalOf(0, error)] : this.#storeEach(batch, entries);
    }
  }

  /** One of them is at fault: each by itself, in order. */
  async #storeEach(batch: Batch, entries: readonly number[]): Promise<Refusal[]> {
    const refusals: Refusal[] = [];
    for (const entry of entries) {
      try {
        await this.#attempt(batch, [entry]);
        batch.settle(entry, Outcome.delivered);
      } catch (error) {
        if (!isBlame(error)) throw error;
        refusals.push(refusalOf(entry, error));
      }
    }
    return refusals;
  }

  #attempt(batch: Batch, entries: readonly number[]): Promise<void> {
    const messages = entries.map((entry) => batch.chunk(entry).message(batch.index(entry)));
    return this.#untilDone(
      "written",
      () => this.#writer.write(messages, this.#context.signal),
      (error) => error.class === "business" || error.class === "system",
    );
  }

  /** Tries until it succeeds; throws an error that is final, and when the run is aborted. */
  async #untilDone<T>(
    what: string,
    attempt: () => Promise<T>,
    isFinal: (error: MillraceError) => boolean,
  ): Promise<T> {
    const { clock, logger, meter, node, signal } = this.#context;
    const backoff = new Backoff(this.#context, { initial: 100, max: longestWait });
    for (;;) {
      signal.throwIfAborted();
      try {
        const result = await attempt();
        this.#trouble = undefined;
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof MillraceError && isFinal(error)) throw error;
        if (classify(error, "component") === "system") throw error;
        const message = `${this.#destination.name} cannot be ${what}: ${messageOf(error)}`;
        this.#trouble = message;
        this.#errors.add(message, clock.wall());
        if (backoff.attempts === 0) logger.warn({ node, error: message }, "cannot write, trying again");
        meter.count("write_retries_total");
        await backoff.wait();
      }
    }
  }
}

function isBlame(error: unknown): error is MillraceError {
  return error instanceof MillraceError && error.class === "business";
}

function refusalOf(entry: number, { code, message }: MillraceError): Refusal {
  return { entry, failure: { class: "business", code, message } };
}
