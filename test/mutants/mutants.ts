import { dedup } from "./dedup.ts";
import { failures } from "./failures.ts";
import { files } from "./files.ts";
import { kafka } from "./kafka.ts";
import { lanes } from "./lanes.ts";
import type { promises } from "./promises.ts";
import { rabbitmq } from "./rabbitmq.ts";
import { runtime } from "./runtime.ts";
import { sql } from "./sql.ts";
import { stores } from "./stores.ts";
import { watchdog } from "./watchdog.ts";
import { windows } from "./windows.ts";
import { wire } from "./wire.ts";
import { xfm } from "./xfm.ts";

/** One small fault put into our own code, and the test that must notice it. */
export interface Mutant {
  /** What the changed code does, as a mistake would be described. */
  readonly name: string;
  /** The promise it breaks, by letter and number. */
  readonly breaks: keyof typeof promises;
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly text: string;
  readonly becomes: string;
  /** A test by the file it is in and its whole name. */
  readonly killer: { readonly file: string; readonly test: string };
}

export const mutants: readonly Mutant[] = [
  ...kafka,
  ...wire,
  ...rabbitmq,
  ...lanes,
  ...runtime,
  ...watchdog,
  ...dedup,
  ...stores,
  ...windows,
  ...failures,
  ...files,
  ...sql,
  ...xfm,
];
