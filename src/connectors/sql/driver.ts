import type { Context, Time } from "../../component/context.ts";
import type { Dialect } from "./dialect.ts";

/** What a statement's parameter may be. JSON goes as text, made with `JSON.stringify`. */
export type SqlValue = string | number | bigint | boolean | Uint8Array | Date | null;

/** A column's content as both databases can give it: bytes for binary columns; text for the rest, or a number. */
export type SqlCell = Buffer | string | number | null;

export interface SqlResult {
  readonly rows: readonly Readonly<Record<string, SqlCell>>[];
  /** Rows written or deleted. */
  readonly count: number;
}

/** What became of a transaction whose COMMIT was not answered. `unknown`: the database does not remember it. */
export type Fate = "committed" | "aborted" | "underWay" | "unknown";

export interface ClientEvents {
  /** The connection is gone, and with it whatever it had locked. At most once, and not after `close`. */
  closed(error: SqlError): void;
  /** The channel of {@link SqlClient.listen} was notified. */
  notified(): void;
}

/** One connection. One call at a time. What fails rejects with a {@link SqlError}. */
export interface SqlClient {
  /** One statement with values, or several without; the result is the last one's. */
  query(text: string, values?: readonly SqlValue[]): Promise<SqlResult>;
  /** Begins a transaction; returns its name for {@link fateOf}, where its end could become unknown. */
  begin(): Promise<string | undefined>;
  /** Rejects unless the transaction has been made durable. */
  commit(): Promise<void>;
  rollback(): Promise<void>;
  /** Asks, on another connection than the transaction's own. */
  fateOf(transaction: string): Promise<Fate>;
  /** Makes this connection the one that has `name`, until it ends in whatever way; false while another one has. */
  tryLock(name: string): Promise<boolean>;
  /** Calls `notified` for each notification of the channel; does nothing where there is no such thing. */
  listen(channel: string): Promise<void>;
  close(deadline: Time): Promise<void>;
}

export interface SqlDriver {
  readonly dialect: Dialect;
  connect(context: Context, events: ClientEvents): Promise<SqlClient>;
}

/** SQLSTATE of a connection that broke, or was never made. */
export const connectionLost = "08006";

/**
 * A database's refusal. It says what was violated and never what with: neither text nor `detail` of the database's
 * own error is kept where it may hold values of a row.
 */
export class SqlError extends Error {
  /** SQLSTATE: five letters and digits, of which the first two are the class. */
  readonly state: string;
  /** Constraint, column or table that the database names. */
  readonly what: string | undefined;

  constructor(state: string, message: string, options: { readonly what?: string | undefined } = {}) {
    super(message);
    this.name = "SqlError";
    this.state = state;
    this.what = options.what;
  }
}
