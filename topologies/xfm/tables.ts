import type { Session } from "./database.ts";

/** What pond and lake have alike. A document is known by its digest; its id comes from the range of its pond. */
const documents = [
  `CREATE TABLE IF NOT EXISTS document (
    id bigint PRIMARY KEY, digest text NOT NULL UNIQUE, root text, extension text, code text, title text,
    effective_time text, patient_root text, patient_extension text, given text, family text, gender text, birth_time text)`,
  `CREATE TABLE IF NOT EXISTS section (
    document_id bigint NOT NULL REFERENCES document (id), place integer NOT NULL, code text, title text,
    PRIMARY KEY (document_id, place))`,
  `CREATE TABLE IF NOT EXISTS act (
    document_id bigint NOT NULL REFERENCES document (id), place integer NOT NULL, section integer, kind text,
    class_code text, mood_code text, code text, code_system text, display_name text, effective_time text, value text, unit text,
    PRIMARY KEY (document_id, place))`,
];

const ofPond = [
  "CREATE TABLE IF NOT EXISTS pond (id text PRIMARY KEY, state text NOT NULL)",
  `CREATE TABLE IF NOT EXISTS pond_sequence (first bigint PRIMARY KEY, "last" bigint NOT NULL, next bigint NOT NULL)`,
  "CREATE TABLE IF NOT EXISTS pending_upload (document_id bigint PRIMARY KEY)",
];

const ofLake = [
  `CREATE TABLE IF NOT EXISTS pond_range (first bigint PRIMARY KEY, "last" bigint NOT NULL, pond text NOT NULL)`,
];

export async function createPondTables(session: Session): Promise<void> {
  for (const sql of [...documents, ...ofPond]) await session.query(sql);
}

export async function createLakeTables(session: Session): Promise<void> {
  for (const sql of [...documents, ...ofLake]) await session.query(sql);
}
