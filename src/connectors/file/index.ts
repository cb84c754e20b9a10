import { access, constants } from "node:fs/promises";
import type { Connection, Requirement, Unmet } from "../../component/connection.ts";
import type { IdStore } from "../../component/id-store.ts";
import { callerLocation, type Location } from "../../component/location.ts";
import {
  byteCount,
  type OptionProblem,
  type OptionsSchema,
  optionProblems,
  type Size,
} from "../../component/options.ts";
import type { Sink } from "../../component/sink.ts";
import type { Source } from "../../component/source.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import { tornEnding } from "./append-file.ts";
import { draftEnding } from "./checkpoint.ts";
import { type IdStoreOptions, idStore } from "./id-store.ts";
import { pathProblem, pathToRead, placeOf } from "./path.ts";
import { type LineFormat, openLineSink } from "./sink.ts";
import { openLineSource } from "./source.ts";

export type { IdStoreOptions };

export interface FileOptions {
  /** Folder that all paths are within; relative to the working directory. Default: that directory. */
  readonly root?: string;
}

export interface FileSourceOptions {
  /** A file of lines (NDJSON, or any text), within the root. Each line is a message; its bytes are the value. */
  readonly path: string;
  /**
   * A file, within the root, that remembers how far the lines are settled, so that the next run goes on there: at
   * most a second's work is read again after a crash, and none after a clean stop. It also knows the file by its
   * first 4 KiB, and a run does not start where another has taken its place. Use one for each source.
   * @default none: every run reads from the start
   */
  readonly checkpoint?: string;
  /**
   * Go on reading what is appended, looking twice a second, until the run is stopped. A last line is then a message
   * only once it has its line feed. When the file is cut, or another takes its place, the run ends with an error.
   * @default false: the file is read to its end, where a last line needs no line feed
   */
  readonly follow?: boolean;
  /** Longest line, in bytes; a longer one ends the run, since what follows cannot be told apart. @default "16MiB" */
  readonly maxLineBytes?: Size;
  /** Most messages in flight at once. @default 10_000 */
  readonly credit?: number;
}

export interface FileSinkOptions {
  /**
   * A file, within the root, that lines are appended to; it and its folder are made. Only one run at a time may
   * write it.
   */
  readonly path: string;
  /**
   * `lines`: the payload is the line; one that holds a line feed, or is null, is refused; keys and headers are not
   * written, and a carriage return at a payload's end is for readers a part of the line's end. `record`: JSON with `key`, `value`, `headers` and `timestamp`, as the
   * runner's `--dump` writes and its `--feed` reads it; it takes every message, so dead letters should use it.
   * @default "lines"
   */
  readonly format?: LineFormat;
}

/** Files in a folder: sources read lines, sinks append them, id stores remember what was delivered. */
export interface FileConnection extends Connection {
  source(options: FileSourceOptions): Source;
  sink(options: FileSinkOptions): Sink;
  /** Where a `dedup` keeps the ids of what was delivered, so that they outlive the process. */
  idStore(options: IdStoreOptions): IdStore;
}

const text = { type: "string", minLength: 1 } as const;

const fileSchema: OptionsSchema = {
  type: "object",
  properties: { root: text },
  additionalProperties: false,
};

const sourceSchema: OptionsSchema = {
  type: "object",
  properties: {
    path: text,
    checkpoint: text,
    follow: { type: "boolean" },
    maxLineBytes: { isSize: true },
    credit: { type: "integer", minimum: 1, maximum: 1_000_000 },
  },
  required: ["path"],
  additionalProperties: false,
};

const sinkSchema: OptionsSchema = {
  type: "object",
  properties: { path: text, format: { enum: ["lines", "record"] } },
  required: ["path"],
  additionalProperties: false,
};

/**
 * Files in a folder. Nothing outside of it is read or written, whatever a path says.
 *
 * @example file({ root: "data" }).source({ path: "orders.ndjson" })
 */
export function file(options: FileOptions = {}): FileConnection {
  const problems = optionProblems("file", fileSchema, options);
  const root = typeof options.root === "string" ? options.root : ".";
  const connection: FileConnection = {
    ...connectionTo("file", root, problems),
    source: (given) => fileSource(connection, root, given),
    sink: (given) => fileSink(connection, root, given),
    idStore: (given) => idStore(root, given, problems),
  };
  return connection;
}

