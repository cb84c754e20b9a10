import {
  byteCount,
  type Duration,
  milliseconds,
  type OptionsSchema,
  type Size,
} from "../../component/options.ts";
import { reveal, type Secret } from "../../component/secret.ts";
import type { CreditOptions } from "../../component/source.ts";
import { watchSchema } from "../../component/watch-options.ts";

/** How to reach a cluster. */
export interface KafkaOptions {
  /** Addresses to begin with, comma-separated or as a list: "127.0.0.1:9092", "[::1]:9092". */
  readonly brokers: string | readonly string[];
  /** How this client names itself to the brokers. Default "millrace". */
  readonly clientId?: string;
  /**
   * What is underneath. Default "wire": it speaks Kafka's protocol itself, and needs Kafka 3.2 or newer. "kafkajs",
   * for older brokers, is slower, and cannot hold a rebalance back: order is kept within an assignment epoch only.
   * `--embedded` overrides it.
   */
  readonly driver?: "wire" | "kafkajs" | "embedded";
  /** TLS. Default off. `true` trusts the system's authorities. */
  readonly tls?: boolean | KafkaTls;
  /** Authentication. PLAIN without TLS is refused except on loopback. */
  readonly sasl?: KafkaSasl;
  /** Longest wait for a connection. Default "5s". */
  readonly connectTimeout?: Duration;
  /** Longest wait for an answer. Default "30s". */
  readonly requestTimeout?: Duration;
}

export interface KafkaTls {
  /** PEM text of the authorities to trust. */
  readonly ca?: string;
  /** PEM text of the client's certificate and key, both or neither. */
  readonly cert?: string;
  readonly key?: string;
  readonly passphrase?: string;
  readonly servername?: string;
  /** Accepts any certificate: for tests only; warned of at every start. */
  readonly insecureSkipVerify?: boolean;
}

export type KafkaSasl = KafkaPassword | KafkaToken;

export interface KafkaPassword {
  readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512";
  readonly username: string;
  /** Best as `secret(env("…"))`, which prints `***` wherever it turns up. */
  readonly password: string | Secret;
}

export interface KafkaToken {
  readonly mechanism: "oauthbearer";
  /** A token, or who gives one: asked for each connection, and again before the broker wants a new one. */
  readonly token: string | Secret | (() => string | Secret | Promise<string | Secret>);
}

export interface KafkaSourceOptions {
  readonly topics: readonly string[];
  /** Consumer group: members share the partitions, and its committed offsets are the checkpoint. */
  readonly group: string;
  /** Most messages in flight at once. Default 10,000. More hides latency, and a crash replays more. */
  readonly credit?: number;
  /** Most bytes in flight at once, before decoding. Default "16MiB". */
  readonly creditBytes?: Size;
  /** Most messages of one partition between its checkpoint and the newest. Default 4 × credit. */
  readonly span?: number;
  /** Most messages in one chunk. Default 500. */
  readonly chunk?: number;
  /** How often offsets are committed. Default "1s": a crash replays up to that much more. */
  readonly commitInterval?: Duration;
  /**
   * How long the group waits for a member that went silent. Default "30s". On Kafka 4 the brokers decide, unless the
   * driver is "kafkajs" (`group.consumer.session.timeout.ms`, 45 s unless set).
   */
  readonly sessionTimeout?: Duration;
  /** How long the group waits for members to rejoin. Default "60s". */
  readonly rebalanceTimeout?: Duration;
  /** Default "3s", or a third of `sessionTimeout` if that is less. It must be shorter than `sessionTimeout`. */
  readonly heartbeatInterval?: Duration;
  /** Most bytes of one partition in one fetch. Default "1MiB"; as much may wait for credit. */
  readonly maxBytesPerPartition?: Size;
  /** Longest a fetch waits for data. Default "500ms". */
  readonly maxWait?: Duration;
  /**
   * When the committed offset is no longer in the log (retention passed it, the topic was made anew): read on
   * from the `earliest` message, loudly and counted, or `fail` the run. Default "earliest".
   */
  readonly onOffsetOutOfRange?: "earliest" | "fail";
  /** How often it is looked whether the topics have got more partitions. Default "30s". */
  readonly metadataAge?: Duration;
  /**
   * When a topic gains partitions, keys move: what came of a key before lies in another partition than what comes
   * now, so that its order, and dedup by lane, hold from then on only. `accept` reads the new partitions from their
   * beginning and says so in status and log; `fail` ends the run before more is taken in. Default "accept".
   */
  readonly onPartitionGrowth?: "accept" | "fail";
  /**
   * How long a partition may have lag while nothing of it is fetched or settled. Default "2m", which is longer than
   * clients take to notice a dead connection by themselves; it should exceed `requestTimeout`.
   */
  readonly stallTimeout?: Duration;
  /**
   * What is done then, beside saying so in `/readyz`, `/status`, metrics and log: `restart` leaves the group and joins
   * it again on new connections, at most once in `stallTimeout`, later less often; `report` does nothing more. It is
   * for a source that stands still by itself: where a sink keeps it waiting, nothing is restarted. Default "restart".
   */
  readonly onStall?: "restart" | "report";
}

