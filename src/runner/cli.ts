import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { parseDuration } from "../component/options.ts";
import { messageOf } from "../errors.ts";
import { type DrawingFormat, drawingFormats } from "../topology/describe.ts";
import { checkCommand } from "./check-command.ts";
import { parseDump } from "./dump.ts";
import { ExitCode, UsageError } from "./exit-code.ts";
import { type FeedOption, parseFeed } from "./feed.ts";
import { graphCommand } from "./graph-command.ts";
import { type HttpAddress, parseHttpAddress } from "./http.ts";
import { type LogLevel, logLevels } from "./logger.ts";
import { runCommand } from "./run-command.ts";
import { tapCommand } from "./tap-command.ts";
import { version } from "./version.ts";

interface RunFlags {
  readonly embedded?: true;
  readonly feed?: readonly FeedOption[];
  readonly dump?: string;
  readonly untilIdle?: true;
  readonly create?: true;
  readonly http?: HttpAddress;
  readonly drain: number;
  readonly json?: true;
  readonly logLevel: LogLevel;
  readonly workers: number;
  readonly worker?: number;
}

interface TapFlags {
  readonly group: string;
  readonly topic?: string;
  readonly untilIdle?: true;
  readonly logLevel: LogLevel;
}

/** Does what the arguments say; resolves to the exit code. */
export async function cli(args: readonly string[]): Promise<ExitCode> {
  let code: ExitCode = ExitCode.done;
  const program = new Command("millrace")
    .description("Runs stream-processing topologies on Kafka and RabbitMQ, or on none.")
    .version(version)
    .showSuggestionAfterError()
    .addHelpText("after", examples)
    .exitOverride();

  program
    .command("run")
    .description("run topologies until they end, fail, or are told to stop")
    .argument("<topology...>", "topology files (.ts, .js)")
    .option("--embedded", "run on in-process brokers instead of the real ones")
    .option("--feed <target>=<file>", feedHelp, collectFeeds)
    .option(
      "--dump <dir>",
      "write each topic and queue of the embedded brokers to <dir>/<name>.ndjson at the end",
      asArgument(parseDump),
    )
    .option("--until-idle", "end when every source is at its end and nothing is in flight")
    .option("--create", "create missing topics and queues on the real brokers first")
    .option(
      "--http <[host:]port>",
      "serve /livez /readyz /metrics /status; host 127.0.0.1 unless given",
      asArgument(parseHttpAddress),
    )
    .addOption(
      new Option("--drain <duration>", "longest wait for what is in flight when stopping")
        .argParser(durationArgument)
        .default(30_000, "30s"),
    )
    .option(
      "--workers <count>",
      "processes that share the topics and queues of the real brokers, and one --http",
      workersArgument,
      1,
    )
    .addOption(new Option("--worker <number>").argParser(Number).hideHelp())
    .option("--json", "print one JSON object at the end instead of the table")
    .addOption(
      new Option("--log-level <level>", "least severe log lines shown").choices(logLevels).default("info"),
    )
    .addHelpText("after", runNotes)
    .action(async (files: string[], flags: RunFlags) => {
      code = await runCommand(files, {
        embedded: flags.embedded ?? false,
        feed: flags.feed ?? [],
        dump: flags.dump,
        untilIdle: flags.untilIdle ?? false,
        create: flags.create ?? false,
        http: flags.http,
        drain: flags.drain,
        json: flags.json ?? false,
        logLevel: flags.logLevel,
        workers: flags.workers,
        worker: flags.worker,
      });
    });

  program
    .command("check")
    .description("report every mistake of topologies; opens no socket")
    .argument("<topology...>", "topology files (.ts, .js)")
    .option("--connect", "also ask the brokers whether all that is needed exists")
    .action(async (files: string[], flags: { readonly connect?: true }) => {
      code = await checkCommand(files, { connect: flags.connect ?? false });
    });

  program
    .command("graph")
    .description("draw a topology")
    .argument("<topology>", "topology file (.ts, .js)")
    .addOption(new Option("--format <format>", "of the drawing").choices(drawingFormats).default("mermaid"))
    .action(async (file: string, flags: { readonly format: DrawingFormat }) => {
      code = await graphCommand(file, flags.format);
    });

  program
    .command("tap")
    .description("show what a topic holds, under a group of its own, beside whoever else reads it")
    .argument("<topology>", "topology file (.ts, .js) that reads or writes the topic")
    .requiredOption(
      "--group <group>",
      "consumer group of your own; the next tap under it goes on where this one ended",
    )
    .option("--topic <topic>", "which topic; may be left out where the topology reads only one")
    .option("--until-idle", "end when the topic is at its end")
    .addOption(
      new Option("--log-level <level>", "least severe log lines shown").choices(logLevels).default("warn"),
    )
    .addHelpText("after", tapNotes)
    .action(async (file: string, flags: TapFlags) => {
      code = await tapCommand(file, {
        group: flags.group,
        topic: flags.topic,
        untilIdle: flags.untilIdle ?? false,
        logLevel: flags.logLevel,
      });
    });

  try {
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    // Commander has printed what is wrong and what is near. Help that was asked for is no error.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
    throw error;
  }
  return code;
}

function collectFeeds(text: string, before: readonly FeedOption[] = []): readonly FeedOption[] {
  return [...before, asArgument(parseFeed)(text)];
}

function durationArgument(text: string): number {
  const duration = parseDuration(text);
  if (duration === undefined)
    throw new InvalidArgumentError('give a duration such as "500ms", "30s" or "2m"');
  return duration;
}

function workersArgument(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > 64)
    throw new InvalidArgumentError("give a whole number from 1 to 64");
  return count;
}

/** Lets commander print a usage error in its own words. */
function asArgument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof UsageError) throw new InvalidArgumentError(messageOf(error));
      throw error;
    }
  };
}

const feedHelp =
  "publish the lines of a file into a topic or queue of an embedded broker first; repeatable. A line that is not " +
  "empty is the value, or the record form that --dump writes. Where several brokers have a target of that name, " +
  "name the kind of broker too, and its address: kafka:orders, rabbitmq:orders, kafka:orders@127.0.0.1:9092";

const examples = `
Examples:
  $ millrace check topologies/orders.ts
  $ millrace graph topologies/orders.ts --format text
  $ millrace run topologies/orders.ts --embedded --feed orders=orders.ndjson --until-idle --dump out
  $ millrace run topologies/orders.ts --http 9100

Exit codes: 0 done · 1 failed while running, or not drained in time · 2 wrong usage · 78 wrong topology or configuration`;

const tapNotes = `
Writes one message a line on standard output, in the record form that run --feed reads. It begins with the oldest
message, or where the group stands. The group's offsets are all it changes on the broker.

Example:
  $ millrace tap topologies/orders.ts --group debug --topic orders.dead --until-idle`;

const runNotes = `
Signals: SIGTERM and SIGINT drain (see --drain), a second one exits at once with 1; SIGUSR2 prints the
conservation table on standard error. The final table is the last thing on standard output; logs and progress
go to standard error, as JSON lines in a pipe. A topology that writes to standard output itself has its table
on standard error.

Record form: a JSON object with "value" and at least one of "partition", "offset", "key", "headers", "timestamp",
nothing else, each as --dump writes it; any other line is the value itself. Lines that are empty, and lines that
have these members with other types, are counted in a warning.

Examples:
  $ millrace run topologies/orders.ts --embedded --feed orders=orders.ndjson --until-idle --dump out
  $ KAFKA_BROKERS=10.0.0.5:9092 millrace run topologies/orders.ts --create --http 0.0.0.0:9100 --drain 1m`;
