import { isUnset } from "../../component/environment.ts";
import {
  byteCount,
  type Duration,
  milliseconds,
  type OptionProblem,
  type OptionsSchema,
  optionProblems,
  type Size,
} from "../../component/options.ts";
import { reveal, type Secret } from "../../component/secret.ts";
import type { CreditOptions } from "../../component/source.ts";
import type { Message } from "../../message/chunk.ts";
import type { SqlValue } from "./driver.ts";
import type { OnSettled, OutboxColumns } from "./outbox.ts";

/** How to reach a database, and what must exist in it. */
export interface SqlOptions {
  /**
   * "postgres://user:password@host:5432/database", or "sqlite:path/of/a.db". `?host=/run/postgresql` names the folder
   * of a Unix socket. Whatever shows this address leaves user and password out. The driver `pg` is installed by
   * whoever uses it: `npm install pg`; PostgreSQL must be 13 or newer.
   */
  readonly url: string | Secret;
  /** Instead of the one in `url`; best as `secret(env("…"))`. */
  readonly password?: string | Secret;
  /** TLS, with the server's certificate checked. Default: off. `true` trusts the system's authorities. */
  readonly tls?: boolean | SqlTls;
  /** Longest wait for a connection. @default "10s" */
  readonly connectTimeout?: Duration;
  /** Longest a statement may take in the database; then it is tried again. @default "30s" */
  readonly statementTimeout?: Duration;
  /**
   * Statements that make tables, by the table's name: run by `--create`, and by `--embedded`, where the table is
   * missing. The same for both databases, or one for each. Outboxes need none: they are known.
   */
  readonly tables?: Readonly<Record<string, string | SqlTexts>>;
}

/** A text for each database, where they differ. */
export interface SqlTexts {
  readonly postgres: string;
  readonly sqlite: string;
}

export interface SqlTls {
  /** Authorities to trust, a certificate and its key: PEM text, or the path of a file that holds it. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly passphrase?: string | Secret;
  /** The name that the server's certificate must have. Default: the URL's host. */
  readonly servername?: string;
  /** Accepts any certificate: for tests only; warned of at every connect. */
  readonly insecureSkipVerify?: boolean;
}

export interface SqlSourceOptions {
  /** The outbox: "outbox", "schema.outbox". `--create` makes it. */
  readonly table: string;
  readonly columns?: OutboxColumns;
  /** A settled row is deleted, or gets the time in its column `settled_at`. @default "delete" */
  readonly onSettled?: OnSettled;
  /** How often an idle source looks. @default "500ms" */
  readonly poll?: Duration;
  /**
   * A channel to LISTEN on, so that a writer's `NOTIFY` wakes the source at once. PostgreSQL only, which serialises
   * the commits of transactions that notify.
   */
  readonly notify?: string;
  /** Most messages in flight at once. @default 1_000 */
  readonly credit?: number;
  /** Most bytes in flight at once. @default "16MiB" */
  readonly creditBytes?: Size;
  /** Most messages in one chunk, and most rows read at once. @default 500 */
  readonly chunk?: number;
}

/**
 * Where a column's content comes from: the message's key or payload, as text or as bytes, its time, or a pure function
 * of the message. Text and JSON columns take text; bytes are for `bytea`.
 */
export type SqlColumn =
  | "key"
  | "value"
  | "keyBytes"
  | "valueBytes"
  | "timestamp"
  | ((message: Message) => SqlValue);

/** A statement, `$1` being the first of its values. */
export interface SqlStatement {
  readonly text: string;
  readonly values?: readonly SqlValue[];
}

export interface SqlSinkOptions {
  /** The table to write rows to: "pond", "schema.pond". */
  readonly table?: string;
  /** Columns by name. */
  readonly columns?: Readonly<Record<string, SqlColumn>>;
  /**
   * Columns by which a row is known, and which a unique constraint is on. A row that is there is then written over, so
   * that messages that come again change nothing. Without it a row that comes again is there twice, or refused.
   */
  readonly key?: readonly string[];
  /** What happens to a row that is there: written over, or kept as it is. @default "update" */
  readonly onConflict?: "update" | "keep";
  /**
   * Instead of `table`: a statement for each message, with `$1`, `$2` … for its parameters. It should bear to be run
   * again with the same ones.
   */
  readonly statement?: string | SqlTexts;
  /** The parameters of `statement`, a pure function of the message. */
  readonly parameters?: (message: Message) => readonly SqlValue[];
  /** Instead of `table`: the statements of a message, which are run together or not at all. */
  readonly statements?: (message: Message) => readonly SqlStatement[];
  /** With `statement` and `statements`: the tables they need, for `check`, `--create` and drawings. */
  readonly tables?: readonly string[];
  /** Longest wait between attempts. @default "5s"; attempts never end. */
  readonly maxBackoff?: Duration;
}

