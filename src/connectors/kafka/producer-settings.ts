import { nearest } from "../../component/options.ts";
import { reveal, Secret, secret } from "../../component/secret.ts";
import { MillraceError } from "../../errors.ts";
import { type Codec, codecs } from "../../message/batch.ts";
import { parseJaas } from "./jaas.ts";
import type { KafkaOptions, KafkaSasl, KafkaSinkOptions, KafkaTls } from "./options.ts";

/** Gives a token for SASL OAUTHBEARER: asked for each login. */
export type TokenProvider = () => string | Secret | Promise<string | Secret>;

export interface ProducerSettingsOptions {
  /**
   * `atLeastOnce`: attempts to write never end, whatever a delivery time-out or a number of retries says.
   * `bestEffort`: a message is given up, and counted as lost, after the delivery time-out (default "2m").
   * @default "atLeastOnce"
   */
  readonly delivery?: "atLeastOnce" | "bestEffort";
  /** Who stands for a Java callback handler class, by its full name. */
  readonly tokenProviders?: Readonly<Record<string, TokenProvider>>;
}

/** A producer's settings, as what a topology is made of. */
export interface ProducerSettings {
  /** For `kafka()`. */
  readonly connection: KafkaOptions;
  /** For the connection's `sink()`. */
  readonly sink: KafkaSinkOptions;
  /** For `batch()`. Undefined where nothing is said of batches. */
  readonly batch: { readonly count?: number; readonly bytes?: number; readonly within?: number } | undefined;
  /** For `compress()`. */
  readonly codec: Codec;
  /** For a source: what a producer's buffer is there. */
  readonly source: { readonly credit?: number; readonly creditBytes?: number };
}

type Unit = "text" | "secret" | "codec" | "bytes" | "KiB" | "ms" | "count" | "protocol" | "mechanism";

interface Setting {
  /** What it sets, in words. */
  readonly what: string;
  readonly unit: Unit;
  /** Names that mean the same. */
  readonly names: readonly string[];
}

/**
 * The names that producers have for their settings, and what they are here. One line for each setting: the names of
 * Java's clients and of librdkafka, and those of two systems that pass them on, with their units.
 */
export const producerNames = {
  topic: { what: "sink topic", unit: "text", names: ["kafkaTopic", "topic"] },
  brokers: {
    what: "kafka brokers",
    unit: "text",
    names: ["bootstrap.servers", "bootstrapServers", "metadata.broker.list", "brokers"],
  },
  codec: {
    what: "compress codec",
    unit: "codec",
    names: ["compression.type", "compressionType", "compression.codec", "compression_codec"],
  },
  batchBytes: { what: "batch bytes", unit: "bytes", names: ["batch.size", "batchSize"] },
  batchCount: { what: "batch count", unit: "count", names: ["batch.num.messages", "batch_num_messages"] },
  /** librdkafka has two names for one setting; of two values it would take the last. */
  within: {
    what: "batch within",
    unit: "ms",
    names: ["linger.ms", "linger_ms", "queue.buffering.max.ms", "queue_buffering_max_ms"],
  },
  /** No batch is larger; what a single message may be is the topic's limit. */
  requestBytes: {
    what: "upper limit of batch bytes",
    unit: "bytes",
    names: ["max.request.size", "maxRequestSize", "message.max.bytes"],
  },
  credit: {
    what: "source credit: messages in flight",
    unit: "count",
    names: ["queue.buffering.max.messages", "queue_buffering_max_messages"],
  },
  creditKiB: {
    what: "source creditBytes",
    unit: "KiB",
    names: ["queue.buffering.max.kbytes", "queue_buffering_max_kbytes"],
  },
  creditBytes: { what: "source creditBytes", unit: "bytes", names: ["buffer.memory"] },
  /** At least once nothing ends the attempts. */
  deliveryTimeout: {
    what: "sink giveUpAfter (best effort only)",
    unit: "ms",
    names: ["delivery.timeout.ms", "deliveryTimeoutMs", "message.timeout.ms"],
  },
  /** Attempts are ended by time, or not at all: the number is read, and has no further meaning. */
  retries: {
    what: "nothing: attempts end by time",
    unit: "count",
    names: ["retries", "message.send.max.retries"],
  },
  backoff: { what: "sink maxBackoff", unit: "ms", names: ["retry.backoff.ms"] },
  longestBackoff: { what: "sink maxBackoff", unit: "ms", names: ["retry.backoff.max.ms"] },
  /** What a full buffer does here has no end: credit holds the source back. What is left is the wait for a broker. */
  connectTimeout: { what: "kafka connectTimeout", unit: "ms", names: ["max.block.ms", "maxBlockMs"] },
  requestTimeout: {
    what: "kafka requestTimeout",
    unit: "ms",
    names: ["request.timeout.ms", "requestTimeoutMs"],
  },
  key: {
    what: "kafka tls.key, and tls.cert where the text holds it too",
    unit: "secret",
    names: ["ssl.keystore.key", "sslKeystoreKey", "ssl.key.pem"],
  },
  cert: {
    what: "kafka tls.cert",
    unit: "text",
    names: ["ssl.keystore.certificate.chain", "ssl.certificate.pem"],
  },
  ca: { what: "kafka tls.ca", unit: "text", names: ["ssl.truststore.certificates", "ssl.ca.pem"] },
  keyPassword: { what: "kafka tls.passphrase", unit: "secret", names: ["ssl.key.password"] },
  protocol: {
    what: "kafka tls and sasl",
    unit: "protocol",
    names: ["security.protocol", "securityProtocol"],
  },
  mechanism: {
    what: "kafka sasl.mechanism",
    unit: "mechanism",
    names: ["sasl.mechanism", "sasl.mechanisms", "saslMechanism"],
  },
  jaas: {
    what: "kafka sasl.username and sasl.password",
    unit: "secret",
    names: ["sasl.jaas.config", "saslJaasConfig"],
  },
  callback: {
    what: "kafka sasl.token, from tokenProviders",
    unit: "text",
    names: [
      "sasl.client.callback.handler.class",
      "sasl.login.callback.handler.class",
      "saslClientCallbackHandlerClass",
    ],
  },
  username: { what: "kafka sasl.username", unit: "text", names: ["sasl.username"] },
  password: { what: "kafka sasl.password", unit: "secret", names: ["sasl.password"] },
} as const satisfies Readonly<Record<string, Setting>>;

