import { randomUUID } from "node:crypto";
import { MillraceError } from "millrace";
import { type Database, openDatabase, type Row, type Session } from "./database.ts";
import type { StoredDocument } from "./lake.ts";
import type { Range } from "./range.ts";
import type { Load, Value } from "./statements.ts";
import { createPondTables } from "./tables.ts";

/**
 * Where one loader keeps the documents it has loaded, those first that the lake does not have yet. It is that loader's
 * alone. States: `open`, and after a decommission `closed` for good, first with a range that is still to be returned.
 */
export class Pond {
  static async open(url: string): Promise<Pond> {
    const database = await openDatabase(url, { alone: true });
    try {
      const [id, state] = await database.transaction(async (session) => {
        await createPondTables(session);
        const [known] = await session.query("SELECT id, state FROM pond");
        if (known !== undefined) return [String(known.id), String(known.state)] as const;
        const made = randomUUID();
        await session.query("INSERT INTO pond (id, state) VALUES ($1, 'open')", [made]);
        return [made, "open"] as const;
      });
      return new Pond(database, id, state === "open");
    } catch (error) {
      await database.close();
      throw error;
    }
  }

  readonly id: string;
  /** False after a decommission. */
  readonly isOpen: boolean;
  readonly #database: Database;

  private constructor(database: Database, id: string, isOpen: boolean) {
    this.#database = database;
    this.id = id;
    this.isOpen = isOpen;
  }

  /** How many identifiers it may still give out. */
  async identifiersLeft(): Promise<number> {
    const ranges = await this.#database.transaction(openRanges);
    return ranges.reduce((sum, { last, next }) => sum + last - next + 1, 0);
  }

  /** Begins to give out identifiers of this range too. Adding it again changes nothing. */
  async add({ first, last }: Range): Promise<void> {
    await this.#database.transaction((session) =>
      session.query(
        'INSERT INTO pond_sequence (first, "last", next) VALUES ($1, $2, $1) ON CONFLICT (first) DO NOTHING',
        [first, last],
      ),
    );
  }

  /**
   * Stores documents in one transaction, each under the next identifier; those it has already stay as they are.
   * Needs as many identifiers as there are documents. Throws a business error for statements that store no document
   * under this digest, or what the database refuses; nothing of the batch is stored then.
   */
  async store(loads: readonly Load[]): Promise<void> {
    await this.#database.transaction(async (session) => {
      const ranges = await openRanges(session);
      for (const { digest, statements } of loads) {
        const known = await session.query("SELECT id FROM document WHERE digest = $1", [digest]);
        if (known.length > 0) continue;
        const range = ranges.find(({ next, last }) => next <= last);
        if (range === undefined) throw new Error("the pond has no identifiers left");
        const id = range.next++;
        await session.query("UPDATE pond_sequence SET next = $1 WHERE first = $2", [range.next, range.first]);
        for (const { sql, rows } of statements)
          for (const row of rows) await session.query(sql, [id, ...row]);
        const stored = await session.query("SELECT id FROM document WHERE id = $1 AND digest = $2", [
          id,
          digest,
        ]);
        if (stored.length === 0)
          throw new MillraceError("rule-broken", "the statements do not store the document");
        await session.query("INSERT INTO pending_upload (document_id) VALUES ($1)", [id]);
      }
    });
  }

  /** Hands everything that the lake does not have yet to `upload`, and remembers that it has it when that is through. */
  async flush(upload: (documents: readonly StoredDocument[]) => Promise<void>): Promise<void> {
    for (;;) {
      const ids: number[] = [];
      const documents = await this.#database.transaction(async (session) => {
        const pending = await session.query(
          "SELECT document_id FROM pending_upload ORDER BY document_id LIMIT 100",
        );
        ids.push(...pending.map(({ document_id }) => Number(document_id)));
        const found: StoredDocument[] = [];
        for (const id of ids) found.push(await documentOf(session, id));
        return found;
      });
      if (ids.length === 0) return;
      await upload(documents);
      await this.#database.transaction(async (session) => {
        for (const id of ids) await session.query("DELETE FROM pending_upload WHERE document_id = $1", [id]);
      });
    }
  }

  /** For good: no identifier is given out any more. Returns what was not given out of each range. */
  closeForGood(): Promise<readonly (Range & { readonly next: number })[]> {
    return this.#database.transaction(async (session) => {
      await session.query("UPDATE pond SET state = 'closed'");
      return openRanges(session);
    });
  }

  /** What was unused of a range is another pond's now. */
  async forget({ first }: Range): Promise<void> {
    await this.#database.transaction((session) =>
      session.query('UPDATE pond_sequence SET "last" = next - 1 WHERE first = $1', [first]),
    );
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

/** The pond was decommissioned: no loader may use it. */
export function closedPond(): MillraceError {
  return new MillraceError("option-invalid", "this pond is decommissioned", {
    remedy: "give the loader a new one in POND_URL",
  });
}

async function openRanges(session: Session): Promise<{ first: number; last: number; next: number }[]> {
  const rows = await session.query(
    'SELECT first, "last", next FROM pond_sequence WHERE next <= "last" ORDER BY first',
  );
  return rows.map(({ first, last, next }) => ({
    first: Number(first),
    last: Number(last),
    next: Number(next),
  }));
}

/** Columns in the order in which their inserts name them. */
async function documentOf(session: Session, id: number): Promise<StoredDocument> {
  const [document] = await session.query("SELECT * FROM document WHERE id = $1", [id]);
  const sections = await session.query("SELECT * FROM section WHERE document_id = $1 ORDER BY place", [id]);
  const acts = await session.query("SELECT * FROM act WHERE document_id = $1 ORDER BY place", [id]);
  return { document: valuesOf(document!), sections: sections.map(valuesOf), acts: acts.map(valuesOf) };
}

function valuesOf(row: Row): Value[] {
  return Object.values(row) as Value[];
}
