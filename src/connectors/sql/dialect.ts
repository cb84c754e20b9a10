/** How a database says what we need: the statements differ, what they do does not. */
export interface Dialect {
  readonly name: "postgres" | "sqlite";
  /** Most parameters of one statement. */
  readonly mostParameters: number;
  /** A condition: the column is one of those in parameter `n`, which is {@link Dialect.list} of them. */
  isOneOf(column: string, n: number): string;
  isNoneOf(column: string, n: number): string;
  list(ids: readonly string[]): string;
  /** Bytes of a column's content. */
  sizeOf(column: string): string;
  /** A column as whole milliseconds since 1970. */
  millisecondsOf(column: string): string;
  readonly now: string;
  /** One row if the table, given as {@link Dialect.nameOf} writes it in parameter 1, is there. */
  readonly findTable: string;
  nameOf(table: string): string;
}

/** `"schema"."table"`: names are always quoted, so that none is taken for a keyword. */
export function quoted(name: string): string {
  return name
    .split(".")
    .map((part) => `"${part.replaceAll('"', '""')}"`)
    .join(".");
}

export const postgres: Dialect = {
  name: "postgres",
  mostParameters: 65_535,
  isOneOf: (column, n) => `${column} = ANY($${n}::bigint[])`,
  isNoneOf: (column, n) => `${column} <> ALL($${n}::bigint[])`,
  list: (ids) => `{${ids.join(",")}}`,
  sizeOf: (column) => `coalesce(octet_length(${column}), 0)`,
  millisecondsOf: (column) => `floor(extract(epoch FROM ${column}) * 1000)::bigint`,
  now: "clock_timestamp()",
  findTable: "SELECT 1 WHERE to_regclass($1) IS NOT NULL",
  nameOf: quoted,
};

export const sqlite: Dialect = {
  name: "sqlite",
  // Nothing travels, so that larger ones would save nothing.
  mostParameters: 1_000,
  isOneOf: (column, n) => `${column} IN (SELECT value FROM json_each($${n}))`,
  isNoneOf: (column, n) => `${column} NOT IN (SELECT value FROM json_each($${n}))`,
  list: (ids) => `[${ids.join(",")}]`,
  sizeOf: (column) => `coalesce(length(CAST(${column} AS BLOB)), 0)`,
  millisecondsOf: (column) => `CAST(round((julianday(${column}) - 2440587.5) * 86400000) AS INTEGER)`,
  now: "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
  findTable: "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower($1)",
  nameOf: (table) => table,
};
