import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { MillraceError } from "millrace";
import pg from "pg";
import type { Value } from "./statements.ts";

export type Row = Readonly<Record<string, unknown>>;

/** Statements within one transaction, with parameters `$1`, `$2` … */
export interface Session {
  query(sql: string, values?: readonly Value[]): Promise<readonly Row[]>;
  /** Goes on when no other transaction on this database has called it and not ended: one at a time from here on. */
  lock(): Promise<void>;
}

/** PostgreSQL or SQLite, with what the pond and the lake need of them. */
export interface Database {
  /** All or nothing, and durable when it resolves. One at a time. A value the database will never take is a business error. */
  transaction<T>(work: (session: Session) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** Nobody else may open it in this way meanwhile; whoever tries is told so. */
  readonly alone?: boolean;
}

/**
 * Opens "postgres://user:password@host:port/name" or "sqlite:path/to/file". Throws `option-invalid` for anything else, and
 * whatever the database says when it cannot be reached.
 */
export async function openDatabase(url: string, options: DatabaseOptions = {}): Promise<Database> {
  if (/^postgres(ql)?:\/\//.test(url)) return PostgresDatabase.open(url, options);
  if (url.startsWith("sqlite:")) return new SqliteDatabase(url.slice("sqlite:".length), options);
  throw new MillraceError("option-invalid", "a database's address begins with postgres:// or sqlite:", {
    remedy: "set POND_URL and LAKE_URL, as in sqlite:out/xfm/pond.sqlite",
  });
}

class SqliteDatabase implements Database {
  readonly #database: DatabaseSync;

  constructor(path: string, { alone = false }: DatabaseOptions) {
    mkdirSync(dirname(path), { recursive: true });
    this.#database = new DatabaseSync(path, { timeout: busyFor });
    // Without a write-ahead log every commit is in the file itself when it returns.
    this.#database.exec("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    if (alone) this.#database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
  }

  async transaction<T>(work: (session: Session) => Promise<T>): Promise<T> {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = await work({
        query: async (sql, values = []) => {
          // "$1" is a name to SQLite.
          const named = Object.fromEntries(values.map((value, i) => [`$${i + 1}`, value]));
          return this.#database.prepare(sql).all(named) as Row[];
        },
        // BEGIN IMMEDIATE has it already.
        lock: async () => {},
      });
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      this.#database.exec("ROLLBACK");
      throw ((error as { errcode?: number }).errcode ?? 0) % 256 === constraint ? refused(error) : error;
    }
  }

  async close(): Promise<void> {
    this.#database.close();
  }
}

/** How long it waits for another process's transaction, ms; the event loop waits too. */
const busyFor = 1_000;
/** SQLITE_CONSTRAINT, without its kind in the upper bits. */
const constraint = 19;

/** The keys of the locks that stand for a whole database. Any numbers that nobody else uses in it. */
const wholeDatabase = 7_207_001;
const oneTransaction = 7_207_002;

class PostgresDatabase implements Database {
  /** One connection: a lock that is held by it goes when it does, and then nothing may be written under it. */
  static async open(url: string, { alone = false }: DatabaseOptions): Promise<PostgresDatabase> {
    const database = new PostgresDatabase(url, alone);
    await database.#connected();
    return database;
  }

  readonly #url: string;
  readonly #alone: boolean;
  #client: pg.Client | undefined;

  private constructor(url: string, alone: boolean) {
    this.#url = url;
    this.#alone = alone;
  }

  async transaction<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const client = await this.#connected();
    try {
      await client.query("BEGIN");
      const result = await work({
        query: async (sql, values = []) => (await client.query(sql, [...values])).rows as Row[],
        lock: async () => {
          await client.query("SELECT pg_advisory_xact_lock($1)", [oneTransaction]);
        },
      });
      await client.query("COMMIT");
      return result;
    } catch (error) {
      // A connection of unknown state is not used again; what was not committed goes with it.
      await client.query("ROLLBACK").catch(() => this.#drop(client));
      // Classes 22 and 23: data that no such column takes, and broken constraints.
      const { code } = error as { code?: unknown };
      throw typeof code === "string" && /^2[23]/.test(code) ? refused(error) : error;
    }
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.end();
  }

  async #connected(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const client = new pg.Client({ connectionString: this.#url, connectionTimeoutMillis: 10_000 });
    client.on("error", () => this.#drop(client));
    await client.connect();
    if (this.#alone) {
      const { rows } = await client.query("SELECT pg_try_advisory_lock($1) AS locked", [wholeDatabase]);
      if (rows[0]?.locked !== true) {
        await client.end();
        throw new MillraceError("connection-lost", "another loader uses this pond");
      }
    }
    this.#client = client;
    return client;
  }

  #drop(client: pg.Client): void {
    if (this.#client === client) this.#client = undefined;
    client.end().catch(() => {});
  }
}

function refused(cause: unknown): MillraceError {
  return new MillraceError("record-refused", "the database refuses a value of the document", { cause });
}