type SettingName = keyof typeof producerNames;

/** The module of a JAAS login that goes with a mechanism. */
const modules: Readonly<Record<string, string>> = {
  plain: "PlainLoginModule",
  "scram-sha-256": "ScramLoginModule",
  "scram-sha-512": "ScramLoginModule",
  oauthbearer: "OAuthBearerLoginModule",
};

/** Milliseconds that Java's producers try, unless told otherwise. */
const usualDelivery = 120_000;

/**
 * Reads a producer's settings under whatever names its configuration has them, those of {@link producerNames}.
 * Numbers may be text.
 *
 * @throws MillraceError `option-invalid` naming every mistake: unknown names, values that are none, names of one
 *   setting with different values. It shows no secret.
 * @example
 * const settings = producerSettings({ kafkaTopic: "events", bootstrapServers: env("KAFKA_BROKERS"), compressionType: "zstd" });
 * kafka(settings.connection).sink(settings.sink)
 */
export function producerSettings(
  given: Readonly<Record<string, unknown>>,
  options: ProducerSettingsOptions = {},
): ProducerSettings {
  const mistakes: string[] = [];
  const values = read(given, mistakes);
  const settings = translate(values, options, mistakes);
  if (mistakes.length > 0) {
    throw new MillraceError("option-invalid", `producer settings: ${mistakes.join("; ")}`, {
      remedy: "mend these settings",
    });
  }
  return settings;
}

type Values = Partial<
  Record<SettingName, { readonly name: string; readonly value: string | number | Secret }>
>;

function read(given: Readonly<Record<string, unknown>>, mistakes: string[]): Values {
  const known = Object.values(producerNames).flatMap(({ names }): readonly string[] => names);
  const values: Values = {};
  for (const [name, raw] of Object.entries(given)) {
    if (raw === undefined) continue;
    const setting = (Object.keys(producerNames) as SettingName[]).find((key) =>
      (producerNames[key].names as readonly string[]).includes(name),
    );
    if (setting === undefined) {
      const near = nearest(name, known);
      mistakes.push(
        `"${name}" is no setting known here${near === undefined ? "" : `; did you mean "${near}"?`}`,
      );
      continue;
    }
    const { unit, what } = producerNames[setting];
    const value = readValue(raw, unit);
    if (value === undefined) {
      mistakes.push(`"${name}" must be ${wanted[unit]}`);
      continue;
    }
    const other = values[setting];
    if (other !== undefined && plain(other.value) !== plain(value)) {
      mistakes.push(`"${other.name}" and "${name}" are one setting (${what}) with two values: leave one out`);
      continue;
    }
    values[setting] = { name, value };
  }
  return values;
}

