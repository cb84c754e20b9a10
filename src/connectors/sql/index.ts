import type { Connection, Requirement, Unmet } from "../../component/connection.ts";
import type { Context } from "../../component/context.ts";
import { callerLocation, type Location } from "../../component/location.ts";
import { type OptionProblem, optionProblems } from "../../component/options.ts";
import type { Sink } from "../../component/sink.ts";
import type { Source } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import { type Dialect, postgres, quoted, sqlite } from "./dialect.ts";
import type { SqlClient, SqlDriver } from "./driver.ts";
import { postgresDriver } from "./drivers/postgres/driver.ts";
import { SqlDatabase } from "./drivers/sqlite/database.ts";
import { sqliteFile, sqliteInMemory } from "./drivers/sqlite/driver.ts";
import { lastingError } from "./errors.ts";
import {
  type DatabaseFile,
  readSqlOptions,
  type Server,
  type SqlOptions,
  type SqlSinkOptions,
  type SqlSourceOptions,
  sqlCredit,
  sqlSinkProblems,
  sqlSinkSchema,
  sqlSourceProblems,
  sqlSourceSchema,
} from "./options.ts";
import { creation, type Outbox, outboxOf } from "./outbox.ts";
import { openSqlSink } from "./sink.ts";
import { openSqlSource } from "./source.ts";
import { textFor } from "./statements.ts";

export type { SqlValue } from "./driver.ts";
export type {
  SqlColumn,
  SqlOptions,
  SqlSinkOptions,
  SqlSourceOptions,
  SqlStatement,
  SqlTexts,
  SqlTls,
} from "./options.ts";
export type { OutboxColumns } from "./outbox.ts";

/** A database: sources read outboxes, sinks write rows. */
export interface SqlConnection extends Connection {
  /**
   * Reads a transactional outbox: a table to which an application adds a row for each message, in the transaction
   * that changes its data. Nothing is skipped, whatever the order of commits.
   */
  source(options: SqlSourceOptions): Source;
  /** Writes messages, a batch in a transaction: into a table, by key, or with statements of your own. */
  sink(options: SqlSinkOptions): Sink;
  /**
   * The statements that make a source's outbox, for a migration of your own: what `--create` runs.
   *
   * @throws MillraceError `option-invalid`
   */
  outbox(options: Pick<SqlSourceOptions, "table" | "columns" | "onSettled">): string;
}

/**
 * A PostgreSQL database, or a SQLite file. Opens nothing: mistakes in the options are reported by the compiler, and
 * each source and sink has a connection of its own when the topology runs.
 *
 * @example sql({ url: env("DATABASE_URL", "postgres://app@127.0.0.1:5432/app"), password: secret(env("DATABASE_PASSWORD", "app")) })
 */
export function sql(options: SqlOptions): SqlConnection {
  return new Database(options);
}

class Database implements SqlConnection {
  readonly connector = "sql";
  readonly address: string;
  readonly location: Location | undefined;
  readonly problems: readonly OptionProblem[];
  readonly #options: SqlOptions;
  readonly #place: Server | DatabaseFile | undefined;
  readonly #outboxes = new Map<string, Outbox>();
  readonly #rows = new Map<string, SqlSinkOptions>();

  // JavaScript may leave options out; the schema then says what is missing.
  constructor(options: SqlOptions = {} as SqlOptions) {
    const { problems, place } = readSqlOptions(options);
    this.#options = options;
    this.#place = place;
    this.problems = problems;
    this.address = place?.address ?? "";
    this.location = callerLocation();
  }

