import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { reveal, secret } from "../../component/secret.ts";
import { MillraceError } from "../../errors.ts";
import { kafka } from "./index.ts";
import { parseJaas } from "./jaas.ts";
import { type ProducerSettingsOptions, producerNames, producerSettings } from "./producer-settings.ts";

const least = { kafkaTopic: "events", bootstrapServers: "127.0.0.1:9092,127.0.0.1:9093" };

function mistakes(given: Record<string, unknown>, options?: ProducerSettingsOptions): string {
  try {
    producerSettings({ ...least, ...given }, options);
  } catch (error) {
    assert.ok(error instanceof MillraceError && error.code === "option-invalid");
    return error.message.replace("producer settings: ", "");
  }
  return "";
}

const jaas = (module: string, options: string) =>
  `org.apache.kafka.common.security.x.${module} required ${options};`;

test("seed 002.4: parameters `kafkaTopic`* `bootstrapServers`* (comma list) `compressionType` (gzip|snappy|lz4|zstd) `batchSize` (bytes) `deliveryTimeoutMs` `maxBlockMs` `maxRequestSize` `requestTimeoutMs` `sslKeystoreKey` `securityProtocol` `saslMechanism` `saslJaasConfig` `saslClientCallbackHandlerClass`; (* required) — accept as aliases; JAAS string parse for PLAIN/SCRAM; callback class → TS token provider", async () => {
  const pem =
    "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nREVG\n-----END CERTIFICATE-----\n";
  const given = {
    ...least,
    compressionType: "zstd",
    batchSize: "16384",
    deliveryTimeoutMs: 90_000,
    maxBlockMs: 7_000,
    maxRequestSize: 1_048_576,
    requestTimeoutMs: "20000",
    sslKeystoreKey: pem,
    securityProtocol: "SASL_SSL",
    saslMechanism: "SCRAM-SHA-512",
    saslJaasConfig: jaas("ScramLoginModule", String.raw`username="etl" password="a \"b\" \\ c"`),
  };
  const settings = producerSettings(given, { delivery: "bestEffort" });
  assert.deepEqual(settings.sink, { topic: "events", giveUpAfter: 90_000 });
  assert.deepEqual(settings.batch, { bytes: 16_384 });
  assert.equal(settings.codec, "zstd");
  const { tls, sasl, ...rest } = settings.connection;
  assert.deepEqual(rest, { brokers: least.bootstrapServers, connectTimeout: 7_000, requestTimeout: 20_000 });
  assert.deepEqual(tls, { key: pem, cert: "-----BEGIN CERTIFICATE-----\nREVG\n-----END CERTIFICATE-----" });
  assert.ok(sasl !== undefined && sasl.mechanism === "scram-sha-512" && "password" in sasl);
  assert.equal(sasl.username, "etl");
  assert.equal((sasl.password as ReturnType<typeof secret>).reveal(), String.raw`a "b" \ c`);
  const { connection } = producerSettings({ ...given, sslKeystoreKey: undefined });
  assert.deepEqual(kafka(connection).problems, []);
  // At least once nothing ends the attempts.
  assert.deepEqual(producerSettings(given).sink, { topic: "events" });
  for (const required of Object.keys(least))
    assert.match(
      mistakes({ [required]: undefined }),
      required === "kafkaTopic" ? /"kafkaTopic" is missing/ : /"bootstrap.servers" is missing/,
    );
  const { connection: withToken } = producerSettings(
    {
      ...least,
      securityProtocol: "SASL_SSL",
      saslMechanism: "OAUTHBEARER",
      saslClientCallbackHandlerClass: "com.example.Handler",
      saslJaasConfig: jaas("OAuthBearerLoginModule", ""),
    },
    { tokenProviders: { "com.example.Handler": async () => secret("t0ken") } },
  );
  assert.deepEqual(kafka(withToken).problems, []);
  const provider = withToken.sasl?.mechanism === "oauthbearer" ? withToken.sasl.token : undefined;
  assert.ok(typeof provider === "function");
  assert.equal(reveal(await provider()), "t0ken");
  assert.match(
    mistakes({
      securityProtocol: "SASL_SSL",
      saslMechanism: "OAUTHBEARER",
      saslClientCallbackHandlerClass: "com.example.Handler",
    }),
    /no token provider stands for "com.example.Handler"/,
  );
});

test('seed 000.2: producer settings as config: `brokers`, `queue_buffering_max_messages`, `queue_buffering_max_kbytes` (comment "1GB"), `queue_buffering_max_ms` (comment "100 ms"), `batch_num_messages`, `linger_ms`, `compression_codec`', () => {
  const expected = {
    connection: { brokers: "127.0.0.1:9092" },
    sink: { topic: "events" },
    batch: { count: 10_000, within: 100 },
    codec: "snappy",
    source: { credit: 100_000, creditBytes: 2 ** 30 },
  };
  const underscored = {
    topic: "events",
    brokers: "127.0.0.1:9092",
    queue_buffering_max_messages: 100_000,
    queue_buffering_max_kbytes: 1_048_576,
    queue_buffering_max_ms: 100,
    batch_num_messages: 10_000,
    linger_ms: 100,
    compression_codec: "snappy",
  };
  assert.deepEqual(producerSettings(underscored), expected);
  const dotted = Object.fromEntries(
    Object.entries(underscored).map(([name, value]) => [name.replaceAll("_", "."), String(value)]),
  );
  assert.deepEqual(producerSettings(dotted), expected);
});