const plain = (value: string | number | Secret) => (value instanceof Secret ? value.reveal() : value);

const wanted: Readonly<Record<Unit, string>> = {
  text: "text",
  secret: "text",
  codec: `one of ${codecs.join(", ")}`,
  bytes: "a whole number of bytes",
  KiB: "a whole number of KiB",
  ms: "a whole number of milliseconds, at most 24 days",
  count: "a whole number",
  protocol: "one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
  mechanism: "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
};

function readValue(raw: unknown, unit: Unit): string | number | Secret | undefined {
  const text = raw instanceof Secret ? raw.reveal() : typeof raw === "number" ? String(raw) : raw;
  if (typeof text !== "string" || text.trim() === "") return undefined;
  switch (unit) {
    case "text":
      return text;
    case "secret":
      return secret(text);
    case "codec":
      return codecs.find((codec) => codec === text);
    case "protocol":
      return ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].find(
        (protocol) => protocol === text.toUpperCase(),
      );
    case "mechanism":
      return text.toUpperCase() in mechanisms ? mechanisms[text.toUpperCase()] : undefined;
    default: {
      const number = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
      return number <= (unit === "ms" ? 2 ** 31 - 1 : Number.MAX_SAFE_INTEGER) ? number : undefined;
    }
  }
}

const mechanisms: Readonly<Record<string, string>> = {
  PLAIN: "plain",
  "SCRAM-SHA-256": "scram-sha-256",
  "SCRAM-SHA-512": "scram-sha-512",
  OAUTHBEARER: "oauthbearer",
};

function translate(
  values: Values,
  { delivery = "atLeastOnce", tokenProviders = {} }: ProducerSettingsOptions,
  mistakes: string[],
): ProducerSettings {
  const number = (name: SettingName) => values[name]?.value as number | undefined;
  const text = (name: SettingName) => values[name]?.value as string | undefined;
  for (const needed of ["topic", "brokers"] as const) {
    if (values[needed] === undefined) mistakes.push(`"${producerNames[needed].names[0]}" is missing`);
  }
  const bytes = Math.min(number("batchBytes") ?? Infinity, number("requestBytes") ?? Infinity);
  const count = number("batchCount");
  const within = number("within");
  const batch = {
    // As with Java's clients 0 turns batches off: each message is one.
    ...(count === undefined ? (bytes === 0 ? { count: 1 } : {}) : { count: Math.max(1, count) }),
    ...(bytes === Infinity || bytes === 0 ? {} : { bytes }),
    ...(within === undefined ? {} : { within }),
  };
  const [fromKiB, fromBytes] = [number("creditKiB"), number("creditBytes")];
  if (fromKiB !== undefined && fromBytes !== undefined && fromKiB * 1024 !== fromBytes) {
    mistakes.push(
      `"${values.creditKiB!.name}" and "${values.creditBytes!.name}" are one setting with two values: leave one out`,
    );
  }
  const creditBytes = fromBytes ?? (fromKiB === undefined ? undefined : fromKiB * 1024);
  const credit = number("credit");
  const maxBackoff = number("longestBackoff") ?? number("backoff");
  const timeouts = {
    ...(number("connectTimeout") === undefined ? {} : { connectTimeout: number("connectTimeout")! }),
    ...(number("requestTimeout") === undefined ? {} : { requestTimeout: number("requestTimeout")! }),
  };
  const timeout = number("deliveryTimeout");
  return {
    connection: {
      brokers: text("brokers") ?? "",
      ...timeouts,
      ...security(values, tokenProviders, mistakes),
    },
    sink: {
      topic: text("topic") ?? "",
      ...(maxBackoff === undefined ? {} : { maxBackoff }),
      // 0 is librdkafka's "never".
      ...(delivery === "bestEffort" && timeout !== 0 ? { giveUpAfter: timeout ?? usualDelivery } : {}),
    },
    batch: Object.keys(batch).length === 0 ? undefined : batch,
    codec: (text("codec") as Codec | undefined) ?? "none",
    source: {
      ...(credit === undefined || credit === 0 ? {} : { credit }),
      ...(creditBytes === undefined ? {} : { creditBytes }),
    },
  };
}