/** The lines of standard input. What was read is gone: after a crash nothing comes again (at most once). */
export function stdin(options: { readonly maxLineBytes?: Size; readonly credit?: number } = {}): Source {
  const schema: OptionsSchema = {
    type: "object",
    properties: {
      maxLineBytes: { isSize: true },
      credit: { type: "integer", minimum: 1, maximum: 1_000_000 },
    },
    additionalProperties: false,
  };
  return {
    kind: "source",
    type: "stdin",
    name: "stdin",
    connection: connectionTo("stdin", "stdin", []),
    location: callerLocation(),
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: false, order: "lane", ends: true },
    problems: optionProblems("stdin", schema, options),
    targets: ["stdin"],
    claims: [{ place: "stdin", what: "standard input", remedy: fromOneSource }],
    credit: creditOf(options.credit),
    open: async (context) =>
      openLineSource(context, {
        name: "stdin",
        bytes: () => process.stdin,
        maxLineBytes: byteCount(options.maxLineBytes, defaultLine),
      }),
  };
}

/** Writes each payload as a line to standard output; slow readers hold the topology back. */
export function stdout(): Sink {
  return {
    kind: "sink",
    type: "stdout",
    name: "stdout",
    connection: connectionTo("stdout", "stdout", []),
    location: callerLocation(),
    capabilities: { order: "always", batches: false, exclusive: true },
    problems: [],
    targets: ["stdout"],
    open: async (context) => openLineSink(context, { stream: process.stdout }),
  };
}

const fromOneSource =
  "keep the stream of one t.from(stdin()), and use that twice: every use gets every message";

const defaultLine = 16 * 2 ** 20;

function creditOf(credit: number | undefined) {
  const messages = credit ?? 10_000;
  return { messages, bytes: 16 * 2 ** 20, span: 4 * messages, chunk: 500 };
}

function fileSource(connection: FileConnection, root: string, options: FileSourceOptions): Source {
  const location = callerLocation();
  const problems = optionProblems("file source", sourceSchema, options);
  problems.push(...pathProblem("file source", options.path));
  problems.push(...pathProblem("file source: checkpoint", options.checkpoint, draftEnding));
  const place = placeOf(root, options.path);
  const memory = placeOf(root, options.checkpoint);
  if (memory !== undefined && memory === place) problems.push(overItself);
  return {
    kind: "source",
    type: "file",
    name: String(options.path),
    connection,
    location,
    capabilities: {
      ack: "cumulative",
      holdsRebalance: true,
      replays: true,
      order: "lane",
      ends: options.follow !== true,
    },
    problems,
    targets: [String(options.path)],
    targetKind: "file",
    ...(place === undefined ? {} : { places: [place] }),
    ...(memory === undefined || memory === place
      ? {}
      : {
          claims: [{ place: memory, what: `the checkpoint "${options.checkpoint}"`, remedy: ownCheckpoint }],
        }),
    credit: creditOf(options.credit),
    open: async (context) =>
      openLineSource(context, {
        name: options.path,
        root,
        path: options.path,
        follow: options.follow ?? false,
        ...(options.checkpoint === undefined ? {} : { checkpoint: options.checkpoint }),
        maxLineBytes: byteCount(options.maxLineBytes, defaultLine),
      }),
  };
}

function fileSink(connection: FileConnection, root: string, options: FileSinkOptions): Sink {
  const location = callerLocation();
  const problems = optionProblems("file sink", sinkSchema, options);
  problems.push(...pathProblem("file sink", options.path, tornEnding));
  const place = placeOf(root, options.path);
  return {
    kind: "sink",
    type: "file",
    name: String(options.path),
    connection,
    location,
    capabilities: { order: "always", batches: false, exclusive: true },
    problems,
    targets: [String(options.path)],
    targetKind: "file",
    ...(place === undefined ? {} : { places: [place] }),
    open: async (context) =>
      openLineSink(context, { root, path: options.path, format: options.format ?? "lines" }),
  };
}

const overItself: OptionProblem = {
  code: "option-invalid",
  message: "file source: the checkpoint would be written over the file that is read",
  remedy: 'give it a name of its own, such as "orders.checkpoint"',
};

const ownCheckpoint = 'give each source a checkpoint of its own, such as "orders.checkpoint"';

/** Files need no broker: nothing stands in for them, and a sink makes its own. */
function connectionTo(connector: string, address: string, problems: readonly OptionProblem[]): Connection {
  const location: Location | undefined = callerLocation();
  return {
    connector,
    address,
    location,
    problems,
    embedded: () => undefined,
    async verify(_context, requirements) {
      const unmet: Unmet[] = [];
      for (const requirement of requirements) {
        if (requirement.role !== "source" || requirement.kind !== "file") continue;
        try {
          await access(await pathToRead(address, requirement.name), constants.R_OK);
        } catch (error) {
          unmet.push({
            requirement,
            problem:
              error instanceof MillraceError ? error.message : `${requirement.name}: ${messageOf(error)}`,
            remedy: "check the path, and the root given to file({ root })",
          });
        }
      }
      return unmet;
    },
    create: async (): Promise<readonly Requirement[]> => [],
  };
}