export interface KafkaSinkOptions {
  readonly topic: string;
  /** How a key chooses its partition. Default "murmur2", as Java's clients do; "crc32" as librdkafka's do. */
  readonly partitioner?: "murmur2" | "crc32";
  /** Partitions when `--create` or `--embedded` makes the topic. Default 4 embedded, the broker's default else. */
  readonly partitions?: number;
  /** Replicas when `--create` makes the topic. Default: the broker's. */
  readonly replicationFactor?: number;
  /** Longest wait between attempts to write. Default "5s"; attempts never end, unless `giveUpAfter` says so. */
  readonly maxBackoff?: Duration;
  /** How often it is looked whether the topic has got more partitions. Default "30s". */
  readonly metadataAge?: Duration;
  /**
   * When the topic gains partitions: `keep` goes on with those there were at the start, so that each key stays where
   * it is, until the next start; `accept` spreads keys over all at once, and a key that moves loses its order there;
   * `fail` ends the run. Status and log say what was done. Default "keep".
   */
  readonly onPartitionGrowth?: "keep" | "accept" | "fail";
  /**
   * Best effort: a message that could not be written for so long is given up, and counted as `lost`. Default: never.
   * Upstream it is acknowledged, so it comes from nowhere again.
   */
  readonly giveUpAfter?: Duration;
}

/** {@link KafkaOptions} with every default filled in. */
export interface KafkaSettings {
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly tls: KafkaTls | undefined;
  readonly sasl: KafkaSasl | undefined;
  readonly connectTimeout: number;
  readonly requestTimeout: number;
}

const name = { type: "string", minLength: 1 } as const;
const duration = { isDuration: true } as const;
const size = { isSize: true } as const;

export const kafkaSchema: OptionsSchema = {
  type: "object",
  required: ["brokers"],
  additionalProperties: false,
  properties: {
    brokers: { anyOf: [name, { type: "array", minItems: 1, items: name }] },
    clientId: name,
    driver: { enum: ["wire", "kafkajs", "embedded"] },
    tls: {
      anyOf: [
        { type: "boolean" },
        {
          type: "object",
          additionalProperties: false,
          properties: {
            ca: name,
            cert: name,
            key: name,
            passphrase: { type: "string" },
            servername: name,
            insecureSkipVerify: { type: "boolean" },
          },
          dependencies: { cert: ["key"], key: ["cert"] },
        },
      ],
    },
    sasl: {
      type: "object",
      required: ["mechanism"],
      additionalProperties: false,
      properties: {
        mechanism: { enum: ["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"] },
        username: name,
        password: { isSecret: true },
        token: { anyOf: [{ isSecret: true }, { isFunction: true }] },
      },
    },
    connectTimeout: duration,
    requestTimeout: duration,
  },
};

export const kafkaSourceSchema: OptionsSchema = {
  type: "object",
  required: ["topics", "group"],
  additionalProperties: false,
  properties: {
    topics: { type: "array", minItems: 1, uniqueItems: true, items: name },
    group: name,
    credit: { type: "integer", minimum: 1, maximum: 1_000_000 },
    creditBytes: size,
    span: { type: "integer", minimum: 1 },
    chunk: { type: "integer", minimum: 1, maximum: 100_000 },
    commitInterval: duration,
    sessionTimeout: duration,
    rebalanceTimeout: duration,
    heartbeatInterval: duration,
    maxBytesPerPartition: size,
    maxWait: duration,
    onOffsetOutOfRange: { enum: ["earliest", "fail"] },
    metadataAge: duration,
    onPartitionGrowth: { enum: ["accept", "fail"] },
    ...watchSchema,
  },
};

export const kafkaSinkSchema: OptionsSchema = {
  type: "object",
  required: ["topic"],
  additionalProperties: false,
  properties: {
    topic: name,
    partitioner: { enum: ["murmur2", "crc32"] },
    partitions: { type: "integer", minimum: 1, maximum: 100_000 },
    replicationFactor: { type: "integer", minimum: 1, maximum: 32_767 },
    maxBackoff: duration,
    metadataAge: duration,
    onPartitionGrowth: { enum: ["keep", "accept", "fail"] },
    giveUpAfter: duration,
  },
};

export function kafkaSettings(options: KafkaOptions): KafkaSettings {
  const brokers = typeof options.brokers === "string" ? options.brokers.split(",") : [...options.brokers];
  return {
    brokers: brokers.map((broker) => broker.trim()).filter((broker) => broker !== ""),
    clientId: options.clientId ?? "millrace",
    tls:
      options.tls === undefined || options.tls === false
        ? undefined
        : options.tls === true
          ? {}
          : options.tls,
    sasl: options.sasl,
    connectTimeout: milliseconds(options.connectTimeout, 5_000),
    requestTimeout: milliseconds(options.requestTimeout, 30_000),
  };
}

/** The text of the token that is good now. */
export async function currentToken({ token }: KafkaToken): Promise<string> {
  return reveal(typeof token === "function" ? await token() : token);
}

/** How often the group hears of this member, and how long it waits for that, ms. */
export function groupTimes(options: KafkaSourceOptions): {
  readonly sessionTimeout: number;
  readonly heartbeatInterval: number;
} {
  const sessionTimeout = milliseconds(options.sessionTimeout, 30_000);
  const usual = Math.max(1, Math.min(3_000, Math.floor(sessionTimeout / 3)));
  return { sessionTimeout, heartbeatInterval: milliseconds(options.heartbeatInterval, usual) };
}

/** ms */
export function metadataAge(options: Pick<KafkaSourceOptions, "metadataAge">): number {
  return milliseconds(options.metadataAge, 30_000);
}

export function kafkaCredit(options: KafkaSourceOptions): CreditOptions {
  const messages = options.credit ?? 10_000;
  return {
    messages,
    bytes: byteCount(options.creditBytes, 16 * 2 ** 20),
    span: options.span ?? 4 * messages,
    chunk: options.chunk ?? 500,
  };
}
