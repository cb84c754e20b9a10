import { Backoff, type BackoffOptions } from "../../component/backoff.ts";
import type { Context } from "../../component/context.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { ClientEvents, SqlClient, SqlDriver } from "./driver.ts";
import { lastingError } from "./errors.ts";

/** Refusals of access that are believed, in a row, at the start. */
const refusalsAtStart = 3;

/**
 * The connection of one source or sink, made again whenever it was lost. Before the first success what no further
 * attempt mends is thrown; later it may be mended meanwhile, and is tried for ever.
 */
export class Connecting {
  readonly errors = new RecentErrors();
  readonly #context: Context;
  readonly #stop = new AbortController();
  readonly #driver: SqlDriver;
  readonly #address: string;
  readonly #backoff: Backoff;
  #trouble: string | undefined = "connecting";
  #wasUp = false;

  readonly #counter: string;

  /** @param counter counts what failed. */
  constructor(
    context: Context,
    driver: SqlDriver,
    address: string,
    backoff: BackoffOptions,
    counter: "write_retries_total" | "read_retries_total",
  ) {
    this.#context = { ...context, signal: AbortSignal.any([context.signal, this.#stop.signal]) };
    this.#driver = driver;
    this.#address = address;
    this.#counter = counter;
    this.#backoff = new Backoff(this.#context, backoff);
  }

  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Whatever waits here gives up. */
  stop(): void {
    this.#stop.abort(new MillraceError("connection-lost", "the connection was closed"));
  }

  /** All is well, and not only connected: the next wait begins small again. */
  succeeded(): void {
    this.#backoff.reset();
    this.#trouble = undefined;
  }

  /** Shows and logs it, and waits. Rejects when the run is aborted. */
  async failed(error: unknown, what: string): Promise<void> {
    const { clock, logger, node, meter } = this.#context;
    const message = messageOf(error);
    this.#trouble = `${what}: ${message}`;
    this.errors.add(message, clock.wall());
    if (this.#backoff.attempts === 0) logger.warn({ node, address: this.#address, error: message }, what);
    meter.count(this.#counter);
    await this.#backoff.wait();
  }

  /**
   * A connection that `prepare` has looked at. Rejects when it was stopped, and when the run is aborted.
   *
   * @throws MillraceError of class application at the start, for what only people mend.
   */
  async connect(events: ClientEvents, prepare: (client: SqlClient) => Promise<void>): Promise<SqlClient> {
    const { clock, signal, logger, node } = this.#context;
    for (let refusals = 0; ; ) {
      let client: SqlClient | undefined;
      try {
        client = await this.#driver.connect(this.#context, events);
        await prepare(client);
        if (signal.aborted) throw signal.reason;
        this.#wasUp = true;
        logger.debug({ node, address: this.#address }, "connected to the database");
        return client;
      } catch (error) {
        await client?.close(clock.now() + 1_000);
        if (signal.aborted) throw signal.reason;
        const lasting = lastingError(error, this.#address);
        const believed = lasting?.code !== "access-refused" || ++refusals >= refusalsAtStart;
        if (lasting !== undefined && !this.#wasUp && believed) throw lasting;
        await this.failed(error, "cannot connect");
      }
    }
  }
}
