/// <reference types="node" preserve="true" />
/**
 * Millrace: stream-processing topologies for Kafka and RabbitMQ. A topology file imports everything from here; a
 * program that runs topologies by itself also finds `load`, `compile` and `run`.
 */
import type { Logger } from "./component/context.ts";
import { PooledWork, systemClock, systemRandom } from "./component/system.ts";
import { route } from "./operators/route.ts";
import { type Run, type RunOptions, start } from "./runtime/run.ts";
import type { Plan } from "./topology/plan.ts";
import { type TopologyFunction, topologyWith } from "./topology/topology.ts";

// Topologies.

/**
 * Declares a topology, the default export of a topology file: `declare` leads streams from sources through
 * operators to sinks. Throws nothing; mistakes are kept for `compile`.
 */
export const topology: TopologyFunction = topologyWith({ route });
/** An environment variable, or its default; a missing one is a mistake that `check` reports with its line. */
export { env } from "./component/environment.ts";
/** Marks text as a secret: whatever prints it prints `***`. */
export { secret } from "./component/secret.ts";
/** One stream of the messages of several. */
export { merge } from "./topology/stream.ts";

// Connectors.

/** Files in a folder, standard input and standard output: lines in, lines out. */
export { file, stdin, stdout } from "./connectors/file/index.ts";
/** A Kafka cluster: its sources read topics, its sinks write them. */
export { kafka } from "./connectors/kafka/index.ts";
export type {
  ProducerSettings,
  ProducerSettingsOptions,
  TokenProvider,
} from "./connectors/kafka/producer-settings.ts";
/** A producer's settings under the names that Java's clients, librdkafka and others have for them. */
export { producerSettings } from "./connectors/kafka/producer-settings.ts";
/** A RabbitMQ broker: its sources read queues, its sinks publish to exchanges and queues. */
export { rabbitmq } from "./connectors/rabbitmq/index.ts";
/** A database, PostgreSQL or SQLite: its sources read outboxes, its sinks write rows. */
export { sql } from "./connectors/sql/index.ts";
/** A sink of the author's own, for a place that no connector knows. */
export { writer } from "./connectors/writer/index.ts";

// Operators.

/** Gathers messages that a sink writes together. */
export { batch } from "./operators/batch.ts";
/** Says how the sink compresses what it writes. */
export { compress } from "./operators/compress.ts";
/** Turns bytes into values: JSON, text or bytes. */
export { decode } from "./operators/decode.ts";
/** Restores what was compressed, within limits. */
export { decompress } from "./operators/decompress.ts";
/** Lets the first message of each id through. */
export { dedup } from "./operators/dedup.ts";
/** Turns values into bytes. */
export { encode } from "./operators/encode.ts";
/** Lets through what a predicate is true of. */
export { filter } from "./operators/filter.ts";
/** Sets headers, or takes them away. */
export { headers } from "./operators/headers.ts";
/** Gives a message its key. */
export { key } from "./operators/key.ts";
/** Makes a new value of each value, at once or asynchronously with bounded concurrency and in order. */
export { map, mapAsync } from "./operators/map.ts";
/** Sends what a predicate is true of to the dead letters. */
export { reject } from "./operators/reject.ts";
/** Leads messages through any RxJS operators. */
export { stage } from "./operators/stage.ts";
/** Checks values against a schema, whose type flows on. */
export { validate } from "./operators/validate.ts";

// Running topologies in a program of one's own.

/** Makes a plan of a topology, or of several, or tells every mistake. */
export { compile, compileAll } from "./topology/compile.ts";
/** Draws a plan for Mermaid, Graphviz or a terminal. */
export { describePlan } from "./topology/describe.ts";
/** Loads a topology file from anywhere. */
export { compileFiles, load } from "./topology/load.ts";
/** Writes problems for a person, one a line. */
export { formatProblems } from "./topology/problem.ts";

const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/**
 * Runs a plan on the machine's clock, logging nothing unless told otherwise. Ends when told to: `drain` what is
 * in flight and stop, or `abort`.
 */
export function run(plan: Plan, options: Partial<RunOptions> = {}): Run {
  return start(plan, {
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
    logger: silent,
    ...options,
  });
}

/** An error of Millrace: a code, what happened, and what to do. */
export { MillraceError } from "./errors.ts";

