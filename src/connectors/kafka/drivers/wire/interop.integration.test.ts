/** Java's tools, kcat (librdkafka) and kafkajs read what this driver writes, and it reads what they write, in every codec. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { freshName, needs, sharedKafka } from "../../../../../test/brokers/index.ts";
import type { Kafka } from "../../../../../test/brokers/kafka.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { codecsOf, quietKafka, readTopic } from "../../../../../test/kafka-log.ts";
import { systemClock } from "../../../../component/system.ts";
import { codecs } from "../../../../message/batch.ts";
import { seededRandom } from "../../../../testing/context.ts";
import { kafkaSettings } from "../../options.ts";
import { crc32Partition, murmur2Partition } from "../../partitioner.ts";
import { produce, Recorder } from "../conformance.ts";
import { wireDriver } from "./driver.ts";

const compressions = codecs.filter((codec) => codec !== "none");
const clients = ["kcat", "java", "kafkajs"] as const;

/** A message as every client can show it; bytes are text. */
interface Shown {
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: readonly (readonly [string, string])[];
}

/** Messages of every shape, among them a hundred alike, which make a batch that shrinks. */
function messages(label: string): Shown[] {
  const text = "größer ✓".repeat(20);
  return [
    { key: null, value: `${label} without a key`, headers: [] },
    { key: "tombstone", value: null, headers: [] },
    { key: "empty", value: "", headers: [] },
    {
      key: `${label} ü`,
      value: text,
      headers: [
        ["trace", `${label} ✓`],
        ["trace", "again"],
      ],
    },
    ...Array.from({ length: 100 }, (_, i) => ({
      key: `k${i % 7}`,
      value: `${label} ${i} ${text}`,
      headers: [],
    })),
  ];
}

function connect(t: TestContext, { brokers }: Kafka) {
  const client = wireDriver.connect(kafkaSettings({ brokers }), realContext());
  t.after(() => client.close(systemClock.now() + 5_000));
  return client;
}

async function read(
  t: TestContext,
  kafka: Kafka,
  topics: readonly string[],
  count: number,
): Promise<Recorder> {
  const recorder = new Recorder();
  recorder.subscription = await connect(t, kafka).subscribe(
    {
      ...{
        group: freshName("group"),
        topics,
        maxBytesPerPartition: 2 ** 20,
        maxWait: 100,
        metadataAge: 30_000,
      },
      ...{ sessionTimeout: 6_000, rebalanceTimeout: 10_000, heartbeatInterval: 500 },
    },
    recorder,
  );
  await until(`${count} are read`, () => recorder.received.length >= count);
  assert.deepEqual(recorder.violations, []);
  return recorder;
}

