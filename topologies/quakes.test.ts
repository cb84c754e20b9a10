import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { freshName, needs, sharedKafka } from "../test/brokers/index.ts";
import { fill, readTopic } from "../test/kafka-log.ts";
import { dumped, freshFolder, runMillrace } from "../test/millrace.ts";
import { simulatedRun } from "../test/simulated-run.ts";
import { withNames } from "../test/topology-copy.ts";

const input = new URL("data/usgs_quake_polls.ndjson", import.meta.url).pathname;
const truth = JSON.parse(
  readFileSync(new URL("data/usgs_quake_polls.truth.json", import.meta.url), "utf8"),
) as { lines: number; distinct_id: number; distinct_id_updated: number; latest_per_id_sha256: string };
const topology = new URL("quakes.ts", import.meta.url).pathname;

interface Quake {
  readonly id: string;
  readonly updated: number;
}

function firstPoll(): string {
  return readFileSync(input, "utf8").split("\n", 1)[0]!;
}

/** The versions that came out are the ones that went in, each once, under their quake's key. */
function assertVersions(records: readonly { key: string | null; value: string | null }[]): void {
  const quakes = records.map(({ key, value }) => {
    const quake = JSON.parse(value ?? "") as Quake;
    assert.equal(key, quake.id);
    return quake;
  });
  assert.equal(quakes.length, truth.distinct_id_updated);
  assert.equal(new Set(quakes.map(({ id, updated }) => `${id} ${updated}`)).size, truth.distinct_id_updated);
  const latest = new Map<string, number>();
  for (const { id, updated } of quakes) latest.set(id, Math.max(updated, latest.get(id) ?? 0));
  assert.equal(latest.size, truth.distinct_id);
  const lines = [...latest].map(([id, updated]) => `${id}\t${updated}`).sort();
  assert.equal(createHash("sha256").update(lines.join("\n")).digest("hex"), truth.latest_per_id_sha256);
}

test("on the embedded broker: every version once, and the conservation table at the end", async (t) => {
  const out = freshFolder(t);
  const args = ["--embedded", "--feed", `quakes.polls=${input}`, "--until-idle", "--dump", out];
  const { code, stdout, stderr } = await runMillrace(t, ["run", topology, ...args]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 5473 = delivered 564 \+ duplicate 4909\s*$/);
  assertVersions((await dumped(out, "quakes.versions")) as { key: string; value: string }[]);
  assert.equal((await dumped(out, "quakes.polls")).length, truth.lines);
  assert.deepEqual(await dumped(out, "quakes.dead"), []);
});

test("bad lines among the polls go to the dead letters with the reason, and the rest goes on", async (t) => {
  const folder = freshFolder(t);
  const { writeFileSync } = await import("node:fs");
  const good = '{"id":"a1","updated":1,"time":1,"mag":0,"place":"Pāhala","coordinates":[0,0,-2.4]}';
  const bad = ['{"id":"a2","updated":', '{"id":"","updated":1}', '{"id":"a3","updated":"soon"}'];
  writeFileSync(`${folder}/in.ndjson`, [good, ...bad, good.replace('"updated":1', '"updated":2')].join("\n"));
  const args = ["--embedded", "--feed", `quakes.polls=${folder}/in.ndjson`, "--until-idle", "--dump", folder];
  const { code, stdout, stderr } = await runMillrace(t, ["run", topology, ...args]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 5 = delivered 2 \+ deadLettered 3/);
  assert.equal((await dumped(folder, "quakes.versions")).length, 2);
  const dead = await dumped(folder, "quakes.dead");
  assert.deepEqual(dead.map(({ value }) => value).sort(), [...bad].sort());
  for (const { headers, value } of dead) {
    const named = Object.fromEntries(headers) as Record<string, string>;
    assert.equal(named["millrace-error-class"], "business");
    assert.equal(named["millrace-error-code"], value === bad[0] ? "json-invalid" : "schema-violation");
    assert.equal(named["millrace-error-target"], "quakes.polls");
  }
});

test("what comes within 50 ms is written as one batch, compressed with zstd", async (t) => {
  const topics = ["quakes.polls", "quakes.versions", "quakes.dead"].map((topic) => ({ topic }));
  const run = await simulatedRun(t, topology, topics);
  const sent = [1, 2, 3, 4, 5].map((updated) => JSON.stringify({ ...JSON.parse(firstPoll()), updated }));
  for (const poll of sent) await run.send("quakes.polls", poll, 5);
  await run.pass(100);
  assert.deepEqual(run.batchesOf("quakes.versions"), [
    { topic: "quakes.versions", codec: "zstd", values: sent },
  ]);
});

test("the same file on a real Kafka with 4 partitions", needs("kafka"), async (t) => {
  const kafka = await sharedKafka();
  const names = withNames(t, topology, ["quakes.polls", "quakes.versions", "quakes.dead"], freshName("q"));
  const env = { KAFKA_BROKERS: kafka.bootstrap };
  for (const topic of Object.values(names.topics)) await kafka.createTopic(topic);
  const lines = readFileSync(input, "utf8").trim().split("\n");
  await fill(
    kafka.bootstrap,
    names.topics["quakes.polls"]!,
    lines.map((value, i) => ({ value, partition: i % 4 })),
  );
  const { code, stdout, stderr } = await runMillrace(t, ["run", names.file, "--until-idle"], env);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 5473 = delivered 564 \+ duplicate 4909/);
  assertVersions(await readTopic(kafka.bootstrap, names.topics["quakes.versions"]!));
  assert.deepEqual(await readTopic(kafka.bootstrap, names.topics["quakes.dead"]!), []);
});
