/** XFM on two RabbitMQ instances and PostgreSQL, with its workers as processes of their own. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, type TestContext, test } from "node:test";
import pg from "pg";
import { needs, ownPostgres, sharedPostgres } from "../../test/brokers/index.ts";
import { until } from "../../test/brokers/until.ts";
import type { Millrace } from "../../test/millrace.ts";
import { toHl7v3 } from "./hl7v3.ts";
import { Lake } from "./lake.ts";
import { bundle, documents, Hand, type Worker, XfmBed } from "./xfm-bed.ts";

let bed: Promise<XfmBed> | undefined;
function sharedBed(): Promise<XfmBed> {
  bed ??= XfmBed.start();
  return bed;
}
after(async () => (await bed)?.stop());

const [imaging, , , allergies, invalid] = documents;
const digestOf = (text: string) => createHash("sha256").update(text).digest("hex");

/** As many documents, each another one, all under one document id. */
function variants(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) =>
    allergies.replace("<family>DCI</family>", `<family>DCI ${from + i}</family>`),
  );
}

function bundles(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => bundle.replace('"Gustavo', `"No ${from + i} Gustavo`));
}

async function rows(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

const count = async (url: string) => Number((await rows(url, "SELECT count(*) FROM document"))[0]!.count);

/** A pond and a lake for one test. */
async function databases(t: TestContext) {
  const postgres = await sharedPostgres();
  const [pond, lake] = [await postgres.freshDatabase(t), await postgres.freshDatabase(t)];
  return { pond, lake, env: { POND_URL: pond, LAKE_URL: lake } };
}

/** Declares what the workers declare, by letting each begin. */
async function declared(t: TestContext, xfm: XfmBed, env: NodeJS.ProcessEnv = {}): Promise<void> {
  const worker = xfm.worker(t, "ingester", env);
  await worker.logged("topology running");
  await worker.stop();
}

test("seed 004.1, 004.2, 004.3, 004.5: on two RabbitMQ instances and PostgreSQL, through kill -9 of each worker, every document is stored once", {
  ...needs("own rabbitmq", "postgres"),
  timeout: 240_000,
}, async (t) => {
  const xfm = await sharedBed();
  const { pond, lake, env } = await databases(t);
  await xfm.script("install.ts", ["4", "100"], {});
  // Killed in the middle it would be run again: that does no harm.
  await xfm.script("install.ts", ["4", "100"], {});
  const workers = new Map<Worker, Millrace>();
  for (const worker of ["ingester", "transformer", "loader"] as const)
    workers.set(worker, xfm.worker(t, worker, env));
  for (const worker of workers.values()) await worker.logged("topology running");
  const [gateway, messaging] = [await Hand.on(t, xfm.gatewayUrl), await Hand.on(t, xfm.messagingUrl)];
  const sent: string[] = [];
  for (const [round, victim] of (["ingester", "transformer", "loader"] as const).entries()) {
    const [cdar2, fhir] = [variants(round * 40, round * 40 + 40), bundles(round * 3, round * 3 + 3)];
    const before = await count(lake);
    await gateway.publish("ingress", "cdar2", cdar2);
    await gateway.publish("ingress", "fhir", fhir);
    await gateway.publish("ingress", "cdar2", [`${invalid}<!-- ${round} -->`]);
    sent.push(...cdar2, ...fhir.map((text) => toHl7v3(JSON.parse(text))));
    if (victim === "loader") await until("the loader is at work", async () => (await count(lake)) > before);
    assert.equal((await workers.get(victim)!.kill()).code, "SIGKILL");
    workers.set(victim, xfm.worker(t, victim, env));
  }
  await until("all is in the lake", async () => (await count(lake)) >= sent.length, 120_000);
  await until("what is wrong is refused", async () => (await messaging.depth("error")) >= 3);
  for (const worker of workers.values()) {
    const { code, stderr, stdout } = await worker.stop();
    assert.equal(code, 0, stderr);
    assert.match(stdout, /in flight +0/);
  }
  const expected = sent.map(digestOf).sort();
  for (const url of [pond, lake]) {
    const stored = await rows(url, "SELECT id, digest FROM document");
    assert.deepEqual(stored.map(({ digest }) => digest).sort(), expected, "each document once");
    assert.equal(new Set(stored.map(({ id }) => id)).size, sent.length, "each under an id of its own");
  }
  const [acts] = await rows(lake, "SELECT count(*) FROM act");
  assert.deepEqual(acts, (await rows(pond, "SELECT count(*) FROM act"))[0]);
  assert.deepEqual(await rows(pond, "SELECT * FROM pending_upload"), []);
  for (const queue of ["ingress-cdar2", "ingress-fhir"]) assert.equal(await gateway.depth(queue), 0);
  for (const queue of ["transform-rim", "load-sql", "dead-letter"])
    assert.equal(await messaging.depth(queue), 0);
  const refused = await messaging.take("error");
  assert.equal(new Set(refused.map(({ body }) => body)).size, 3);
  for (const { body, headers } of refused) {
    assert.ok(body.startsWith(invalid));
    assert.equal(headers["millrace-error-class"], "business");
  }

  // The range of the pond was used to some part; what is left goes back.
  const [own] = await rows(lake, "SELECT * FROM pond_range ORDER BY first");
  const used = (await rows(pond, "SELECT max(id) AS id FROM document WHERE id <= 100"))[0]!.id;
  assert.equal(Number(own!.first), 1);
  const said = await xfm.script("decommission.ts", [], env);
  const returned = [...said.matchAll(/returned (\d+) to (\d+)/g)].map(([, first, last]) => [
    Number(first),
    Number(last),
  ]);
  assert.equal(returned.length, 1);
  assert.ok(Number(used) > 0);
  assert.match(
    await xfm.script("decommission.ts", [], env),
    /^pond [-0-9a-f]+ is closed\n$/,
    "again: nothing is left to return",
  );
  const queued = (await messaging.take("pond-seq")).map(
    ({ body }) => JSON.parse(body) as { first: number; last: number },
  );
  assert.deepEqual(queued.at(-1), { first: returned[0]![0], last: returned[0]![1] });
  const [again] = await rows(lake, 'SELECT max("last") AS "last" FROM pond_range');
  assert.equal(Number(again!.last), returned[0]![0]! - 1, "the lake knows that it is nobody's");
  const late = xfm.worker(t, "loader", env);
  const { code, stderr } = await late.ended;
  assert.equal(code, 78, "a closed pond is used no more");
  assert.match(stderr, /decommissioned/);
});

test("seed 004.5: loaders that are killed while they take a range never get one together", {
  ...needs("own rabbitmq", "postgres"),
  timeout: 240_000,
}, async (t) => {
  const xfm = await sharedBed();
  const postgres = await sharedPostgres();
  const lake = await postgres.freshDatabase(t);
  await xfm.script("install.ts", ["8", "10"], {});
  const ponds = await Promise.all([1, 2, 3].map(() => postgres.freshDatabase(t)));
  await Promise.all(
    ponds.map(async (pond, i) => {
      const env = { POND_URL: pond, LAKE_URL: lake };
      // Somewhere between its first connection and its first range; the first one may have had time for that, and
      // then the second takes none.
      for (const seen of [/connected to RabbitMQ/, /took a range|topology running/]) {
        const killed = xfm.worker(t, "loader", env);
        await until("it has come so far", () => seen.test(killed.stderr));
        await killed.kill();
      }
      const loader = xfm.worker(t, "loader", env);
      await loader.logged("topology running");
      await loader.stop();
      const left = await rows(pond, "SELECT * FROM pond_sequence");
      assert.ok(left.length >= 1, `pond ${i} has a range`);
    }),
  );
  const given = await Promise.all(ponds.map((pond) => rows(pond, "SELECT first FROM pond_sequence")));
  const firsts = given.flat().map(({ first }) => Number(first));
  assert.equal(new Set(firsts).size, firsts.length, `one range in two ponds: ${firsts}`);
  const noted = await rows(lake, "SELECT first, pond FROM pond_range");
  assert.deepEqual(
    noted.map(({ first }) => Number(first)).sort((a, b) => a - b),
    firsts.sort((a, b) => a - b),
  );
  const messaging = await Hand.on(t, xfm.messagingUrl);
  await messaging.purge("pond-seq");
});

test("loaders that start at once on an empty lake all find its tables", {
  ...needs("postgres"),
  timeout: 120_000,
}, async (t) => {
  const lake = await (await sharedPostgres()).freshDatabase(t);
  const opened = await Promise.all(Array.from({ length: 8 }, () => Lake.open(lake)));
  await Promise.all(opened.map((one) => one.close()));
});

test("seed 004.10: a messaging broker and a database that die are waited for, and everything arrives", {
  ...needs("own rabbitmq", "own postgres"),
  timeout: 240_000,
}, async (t) => {
  const xfm = await sharedBed();
  const postgres = await ownPostgres(t);
  const [pond, lake] = ["pond", "lake"].map((name) => postgres.url.replace(/[^/]*$/, name)) as [
    string,
    string,
  ];
  for (const name of ["pond", "lake"]) await postgres.query(`CREATE DATABASE ${name}`);
  await xfm.script("install.ts", ["2", "100"], {});
  const kinds = ["ingester", "transformer", "loader"] as const;
  const workers = kinds.map((worker) => xfm.worker(t, worker, { POND_URL: pond, LAKE_URL: lake }));
  for (const worker of workers) await worker.logged("topology running");
  const gateway = await Hand.on(t, xfm.gatewayUrl);
  await gateway.publish("ingress", "cdar2", variants(0, 20));
  await xfm.messaging.kill();
  for (const worker of workers) await worker.logged("cannot connect");
  await gateway.publish("ingress", "cdar2", variants(20, 40));
  await xfm.messaging.restart();
  await until("all is in the lake", async () => (await count(lake)) === 40, 120_000);
  await postgres.kill();
  await gateway.publish("ingress", "cdar2", variants(40, 60));
  await workers[2]!.logged("cannot write, trying again");
  await postgres.restart();
  await until("the rest is in the lake", async () => (await count(lake)) === 60, 120_000);
  assert.equal(await count(pond), 60);
  const messaging = await Hand.on(t, xfm.messagingUrl);
  // A killed broker may have forgotten an acknowledgement: the range that was taken is there again, and the lake knows.
  assert.ok((await messaging.depth("pond-seq")) >= 1, "the queue and what is in it survive");
  assert.equal((await messaging.depth("error")) + (await messaging.depth("dead-letter")), 0);
  for (const worker of workers) assert.equal((await worker.stop()).code, 0);
  await messaging.purge("pond-seq");
});

test("seed 004.9: out of memory ends the transformer, and the broker gives its document out again", {
  ...needs("own rabbitmq"),
  timeout: 240_000,
}, async (t) => {
  const xfm = await sharedBed();
  await declared(t, xfm);
  const messaging = await Hand.on(t, xfm.messagingUrl);
  // A document within all limits, and too much for a process that is given next to nothing.
  const large = imaging.replace("</section>", `${"<act/>".repeat(300_000)}</section>`);
  await messaging.publish("transform", "hl7v3", [large]);
  const { code, stderr } = await xfm.worker(t, "transformer", {}, ["--max-old-space-size=48"]).ended;
  assert.ok(code === "SIGABRT" || code === 134, `ended with ${code}`);
  assert.match(stderr, /heap out of memory/);
  await until("the broker has it back", async () => (await messaging.depth("transform-rim")) === 1);
  assert.equal(await messaging.depth("load-sql"), 0);
  const roomy = xfm.worker(t, "transformer");
  await until("it is transformed", async () => (await messaging.depth("load-sql")) === 1);
  assert.equal((await roomy.stop()).code, 0);
  assert.equal(await messaging.depth("transform-rim"), 0);
  await messaging.purge("load-sql");
});

test("seed 004.6: one instance at its watermark is a deadlock, and named; two with a gate go on", {
  ...needs("own rabbitmq"),
  timeout: 240_000,
}, async (t) => {
  const xfm = await sharedBed();
  // Many more than come between two looks, on whatever machine: the gate closes long before all are through.
  const [oneInstance, closeAt, all] = [{ MESSAGING_URL: xfm.sameInstanceUrl }, 60, 1_000];
  await declared(t, xfm, oneInstance);
  const gateway = await Hand.on(t, xfm.gatewayUrl);
  const same = await Hand.on(t, xfm.sameInstanceUrl);
  const messaging = await Hand.on(t, xfm.messagingUrl);
  await gateway.publish("ingress", "cdar2", variants(0, all));
  await xfm.gateway.ctl("set_vm_memory_high_watermark", "absolute", "1MB");

  // On one instance nothing moves any more, and it is said why.
  const stuck = xfm.worker(t, "ingester", oneInstance);
  await stuck.logged("watermark deadlock");
  const { sinks, conservation } = await stuck.status();
  assert.match(
    sinks[0]?.reason ?? "",
    /^watermark deadlock: an alarm \(.+\) keeps 127\.0\.0\.1:\d+ from taking messages/,
  );
  assert.equal(conservation.delivered, 0);
  assert.equal(await same.depth("transform-rim"), 0);
  await stuck.kill();
  await until("what it held is back", async () => (await gateway.depth("ingress-cdar2")) === all);

  // On two the same alarm keeps nobody but the sources from publishing. The gate does the rest.
  const settings = { XFM_CLOSE_AT: String(closeAt), XFM_LOOK_EVERY: "10ms" };
  const ingester = xfm.worker(t, "ingester", settings);
  await ingester.logged("the gate closes");
  // It stops within one look: what is in flight still goes.
  let depth = 0;
  await until("no more comes", async () => {
    const before = depth;
    depth = await messaging.depth("transform-rim");
    return depth > 0 && depth === before && (await ingester.status()).conservation.inFlight === 0;
  });
  t.diagnostic(`closed at ${closeAt}, and ${depth} came`);
  assert.ok(depth >= closeAt && depth < all, `${depth} in the queue`);
  assert.match(
    (await ingester.status()).sources[0]?.reason ?? "",
    /the gate is closed: queue "transform-rim"/,
  );
  const transformer = xfm.worker(t, "transformer");
  await until("all is transformed", async () => {
    // In the place of loaders, which this needs none of.
    if ((await messaging.depth("load-sql")) >= closeAt / 2) await messaging.purge("load-sql");
    return (
      (await gateway.depth("ingress-cdar2")) === 0 && (await ingester.status()).conservation.delivered === all
    );
  });
  await until(
    "nothing is left over",
    async () => (await transformer.status()).conservation.delivered === all,
  );
  for (const worker of [ingester, transformer]) assert.equal((await worker.stop()).code, 0);
  await messaging.purge("load-sql");
});