/** TLS and login, which the protocol names and further settings fill in. */
function security(
  values: Values,
  providers: Readonly<Record<string, TokenProvider>>,
  mistakes: string[],
): Pick<KafkaOptions, "tls" | "sasl"> {
  const protocol = values.protocol?.value as string | undefined;
  const saslNames = (["mechanism", "jaas", "callback", "username", "password"] as const).flatMap(
    (name) => values[name]?.name ?? [],
  );
  const tlsNames = (["key", "cert", "ca", "keyPassword"] as const).flatMap(
    (name) => values[name]?.name ?? [],
  );
  const withTls = protocol === "SSL" || protocol === "SASL_SSL";
  const withSasl = protocol === "SASL_PLAINTEXT" || protocol === "SASL_SSL";
  const told = protocol === undefined ? 'without "security.protocol"' : `with ${protocol}`;
  if (!withTls && tlsNames.length > 0)
    mistakes.push(`"${tlsNames[0]}" ${told}: TLS needs "security.protocol" SSL or SASL_SSL`);
  if (!withSasl && saslNames.length > 0)
    mistakes.push(`"${saslNames[0]}" ${told}: a login needs "security.protocol" SASL_SSL or SASL_PLAINTEXT`);
  const sasl = withSasl ? login(values, providers, mistakes) : undefined;
  return {
    ...(withTls ? { tls: tlsNames.length === 0 ? true : certificates(values, mistakes) } : {}),
    ...(sasl === undefined ? {} : { sasl }),
  };
}

const certificate = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

function certificates(values: Values, mistakes: string[]): KafkaTls {
  const key = values.key === undefined ? undefined : reveal(values.key.value as Secret);
  const cert = (values.cert?.value as string | undefined) ?? key?.match(certificate)?.join("\n");
  if (key !== undefined && !key.includes("PRIVATE KEY-----"))
    mistakes.push(`"${values.key!.name}" holds no PEM key`);
  else if (key !== undefined && cert === undefined)
    mistakes.push(
      `"${values.key!.name}" needs its certificate: put it into the same text, or into "ssl.keystore.certificate.chain"`,
    );
  if (key === undefined && cert !== undefined)
    mistakes.push(`"${values.cert!.name}" needs its key: "ssl.keystore.key"`);
  const passphrase = values.keyPassword?.value as Secret | undefined;
  return {
    ...(values.ca === undefined ? {} : { ca: values.ca.value as string }),
    ...(key === undefined || cert === undefined ? {} : { key, cert }),
    ...(passphrase === undefined ? {} : { passphrase: reveal(passphrase) }),
  };
}

function login(
  values: Values,
  providers: Readonly<Record<string, TokenProvider>>,
  mistakes: string[],
): KafkaSasl | undefined {
  const mechanism = values.mechanism?.value as string | undefined;
  if (mechanism === undefined) {
    mistakes.push('a login needs "sasl.mechanism"');
    return undefined;
  }
  const jaas = values.jaas === undefined ? undefined : parseJaas(reveal(values.jaas.value as Secret));
  if (typeof jaas === "string") {
    mistakes.push(`"${values.jaas!.name}" cannot be read: ${jaas}`);
    return undefined;
  }
  if (jaas !== undefined && jaas.module !== modules[mechanism]) {
    mistakes.push(
      `"${values.jaas!.name}" names ${jaas.module}, and mechanism ${mechanism.toUpperCase()} goes with ${modules[mechanism]}`,
    );
    return undefined;
  }
  if (mechanism === "oauthbearer") {
    const name = values.callback?.value as string | undefined;
    const token = name === undefined ? undefined : providers[name];
    if (token !== undefined) return { mechanism, token };
    mistakes.push(
      name === undefined
        ? 'OAUTHBEARER needs "sasl.client.callback.handler.class", and a token provider for it'
        : `no token provider stands for "${name}": give tokenProviders: { "${name}": async () => token }`,
    );
    return undefined;
  }
  if (values.callback !== undefined) {
    mistakes.push(
      `"${values.callback.name}" is for OAUTHBEARER; ${mechanism.toUpperCase()} needs a user and a password`,
    );
    return undefined;
  }
  const username = values.username?.value ?? jaas?.options.get("username");
  const password = values.password?.value ?? jaas?.options.get("password");
  if (username === undefined || password === undefined) {
    mistakes.push(
      `${mechanism.toUpperCase()} needs a user and a password: "sasl.jaas.config", or "sasl.username" and "sasl.password"`,
    );
    return undefined;
  }
  return {
    mechanism: mechanism as "plain",
    username: reveal(username as string | Secret),
    password: password as Secret,
  };
}
