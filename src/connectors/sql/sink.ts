import type { Context, Time } from "../../component/context.ts";
import type { Failure } from "../../component/failure.ts";
import { milliseconds } from "../../component/options.ts";
import { isPlain } from "../../component/payloads.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import { Outcome } from "../../message/outcome.ts";
import { Connecting } from "./connecting.ts";
import { type SqlClient, type SqlDriver, SqlError } from "./driver.ts";
import { blameOf, endsConnection, inWords } from "./errors.ts";
import type { SqlSinkOptions } from "./options.ts";
import { type Statements, statementsOf, type Wanted } from "./statements.ts";

export interface SinkSetting {
  readonly driver: SqlDriver;
  readonly address: string;
  readonly name: string;
}

/**
 * Writes batches, each in one transaction, one after the other on one connection.
 *
 * A message that the database refuses is found by halving the batch between savepoints, and only it goes to the dead
 * letters, with its SQLSTATE; the others are committed together. Anything else that fails is tried again with the
 * same messages. Where the connection breaks during COMMIT, the database is asked on the next one what became of the
 * transaction (PostgreSQL remembers it); where it cannot tell, the batch is written again: once more at most, and by
 * key without effect.
 */
export async function openSqlSink(
  context: Context,
  setting: SinkSetting,
  options: SqlSinkOptions,
): Promise<SinkSession> {
  const session = new SqlSinkSession(context, setting, options);
  await session.open();
  return session;
}

/** One message on its way into the database. */
interface Row {
  readonly write: Write;
  readonly entry: number;
  readonly wanted: Wanted;
}

interface Write {
  readonly batch: Batch;
  readonly rows: Row[];
  readonly refusals: Refusal[];
  resolve(refusals: readonly Refusal[]): void;
  reject(reason: unknown): void;
}

/** Where what was to be written ended: by row; undefined for one that is stored. */
type Verdicts = Map<Row, SqlError | undefined>;

class SqlSinkSession implements SinkSession {
  readonly #context: Context;
  readonly #statements: Statements;
  readonly #destination: Destination;
  readonly #connecting: Connecting;
  readonly #queue: Write[] = [];
  #client: SqlClient | undefined;
  #running = false;
  #closed = false;

