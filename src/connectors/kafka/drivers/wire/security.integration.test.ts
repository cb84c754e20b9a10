import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { freshName, needs, ownKafka } from "../../../../../test/brokers/index.ts";
import { findProgram } from "../../../../../test/brokers/program.ts";
import { run } from "../../../../../test/brokers/run.ts";
import { until } from "../../../../../test/brokers/until.ts";
import { realContext } from "../../../../../test/driver-under-test.ts";
import { booksLoaded } from "../../../../../test/kafka-log.ts";
import { secret } from "../../../../component/secret.ts";
import { systemClock } from "../../../../component/system.ts";
import { type KafkaOptions, kafkaSettings } from "../../options.ts";
import { produce, Recorder } from "../conformance.ts";
import { wireDriver } from "./driver.ts";

const openssl = findProgram("openssl");
const needed = openssl === undefined ? { skip: "needs openssl, which is not installed" } : needs("own kafka");

/** A key and a certificate that signs itself, for the broker and its clients alike. */
async function certificate(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "millrace-tls-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [key, cert, both] = ["key.pem", "cert.pem", "both.pem"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
  await run(openssl!, [...request, ...subject, "-keyout", key, "-out", cert]);
  writeFileSync(both, readFileSync(key, "utf8") + readFileSync(cert, "utf8"));
  return { files: { cert, both }, key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}

/** The code of the error that a client with these options ends with; undefined when it gets through. */
async function outcome(t: TestContext, topic: string, options: KafkaOptions): Promise<string | undefined> {
  const client = wireDriver.connect(kafkaSettings(options), realContext());
  t.after(() => client.close(systemClock.now() + 2_000));
  try {
    assert.equal((await client.describe([topic])).get(topic)?.partitions, 1);
    await client.offsets(topic);
    return undefined;
  } catch (error) {
    assert.doesNotMatch(String(error), /cAnArY/);
    return (error as { code: string }).code;
  }
}

test("seed 001.5: TLS with a password: every mechanism, and what is wrong is told from what is away", {
  ...needed,
  timeout: 120_000,
}, async (t) => {
  const { files, cert: ca } = await certificate(t);
  const [username, password] = ["etl", "cAnArY-right"];
  const kafka = await ownKafka(t, {
    sasl: { username, password },
    tls: { keystore: files.both },
  });
  const topic = await kafka.createTopic(freshName("secured"), { partitions: 1 });
  const brokers = kafka.securedBootstrap!;
  for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"] as const) {
    const sasl = { mechanism, username, password: secret(password) };
    assert.equal(await outcome(t, topic, { brokers, tls: { ca }, sasl }), undefined, mechanism);
    const wrong = { ...sasl, password: secret("cAnArY-wrong") };
    assert.equal(await outcome(t, topic, { brokers, tls: { ca }, sasl: wrong }), "access", mechanism);
  }
  const sasl = { mechanism: "plain", username, password } as const;
  assert.equal(await outcome(t, topic, { brokers, tls: { insecureSkipVerify: true }, sasl }), undefined);
  // A certificate that is not trusted, a name that it does not have, no TLS at all.
  assert.equal(await outcome(t, topic, { brokers, tls: true, sasl }), "retry");
  assert.equal(await outcome(t, topic, { brokers, tls: { ca, servername: "elsewhere" }, sasl }), "retry");
  assert.equal(await outcome(t, topic, { brokers, sasl, connectTimeout: "1s" }), "retry");
});

/** A token that nobody has signed, good for so many seconds. */
function token(seconds: number): string {
  const now = Math.floor(systemClock.wall() / 1_000);
  const parts = [{ alg: "none" }, { sub: "etl", iat: now - 60, exp: now + seconds }];
  return `${parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".")}.`;
}

test("a login that the broker wants renewed, while requests are under way; with a password, and with tokens", {
  ...needs("own kafka"),
  timeout: 120_000,
}, async (t) => {
  const [username, password] = ["etl", "cAnArY-right"];
  const kafka = await ownKafka(t, {
    sasl: { username, password },
    // A fifth of it is left for a busy machine when the driver lets go of a connection.
    properties: { "connections.max.reauth.ms": "4000" },
  });
  const topic = await kafka.createTopic(freshName("renewed"), { partitions: 1 });
  const brokers = kafka.securedBootstrap!;
  let asked = 0;
  const giver = async () => {
    asked++;
    return secret(token(3_600));
  };
  for (const sasl of [
    { mechanism: "scram-sha-256", username, password },
    { mechanism: "oauthbearer", token: giver },
  ] as const) {
    const client = wireDriver.connect(kafkaSettings({ brokers, sasl }), realContext());
    t.after(() => client.close(systemClock.now() + 2_000));
    const recorder = new Recorder();
    const group = freshName("group");
    await booksLoaded(kafka.bootstrap, group, topic);
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
      recorder,
    );
    const producer = await client.producer();
    const end = systemClock.now() + 7_500;
    let sent = 0;
    await until("the login was renewed twice", async () => {
      const { error } = await produce(producer, topic, 0, [`${sasl.mechanism} ${sent}`]);
      assert.equal(error, undefined);
      sent++;
      return systemClock.now() > end;
    });
    await until(
      "all are read",
      () => recorder.values.filter((value) => value.startsWith(sasl.mechanism)).length === sent,
    );
    assert.deepEqual(recorder.troubles, []);
    assert.deepEqual(recorder.violations, []);
  }
  assert.ok(asked > 4, `four connections, and their logins renewed: ${asked} tokens`);

  assert.equal(
    await outcome(t, topic, { brokers, sasl: { mechanism: "oauthbearer", token: token(3_600) } }),
    undefined,
  );
  for (const bad of [token(-10), "cAnArY"]) {
    assert.equal(
      await outcome(t, topic, { brokers, sasl: { mechanism: "oauthbearer", token: bad } }),
      "access",
    );
  }
  const away = () => Promise.reject(new Error("nobody gives tokens at the moment"));
  assert.equal(
    await outcome(t, topic, { brokers, sasl: { mechanism: "oauthbearer", token: away } }),
    "retry",
  );
});

test("TLS on both sides: the client's certificate is asked for", {
  ...needed,
  timeout: 120_000,
}, async (t) => {
  const { files, cert, key } = await certificate(t);
  const kafka = await ownKafka(t, { tls: { keystore: files.both, clients: files.cert } });
  const topic = await kafka.createTopic(freshName("mutual"), { partitions: 1 });
  const brokers = kafka.securedBootstrap!;
  assert.equal(await outcome(t, topic, { brokers, tls: { ca: cert, cert, key } }), undefined);
  assert.notEqual(await outcome(t, topic, { brokers, tls: { ca: cert } }), undefined);
});
