import { MillraceError } from "../../errors.ts";
import { connectionLost, SqlError } from "./driver.ts";

/**
 * Whose fault an error of a statement is:
 * - `message`: what was written breaks a rule of the data (a constraint, a type, a limit, a trigger's RAISE).
 * - `suspect`: the statement does not fit the database. It is the message's fault only if others are taken meanwhile.
 * - `database`: the other side is away or unwell. Tried again.
 */
export type Blame = "message" | "suspect" | "database";

/** By SQLSTATE class. */
const blamed: Readonly<Record<string, Blame>> = {
  "21": "message", // cardinality
  "22": "message", // data exception
  "23": "message", // integrity constraint
  "27": "message", // triggered data change
  "44": "message", // WITH CHECK OPTION
  "54": "message", // a limit: row, index entry, expression too large
  P0: "message", // RAISE
  "0A": "suspect", // not supported
  "42": "suspect", // syntax, missing table or column, rights
};
const databases = new Set([
  "08",
  "25",
  "26",
  "28",
  "2D",
  "3D",
  "40",
  "53",
  "55",
  "57",
  "58",
  "F0",
  "HV",
  "XX",
]);

export function blameOf({ state }: SqlError): Blame {
  // Nothing but the text can be wrong about the syntax.
  if (state === "42601") return "message";
  const kind = state.slice(0, 2);
  // A trigger may raise any state it likes.
  return blamed[kind] ?? (databases.has(kind) ? "database" : "suspect");
}

const words: Readonly<Record<string, string>> = {
  "21000": "one statement changes a row twice",
  "22001": "a text is longer than its column",
  "22003": "a number is out of its column's range",
  "22007": "a date or time cannot be read",
  "22008": "a date or time is out of range",
  "22021": "a text has a character that the database cannot store",
  "22023": "a parameter has a value that is not allowed",
  "22P02": "a value cannot be read as its column's type",
  "22P05": "a text has a character that the database cannot store",
  "23502": "a value is missing that must be there",
  "23503": "it refers to a row that is not there",
  "23505": "another row has this key",
  "23514": "a check is not met",
  "23P01": "it excludes another row",
  "42501": "this user may not",
  "42601": "the statement cannot be read",
  "42703": "a column is not there",
  "42804": "a value is of another type than its column",
  "42P01": "a table is not there",
  "54000": "it exceeds a limit of the database",
};

/** An error in words, without any value of a row: "SQLSTATE 23505: another row has this key (pond_pkey)". */
export function inWords({ state, what }: SqlError): string {
  const meaning = words[state] ?? (state.startsWith("P0") ? "a trigger or function refuses it" : undefined);
  return `SQLSTATE ${state}${meaning === undefined ? "" : `: ${meaning}`}${what === undefined ? "" : ` (${what})`}`;
}

/** True where the connection itself is of no use any more. */
export function endsConnection({ state }: SqlError): boolean {
  // 25006: what was the primary takes no writes any more; another one may be behind the same address.
  return state.startsWith("08") || state.startsWith("57P") || state === "25006";
}

/** The error as one that no further attempt mends unless somebody changes something; undefined where time may. */
export function lastingError(error: unknown, address: string): MillraceError | undefined {
  if (error instanceof MillraceError) return error.class === "network" ? undefined : error;
  if (!(error instanceof SqlError)) return undefined;
  const { state } = error;
  if (state.startsWith("28") || state === "42501") {
    return new MillraceError(
      "access-refused",
      `the database at ${address} refuses access: ${error.message}`,
      {
        remedy: "check user, password and rights",
        cause: error,
      },
    );
  }
  if (state === "3D000" || state === "3F000" || state === "42P01" || state === "42703") {
    return new MillraceError("target-missing", `the database at ${address}: ${error.message}`, {
      remedy: state === "3D000" ? "create the database" : "create it, or run once with --create",
      cause: error,
    });
  }
  if (state.startsWith("42") || state.startsWith("0A")) {
    return new MillraceError("option-invalid", `the database at ${address}: ${error.message}`, {
      remedy: "mend the statement or the columns",
      cause: error,
    });
  }
  return undefined;
}

/** A driver's failure to give an answer at all. */
export function lost(why: string): SqlError {
  return new SqlError(connectionLost, why);
}