  constructor(context: Context, setting: SinkSetting, options: SqlSinkOptions) {
    this.#context = context;
    this.#statements = statementsOf(options, setting.driver.dialect);
    this.#destination = { name: setting.name };
    this.#connecting = new Connecting(
      context,
      setting.driver,
      setting.address,
      {
        initial: 50,
        max: milliseconds(options.maxBackoff, 5_000),
      },
      "write_retries_total",
    );
  }

  async open(): Promise<void> {
    await this.#connected();
    this.#connecting.succeeded();
  }

  destinationOf(): Destination {
    return this.#destination;
  }

  write(batch: Batch): Promise<readonly Refusal[]> {
    // No fault of the messages, so they are not refused one by one.
    if (!isPlain(batch)) {
      return Promise.reject(
        new MillraceError(
          "option-invalid",
          `${this.#destination.name} takes rows, and compress was asked for`,
          {
            remedy: "take compress out of the way to this sink",
          },
        ),
      );
    }
    return new Promise((resolve, reject) => {
      const write: Write = { batch, rows: [], refusals: [], resolve, reject };
      for (let entry = 0; entry < batch.length; entry++) {
        try {
          write.rows.push({ write, entry, wanted: this.#statements.of(batch, entry) });
        } catch (error) {
          write.refusals.push({ entry, failure: failureOf(error) });
        }
      }
      this.#queue.push(write);
      if (!this.#running) this.#run();
    });
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    this.#connecting.stop();
    await this.#client?.close(deadline);
  }

  status(): SinkStatus {
    const { trouble, errors } = this.#connecting;
    return {
      ready: trouble === undefined,
      ...(trouble === undefined ? {} : { reason: trouble }),
      lastErrors: errors.list,
    };
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#queue.length > 0) {
      try {
        await this.#writeNext();
      } catch (error) {
        for (const write of this.#queue.splice(0)) write.reject(error);
      }
    }
    this.#running = false;
  }

  /** Stores the oldest batch, however often it takes. Rejects when the run is over. */
  async #writeNext(): Promise<void> {
    for (let together = 1; ; ) {
      const writes = this.#queue.slice(0, together);
      const rows = writes.flatMap((write) => write.rows);
      try {
        const verdicts: Verdicts = rows.length === 0 ? new Map() : await this.#transact(rows);
        const sick = whollySuspect(verdicts);
        if (sick !== undefined) {
          // What comes after it is tried too: if that is taken, the fault is this batch's own.
          if (this.#queue.length > together) {
            together = this.#queue.length;
            continue;
          }
          throw sick;
        }
        this.#connecting.succeeded();
        this.#queue.splice(0, writes.length);
        for (const write of writes) this.#finish(write, verdicts);
        return;
      } catch (error) {
        if (this.#closed || this.#context.signal.aborted) throw this.#context.signal.reason ?? error;
        if (error instanceof MillraceError) throw error;
        await this.#connecting.failed(error, `cannot write to ${this.#destination.name}`);
      }
    }
  }

  #finish({ batch, rows, refusals, resolve }: Write, verdicts: Verdicts): void {
    for (const row of rows) {
      const error = verdicts.get(row);
      if (error === undefined) batch.settle(row.entry, Outcome.delivered);
      else refusals.push({ entry: row.entry, failure: failureOf(error) });
    }
    resolve(refusals.sort((a, b) => a.entry - b.entry));
  }

  /** Stores these rows in one transaction, but for those that are refused. */
  async #transact(rows: readonly Row[]): Promise<Verdicts> {
    const client = await this.#connected();
    const verdicts: Verdicts = new Map();
    let transaction: string | undefined;
    let committing = false;
    try {
      transaction = await client.begin();
      await this.#store(client, rows, verdicts);
      if (whollySuspect(verdicts) !== undefined) {
        await client.rollback();
        return verdicts;
      }
      committing = true;
      await client.commit();
      return verdicts;
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      if (endsConnection(error)) {
        this.#drop(client);
        const stored = committing && transaction !== undefined && (await this.#wasCommitted(transaction));
        if (stored) return verdicts;
        throw error;
      }
      await client.rollback().catch(() => this.#drop(client));
      // Constraints that are checked at the end only: which row breaks them is found by halving the transaction.
      if (!committing || blameOf(error) !== "message") throw error;
      if (rows.length === 1) return new Map([[rows[0]!, error]]);
      const middle = rows.length >> 1;
      const first = await this.#transact(rows.slice(0, middle));
      return new Map([...first, ...(await this.#transact(rows.slice(middle)))]);
    }
  }

  /** Runs the statements of these rows; where that fails for a reason of theirs, of each half by itself. */
  async #store(client: SqlClient, rows: readonly Row[], verdicts: Verdicts): Promise<void> {
    await client.query("SAVEPOINT part");
    try {
      for (const { text, values = [] } of this.#statements.together(rows.map(({ wanted }) => wanted)))
        await client.query(text, values);
      await client.query("RELEASE SAVEPOINT part");
      for (const row of rows) verdicts.set(row, undefined);
    } catch (error) {
      if (!(error instanceof SqlError) || endsConnection(error) || blameOf(error) === "database") throw error;
      await client.query("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part");
      if (rows.length === 1) {
        verdicts.set(rows[0]!, error);
        return;
      }
      const middle = rows.length >> 1;
      await this.#store(client, rows.slice(0, middle), verdicts);
      await this.#store(client, rows.slice(middle), verdicts);
    }
  }

  /** What became of a transaction that was being committed when the connection broke. */
  async #wasCommitted(transaction: string): Promise<boolean> {
    const { signal } = this.#context;
    for (;;) {
      const client = await this.#connected();
      try {
        const fate = await client.fateOf(transaction);
        if (fate !== "underWay") return fate === "committed";
      } catch {
        if (signal.aborted) throw signal.reason;
        this.#drop(client);
      }
      await this.#connecting.failed(
        new Error("what became of the transaction is not known yet"),
        "the connection broke during COMMIT",
      );
    }
  }

  async #connected(): Promise<SqlClient> {
    if (this.#client !== undefined) return this.#client;
    let client: SqlClient | undefined;
    const closed = () => {
      if (this.#client === client) this.#client = undefined;
    };
    client = await this.#connecting.connect({ closed, notified: () => {} }, async (opened) => {
      if (this.#statements.probe !== undefined) await opened.query(this.#statements.probe, []);
    });
    this.#client = client;
    return client;
  }

  #drop(client: SqlClient): void {
    if (this.#client === client) this.#client = undefined;
    client.close(this.#context.clock.now() + 1_000).catch(() => {});
  }
}

/** An error, if nothing was stored and every refusal could be the database's own fault. */
function whollySuspect(verdicts: Verdicts): SqlError | undefined {
  let error: SqlError | undefined;
  for (const verdict of verdicts.values()) {
    if (verdict === undefined || blameOf(verdict) !== "suspect") return undefined;
    error = verdict;
  }
  return error;
}

/** The database's own words may hold values of the row: a dead letter's headers say what was violated, and no more. */
function failureOf(error: unknown): Failure {
  if (error instanceof SqlError)
    return {
      class: "business",
      code: "record-refused",
      message: `the database refuses this message: ${inWords(error)}`,
    };
  if (error instanceof MillraceError) return { class: error.class, code: error.code, message: error.message };
  return { class: "application", code: "author-error", message: messageOf(error) };
}
