import type { Connection, Requirement, Unmet } from "../../component/connection.ts";
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
import { isInside, pathProblem } from "./path.ts";
import { openLineSink } from "./sink.ts";
import { openLineSource } from "./source.ts";

export interface FileOptions {
  /** Folder that all paths are within; relative to the working directory. Default: that directory. */
  readonly root?: string;
}

export interface FileSourceOptions {
  /** A file of lines (NDJSON, or any text), within the root. Each line is a message; its bytes are the value. */
  readonly path: string;
  /**
   * A file, within the root, that remembers how far the lines are settled, so that the next run goes on there.
   * Default: none, and every run reads from the start.
   */
  readonly checkpoint?: string;
  /** Longest line; a longer one ends the run, since what follows cannot be told apart. Default "16MiB". */
  readonly maxLineBytes?: Size;
  /** Most messages in flight at once. Default 10,000. */
  readonly credit?: number;
}

export interface FileSinkOptions {
  /** A file, within the root, that lines are appended to. */
  readonly path: string;
}

/** Files in a folder: sources read lines, sinks append them. */
export interface FileConnection extends Connection {
  source(options: FileSourceOptions): Source;
  sink(options: FileSinkOptions): Sink;
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
    maxLineBytes: { isSize: true },
    credit: { type: "integer", minimum: 1, maximum: 1_000_000 },
  },
  required: ["path"],
  additionalProperties: false,
};

const sinkSchema: OptionsSchema = {
  type: "object",
  properties: { path: text },
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
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: false, order: "lane" },
    problems: optionProblems("stdin", schema, options),
    targets: ["stdin"],
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
    capabilities: { order: "always", batches: false },
    problems: [],
    targets: ["stdout"],
    open: async (context) => openLineSink(context, { stream: process.stdout }),
  };
}

const defaultLine = 16 * 2 ** 20;

function creditOf(credit: number | undefined) {
  const messages = credit ?? 10_000;
  return { messages, bytes: 16 * 2 ** 20, span: 4 * messages, chunk: 500 };
}

function fileSource(connection: FileConnection, root: string, options: FileSourceOptions): Source {
  const location = callerLocation();
  const problems = optionProblems("file source", sourceSchema, options);
  for (const path of [options.path, options.checkpoint]) problems.push(...pathProblem("file source", path));
  return {
    kind: "source",
    type: "file",
    name: String(options.path),
    connection,
    location,
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: true, order: "lane" },
    problems,
    targets: [String(options.path)],
    targetKind: "file",
    credit: creditOf(options.credit),
    open: async (context) =>
      openLineSource(context, {
        name: options.path,
        root,
        path: options.path,
        ...(options.checkpoint === undefined ? {} : { checkpoint: options.checkpoint }),
        maxLineBytes: byteCount(options.maxLineBytes, defaultLine),
      }),
  };
}

function fileSink(connection: FileConnection, root: string, options: FileSinkOptions): Sink {
  const location = callerLocation();
  const problems = optionProblems("file sink", sinkSchema, options);
  problems.push(...pathProblem("file sink", options.path));
  return {
    kind: "sink",
    type: "file",
    name: String(options.path),
    connection,
    location,
    capabilities: { order: "always", batches: false },
    problems,
    targets: [String(options.path)],
    targetKind: "file",
    open: async (context) => openLineSink(context, { root, path: options.path }),
  };
}

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
        if (await isInside(address, requirement.name)) continue;
        unmet.push({
          requirement,
          problem: `file "${requirement.name}" cannot be read in ${address}`,
          remedy: "check the path, and the root given to file({ root })",
        });
      }
      return unmet;
    },
    create: async (): Promise<readonly Requirement[]> => [],
  };
}
