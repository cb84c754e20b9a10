import type { Connection, Requirement, Unmet } from "../../component/connection.ts";
import type { Context } from "../../component/context.ts";
import { callerLocation, type Location } from "../../component/location.ts";
import { type OptionProblem, optionProblems } from "../../component/options.ts";
import type { Sink } from "../../component/sink.ts";
import type { Source } from "../../component/source.ts";
import { watchOptions, watchProblems } from "../../component/watch-options.ts";
import { messageOf } from "../../errors.ts";
import { addressProblems } from "./addresses.ts";
import type { KafkaClient, KafkaDriver, NewTopic } from "./driver.ts";
import { EmbeddedKafka, embeddedDriver } from "./drivers/embedded/index.ts";
import { kafkaJsDriver } from "./drivers/kafkajs/driver.ts";
import { wireDriver } from "./drivers/wire/driver.ts";
import { startError } from "./errors.ts";
import {
  groupTimes,
  type KafkaOptions,
  type KafkaSettings,
  type KafkaSinkOptions,
  type KafkaSourceOptions,
  kafkaCredit,
  kafkaSchema,
  kafkaSettings,
  kafkaSinkSchema,
  kafkaSourceSchema,
} from "./options.ts";
import { openKafkaSink } from "./sink.ts";
import { openKafkaSource } from "./source.ts";
import { topicNameProblems } from "./topic-name.ts";

export type { KafkaOptions, KafkaSinkOptions, KafkaSourceOptions } from "./options.ts";

/** A Kafka cluster: sources and sinks are made from it. */
export interface KafkaConnection extends Connection {
  /** Reads topics as a member of a consumer group. */
  source(options: KafkaSourceOptions): Source;
  /** Writes to a topic, acknowledged by all in-sync replicas. */
  sink(options: KafkaSinkOptions): Sink;
}

/**
 * A Kafka cluster. Opens nothing: mistakes in the options are reported by the compiler, and connections are
 * made when the topology runs.
 *
 * @example kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") })
 */
export function kafka(options: KafkaOptions): KafkaConnection {
  return new KafkaCluster(options);
}

class KafkaCluster implements KafkaConnection {
  readonly connector = "kafka";
  readonly address: string;
  readonly #embeddedAlways: boolean;
  readonly #driver: KafkaDriver;
  #own: EmbeddedKafka | undefined;
  readonly location: Location | undefined;
  readonly problems: readonly OptionProblem[];
  readonly #settings: KafkaSettings | undefined;
  readonly #declared = new Map<string, NewTopic>();

