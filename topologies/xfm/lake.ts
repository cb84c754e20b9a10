import { type Database, openDatabase } from "./database.ts";
import type { Range } from "./range.ts";
import { insertAct, insertDocument, insertSection, type Value } from "./statements.ts";
import { createLakeTables } from "./tables.ts";

/** A document as a pond has it, each row as its insert takes it: with the id first. */
export interface StoredDocument {
  readonly document: readonly Value[];
  readonly sections: readonly (readonly Value[])[];
  readonly acts: readonly (readonly Value[])[];
}

/**
 * The lake that all ponds flow into. It also holds whose each range of identifiers is: the queue hands ranges out, but a
 * message of a queue can come twice, to two loaders, and what decides between them must not.
 */
export class Lake {
  static async open(url: string): Promise<Lake> {
    const database = await openDatabase(url);
    try {
      await database.transaction(async (session) => {
        // Of those who make a table at the same time PostgreSQL refuses all but one, "IF NOT EXISTS" or not.
        await session.lock();
        await createLakeTables(session);
      });
      return new Lake(database);
    } catch (error) {
      await database.close();
      throw error;
    }
  }

  readonly #database: Database;

  private constructor(database: Database) {
    this.#database = database;
  }

  /** Makes the range the pond's own. False when some of it is another's already. Again for the same pond: true. */
  claim({ first, last }: Range, pond: string): Promise<boolean> {
    return this.#database.transaction(async (session) => {
      // Two claims that overlap must not both find nothing.
      await session.lock();
      const [taken] = await session.query(
        'SELECT pond FROM pond_range WHERE "last" >= $1 AND first <= $2 AND NOT (pond = $3 AND first = $4)',
        [first, last, pond, first],
      );
      if (taken !== undefined) return false;
      await session.query(
        'INSERT INTO pond_range (first, "last", pond) VALUES ($1, $2, $3) ON CONFLICT (first) DO NOTHING',
        [first, last, pond],
      );
      return true;
    });
  }

  /** The ranges that are the pond's own. */
  rangesOf(pond: string): Promise<readonly Range[]> {
    return this.#database.transaction(async (session) => {
      const rows = await session.query(
        'SELECT first, "last" FROM pond_range WHERE pond = $1 ORDER BY first',
        [pond],
      );
      return rows.map(({ first, last }) => ({ first: Number(first), last: Number(last) }));
    });
  }

  /** From now on the pond owns nothing of this, so that another one may. */
  release({ first }: Range, unusedFrom: number, pond: string): Promise<void> {
    return this.#database.transaction(async (session) => {
      await session.lock();
      if (unusedFrom <= first) {
        await session.query("DELETE FROM pond_range WHERE first = $1 AND pond = $2", [first, pond]);
      } else {
        await session.query('UPDATE pond_range SET "last" = $1 WHERE first = $2 AND pond = $3', [
          unusedFrom - 1,
          first,
          pond,
        ]);
      }
    });
  }

  /** Takes documents up, all or none. One that another pond has brought already stays as it is. */
  upload(documents: readonly StoredDocument[]): Promise<void> {
    return this.#database.transaction(async (session) => {
      for (const { document, sections, acts } of documents) {
        const added = await session.query(
          `${insertDocument} ON CONFLICT (digest) DO NOTHING RETURNING id`,
          document,
        );
        if (added.length === 0) continue;
        for (const row of sections) await session.query(insertSection, row);
        for (const row of acts) await session.query(insertAct, row);
      }
    });
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}