  source(options: SqlSourceOptions = {} as SqlSourceOptions): Source {
    const problems = optionProblems("sql source", sqlSourceSchema, options);
    if (problems.length === 0) {
      problems.push(...sqlSourceProblems(options));
      this.#outboxes.set(options.table, outboxOf(options.table, options.columns, options.onSettled));
    }
    return {
      kind: "source",
      type: "sql",
      name: String(options.table),
      connection: this,
      capabilities: { ack: "individual", holdsRebalance: false, replays: true, order: "lane" },
      problems,
      location: callerLocation(),
      targets: [String(options.table)],
      targetKind: "table",
      claims: [
        {
          place: `sql ${this.address} ${String(options.table)} by a reader`,
          what: `the outbox "${String(options.table)}"`,
          remedy: "one of them would only stand by: use one stream twice",
        },
      ],
      lanes: 1,
      credit: sqlCredit(options),
      open: (context) =>
        openSqlSource(context, { driver: this.#driver(context), address: this.address }, options),
    };
  }

  sink(options: SqlSinkOptions = {} as SqlSinkOptions): Sink {
    const problems = optionProblems("sql sink", sqlSinkSchema, options);
    if (problems.length === 0) problems.push(...sqlSinkProblems(options));
    const targets = options.table === undefined ? [...(options.tables ?? [])] : [String(options.table)];
    if (options.table !== undefined && problems.length === 0) this.#rows.set(options.table, options);
    const name = targets.join("+") || "statements";
    return {
      kind: "sink",
      type: "sql",
      name,
      connection: this,
      capabilities: { order: "always", batches: false },
      problems,
      location: callerLocation(),
      targets,
      targetKind: "table",
      readsValues: readsValuesOnly(options),
      open: (context) =>
        openSqlSink(context, { driver: this.#driver(context), address: this.address, name }, options),
    };
  }

  outbox({ table, columns, onSettled }: Pick<SqlSourceOptions, "table" | "columns" | "onSettled">): string {
    const [problem] = optionProblems("outbox", sqlSourceSchema, {
      table,
      ...(columns === undefined ? {} : { columns }),
      ...(onSettled === undefined ? {} : { onSettled }),
    });
    if (problem !== undefined)
      throw new MillraceError(problem.code, problem.message, { remedy: problem.remedy });
    return creation(outboxOf(table, columns, onSettled), this.#dialect);
  }

  embedded(context: Context): SqlDatabase | undefined {
    const database = context.embedded?.of("sql", this.address, () => new SqlDatabase());
    if (database !== undefined) for (const outbox of this.#outboxes.values()) database.knows(outbox);
    return database;
  }

  async verify(context: Context, requirements: readonly Requirement[]): Promise<readonly Unmet[]> {
    const unmet: Unmet[] = [];
    await this.#using(context, async (client, driver) => {
      for (const requirement of requirements) {
        if (await exists(client, driver, requirement.name)) continue;
        const known = this.#creationOf(requirement, driver, false) !== undefined;
        unmet.push({
          requirement,
          problem: `table "${requirement.name}" does not exist in ${this.address}`,
          remedy: known
            ? "create it, or run with --create"
            : `create it, or declare it: sql({ tables: { "${requirement.name}": "CREATE TABLE …" } })`,
        });
      }
    });
    return unmet;
  }

  async create(context: Context, requirements: readonly Requirement[]): Promise<readonly Requirement[]> {
    const made: Requirement[] = [];
    const inMemory = this.embedded(context) !== undefined;
    await this.#using(context, async (client, driver) => {
      for (const requirement of requirements) {
        if (await exists(client, driver, requirement.name)) continue;
        const statements = this.#creationOf(requirement, driver, inMemory);
        if (statements === undefined) continue;
        try {
          await client.query(statements);
        } catch (error) {
          // Of two who make a table at once PostgreSQL refuses one, "IF NOT EXISTS" or not.
          if (await exists(client, driver, requirement.name)) continue;
          throw error;
        }
        made.push(requirement);
      }
    });
    return made;
  }

  /** The statements that make a table; undefined where nobody has told them. */
  #creationOf({ name, role }: Requirement, { dialect }: SqlDriver, untyped: boolean): string | undefined {
    const declared = this.#options.tables?.[name];
    if (declared !== undefined) return textFor(declared, dialect);
    const outbox = this.#outboxes.get(name);
    if (outbox !== undefined && role === "source") return creation(outbox, dialect);
    const rows = this.#rows.get(name);
    if (!untyped || rows === undefined) return undefined;
    // In an embedded run a table needs no types, and is gone at the end.
    const columns = Object.keys(rows.columns!).map(quoted);
    const key = rows.key === undefined ? [] : [`PRIMARY KEY (${rows.key.map(quoted).join(", ")})`];
    return `CREATE TABLE ${quoted(name)} (${[...columns, ...key].join(", ")})`;
  }

  async #using(
    context: Context,
    use: (client: SqlClient, driver: SqlDriver) => Promise<void>,
  ): Promise<void> {
    const driver = this.#driver(context);
    try {
      const client = await driver.connect(context, { closed: () => {}, notified: () => {} });
      try {
        await use(client, driver);
      } finally {
        await client.close(context.clock.now() + 2_000);
      }
    } catch (error) {
      throw (
        lastingError(error, this.address) ??
        new MillraceError("connection-lost", `the database at ${this.address}: ${messageOf(error)}`, {
          remedy: "check that it runs and that the url leads to it",
          cause: error,
        })
      );
    }
  }

  get #dialect(): Dialect {
    return this.#place?.kind === "sqlite" ? sqlite : postgres;
  }

  #driver(context: Context): SqlDriver {
    const shared = this.embedded(context);
    if (shared !== undefined) return sqliteInMemory(shared);
    const place = this.#place!;
    return place.kind === "sqlite" ? sqliteFile(place.path) : postgresDriver(place);
  }
}

async function exists(client: SqlClient, { dialect }: SqlDriver, table: string): Promise<boolean> {
  const { rows } = await client.query(dialect.findTable, [dialect.nameOf(table)]);
  return rows.length > 0;
}

/** Whether the sink makes all it writes from values, so that nothing need be encoded for it. */
function readsValuesOnly({ columns }: SqlSinkOptions): boolean {
  return !Object.values(columns ?? {}).some((column) => column === "value" || column === "valueBytes");
}