/** A PostgreSQL server, every default filled in. */
export interface Server {
  readonly kind: "postgres";
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | Secret | undefined;
  readonly database: string;
  readonly tls: SqlTls | undefined;
  readonly connectTimeout: number;
  readonly statementTimeout: number;
  readonly address: string;
}

/** A SQLite file. */
export interface DatabaseFile {
  readonly kind: "sqlite";
  readonly path: string;
  readonly address: string;
}

const name = { type: "string", minLength: 1 } as const;
const table = {
  type: "string",
  pattern: "^[A-Za-z_][A-Za-z0-9_$]*(\\.[A-Za-z_][A-Za-z0-9_$]*)?$",
  description: 'a table\'s name, such as "pond" or "schema.pond"',
} as const;
const column = {
  type: "string",
  pattern: "^[A-Za-z_][A-Za-z0-9_$]*$",
  description: "a column's name",
} as const;
const texts = {
  type: "object",
  required: ["postgres", "sqlite"],
  additionalProperties: false,
  properties: { postgres: name, sqlite: name },
} as const;
const duration = { isDuration: true } as const;

const sqlSchema: OptionsSchema = {
  type: "object",
  required: ["url"],
  additionalProperties: false,
  properties: {
    url: { isSecret: true },
    password: { isSecret: true },
    tls: {
      anyOf: [
        { type: "boolean" },
        {
          type: "object",
          additionalProperties: false,
          properties: {
            ca: name,
            cert: name,
            key: name,
            passphrase: { isSecret: true },
            servername: name,
            insecureSkipVerify: { type: "boolean" },
          },
          dependencies: { cert: ["key"], key: ["cert"] },
        },
      ],
    },
    connectTimeout: duration,
    statementTimeout: duration,
    tables: { type: "object", propertyNames: table, additionalProperties: { anyOf: [name, texts] } },
  },
};

export const sqlSourceSchema: OptionsSchema = {
  type: "object",
  required: ["table"],
  additionalProperties: false,
  properties: {
    table,
    columns: {
      type: "object",
      additionalProperties: false,
      properties: { id: column, key: column, value: column, headers: column, time: column, settled: column },
    },
    onSettled: { enum: ["delete", "mark"] },
    poll: duration,
    notify: column,
    credit: { type: "integer", minimum: 1, maximum: 100_000 },
    creditBytes: { isSize: true },
    chunk: { type: "integer", minimum: 1, maximum: 10_000 },
  },
};

export const sqlSinkSchema: OptionsSchema = {
  type: "object",
  additionalProperties: false,
  properties: {
    table,
    columns: {
      type: "object",
      minProperties: 1,
      propertyNames: column,
      additionalProperties: {
        anyOf: [{ enum: ["key", "value", "keyBytes", "valueBytes", "timestamp"] }, { isFunction: true }],
      },
    },
    key: { type: "array", minItems: 1, uniqueItems: true, items: column },
    onConflict: { enum: ["update", "keep"] },
    statement: { anyOf: [name, texts] },
    parameters: { isFunction: true },
    statements: { isFunction: true },
    tables: { type: "array", uniqueItems: true, items: table },
    maxBackoff: duration,
  },
};

/** Checks the options of a connection; `place` is undefined when there is a problem that concerns it. */
export function readSqlOptions(options: SqlOptions): {
  readonly problems: readonly OptionProblem[];
  readonly place: Server | DatabaseFile | undefined;
} {
  const problems = optionProblems("sql", sqlSchema, options);
  const place = problems.length > 0 ? undefined : readUrl(options, problems);
  return { problems, place };
}

const example = 'give one such as "postgres://user@127.0.0.1:5432/orders" or "sqlite:orders.db"';

