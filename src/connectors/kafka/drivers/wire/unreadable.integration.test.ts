/** A broker that says what this driver cannot read, or says it damaged: a real one, whose replies are changed on the way. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { freshName, needs, ownKafka } from "../../../../../test/brokers/index.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { type Rewrite, rewriteReplies } from "../../../../../test/faults/rewriting-proxy.ts";
import { booksLoaded } from "../../../../../test/kafka-log.ts";
import { freshFolder, runMillrace } from "../../../../../test/millrace.ts";
import { systemClock } from "../../../../component/system.ts";
import type { DriverError } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { produce, Recorder } from "../conformance.ts";
import { wireDriver } from "./driver.ts";
import { at, headerSize } from "./record-batch/format.ts";

function connect(t: TestContext, brokers: string) {
  const client = wireDriver.connect(kafkaSettings({ brokers }), realContext());
  t.after(() => client.close(systemClock.now() + 2_000));
  return client;
}

/** Where the record batch begins in a reply that holds one, by what only its value has. */
function batchIn(frame: Buffer, marker: string): number {
  const value = frame.indexOf(marker);
  // The value of the first record comes right after the batch's header and six bytes of the record's own.
  return value < 0 ? -1 : value - headerSize - 6;
}

/** In an answer about versions: the newest that the broker has of one request. */
function withNewest(frame: Buffer, key: number, newest: number): Buffer {
  // Length, correlation id, error, and a number of entries of 7 bytes each: key, oldest, newest, no tags.
  for (let entry = 11; entry + 7 <= frame.length; entry += 7) {
    if (frame.readInt16BE(entry) !== key) continue;
    frame.writeInt16BE(newest, entry + 4);
    return frame;
  }
  throw new Error(`no versions of request ${key}`);
}

test("brokers and data that this driver cannot read", {
  ...needs("own kafka"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await ownKafka(t, { proxied: true });
  let rewrite: Rewrite = (_kind, frame) => frame;
  const address = await rewriteReplies(t, kafka.doors[0]!, (kind, frame) => rewrite(kind, frame));
  t.afterEach(() => {
    rewrite = (_kind, frame) => frame;
  });

  await t.test("a broker that is too old is refused when the program starts, with what to do", async (t) => {
    for (const topic of ["old.in", "old.out"]) await kafka.createTopic(topic);
    const file = join(freshFolder(t), "old.ts");
    writeFileSync(
      file,
      `import { env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), driver: "wire" });
export default topology("old", (t) => {
  t.from(cluster.source({ topics: ["old.in"], group: "old" })).to(cluster.sink({ topic: "old.out" }));
});
`,
    );
    const tooOld: readonly [string, Rewrite][] = [
      ["12 of Fetch", (kind, frame) => (kind === "ApiVersions" ? withNewest(frame, 1, 12) : frame)],
      [
        // A broker before 2.4 answers in the format of version 0: an error, a list without tags.
        "only requests of old",
        (kind, frame) => {
          if (kind !== "ApiVersions") return frame;
          const answer = Buffer.alloc(14);
          answer.writeInt32BE(10, 0);
          frame.copy(answer, 4, 4, 8);
          answer.writeInt16BE(35, 8);
          return answer;
        },
      ],
    ];
    for (const [what, change] of tooOld) {
      rewrite = change;
      const env = { KAFKA_BROKERS: address };
      const { code, stderr } = await runMillrace(t, ["run", file, "--until-idle"], env);
      assert.equal(code, 78, stderr);
      assert.match(stderr, new RegExp(`broker ${address} understands .*${what}.*needs Kafka 3\\.2 or newer`));
    }
  });

  const written = async (client: ReturnType<typeof connect>, marker: string) => {
    const topic = await kafka.createTopic(freshName("log"), { partitions: 1 });
    await produce(await client.producer(), topic, 0, [marker]);
    return topic;
  };

  const reading = async (client: ReturnType<typeof connect>, topic: string) => {
    const recorder = new Recorder();
    const group = freshName("group");
    await booksLoaded(kafka.bootstrap, group, topic);
    const told: { readonly error: DriverError | undefined; readonly fatal: boolean }[] = [];
    const listener = Object.assign(recorder, {
      trouble: (error: DriverError | undefined, fatal: boolean) => void told.push({ error, fatal }),
    });
    recorder.subscription = await client.subscribe(
      {
        ...{
          group,
          topics: [topic],
          maxBytesPerPartition: 2 ** 20,
          maxWait: 100,
          metadataAge: 30_000,
        },
        ...{ sessionTimeout: 6_000, rebalanceTimeout: 10_000, heartbeatInterval: 500 },
      },
      listener,
    );
    return { recorder, told };
  };

  await t.test("messages in a format from before Kafka 0.11 end the run, by name", async (t) => {
    const client = connect(t, address);
    const topic = await written(client, "of-old");
    rewrite = (kind, frame) => {
      const batch = kind === "Fetch" ? batchIn(frame, "of-old") : -1;
      if (batch >= 0) frame[batch + at.magic] = 1;
      return frame;
    };
    const { recorder, told } = await reading(client, topic);
    await until("it is told", () => told.length > 0);
    assert.equal(told[0]!.fatal, true);
    assert.equal(told[0]!.error?.code, "unsupported");
    assert.match(told[0]!.error!.message, new RegExp(`${topic}/0: the record batch at offset 0 .*format 1`));
    assert.equal(recorder.received.length, 0);
  });

  await t.test("a batch that was damaged on the way is fetched again", async (t) => {
    const client = connect(t, address);
    const topic = await written(client, "of-damage");
    let damaged = 0;
    rewrite = (kind, frame) => {
      const batch = kind === "Fetch" && damaged < 2 ? batchIn(frame, "of-damage") : -1;
      if (batch >= 0) {
        damaged++;
        frame[batch + headerSize + 7]! ^= 0x10;
      }
      return frame;
    };
    const { recorder, told } = await reading(client, topic);
    await until("it is read", () => recorder.received.length === 1);
    assert.deepEqual(recorder.values, ["of-damage"]);
    assert.equal(damaged, 2);
    assert.deepEqual(told, []);
  });
});
