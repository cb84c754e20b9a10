import type { Time, Timer } from "../../component/context.ts";
import { milliseconds } from "../../component/options.ts";
import type { CreditOptions, SourceContext, SourceSession, SourceStatus } from "../../component/source.ts";
import { MillraceError } from "../../errors.ts";
import type { Lane } from "../../message/lane.ts";
import { type PlainRecord, PlainRecords } from "../../message/records.ts";
import { Connecting } from "./connecting.ts";
import { type SqlCell, type SqlClient, type SqlDriver, SqlError } from "./driver.ts";
import { headersOf } from "./headers.ts";
import { type SqlSourceOptions, sqlCredit } from "./options.ts";
import { type OutboxStatements, outboxOf, outboxStatements } from "./outbox.ts";

/** Settled rows are taken out of the table together, those of so long, ms; and at most so many. */
const settleWithin = 20;
const mostTakenOut = 5_000;
/** Rows that wait are counted so often, ms, and up to so many. */
const countEvery = 2_000;
const mostCounted = 100_000;
/** Most bytes of values read at once. */
const mostBytes = 4 * 2 ** 20;
/** While another process has the outbox, it is asked for so often, ms. */
const standbyEvery = 1_000;
/** What a function is missing by: a column whose content has no length in bytes. */
const functionMissing = "42883";

export interface SourceSetting {
  readonly driver: SqlDriver;
  readonly address: string;
}

/**
 * Reads a transactional outbox: a table to which an application adds a row in the transaction that changes its data.
 *
 * **Nothing is skipped.** There is no position to which everything was read, since transactions commit in another
 * order than they draw ids: a row with a low id can become visible after one with a high id. Instead rows are taken
 * out of the table (or marked) once their messages are settled, and each read takes the oldest visible rows that are
 * not in flight already, wherever their ids lie.
 *
 * **Order.** Each read is one statement, so it sees every transaction that had committed before it, and hands its
 * rows on by id. Therefore, if a transaction had committed when another one drew its id, its row goes first. That is
 * so for any two transactions that change the same data: the second waits for the first one's row lock, provided it
 * writes to the outbox after it has changed the data. Transactions that overlap and have nothing in common may come
 * in either order. (The order of transaction ids, with a horizon by `pg_snapshot_xmin`, would break this: a
 * transaction may get its number long before it waits for that lock.) The ids must be drawn one by one: an identity
 * or sequence with CACHE 1, which is the default.
 *
 * **One reader.** Two processes that read one outbox take turns, not shares: the one that has the advisory lock of
 * the table on its connection reads, the other stands by. So there is no row that both deliver, but for what a lost
 * connection returns: its lane ends, what was in flight comes again, and what had been settled and not yet taken out
 * is taken out first when this process gets the lock back. A proxy that pools connections by transaction breaks the
 * lock: connect to the database itself.
 */
export async function openSqlSource(
  context: SourceContext,
  setting: SourceSetting,
  options: SqlSourceOptions,
): Promise<SourceSession> {
  const session = new OutboxSession(context, setting, options);
  await session.opened;
  return session;
}

/** In the headers of every message: the id of its row, by which a consumer can tell what came twice. */
const idHeader = "millrace-outbox-id";

/** What someone waits for the loop to find out or to do. */
interface Ask {
  readonly what: "empty" | "commit";
  answer(empty: boolean): void;
}

/**
 * One loop does everything on one connection, one statement at a time: *connecting* → *standby* (another process has
 * the lock) → *reading*, and back to *connecting* when a statement has failed. Only *reading* has a lane.
 */
