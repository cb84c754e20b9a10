import { isUtf8 } from "node:buffer";
import type { Batch } from "../../message/batch.ts";
import type { Bytes, Message } from "../../message/chunk.ts";
import { type Dialect, quoted } from "./dialect.ts";
import { SqlError, type SqlValue } from "./driver.ts";
import type { SqlColumn, SqlSinkOptions, SqlStatement, SqlTexts } from "./options.ts";

/** What one message wants written: a row's values, or statements. */
export type Wanted = readonly SqlValue[] | readonly SqlStatement[];

/** Turns messages into statements: each into its own, or many rows into one. */
export interface Statements {
  /** What message `entry` wants. Throws what the author's function throws, and a {@link SqlError} of class 22. */
  of(batch: Batch, entry: number): Wanted;
  /** The statements of several messages, in order. */
  together(wanted: readonly Wanted[]): Iterable<SqlStatement>;
  /** Fails if a table or column is missing, and changes nothing. Undefined where only running them would tell. */
  readonly probe: string | undefined;
}

export function statementsOf(options: SqlSinkOptions, dialect: Dialect): Statements {
  if (options.table !== undefined) return new Rows(options, dialect);
  const { statement, parameters = () => [], statements } = options;
  const own =
    statements ??
    ((text: string) => (message: Message) => [{ text, values: parameters(message) }])(
      textFor(statement!, dialect),
    );
  return {
    of(batch, entry) {
      const wanted = own(batch.chunk(entry).message(batch.index(entry)));
      for (const { values = [] } of wanted) checkValues(values);
      return wanted;
    },
    together: (wanted) => (wanted as SqlStatement[][]).flat(),
    probe: undefined,
  };
}

export function textFor(text: string | SqlTexts, dialect: Dialect): string {
  return typeof text === "string" ? text : text[dialect.name];
}

/** Rows of a table, as many in one statement as there may be. */
class Rows implements Statements {
  readonly probe: string;
  readonly #columns: readonly SqlColumn[];
  readonly #key: readonly number[];
  readonly #head: string;
  readonly #tail: string;
  readonly #most: number;

  constructor({ table, columns, key, onConflict }: SqlSinkOptions, dialect: Dialect) {
    const names = Object.keys(columns!);
    this.#columns = Object.values(columns!);
    this.#key = (key ?? []).map((name) => names.indexOf(name));
    this.#head = `INSERT INTO ${quoted(table!)} (${names.map(quoted).join(", ")}) VALUES `;
    const others = names.filter((name) => !key?.includes(name));
    const change =
      onConflict === "keep" || others.length === 0
        ? "NOTHING"
        : `UPDATE SET ${others.map((name) => `${quoted(name)} = excluded.${quoted(name)}`).join(", ")}`;
    this.#tail = key === undefined ? "" : ` ON CONFLICT (${key.map(quoted).join(", ")}) DO ${change}`;
    this.#most = Math.floor(dialect.mostParameters / names.length);
    this.probe = `SELECT ${names.map(quoted).join(", ")} FROM ${quoted(table!)} WHERE 1 = 0`;
  }

  of(batch: Batch, entry: number): readonly SqlValue[] {
    let message: Message | undefined;
    const values = this.#columns.map((column) => {
      switch (column) {
        case "key":
          return textOf(batch.key(entry));
        case "value":
          return textOf(batch.payload(entry));
        case "keyBytes":
          return batch.key(entry);
        case "valueBytes":
          return batch.payload(entry);
        case "timestamp":
          return new Date(batch.timestamp(entry));
        default:
          message ??= batch.chunk(entry).message(batch.index(entry));
          return column(message);
      }
    });
    checkValues(values);
    return values;
  }

  /** A statement may not write one row twice: what comes again goes into the next one, after it. */
  *together(wanted: readonly Wanted[]): Iterable<SqlStatement> {
    let rows: (readonly SqlValue[])[] = [];
    let keys = new Set<string>();
    for (const row of wanted as readonly (readonly SqlValue[])[]) {
      const key = this.#key.length === 0 ? undefined : this.#keyOf(row);
      if (rows.length === this.#most || (key !== undefined && keys.has(key))) {
        yield this.#statement(rows);
        rows = [];
        keys = new Set();
      }
      if (key !== undefined) keys.add(key);
      rows.push(row);
    }
    if (rows.length > 0) yield this.#statement(rows);
  }

  #keyOf(row: readonly SqlValue[]): string {
    return JSON.stringify(
      this.#key.map((index) => {
        const value = row[index];
        return value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : String(value);
      }),
    );
  }

  #statement(rows: readonly (readonly SqlValue[])[]): SqlStatement {
    let parameter = 0;
    const places = rows.map((row) => `(${row.map(() => `$${++parameter}`).join(", ")})`).join(", ");
    return { text: `${this.#head}${places}${this.#tail}`, values: rows.flat() };
  }
}

function textOf(bytes: Bytes): string | null {
  if (bytes === null) return null;
  if (!isUtf8(bytes)) throw new SqlError("22021", "the bytes are no UTF-8 text");
  return bytes.toString();
}

/** What a driver would turn into something else, or end the connection over, is refused here. */
function checkValues(values: readonly unknown[]): void {
  values.forEach((value, index) => {
    const kind = typeof value;
    const isText = kind === "string";
    if (isText && (value as string).includes("\0"))
      throw new SqlError("22021", `parameter ${index + 1} holds a NUL character`, {
        what: `parameter ${index + 1}`,
      });
    const known =
      isText ||
      kind === "number" ||
      kind === "bigint" ||
      kind === "boolean" ||
      value === null ||
      value instanceof Uint8Array ||
      (value instanceof Date && !Number.isNaN(value.getTime()));
    if (!known)
      throw new SqlError("22023", `parameter ${index + 1} is of no type that a database takes`, {
        what: `parameter ${index + 1}`,
      });
  });
}