// Writing a connector of one's own: see `millrace/testing` for the scenarios that every connector passes.

/** What a source and a sink are, and what they are given. */
export type { Refusal, SinkSession } from "./component/sink.ts";
export type { Intake, SourceContext, SourceSession } from "./component/source.ts";
export type { Batch, Destination } from "./message/batch.ts";
export type { Chunk } from "./message/chunk.ts";
export type { Lane } from "./message/lane.ts";
/** How a message ended: what sinks settle messages with. */
export { Outcome } from "./message/outcome.ts";
export type { PlainRecord, Records } from "./message/records.ts";
/** Records that a source has as objects, as it offers them to its intake. */
export { PlainRecords } from "./message/records.ts";

// Types that authors and embedding programs name.

/** What all connectors have in common, and how long and how large options are written. */
export type { Connection } from "./component/connection.ts";
/** What a writer is given: time, chance, logs and the end of the run. */
export type { Clock, Context, LogFields, Logger, Meter, Random } from "./component/context.ts";
export type { IdStore } from "./component/id-store.ts";
export type { Location } from "./component/location.ts";
/** A step placed in a topology, with the types of the values before and after it. */
export type { Operator } from "./component/operator.ts";
export type { Duration, Size } from "./component/options.ts";
export type { Secret } from "./component/secret.ts";
export type { Sink } from "./component/sink.ts";
export type { CreditOptions, Source } from "./component/source.ts";
/** Options of the connectors. */
export type {
  FileConnection,
  FileOptions,
  FileSinkOptions,
  FileSourceOptions,
  IdStoreOptions,
} from "./connectors/file/index.ts";
export type {
  KafkaConnection,
  KafkaOptions,
  KafkaSinkOptions,
  KafkaSourceOptions,
} from "./connectors/kafka/index.ts";
export type {
  RabbitmqBinding,
  RabbitmqConnection,
  RabbitmqExchange,
  RabbitmqGate,
  RabbitmqOptions,
  RabbitmqQueue,
  RabbitmqSinkOptions,
  RabbitmqSourceOptions,
  RabbitmqTls,
} from "./connectors/rabbitmq/index.ts";
export type {
  OutboxColumns,
  SqlColumn,
  SqlConnection,
  SqlOptions,
  SqlSinkOptions,
  SqlSourceOptions,
  SqlStatement,
  SqlTexts,
  SqlTls,
  SqlValue,
} from "./connectors/sql/index.ts";
export type { Writer, WriterOptions } from "./connectors/writer/index.ts";
export type { ErrorClass, ErrorCode } from "./errors.ts";
/** What author functions with a second parameter are given. */
export type { Bytes, Message } from "./message/chunk.ts";
export type { Headers, HeaderValue } from "./message/records.ts";
/** Options of the operators. */
export type { BatchOptions } from "./operators/batch.ts";
export type { CompressOptions } from "./operators/compress.ts";
export type { DecodeOptions } from "./operators/decode.ts";
export type { DecompressOptions } from "./operators/decompress.ts";
export type { DedupOptions } from "./operators/dedup.ts";
export type { EncodeOptions } from "./operators/encode.ts";
export type { HeaderOf } from "./operators/headers.ts";
export type { KeyDigest, KeyFields, KeyOptions, KeyValue } from "./operators/key.ts";
export type { Call, MapAsyncOptions } from "./operators/map.ts";
export type { StageMessage } from "./operators/stage.ts";
/** A run, what it shows of itself, and how it ends. */
export type { AuditEvent } from "./runtime/audit-event.ts";
export type { Run, RunOptions } from "./runtime/run.ts";
export type { RunResult, RunStatus } from "./runtime/status.ts";
/** What compiling and loading give. */
export type { Compilation, CompilationOfAll } from "./topology/compile.ts";
export type { DrawingFormat } from "./topology/describe.ts";
export type { Loaded } from "./topology/load.ts";
export type { Plan, PlanNode } from "./topology/plan.ts";
export type { Problem } from "./topology/problem.ts";
/** What a topology is declared with. */
export type { MergedStream, RouteOptions, SinkOptions, Stream } from "./topology/stream.ts";
export type { Topology, TopologyBuilder, TopologyFunction } from "./topology/topology.ts";