test("what this driver writes is read by others", {
  ...needs("kafka", "kcat"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const topic = await kafka.createTopic(freshName("ours"), { partitions: 1 });
  const producer = await connect(t, kafka).producer();
  const sent: (Shown & { readonly timestamp: number })[] = [];
  for (const [i, codec] of codecs.entries()) {
    const part = messages(codec).map((message, n) => ({
      ...message,
      timestamp: 1_700_000_000_000 + 1_000 * i + n,
    }));
    assert.equal((await produce(producer, topic, 0, part, codec)).error, undefined);
    sent.push(...part);
  }
  assert.deepEqual((await codecsOf(kafka.bootstrap, topic)).sort(), [...compressions].sort());

  await t.test("kcat", async () => {
    const { stdout } = await kafka.kcat(["-C", "-J", "-e", "-q", "-o", "beginning", "-t", topic]);
    const shown = stdout
      .trimEnd()
      .split("\n")
      .map((line) => {
        const {
          key,
          payload,
          headers = [],
          ts,
        } = JSON.parse(line) as {
          key: string | null;
          payload: string | null;
          headers?: string[];
          ts: number;
        };
        const pairs = Array.from({ length: headers.length / 2 }, (_, i) => headers.slice(2 * i, 2 * i + 2));
        return { key, value: payload, headers: pairs, timestamp: ts };
      });
    assert.deepEqual(shown, sent);
  });

  await t.test("Java's console consumer", async () => {
    const shows = ["timestamp", "headers", "key", "value"].map((what) => `print.${what}=true`);
    const { stdout } = await kafka.javaTool("org.apache.kafka.tools.consumer.ConsoleConsumer", [
      ...[
        "--topic",
        topic,
        "--from-beginning",
        "--timeout-ms",
        "20000",
        "--max-messages",
        String(sent.length),
      ],
      ...[...shows, "null.literal=(null)", "key.separator=\t"].flatMap((one) => ["--property", one]),
    ]);
    const lines = sent.map(({ key, value, headers, timestamp }) => {
      const pairs = headers.map((pair) => pair.join(":")).join(",");
      return [`CreateTime:${timestamp}`, pairs || "NO_HEADERS", key ?? "(null)", value ?? "(null)"].join(
        "\t",
      );
    });
    assert.deepEqual(stdout.trimEnd().split("\n"), lines);
  });

  await t.test("kafkajs", async () => {
    const shown = (await readTopic(kafka.bootstrap, topic)).map(({ key, value, headers }) => ({
      key,
      value,
      headers: Object.entries(headers ?? {}).flatMap(([name, content]) =>
        [content].flat().map((one) => [name, String(one)]),
      ),
    }));
    assert.deepEqual(
      shown,
      sent.map(({ timestamp: _, ...rest }) => rest),
    );
  });
});

/** Writes these messages, in one codec, by another client. */
async function writeBy(
  client: (typeof clients)[number],
  kafka: Kafka,
  topic: string,
  codec: string,
  all: Shown[],
) {
  if (client === "kafkajs") {
    const producer = quietKafka(kafka.bootstrap).producer();
    await producer.connect();
    await producer.send({
      topic,
      compression: compressions.indexOf(codec as never) + 1,
      messages: all.map(({ headers, ...message }) => ({
        ...message,
        headers: Object.fromEntries(
          [...Map.groupBy(headers, ([name]) => name)].map(([name, pairs]) => [
            name,
            pairs.map(([, one]) => one),
          ]),
        ),
      })),
    });
    await producer.disconnect();
    return;
  }
  if (client === "java") {
    const stdin = all
      .map(({ key, value, headers }) =>
        [
          headers.map((pair) => pair.join(":")).join(",") || "(null)",
          key ?? "(null)",
          value ?? "(null)",
        ].join("\t"),
      )
      .join("\n");
    await kafka.javaTool(
      "org.apache.kafka.tools.ConsoleProducer",
      [
        ...["--topic", topic, "--compression-codec", codec],
        ...["parse.headers=true", "parse.key=true", "null.marker=(null)"].flatMap((one) => [
          "--property",
          one,
        ]),
      ],
      { stdin },
    );
    return;
  }
  // kcat gives all messages of one call the same headers, and takes an empty key or value for none.
  for (const [headers, part] of Map.groupBy(all, (one) => one.headers)) {
    const stdin = part.map(({ key, value }) => `${key ?? ""}\t${value ?? ""}`).join("\n");
    await kafka.kcat(
      [
        ...["-P", "-t", topic, "-z", codec, "-K", "\t", "-Z", "-X", "linger.ms=50"],
        ...headers.flatMap((pair) => ["-H", pair.join("=")]),
      ],
      { stdin },
    );
  }
}

test("what others write is read by this driver", {
  ...needs("kafka", "kcat"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await sharedKafka();
  const expected = new Map<string, Shown[]>();
  const codecOf = new Map<string, string>();
  await Promise.all(
    clients.map(async (client) => {
      for (const codec of compressions) {
        const topic = await kafka.createTopic(freshName(`${client}-${codec}`), { partitions: 1 });
        const all = messages(`${client} ${codec}`).filter(({ value }) => client !== "kcat" || value !== "");
        // What has no headers shares one list: kcat writes it in one call.
        const none: Shown["headers"] = [];
        const written = all.map((one) => (one.headers.length === 0 ? { ...one, headers: none } : one));
        await writeBy(client, kafka, topic, codec, written);
        const inOrder =
          client === "kcat" ? [...Map.groupBy(written, ({ headers }) => headers).values()].flat() : written;
        expected.set(topic, inOrder);
        codecOf.set(topic, codec);
      }
    }),
  );
  for (const [topic, codec] of codecOf) {
    assert.deepEqual(await codecsOf(kafka.bootstrap, topic), [codec], topic);
  }
  const count = [...expected.values()].reduce((sum, { length }) => sum + length, 0);
  const recorder = await read(t, kafka, [...expected.keys()], count);
  for (const [topic, all] of expected) {
    const shown = recorder.received
      .filter((record) => record.topic === topic)
      .map(({ key, value, headers }) => ({
        key: key === null ? null : String(key),
        value: value === null ? null : String(value),
        headers: headers.map(([name, content]) => [name, String(content)]),
      }));
    assert.deepEqual(shown, all, topic);
  }
});

const partitions = 23;

/** Text keys of up to 40 characters, many of several bytes. */
function* randomKeys(count: number): Generator<string> {
  const random = seededRandom(3);
  for (let i = 0; i < count; i++) {
    const codes = Array.from({ length: 1 + Math.floor(random.next() * 40) }, () =>
      random.next() < 0.7 ? 33 + Math.floor(random.next() * 90) : 0xa1 + Math.floor(random.next() * 0x2000),
    );
    yield String.fromCharCode(...codes);
  }
}

for (const [name, client, partitioner, partitionOf, count] of [
  ["Java's default partitioner", "java", "", murmur2Partition, 100_000],
  ["librdkafka's default partitioner", "kcat", "consistent_random", crc32Partition, 100_000],
  ["librdkafka's partitioner after Java's", "kcat", "murmur2_random", murmur2Partition, 10_000],
] as const) {
  test(`random keys land where ${name} puts them`, {
    ...needs("kafka", "kcat"),
    timeout: 120_000,
  }, async (t) => {
    const kafka = await sharedKafka();
    const topic = await kafka.createTopic(freshName("keys"), { partitions });
    const stdin = [...randomKeys(count)].map((key) => `${key}\t.\n`).join("");
    if (client === "kcat") {
      await kafka.kcat(["-P", "-t", topic, "-K", "\t", "-X", `partitioner=${partitioner}`], { stdin });
    } else {
      const args = ["--topic", topic, "--property", "parse.key=true"];
      await kafka.javaTool("org.apache.kafka.tools.ConsoleProducer", args, { stdin });
    }
    const recorder = await read(t, kafka, [topic], count);
    const keys = new Set(recorder.received.map(({ key }) => String(key)));
    assert.deepEqual(keys, new Set(randomKeys(count)), "the keys are those that were written");
    const elsewhere = recorder.received.filter(
      ({ key, partition }) => partitionOf(key!, partitions) !== partition,
    );
    assert.deepEqual(
      elsewhere.slice(0, 3).map(({ key, partition }) => `${String(key)} is in ${partition}`),
      [],
    );
  });
}
