import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Context, Time } from "../../../../component/context.ts";
import { messageOf } from "../../../../errors.ts";
import { sqlite } from "../../dialect.ts";
import {
  type ClientEvents,
  type Fate,
  type SqlCell,
  type SqlClient,
  type SqlDriver,
  SqlError,
  type SqlResult,
  type SqlValue,
} from "../../driver.ts";
import type { SqlDatabase } from "./database.ts";
import { openDatabase } from "./open.ts";

/** Prepared statements kept at once. */
const preparedAtMost = 64;

/**
 * SQLite by Node's own module, which works while the event loop waits: a batch is one commit, and so is a group of
 * settled rows. A file that another process writes to is tried again, not waited for.
 */
export function sqliteFile(path: string): SqlDriver {
  return {
    dialect: sqlite,
    async connect(context) {
      const database = asked(() => openDatabase(path));
      asked(() =>
        database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"),
      );
      return new FileClient(database, context, path);
    },
  };
}

/** The database of an embedded run: one connection, which its clients share statement by statement. */
export function sqliteInMemory(shared: SqlDatabase): SqlDriver {
  return {
    dialect: sqlite,
    connect: async (context, events) => new SharedClient(shared, context, events),
  };
}

abstract class SqliteClient implements SqlClient {
  readonly #prepared = new Map<string, StatementSync>();
  protected readonly database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.database = database;
  }

  async query(text: string, values?: readonly SqlValue[]): Promise<SqlResult> {
    return asked(() => {
      if (values === undefined) {
        this.database.exec(text);
        return { rows: [], count: 0 };
      }
      const statement = this.#prepare(text);
      const all = values.map(bound);
      if (statement.columns().length > 0) return { rows: statement.all(...all).map(cells), count: 0 };
      return { rows: [], count: Number(statement.run(...all).changes) };
    });
  }

  async begin(): Promise<string | undefined> {
    await this.query("BEGIN IMMEDIATE");
    return undefined;
  }

  async commit(): Promise<void> {
    await this.query("COMMIT");
  }

  async rollback(): Promise<void> {
    if (this.database.isTransaction) await this.query("ROLLBACK");
  }

  /** A commit here has happened or not when the call returns. */
  async fateOf(): Promise<Fate> {
    return "unknown";
  }

  abstract tryLock(name: string): Promise<boolean>;

  async listen(): Promise<void> {}

  abstract close(deadline: Time): Promise<void>;

  #prepare(text: string): StatementSync {
    let statement = this.#prepared.get(text);
    if (statement === undefined) {
      statement = this.database.prepare(numbered(text));
      // Statements are the same but for their number of rows: of those that differ, old ones are let go.
      if (this.#prepared.size >= preparedAtMost) this.#prepared.delete(this.#prepared.keys().next().value!);
      this.#prepared.set(text, statement);
    }
    return statement;
  }
}

class FileClient extends SqliteClient {
  readonly #path: string;
  readonly #locks: DatabaseSync[] = [];

  constructor(database: DatabaseSync, _context: Context, path: string) {
    super(database);
    this.#path = path;
  }

  /** A file beside the database's, locked for as long as this process has it open, however it ends. */
  async tryLock(name: string): Promise<boolean> {
    const lock = asked(() => openDatabase(`${this.#path}.${name}.lock`));
    try {
      lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
      this.#locks.push(lock);
      return true;
    } catch (error) {
      lock.close();
      if (sqlError(error).state === busy) return false;
      throw sqlError(error);
    }
  }

  async close(_deadline: Time): Promise<void> {
    for (const lock of this.#locks.splice(0)) lock.close();
    if (this.database.isOpen) this.database.close();
  }
}

class SharedClient extends SqliteClient {
  readonly #shared: SqlDatabase;
  readonly #locks = new Set<string>();
  #release: (() => void) | undefined;

  constructor(shared: SqlDatabase, _context: Context, _events: ClientEvents) {
    super(shared.database);
    this.#shared = shared;
  }

