import { createHash } from "node:crypto";
import type { ClinicalDocument } from "./clinical-document.ts";

export type Value = string | number | null;

/** One statement and the rows of values that it is executed with. `$1` is always the document's id. */
export interface Statement {
  readonly sql: string;
  /** From `$2` on: who stores the document gives it its id. */
  readonly rows: readonly (readonly Value[])[];
}

/** What a transformer sends to the loaders. */
export interface Load {
  /**
   * SHA-256 of the document's bytes, in hex: what it is known by. Its own id does not do for that: systems give one id
   * to several documents.
   */
  readonly digest: string;
  readonly statements: readonly Statement[];
}

function insertInto(table: string, columns: readonly string[]): string {
  return `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map((_, i) => `$${i + 1}`).join(", ")})`;
}

export const insertDocument = insertInto("document", [
  "id",
  "digest",
  "root",
  "extension",
  "code",
  "title",
  "effective_time",
  "patient_root",
  "patient_extension",
  "given",
  "family",
  "gender",
  "birth_time",
]);
export const insertSection = insertInto("section", ["document_id", "place", "code", "title"]);
export const insertAct = insertInto("act", [
  "document_id",
  "place",
  "section",
  "kind",
  "class_code",
  "mood_code",
  "code",
  "code_system",
  "display_name",
  "effective_time",
  "value",
  "unit",
]);

/** How many values each statement that a loader executes takes. It executes no other, whoever sends it. */
export const known: ReadonlyMap<string, number> = new Map(
  [insertDocument, insertSection, insertAct].map((sql) => [sql, sql.match(/\$\d+/g)!.length]),
);

export function statementsFor(xml: string, document: ClinicalDocument): Load {
  const { root, extension, code, title, effectiveTime, patient, sections, acts } = document;
  const digest = createHash("sha256").update(xml).digest("hex");
  const { given, family, gender, birthTime } = patient;
  return {
    digest,
    statements: [
      {
        sql: insertDocument,
        rows: [
          [
            digest,
            root,
            extension,
            code,
            title,
            effectiveTime,
            patient.root,
            patient.extension,
            given,
            family,
            gender,
            birthTime,
          ],
        ],
      },
      { sql: insertSection, rows: sections.map((section, place) => [place, section.code, section.title]) },
      {
        sql: insertAct,
        rows: acts.map((act, place) => [
          place,
          act.section,
          act.kind,
          act.classCode,
          act.moodCode,
          act.code,
          act.codeSystem,
          act.displayName,
          act.effectiveTime,
          act.value,
          act.unit,
        ]),
      },
    ],
  };
}

const value = { type: ["string", "integer", "null"] } as const;

export const loadSchema = {
  type: "object",
  required: ["digest", "statements"],
  additionalProperties: false,
  properties: {
    digest: { type: "string", pattern: "^[0-9a-f]{64}$" },
    statements: {
      type: "array",
      minItems: 1,
      items: {
        type: "object",
        required: ["sql", "rows"],
        additionalProperties: false,
        properties: {
          sql: { type: "string" },
          rows: { type: "array", items: { type: "array", items: value } },
        },
      },
    },
  },
} as const;

/** Whether a loader may execute this: statements it knows, each row with as many values as it takes. */
export function isKnown({ statements }: Load): boolean {
  return statements.every(({ sql, rows }) => {
    const values = known.get(sql);
    return values !== undefined && rows.every((row) => row.length === values - 1);
  });
}
