import type { DatabaseSync } from "node:sqlite";
import type { EmbeddedBroker, FedMessage, StoredMessage } from "../../../../component/embedded.ts";
import { MillraceError, messageOf } from "../../../../errors.ts";
import { readable } from "../../../../message/record-form.ts";
import { noHeaders } from "../../../../message/records.ts";
import { quoted, sqlite } from "../../dialect.ts";
import { headersOf, headersText } from "../../headers.ts";
import { creation, type Outbox, outboxOf } from "../../outbox.ts";
import { openDatabase } from "./open.ts";

/** The database of an embedded run, in memory: the stand-in for a real one at some address. */
export class SqlDatabase implements EmbeddedBroker {
  readonly database: DatabaseSync = openDatabase(":memory:");
  /** Names locked by a client. */
  readonly locks = new Set<string>();
  readonly #outboxes = new Map<string, Outbox>();
  #last: Promise<void> = Promise.resolve();

  constructor() {
    this.database.exec("PRAGMA foreign_keys = ON");
  }

  /** Tables that sources read: what is fed into others has no columns to go to. */
  knows(outbox: Outbox): void {
    this.#outboxes.set(outbox.table, outbox);
  }

  /** Waits for the clients before; whoever gets the turn calls what it resolves to at its end. */
  async turn(): Promise<() => void> {
    const before = this.#last;
    let release!: () => void;
    this.#last = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    return release;
  }

  targets(): readonly string[] {
    return this.database
      .prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
      )
      .all()
      .map(({ name }) => String(name));
  }

  feed(target: string, messages: readonly FedMessage[]): void {
    const outbox = this.#outboxes.get(target) ?? outboxOf(target);
    const { key, value, headers } = outbox.columns;
    try {
      this.database.exec(creation(outbox, sqlite));
      const insert = this.database.prepare(
        `INSERT INTO ${quoted(target)} (${[key, value, headers].map(quoted).join(", ")}) VALUES (?, ?, ?)`,
      );
      this.database.exec("BEGIN");
      for (const message of messages)
        insert.run(message.key ?? null, message.value, headersText(message.headers ?? noHeaders));
      this.database.exec("COMMIT");
    } catch (error) {
      throw new MillraceError("option-invalid", `table "${target}" cannot be fed: ${messageOf(error)}`, {
        remedy: "feed an outbox",
        cause: error,
      });
    }
  }

  /** What an outbox still holds; of another table each row, as JSON. */
  *contents(target: string): Iterable<StoredMessage> {
    const outbox = this.#outboxes.get(target);
    const rows = this.database
      .prepare(`SELECT rowid AS "rowid of", * FROM ${quoted(target)} ORDER BY rowid`)
      .iterate();
    for (const { "rowid of": rowid, ...row } of rows) {
      const position = Number(rowid);
      yield outbox === undefined
        ? {
            partition: 0,
            position,
            key: null,
            value: Buffer.from(
              JSON.stringify(row, (_, cell) =>
                cell instanceof Uint8Array ? readable(Buffer.from(cell)) : cell,
              ),
            ),
            headers: noHeaders,
            timestamp: 0,
          }
        : {
            partition: 0,
            position,
            key: bytesOf(row[outbox.columns.key]),
            value: bytesOf(row[outbox.columns.value]),
            headers: headersOf(row[outbox.columns.headers]),
            timestamp: Date.parse(String(row[outbox.columns.time])) || 0,
          };
    }
  }
}

function bytesOf(cell: unknown): Buffer | null {
  if (cell === null || cell === undefined) return null;
  return cell instanceof Uint8Array ? Buffer.from(cell) : Buffer.from(String(cell));
}