  /** Statements outside of a transaction must not come between those of another client's. */
  override async query(text: string, values?: readonly SqlValue[]): Promise<SqlResult> {
    if (this.#release !== undefined) return super.query(text, values);
    const release = await this.#shared.turn();
    try {
      return await super.query(text, values);
    } finally {
      release();
    }
  }

  override async begin(): Promise<string | undefined> {
    this.#release = await this.#shared.turn();
    return super.begin();
  }

  override async commit(): Promise<void> {
    await super.commit();
    this.#end();
  }

  override async rollback(): Promise<void> {
    if (this.#release === undefined) return;
    await super.rollback();
    this.#end();
  }

  async tryLock(name: string): Promise<boolean> {
    if (this.#shared.locks.has(name)) return false;
    this.#shared.locks.add(name);
    this.#locks.add(name);
    return true;
  }

  async close(_deadline: Time): Promise<void> {
    await this.rollback();
    for (const name of this.#locks) this.#shared.locks.delete(name);
    this.#locks.clear();
  }

  #end(): void {
    this.#release?.();
    this.#release = undefined;
  }
}

/** SQLite takes `$1` for a name, whose number is that of its first use; `?1` is what the number says. */
function numbered(text: string): string {
  return text.replace(
    /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\/|\$(\d+)/g,
    (found, number?: string) => (number === undefined ? found : `?${number}`),
  );
}

function bound(value: SqlValue): string | number | bigint | Uint8Array | null {
  if (value instanceof Date) return value.toISOString();
  return typeof value === "boolean" ? Number(value) : value;
}

function cells(row: Record<string, unknown>): Record<string, SqlCell> {
  return Object.fromEntries(
    Object.entries(row).map(([column, cell]) => [
      column,
      cell instanceof Uint8Array
        ? Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength)
        : (cell as SqlCell),
    ]),
  );
}

function asked<T>(ask: () => T): T {
  try {
    return ask();
  } catch (error) {
    throw sqlError(error);
  }
}

const busy = "55P03";

/** SQLSTATEs of SQLite's own result codes: https://sqlite.org/rescode.html. */
const states: Readonly<Record<number, string>> = {
  3: "42501", // PERM
  5: busy, // BUSY
  6: busy, // LOCKED
  7: "53200", // NOMEM
  8: "25006", // READONLY
  10: "58030", // IOERR
  11: "XX001", // CORRUPT
  13: "53100", // FULL
  14: "08001", // CANTOPEN
  18: "54000", // TOOBIG
  19: "23000", // CONSTRAINT
  20: "22P02", // MISMATCH
  25: "22023", // RANGE
  26: "XX001", // NOTADB
  275: "23514", // CONSTRAINT_CHECK
  787: "23503", // CONSTRAINT_FOREIGNKEY
  1299: "23502", // CONSTRAINT_NOTNULL
  1555: "23505", // CONSTRAINT_PRIMARYKEY
  1811: "P0001", // CONSTRAINT_TRIGGER
  2067: "23505", // CONSTRAINT_UNIQUE
  2579: "23505", // CONSTRAINT_ROWID
  3091: "22P02", // CONSTRAINT_DATATYPE
};

function sqlError(error: unknown): SqlError {
  if (error instanceof SqlError) return error;
  const message = messageOf(error);
  const { errcode, code } = error as { errcode?: unknown; code?: unknown };
  if (typeof errcode !== "number") {
    // A value that cannot be bound is the message's; anything else the module's.
    return new SqlError(
      code === "ERR_INVALID_ARG_TYPE" || code === "ERR_OUT_OF_RANGE" ? "22023" : "XX000",
      message,
    );
  }
  const state = states[errcode] ?? states[errcode & 0xff] ?? stateOfText(message);
  const what = /constraint failed: ([\w$., ]+)$/.exec(message)?.[1];
  return new SqlError(state, message, { what });
}

/** Result code 1 is all that is wrong with a statement. */
function stateOfText(message: string): string {
  if (/^no such table/.test(message)) return "42P01";
  if (/no such column|has no column/.test(message)) return "42703";
  return /syntax error|incomplete input|unrecognized token/.test(message) ? "42601" : "42000";
}
