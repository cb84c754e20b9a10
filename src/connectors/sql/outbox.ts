import { type Dialect, quoted } from "./dialect.ts";

/** Names of an outbox table's columns, where they are not the usual ones. */
export interface OutboxColumns {
  /** Whole number that the database gives in the order of inserts. @default "id" */
  readonly id?: string;
  /** @default "key" */
  readonly key?: string;
  /** @default "value" */
  readonly value?: string;
  /** JSON object with a text for each header. @default "headers" */
  readonly headers?: string;
  /** When the row was written. @default "created_at" */
  readonly time?: string;
  /** When the message was delivered; for `onSettled: "mark"`. @default "settled_at" */
  readonly settled?: string;
}

/** What becomes of a row whose message is settled. */
export type OnSettled = "delete" | "mark";

export interface Outbox {
  readonly table: string;
  readonly columns: Required<OutboxColumns>;
  readonly onSettled: OnSettled;
}

export function outboxOf(
  table: string,
  columns: OutboxColumns = {},
  onSettled: OnSettled = "delete",
): Outbox {
  return {
    table,
    columns: {
      id: columns.id ?? "id",
      key: columns.key ?? "key",
      value: columns.value ?? "value",
      headers: columns.headers ?? "headers",
      time: columns.time ?? "created_at",
      settled: columns.settled ?? "settled_at",
    },
    onSettled,
  };
}

/** Statements that make the table if it is not there. */
export function creation({ table, columns, onSettled }: Outbox, dialect: Dialect): string {
  const { id, key, value, headers, time, settled } = columns;
  const [identity, bytes, json, when] =
    dialect.name === "postgres"
      ? ["bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "bytea", "jsonb", "timestamptz"]
      : ["INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB", "TEXT", "TEXT"];
  const lines = [
    `${quoted(id)} ${identity}`,
    `${quoted(key)} ${bytes}`,
    `${quoted(value)} ${bytes}`,
    `${quoted(headers)} ${json}`,
    `${quoted(time)} ${when} NOT NULL DEFAULT (${dialect.now})`,
    ...(onSettled === "mark" ? [`${quoted(settled)} ${when}`] : []),
  ];
  const made = `CREATE TABLE IF NOT EXISTS ${quoted(table)} (\n  ${lines.join(",\n  ")}\n);\n`;
  if (onSettled !== "mark") return made;
  const index = quoted(`${table.split(".").at(-1)!}_unsettled`);
  return `${made}CREATE INDEX IF NOT EXISTS ${index} ON ${quoted(table)} (${quoted(id)}) WHERE ${quoted(settled)} IS NULL;\n`;
}

/** What a source asks and does, as texts. Results have the columns `id`, `key`, `value`, `headers`, `time`. */
export interface OutboxStatements {
  /**
   * The oldest rows: $1 a list of ids to leave out, $2 the most rows, $3 the most bytes of their values, of which
   * the first may have more.
   */
  readonly read: string;
  /** One row if there is any: $1 a list of ids to leave out. */
  readonly any: string;
  /** How many there are, as `n`, of $2 at most: $1 a list of ids to leave out. */
  readonly count: string;
  /** Settles the rows of $1. */
  readonly settle: string;
  /** Costs nothing and fails if a column is missing. */
  readonly probe: string;
}

/** @param asText the value's column has no bytes of its own to be counted, as JSON has none. */
export function outboxStatements(
  { table, columns, onSettled }: Outbox,
  dialect: Dialect,
  asText = false,
): OutboxStatements {
  const { id, key, value, headers, time, settled } = columns;
  const [from, row] = [quoted(table), quoted(id)];
  const open = onSettled === "mark" ? ` AND ${quoted(settled)} IS NULL` : "";
  const where = `WHERE ${dialect.isNoneOf(row, 1)}${open}`;
  const all = [key, value, headers, time].map(quoted).join(", ");
  const size = dialect.sizeOf(asText ? `CAST(${quoted(value)} AS text)` : quoted(value));
  return {
    // The sizes are summed up before any value is sent, so that a few large rows do not fill the memory.
    read:
      `SELECT ${row} AS id, ${quoted(key)} AS key, ${quoted(value)} AS value, ${quoted(headers)} AS headers, ` +
      `${dialect.millisecondsOf(quoted(time))} AS time FROM (` +
      `SELECT *, sum(size) OVER (ORDER BY ${row}) - size AS before FROM (` +
      `SELECT ${row}, ${all}, ${size} AS size FROM ${from} ${where} ORDER BY ${row} LIMIT $2` +
      ") AS oldest) AS summed WHERE before < $3 ORDER BY 1",
    any: `SELECT 1 AS one FROM ${from} ${where} LIMIT 1`,
    count: `SELECT count(*) AS n FROM (SELECT 1 FROM ${from} ${where} LIMIT $2) AS waiting`,
    settle:
      onSettled === "mark"
        ? `UPDATE ${from} SET ${quoted(settled)} = ${dialect.now} WHERE ${dialect.isOneOf(row, 1)}`
        : `DELETE FROM ${from} WHERE ${dialect.isOneOf(row, 1)}`,
    probe: `SELECT ${row}, ${all}, ${size} AS size FROM ${from} WHERE 1 = 0${open}`,
  };
}
