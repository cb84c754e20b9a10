import type { ErrorClass } from "../errors.ts";

/** Why one message could not go on: what its dead letter says. Holds nothing of the payload. */
export interface Failure {
  readonly class: ErrorClass;
  /** From the table in errors.ts: "json-invalid", "schema-violation". */
  readonly code: string;
  /** A sentence for a person. */
  readonly message: string;
  /** Where in the value, as a JSON pointer, if anywhere: "/lines/0/qty". */
  readonly path?: string;
}