test("seed 000.3: fixed values `message.timeout.ms=30000`, `retries=5`, `retry.backoff.ms=1000`, enqueue timeout 10 s", () => {
  const given = {
    ...least,
    "message.timeout.ms": "30000",
    retries: "5",
    "retry.backoff.ms": "1000",
    "max.block.ms": 10_000,
  };
  const { sink, connection } = producerSettings(given, { delivery: "bestEffort" });
  assert.deepEqual(sink, { topic: "events", maxBackoff: 1_000, giveUpAfter: 30_000 });
  assert.equal(connection.connectTimeout, 10_000);
});

test("seed 000.10: two names of one setting with two values are refused with the reason, and with one value taken", () => {
  assert.equal(
    mistakes({ "linger.ms": 5, "queue.buffering.max.ms": 100 }),
    '"linger.ms" and "queue.buffering.max.ms" are one setting (batch within) with two values: leave one out',
  );
  assert.equal(mistakes({ "linger.ms": 5, queue_buffering_max_ms: "5" }), "");
  assert.match(
    mistakes({ "queue.buffering.max.kbytes": 4, "buffer.memory": 4_000 }),
    /one setting with two values/,
  );
  assert.equal(mistakes({ "queue.buffering.max.kbytes": 4, "buffer.memory": 4_096 }), "");
  for (const { names, unit } of Object.values(producerNames)) {
    const [value, other] =
      unit === "codec"
        ? ["lz4", "zstd"]
        : unit === "protocol"
          ? ["SSL", "PLAINTEXT"]
          : unit === "mechanism"
            ? ["PLAIN", "SCRAM-SHA-256"]
            : [11, 12];
    for (const name of names.slice(1))
      assert.match(mistakes({ [names[0]!]: value, [name]: other }), /are one setting/, name);
  }
});

test("every mistake is told at once, and no secret is", () => {
  const told = mistakes({
    compresionType: "zstd",
    batchSize: "16k",
    compressionType: "brotli",
    "delivery.timeout.ms": -1,
    securityProtocol: "SASL_SSL",
    saslMechanism: "PLAIN",
    saslJaasConfig: jaas("ScramLoginModule", 'username="etl" password="hunter2"'),
  });
  for (const about of [
    /"compresionType" is no setting known here; did you mean "compressionType"\?/,
    /"batchSize" must be a whole number of bytes/,
    /"compressionType" must be one of none, gzip, snappy, lz4, zstd/,
    /"delivery.timeout.ms" must be a whole number of milliseconds/,
    /names ScramLoginModule, and mechanism PLAIN goes with PlainLoginModule/,
  ])
    assert.match(told, about);
  assert.doesNotMatch(told, /hunter2/);
  const sound = producerSettings({
    ...least,
    securityProtocol: "SASL_SSL",
    saslMechanism: "PLAIN",
    saslJaasConfig: jaas("PlainLoginModule", 'username="etl" password="hunter2"'),
  });
  assert.doesNotMatch(inspect(sound, { depth: 9 }) + JSON.stringify(sound), /hunter2/);
});

test("a protocol and what is given for it must go together", () => {
  assert.match(mistakes({ saslMechanism: "PLAIN" }), /a login needs "security.protocol" SASL_SSL/);
  assert.match(
    mistakes({ securityProtocol: "PLAINTEXT", sslKeystoreKey: "x" }),
    /TLS needs "security.protocol"/,
  );
  assert.match(mistakes({ securityProtocol: "SASL_SSL" }), /a login needs "sasl.mechanism"/);
  assert.match(
    mistakes({ securityProtocol: "SASL_SSL", saslMechanism: "PLAIN" }),
    /needs a user and a password/,
  );
  assert.match(mistakes({ securityProtocol: "SSL", sslKeystoreKey: "no pem" }), /holds no PEM key/);
  assert.match(
    mistakes({ securityProtocol: "SSL", sslKeystoreKey: "-----BEGIN PRIVATE KEY-----" }),
    /needs its certificate/,
  );
  assert.equal(producerSettings({ ...least, securityProtocol: "SSL" }).connection.tls, true);
});

test("a JAAS login is read, or told what is wrong with it", () => {
  const parsed = parseJaas(jaas("PlainLoginModule", 'username="a;b" password=plain serviceName = "kafka"'));
  assert.ok(typeof parsed !== "string");
  assert.equal(parsed.module, "PlainLoginModule");
  assert.deepEqual(
    [...parsed.options].map(([name, value]) => [name, value.reveal()]),
    [
      ["username", "a;b"],
      ["password", "plain"],
      ["serviceName", "kafka"],
    ],
  );
  for (const [text, about] of [
    ["", /does not begin with/],
    ["PlainLoginModule", /does not begin with/],
    ['PlainLoginModule required username="a"', /does not end with ";"/],
    ['PlainLoginModule required username="a password="hunter2";', /neither an option nor/],
    ['PlainLoginModule required username="a" username="b";', /"username" twice/],
    ["PlainLoginModule required =hunter2;", /no option of the form/],
  ] as const) {
    const told = parseJaas(text);
    assert.match(String(told), about, text);
    assert.doesNotMatch(String(told), /hunter2/);
  }
});
