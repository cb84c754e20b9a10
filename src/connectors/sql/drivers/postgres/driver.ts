import type { Client, DatabaseError, QueryResult } from "pg";
import type { Context, Time } from "../../../../component/context.ts";
import { pem } from "../../../../component/pem.ts";
import { reveal } from "../../../../component/secret.ts";
import { MillraceError, messageOf } from "../../../../errors.ts";
import { postgres } from "../../dialect.ts";
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
import { lost } from "../../errors.ts";
import type { Server, SqlTls } from "../../options.ts";

/** First number of our advisory locks, so that they meet no others: "mill". */
const lockSpace = 0x6d696c6c;
/** A connection that has not answered for so much longer than a statement may take is taken for dead, ms. */
const silence = 5_000;
const bytea = 17;

/** PostgreSQL by `pg`, which whoever uses it installs. */
export function postgresDriver(server: Server): SqlDriver {
  return {
    dialect: postgres,
    async connect(context, events) {
      const { default: pg } = await importPg();
      if (server.tls?.insecureSkipVerify === true) {
        context.logger.warn({ address: server.address }, "the server's certificate is not checked");
      }
      const client = new pg.Client({
        host: server.host,
        port: server.port,
        user: server.user,
        database: server.database,
        ...(server.password === undefined ? {} : { password: reveal(server.password) }),
        ...(server.tls === undefined ? { ssl: false } : { ssl: tlsOptions(server.tls) }),
        connectionTimeoutMillis: server.connectTimeout,
        statement_timeout: server.statementTimeout,
        keepAlive: true,
        keepAliveInitialDelayMillis: 10_000,
        application_name: `millrace ${context.node}`.slice(0, 63),
        // Bytes as bytes; everything else as PostgreSQL writes it, so that no number loses a digit.
        types: { getTypeParser: (type: number) => (type === bytea ? bytes : String) as never },
      });
      const connection = new Connection(client, server, context, events);
      await connection.open();
      return connection;
    },
  };
}

/** As the package may not be there. */
async function importPg(): Promise<typeof import("pg")> {
  try {
    return await import("pg");
  } catch (error) {
    throw new MillraceError(
      "package-missing",
      'the package "pg" is needed for PostgreSQL and cannot be loaded',
      {
        remedy: "npm install pg",
        cause: error,
      },
    );
  }
}

/** A binary column's content as PostgreSQL writes it: `\x` and hexadecimal digits. */
function bytes(text: string): Buffer {
  return Buffer.from(text.slice(2), "hex");
}

function tlsOptions({ ca, cert, key, passphrase, servername, insecureSkipVerify }: SqlTls): object {
  return {
    minVersion: "TLSv1.2",
    ...(ca === undefined ? {} : { ca: pem(ca) }),
    ...(cert === undefined ? {} : { cert: pem(cert) }),
    ...(key === undefined ? {} : { key: pem(key) }),
    ...(passphrase === undefined ? {} : { passphrase: reveal(passphrase) }),
    ...(servername === undefined ? {} : { servername }),
    rejectUnauthorized: insecureSkipVerify !== true,
  };
}

class Connection implements SqlClient {
  readonly #client: Client;
  readonly #server: Server;
  readonly #context: Context;
  #open = false;
  #closing = false;
  #channel: string | undefined;

  constructor(client: Client, server: Server, context: Context, events: ClientEvents) {
    this.#client = client;
    this.#server = server;
    this.#context = context;
    let fault: SqlError | undefined;
    client.on("error", (error) => {
      fault = sqlError(error);
    });
    client.on("end", () => {
      const wasOpen = this.#open;
      this.#open = false;
      if (wasOpen && !this.#closing) events.closed(fault ?? lost("the connection was closed"));
    });
    client.on("notification", ({ channel }) => {
      if (channel === this.#channel) events.notified();
    });
  }

  async open(): Promise<void> {
    try {
      await this.#client.connect();
      this.#open = true;
      // A backend whose client vanished would keep its locks for hours.
      await this.query(
        "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET client_encoding = 'UTF8'",
      );
    } catch (error) {
      this.#closing = true;
      this.#cut();
      throw sqlError(error);
    }
  }

  async query(text: string, values?: readonly SqlValue[]): Promise<SqlResult> {
    const result = await this.#ask(text, values);
    const last = Array.isArray(result) ? (result.at(-1) as QueryResult) : result;
    return { rows: last.rows as Record<string, SqlCell>[], count: last.rowCount ?? 0 };
  }

  async begin(): Promise<string | undefined> {
    const { rows } = await this.query("BEGIN; SELECT pg_current_xact_id()::text AS id");
    return rows[0]!.id as string;
  }

  async commit(): Promise<void> {
    const { command } = (await this.#ask("COMMIT")) as QueryResult;
    // What is asked of a failed transaction is answered with this, and with no error.
    if (command !== "COMMIT") throw new SqlError("40000", "the transaction was rolled back");
  }

  async rollback(): Promise<void> {
    await this.query("ROLLBACK");
  }

  async fateOf(transaction: string): Promise<Fate> {
    try {
      const { rows } = await this.query("SELECT pg_xact_status($1::text::xid8) AS status", [transaction]);
      const { status } = rows[0]!;
      if (status === "committed" || status === "aborted") return status;
      return status === "in progress" ? "underWay" : "unknown";
    } catch (error) {
      // 22023: a transaction that this server has not come to yet. Another one has taken its place.
      if (error instanceof SqlError && error.state === "22023") return "unknown";
      throw error;
    }
  }

  async tryLock(name: string): Promise<boolean> {
    const { rows } = await this.query("SELECT pg_try_advisory_lock($1, hashtext($2))::text AS locked", [
      lockSpace,
      name,
    ]);
    return rows[0]!.locked === "true";
  }

  async listen(channel: string): Promise<void> {
    this.#channel = channel;
    await this.query(`LISTEN "${channel}"`);
  }

  async close(deadline: Time): Promise<void> {
    this.#closing = true;
    if (!this.#open) return;
    const { clock } = this.#context;
    const timer = clock.after(Math.max(0, deadline - clock.now()), () => this.#cut());
    await this.#client.end().catch(() => {});
    timer.cancel();
  }

  async #ask(text: string, values?: readonly SqlValue[]): Promise<QueryResult | QueryResult[]> {
    if (!this.#open) throw lost("the connection is closed");
    const limit = this.#server.statementTimeout + silence;
    const timer = this.#context.clock.after(limit, () => this.#cut());
    try {
      return values === undefined
        ? await this.#client.query(text)
        : await this.#client.query(text, values.map(sent));
    } catch (error) {
      throw sqlError(error);
    } finally {
      timer.cancel();
    }
  }

  /** Without a word to the other side. */
  #cut(): void {
    const { connection } = this.#client as unknown as { connection: { stream: { destroy(): void } } };
    connection.stream.destroy();
  }
}

/** `pg` takes any other view for JSON. */
function sent(value: SqlValue): unknown {
  return value instanceof Uint8Array && !Buffer.isBuffer(value)
    ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    : value;
}

function sqlError(error: unknown): SqlError {
  if (error instanceof SqlError) return error;
  const { code, constraint, column, table, severity } = error as Partial<DatabaseError>;
  if (severity === undefined || code?.length !== 5) return lost(messageOf(error));
  const what = constraint ?? column ?? table;
  return new SqlError(code, messageOf(error), { what });
}