class OutboxSession implements SourceSession {
  /** Resolves once the outbox is read, or stood by for. */
  readonly opened: Promise<void>;
  readonly #context: SourceContext;
  readonly #options: SqlSourceOptions;
  readonly #driver: SqlDriver;
  readonly #connecting: Connecting;
  readonly #poll: number;
  readonly #credit: CreditOptions;
  readonly #ended: Promise<void>;
  #statements: OutboxStatements;
  #client: SqlClient | undefined;
  /** Why the connection is gone. */
  #fault: SqlError | undefined;
  #lane: Lane | undefined;
  #epoch = 0;
  /** Ids of the rows that are in flight or wait for credit, by their positions in the lane that is open. */
  #rows = new Map<number, string>();
  #position = 0;
  /** No lower position is in {@link #rows}. */
  #oldest = 0;
  /** Settled, and still in the table. */
  #settled: string[] = [];
  /** There may be rows that were not read. */
  #more = true;
  #queued: number | undefined;
  #countAt = 0;
  #isOpen = false;
  #standby = false;
  #stopped = false;
  #closed = false;
  #asks: Ask[] = [];
  #awake = false;
  #wake: (() => void) | undefined;
  #settleTimer: Timer | undefined;
  #settleDue = false;

  constructor(context: SourceContext, setting: SourceSetting, options: SqlSourceOptions) {
    this.#context = context;
    this.#options = options;
    this.#driver = setting.driver;
    this.#poll = milliseconds(options.poll, 500);
    this.#credit = sqlCredit(options);
    this.#statements = this.#statementsFor(false);
    this.#connecting = new Connecting(
      context,
      setting.driver,
      setting.address,
      {
        initial: 100,
        max: 30_000,
      },
      "read_retries_total",
    );
    let tellOpened!: () => void;
    let refuse!: (error: unknown) => void;
    this.opened = new Promise((resolve, reject) => {
      tellOpened = resolve;
      refuse = reject;
    });
    this.#ended = this.#run(tellOpened).catch((error) => {
      if (this.#isOpen && !this.#closed && !context.signal.aborted) {
        context.intake.fail(error instanceof Error ? error : new Error(String(error)));
      }
      this.#client = undefined;
      this.#answer(false);
      refuse(error);
    });
  }

  get stream() {
    return this.#context.intake.stream;
  }

  stopIntake(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#context.intake.stop();
    this.#next();
  }

  async commit(): Promise<void> {
    await this.#ask("commit");
  }

  async atEnd(): Promise<boolean> {
    return this.#ask("empty");
  }

  async close(deadline: Time): Promise<void> {
    this.stopIntake();
    this.#closed = true;
    this.#settleTimer?.cancel();
    this.#connecting.stop();
    this.#next();
    await this.#client?.close(deadline);
    const { clock } = this.#context;
    let timer: Timer | undefined;
    const late = new Promise<void>((resolve) => {
      timer = clock.after(Math.max(0, deadline - clock.now()), resolve);
    });
    await Promise.race([this.#ended, late]);
    timer?.cancel();
    this.#endLane();
  }

  status(): SourceStatus {
    const { trouble, errors } = this.#connecting;
    const reason =
      trouble ?? (this.#standby ? "another process reads the outbox, and this one stands by" : undefined);
    return {
      ready: trouble === undefined,
      ...(reason === undefined ? {} : { reason }),
      lastErrors: errors.list,
      ...(this.#queued === undefined ? {} : { queued: this.#queued }),
    };
  }

  #statementsFor(asText: boolean): OutboxStatements {
    const { table, columns, onSettled } = this.#options;
    return outboxStatements(outboxOf(table, columns, onSettled), this.#driver.dialect, asText);
  }

  /** False when there is no connection. */
  #ask(what: Ask["what"]): Promise<boolean> {
    if (this.#client === undefined || this.#over) return Promise.resolve(false);
    return new Promise((answer) => {
      this.#asks.push({ what, answer });
      this.#next();
    });
  }

  get #over(): boolean {
    return this.#closed || this.#context.signal.aborted;
  }

  async #run(tellOpened: () => void): Promise<void> {
    while (!this.#over) {
      let client: SqlClient | undefined;
      try {
        client = await this.#connect();
        // Whoever reads now: what this process has delivered need not be delivered again.
        await this.#takeOut(client);
        await this.#standBy(client, tellOpened);
        if (this.#over) break;
        this.#openLane();
        if (this.#options.notify !== undefined) await client.listen(this.#options.notify);
        this.#tellOpen(tellOpened);
        await this.#read(client);
      } catch (error) {
        if (this.#over) break;
        if (client === undefined || error instanceof MillraceError) throw error;
        this.#drop(client);
        await this.#connecting.failed(error, `cannot read ${this.#options.table}`).catch(() => {});
      }
    }
    await this.#client?.close(this.#context.clock.now() + 1_000);
    this.#client = undefined;
    this.#answer(false);
  }

  async #connect(): Promise<SqlClient> {
    const events = {
      closed: (error: SqlError) => {
        this.#fault = error;
        this.#next();
      },
      notified: () => {
        this.#more = true;
        this.#next();
      },
    };
    this.#fault = undefined;
    const client = await this.#connecting.connect(events, async (opened) => {
      try {
        await opened.query(this.#statements.probe, []);
      } catch (error) {
        if (!(error instanceof SqlError) || error.state !== functionMissing) throw error;
        this.#statements = this.#statementsFor(true);
        await opened.query(this.#statements.probe, []);
      }
    });
    this.#client = client;
    return client;
  }

  /** Until this connection has the outbox for itself. */
  async #standBy(client: SqlClient, tellOpened: () => void): Promise<void> {
    const name = `outbox ${this.#options.table}`;
    while (!this.#over && !(await client.tryLock(name))) {
      if (!this.#standby) {
        const { logger, node } = this.#context;
        logger.info({ node, table: this.#options.table }, "another process reads the outbox: standing by");
      }
      this.#standby = true;
      this.#tellOpen(tellOpened);
      await this.#answerAsks(client);
      await this.#pause(standbyEvery);
      if (this.#fault !== undefined) throw this.#fault;
    }
    this.#standby = false;
  }

  #tellOpen(tellOpened: () => void): void {
    this.#connecting.succeeded();
    this.#isOpen = true;
    tellOpened();
  }

  /** Reads, settles and answers, until the session is over. Throws when a statement fails. */
  async #read(client: SqlClient): Promise<void> {
    const lane = this.#lane!;
    this.#more = true;
    while (!this.#over) {
      if (this.#fault !== undefined) throw this.#fault;
      if (this.#settleDue) {
        this.#settleDue = false;
        this.#collect();
        await this.#takeOut(client);
        this.#connecting.succeeded();
      } else if (this.#asks.length > 0) await this.#answerAsks(client);
      else if (this.#mayRead(lane)) await this.#readRows(client, lane);
      else if (this.#countAt <= this.#context.clock.now()) await this.#count(client);
      else if (await this.#pause(this.#poll)) this.#more = true;
    }
  }

  #mayRead(lane: Lane): boolean {
    return (
      this.#more &&
      !this.#stopped &&
      this.#rows.size < this.#credit.messages &&
      this.#context.intake.waiting(lane) === 0
    );
  }

  async #readRows(client: SqlClient, lane: Lane): Promise<void> {
    const { dialect } = this.#driver;
    const most = Math.min(this.#credit.chunk, this.#credit.messages - this.#rows.size);
    const bytes = Math.min(mostBytes, this.#credit.bytes);
    const { rows } = await client.query(this.#statements.read, [dialect.list(this.#inFlight()), most, bytes]);
    this.#connecting.succeeded();
    // Fewer may be the limit of bytes: only none is the end.
    this.#more = rows.length > 0;
    if (rows.length === 0 || this.#stopped || this.#lane !== lane) return;
    const records = rows.map((row): PlainRecord => {
      const id = String(row.id);
      const position = this.#position++;
      this.#rows.set(position, id);
      return {
        position,
        key: bytesOf(row.key!),
        value: bytesOf(row.value!),
        headers: [...headersOf(row.headers), [idHeader, id]],
        timestamp: Number(row.time),
      };
    });
    this.#context.intake.offer(lane, new PlainRecords(records));
  }

  async #count(client: SqlClient): Promise<void> {
    const list = this.#driver.dialect.list(this.#inFlight());
    const { rows } = await client.query(this.#statements.count, [list, mostCounted]);
    this.#queued = Number(rows[0]!.n);
    this.#countAt = this.#context.clock.now() + countEvery;
  }

  async #answerAsks(client: SqlClient): Promise<void> {
    const asks = this.#asks;
    if (asks.length === 0) return;
    this.#collect();
    await this.#takeOut(client);
    const asked = asks.some(({ what }) => what === "empty");
    let empty = false;
    if (asked && (this.#lane === undefined || this.#context.intake.waiting(this.#lane) === 0)) {
      const { rows } = await client.query(this.#statements.any, [
        this.#driver.dialect.list(this.#inFlight()),
      ]);
      empty = rows.length === 0;
      if (!empty) this.#more = true;
    }
    this.#asks = this.#asks.filter((ask) => !asks.includes(ask));
    for (const { answer } of asks) answer(empty);
  }

  #answer(empty: boolean): void {
    for (const { answer } of this.#asks.splice(0)) answer(empty);
  }

  #inFlight(): string[] {
    return [...this.#rows.values(), ...this.#settled];
  }

  /** What is settled need not be in the table any more. */
  #collect(): void {
    this.#settleTimer?.cancel();
    this.#settleTimer = undefined;
    this.#lane?.collectAcks(true, (position, multiple) => {
      for (let each = multiple ? this.#oldest : position; each <= position; each++) {
        const id = this.#rows.get(each);
        if (id === undefined) continue;
        this.#rows.delete(each);
        this.#settled.push(id);
      }
      if (multiple) this.#oldest = position + 1;
    });
  }

  async #takeOut(client: SqlClient): Promise<void> {
    while (this.#settled.length > 0) {
      const ids = this.#settled.slice(0, mostTakenOut);
      await client.query(this.#statements.settle, [this.#driver.dialect.list(ids)]);
      this.#settled.splice(0, ids.length);
    }
  }

  #openLane(): void {
    this.#oldest = this.#position;
    this.#lane = this.#context.intake.open({
      origin: { target: this.#options.table },
      epoch: ++this.#epoch,
      ack: "individual",
      start: this.#position,
      onProgress: () => this.#progress(),
      onDrained: () => this.#next(),
    });
  }

  #endLane(): void {
    const lane = this.#lane;
    if (lane === undefined) return;
    this.#collect();
    this.#lane = undefined;
    this.#rows.clear();
    this.#context.intake.end(lane);
  }

  #drop(client: SqlClient): void {
    this.#client = undefined;
    this.#endLane();
    this.#answer(false);
    client.close(this.#context.clock.now() + 1_000).catch(() => {});
  }

  #progress(): void {
    // An aborted run acknowledges nothing more by itself.
    if (this.#settleTimer !== undefined || this.#over) return;
    this.#settleTimer = this.#context.clock.after(settleWithin, () => {
      this.#settleTimer = undefined;
      if (this.#over) return;
      this.#settleDue = true;
      this.#next();
    });
  }

  /** The loop looks again at what there is to do. */
  #next(): void {
    this.#awake = true;
    this.#wake?.();
  }

  /** Waits until {@link #next} was called (false), or for so long (true). */
  async #pause(delay: number): Promise<boolean> {
    if (this.#awake || this.#context.signal.aborted) {
      this.#awake = false;
      return false;
    }
    const { clock, signal } = this.#context;
    const elapsed = await new Promise<boolean>((resolve) => {
      const timer = clock.after(delay, () => resolve(true));
      const wake = () => {
        timer.cancel();
        signal.removeEventListener("abort", wake);
        resolve(false);
      };
      signal.addEventListener("abort", wake, { once: true });
      this.#wake = wake;
    });
    this.#wake = undefined;
    this.#awake = false;
    return elapsed;
  }
}

function bytesOf(cell: SqlCell): Buffer | null {
  if (cell === null || Buffer.isBuffer(cell)) return cell;
  return Buffer.from(String(cell));
}
