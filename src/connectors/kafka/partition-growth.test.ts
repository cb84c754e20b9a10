/** A topic gains partitions while a topology runs: what each policy does, at the source and at the sink. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { testContext } from "../../testing/context.ts";
import { SinkBed, SourceBed } from "../../testing/session-bed.ts";
import { EmbeddedKafka, embeddedDriver } from "./drivers/embedded/index.ts";
import { type KafkaSinkOptions, type KafkaSourceOptions, kafkaCredit, kafkaSettings } from "./options.ts";
import { murmur2Partition } from "./partitioner.ts";
import { openKafkaSink } from "./sink.ts";
import { openKafkaSource } from "./source.ts";

const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`);
const fed = (round: number) => keys.map((key) => ({ key: Buffer.from(key), value: Buffer.from(`${round}`) }));

function setup() {
  const context = testContext();
  const cluster = new EmbeddedKafka(context.clock);
  cluster.create([{ topic: "t", partitions: 2 }]);
  const client = embeddedDriver(cluster).connect(kafkaSettings({ brokers: "here:9092" }), context);
  const grow = async () => {
    cluster.faults.growPartitions("t", 5);
    await context.clock.run(40_000);
  };
  return { context, cluster, client, grow };
}

async function openSink(options: Partial<KafkaSinkOptions> = {}) {
  const { context, cluster, client, grow } = setup();
  const opening = openKafkaSink(context, client, "here:9092", { topic: "t", ...options });
  await context.clock.run(10);
  const session = await opening;
  const bed = new SinkBed(context, session);
  const write = async (round: number) => {
    const written = bed.write(keys.map((key) => ({ key: Buffer.from(key), value: String(round) })));
    await context.clock.run(1_000);
    return written;
  };
  /** Where the messages of a round went, by key. */
  const placed = (round: number) =>
    new Map(
      [...cluster.contents("t")]
        .filter(({ value }) => String(value) === String(round))
        .map(({ key, partition }) => [String(key), partition]),
    );
  return { context, session, write, placed, grow };
}

const among = (partitions: number) =>
  new Map(keys.map((key) => [key, murmur2Partition(Buffer.from(key), partitions)]));

test("a sink keeps its keys where they are unless told otherwise, and says that there are more partitions", async () => {
  const { context, session, write, placed, grow } = await openSink();
  await write(1);
  assert.equal(session.status().notes, undefined);
  await grow();
  await write(2);
  const sorted = (map: Map<string, number>) => [...map].sort();
  assert.deepEqual(sorted(placed(1)), sorted(among(2)));
  assert.deepEqual(sorted(placed(2)), sorted(among(2)));
  assert.equal(session.status().ready, true);
  assert.match(session.status().notes![0]!, /"t" has 5 partitions instead of 2: keys stay in the first 2/);
  assert.equal(context.logged.filter((line) => line.includes("keys stay in the first 2")).length, 1);
  assert.equal(context.counted.get("partition_growths_total"), 1);
});

test("accept: keys go to all partitions from the growth on, as any other client's do", async () => {
  const { session, write, placed, grow } = await openSink({ onPartitionGrowth: "accept" });
  await write(1);
  await grow();
  await write(2);
  assert.deepEqual([...placed(2)].sort(), [...among(5)].sort());
  assert.ok(
    [...among(5).values()].some((partition) => partition >= 2),
    "some moved",
  );
  assert.match(session.status().notes![0]!, /keys go to all of them/);
});

test("fail: nothing is written once the topic has grown, and the run is told why", async () => {
  const { session, write, placed, grow } = await openSink({ onPartitionGrowth: "fail" });
  await write(1);
  await grow();
  assert.equal(session.status().ready, false);
  const written = await write(2);
  assert.ok(written.every(({ failure }) => /"t" has 5 partitions instead of 2/.test(String(failure))));
  assert.ok(written.every(({ outcomes }) => outcomes.every((outcome) => outcome === "inFlight")));
  assert.deepEqual(placed(2), new Map());
});

test("metadataAge says how soon it is noticed", async () => {
  const { context, session, grow } = await openSink({ metadataAge: "10m" });
  await grow();
  assert.equal(session.status().notes, undefined);
  await context.clock.run(600_000);
  assert.equal(session.status().notes?.length, 1);
});

async function openSource(options: Partial<KafkaSourceOptions> = {}) {
  const { context, cluster, client, grow } = setup();
  const given = { topics: ["t"], group: "g", ...options };
  const bed = new SourceBed(context, kafkaCredit(given));
  const opening = openKafkaSource(bed.context, client, "here:9092", given, false);
  await context.clock.run(100);
  const session = await opening;
  return { context, cluster, bed, session, grow };
}

test("a source reads new partitions from their beginning, and says what that does to keys", async () => {
  const { context, cluster, bed, session, grow } = await openSource();
  cluster.feed("t", fed(1));
  await context.clock.run(1_000);
  bed.settle();
  await context.clock.run(2_000);
  await grow();
  cluster.feed("t", fed(2));
  await context.clock.run(2_000);
  assert.equal(bed.payloads.length, 40);
  assert.equal(session.status().ready, true);
  assert.match(
    session.status().notes![0]!,
    /"t" has 5 partitions instead of 2: .*dedup by lane hold from here on/,
  );
  assert.equal(bed.failure, undefined);
});

test("fail: a source whose topic has grown ends the run, and what to do is said", async () => {
  const { bed, grow } = await openSource({ onPartitionGrowth: "fail" });
  await grow();
  assert.match(String(bed.failure), /"t" has 5 partitions instead of 2/);
});

test("a source or sink that is closed looks no more", async () => {
  const { context, session } = await openSink();
  const source = await openSource();
  for (const [clock, one] of [
    [context.clock, session],
    [source.context.clock, source.session],
  ] as const) {
    const closing = one.close(clock.now() + 1_000);
    await clock.run(60_000);
    await closing;
    assert.equal(clock.pending, 0);
  }
});