/** Nothing here may show the URL itself: it can hold a password. */
function readUrl(options: SqlOptions, problems: OptionProblem[]): Server | DatabaseFile | undefined {
  const invalid = (message: string, remedy: string) => {
    problems.push({ code: "option-invalid", message: `sql: ${message}`, remedy });
    return undefined;
  };
  const given = reveal(options.url);
  // An environment variable that is not set has been reported as such.
  if (isUnset(given)) return undefined;
  if (given.startsWith("sqlite:")) {
    const path = given.slice("sqlite:".length);
    if (path === "" || path.startsWith("//"))
      return invalid('"url" names no file', 'write it as "sqlite:orders.db"');
    if (path === ":memory:")
      return invalid(
        "a database in memory would be another one for each source and sink",
        "give a file, or run with --embedded",
      );
    if (options.tls !== undefined || options.password !== undefined)
      return invalid("a SQLite file has neither tls nor a password", "leave them out");
    return { kind: "sqlite", path, address: given };
  }
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (url === undefined || !["postgres:", "postgresql:"].includes(url.protocol))
    return invalid('"url" is no address of a database', example);
  const socket = url.searchParams.get("host");
  url.searchParams.delete("host");
  if ([...url.searchParams.keys()].length > 0 || url.hash !== "")
    return invalid(
      '"url" has a part after "?" or "#"',
      "use the options tls, connectTimeout and statementTimeout",
    );
  const host = socket ?? url.hostname.replace(/^\[|\]$/g, "");
  if (host === "" || url.pathname.length < 2 || url.pathname.slice(1).includes("/"))
    return invalid('"url" must name a host and a database', example);
  const { tls } = options;
  try {
    const user = decodeURIComponent(url.username);
    const inUrl = decodeURIComponent(url.password);
    if (user === "") return invalid('"url" names no user', example);
    const database = decodeURIComponent(url.pathname.slice(1));
    const port = url.port === "" ? 5432 : Number(url.port);
    return {
      kind: "postgres",
      host,
      port,
      user,
      password: options.password ?? (inUrl === "" ? undefined : inUrl),
      database,
      tls: tls === undefined || tls === false ? undefined : tls === true ? {} : tls,
      connectTimeout: milliseconds(options.connectTimeout, 10_000),
      statementTimeout: milliseconds(options.statementTimeout, 30_000),
      address: `${socket ?? url.hostname}:${port}/${database}`,
    };
  } catch {
    return invalid('"url" has a "%" that escapes nothing', 'write a "%" in a name or password as "%25"');
  }
}

/** Problems of a sink that its schema cannot say. */
export function sqlSinkProblems(options: SqlSinkOptions): OptionProblem[] {
  const { table: target, columns, key, onConflict, statement, parameters, statements, tables } = options;
  const problems: OptionProblem[] = [];
  const invalid = (message: string, remedy: string, code: OptionProblem["code"] = "option-invalid") =>
    problems.push({ code, message: `sql sink${message}`, remedy });
  const ways = [target, statement, statements].filter((way) => way !== undefined).length;
  if (ways !== 1) {
    invalid(
      ways === 0
        ? ' needs "table", "statement" or "statements"'
        : ': "table", "statement" and "statements" go one by one',
      'give "table" with "columns", or "statement" with "parameters", or "statements"',
      ways === 0 ? "option-missing" : "option-invalid",
    );
    return problems;
  }
  if (target === undefined) {
    if (columns !== undefined || key !== undefined || onConflict !== undefined)
      invalid(': "columns", "key" and "onConflict" are for "table"', "leave them out");
    if (parameters !== undefined && statement === undefined)
      invalid(': "parameters" are for "statement"', 'return them as "values" of each statement');
    return problems;
  }
  if (parameters !== undefined || tables !== undefined)
    invalid(': "parameters" and "tables" are for statements of your own', "leave them out");
  if (columns === undefined) {
    invalid(
      ' needs the option "columns" with "table"',
      'add columns, such as { id: "key", body: "value" }',
      "option-missing",
    );
    return problems;
  }
  for (const part of key ?? []) {
    if (!(part in columns))
      invalid(
        `: "key" names "${part}", which is no column`,
        `use some of: ${Object.keys(columns).join(", ")}`,
      );
  }
  if (onConflict !== undefined && key === undefined)
    invalid(': "onConflict" needs "key"', "add the columns by which a row is known");
  return problems;
}

/** Problems of a source that its schema cannot say. */
export function sqlSourceProblems({ columns, onSettled }: SqlSourceOptions): OptionProblem[] {
  if (columns?.settled === undefined || onSettled === "mark") return [];
  return [
    {
      code: "option-invalid",
      message: 'sql source: the column "settled" is for onSettled "mark"',
      remedy: 'add onSettled: "mark", or leave the column out',
    },
  ];
}

export function sqlCredit(options: SqlSourceOptions): CreditOptions {
  const messages = options.credit ?? 1_000;
  return {
    messages,
    bytes: byteCount(options.creditBytes, 16 * 2 ** 20),
    span: 4 * messages,
    chunk: options.chunk ?? 500,
  };
}