  // JavaScript may leave options out; the schema then says what is missing.
  constructor(options: KafkaOptions = {} as KafkaOptions) {
    this.#embeddedAlways = options.driver === "embedded";
    this.#driver = options.driver === "kafkajs" ? kafkaJsDriver : wireDriver;
    const problems = optionProblems("kafka", kafkaSchema, options);
    this.#settings = problems.length === 0 ? kafkaSettings(options) : undefined;
    this.address = this.#settings?.brokers.join(",") ?? "";
    if (this.#settings !== undefined) {
      problems.push(...addressProblems(this.#settings.brokers), ...saslProblems(this.#settings));
    }
    this.problems = problems;
    this.location = callerLocation();
  }

  source(options: KafkaSourceOptions = {} as KafkaSourceOptions): Source {
    const problems = optionProblems("kafka source", kafkaSourceSchema, options);
    if (problems.length === 0) {
      problems.push(
        ...topicNameProblems("kafka source", options.topics),
        ...groupTimeProblems(options),
        ...watchProblems("kafka source", options),
      );
    }
    const targets = Array.isArray(options.topics) ? options.topics : [];
    return {
      kind: "source",
      type: "kafka",
      name: targets.join("+"),
      connection: this,
      capabilities: {
        ack: "cumulative",
        holdsRebalance: this.#driverFor(undefined).holdsRebalance,
        replays: true,
        order: "lane",
        competing: true,
      },
      problems,
      targets,
      targetKind: "topic",
      claims: targets.map((topic) => ({
        place: `kafka ${this.address} ${options.group} ${topic}`,
        what: `topic "${topic}" by group "${options.group}"`,
        remedy: "each would get a part of it: use one stream twice, or give each a group of its own",
        among: "topology" as const,
      })),
      credit: kafkaCredit(options),
      watch: watchOptions(options),
      location: callerLocation(),
      open: (context) => {
        const { holdsRebalance } = this.#driverFor(context);
        return openKafkaSource(context, this.#client(context), this.address, options, holdsRebalance);
      },
    };
  }

  sink(options: KafkaSinkOptions = {} as KafkaSinkOptions): Sink {
    const problems = optionProblems("kafka sink", kafkaSinkSchema, options);
    if (problems.length === 0) problems.push(...topicNameProblems("kafka sink", [options.topic]));
    if (options.partitions !== undefined || options.replicationFactor !== undefined) {
      this.#declared.set(options.topic, {
        topic: options.topic,
        partitions: options.partitions ?? -1,
        replicationFactor: options.replicationFactor ?? -1,
      });
    }
    return {
      kind: "sink",
      type: "kafka",
      name: String(options.topic),
      connection: this,
      capabilities: { order: "always", batches: true, loses: options.giveUpAfter !== undefined },
      problems,
      targets: [options.topic],
      targetKind: "topic",
      location: callerLocation(),
      open: (context) => openKafkaSink(context, this.#client(context), this.address, options),
    };
  }

  tap(topic: string, group: string): Source {
    return this.source({ topics: [topic], group });
  }

  embedded(context: Context): EmbeddedKafka | undefined {
    if (context.embedded !== undefined) {
      return context.embedded.of("kafka", this.address, () => new EmbeddedKafka(context.clock));
    }
    if (this.#embeddedAlways) this.#own ??= new EmbeddedKafka(context.clock);
    return this.#own;
  }

  async verify(context: Context, requirements: readonly Requirement[]): Promise<readonly Unmet[]> {
    return this.#using(context, async (client) => {
      const topics = await client.describe([...new Set(requirements.map(({ name }) => name))]);
      return requirements
        .filter(({ name }) => topics.get(name) === undefined)
        .map((requirement) => ({
          requirement,
          problem: `topic "${requirement.name}" does not exist on ${this.address}`,
          remedy: "create it, or run with --create",
        }));
    });
  }

  async create(context: Context, requirements: readonly Requirement[]): Promise<readonly Requirement[]> {
    return this.#using(context, async (client) => {
      const topics = await client.describe([...new Set(requirements.map(({ name }) => name))]);
      const missing = [...topics]
        .filter(([, description]) => description === undefined)
        .map(([name]) => name);
      const partitions = this.embedded(context) === undefined ? -1 : 4;
      await client.create(
        missing.map((topic) => {
          const declared = this.#declared.get(topic);
          return {
            topic,
            partitions: declared !== undefined && declared.partitions > 0 ? declared.partitions : partitions,
            replicationFactor: declared?.replicationFactor ?? -1,
          };
        }),
      );
      return requirements.filter(({ name }) => missing.includes(name));
    });
  }

  async #using<T>(context: Context, use: (client: KafkaClient) => Promise<T>): Promise<T> {
    const client = this.#client(context);
    try {
      return await use(client);
    } catch (error) {
      throw startError(error, this.address) ?? error;
    } finally {
      await client.close(context.clock.now() + 2_000);
    }
  }

  #client(context: Context): KafkaClient {
    return this.#driverFor(context).connect(this.#settings!, context);
  }

  #driverFor(context: Context | undefined): KafkaDriver {
    const cluster = context === undefined ? undefined : this.embedded(context);
    if (cluster !== undefined) return embeddedDriver(cluster);
    return this.#driver;
  }
}

/** A member that is silent for longer than its session lasts would be put out of the group again and again. */
function groupTimeProblems(options: KafkaSourceOptions): OptionProblem[] {
  const { heartbeatInterval, sessionTimeout } = groupTimes(options);
  if (heartbeatInterval < sessionTimeout) return [];
  return [
    {
      code: "option-invalid",
      message: `kafka source: "heartbeatInterval" is ${heartbeatInterval} ms, and "sessionTimeout" only ${sessionTimeout} ms`,
      remedy: "make heartbeatInterval a third of sessionTimeout or less",
    },
  ];
}

/** What each mechanism needs; and neither a password nor a token must cross a network in the clear. */
function saslProblems({ sasl, tls, brokers }: KafkaSettings): OptionProblem[] {
  if (sasl === undefined) return [];
  const needed = sasl.mechanism === "oauthbearer" ? ["token"] : ["username", "password"];
  const missing = needed.filter(
    (option) => (sasl as unknown as Record<string, unknown>)[option] === undefined,
  );
  if (missing.length > 0) {
    return missing.map((option) => ({
      code: "option-missing",
      message: `kafka needs the option "sasl.${option}" with mechanism "${sasl.mechanism}"`,
      remedy: `add sasl.${option}`,
    }));
  }
  const open = tls === undefined && (sasl.mechanism === "plain" || sasl.mechanism === "oauthbearer");
  const remote = brokers.filter((broker) => !/^(localhost|127\.|\[::1\])/.test(broker));
  if (!open || remote.length === 0) return [];
  const [what, name] = sasl.mechanism === "plain" ? ["password", "PLAIN"] : ["token", "OAUTHBEARER"];
  return [
    {
      code: "option-invalid",
      message: `kafka: SASL ${name!} without TLS would send the ${what!} in the clear to ${messageOf(remote[0])}`,
      remedy: sasl.mechanism === "plain" ? 'set tls: true, or use "scram-sha-256"' : "set tls: true",
    },
  ];
}
