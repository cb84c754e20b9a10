import assert from "node:assert/strict";
import { test } from "node:test";
import type { CreditOptions } from "../../component/source.ts";
import { PlainRecords } from "../../message/records.ts";
import { testContext } from "../../testing/context.ts";
import { SourceBed } from "../../testing/session-bed.ts";
import {
  DriverError,
  type KafkaClient,
  type PartitionOffsets,
  type SubscriptionListener,
  type TopicPartition,
} from "./driver.ts";
import type { KafkaSourceOptions } from "./options.ts";
import { openKafkaSource } from "./source.ts";

const zero: TopicPartition = { topic: "in", partition: 0 };
const one: TopicPartition = { topic: "in", partition: 1 };
const named = ({ topic, partition }: TopicPartition) => `${topic}/${partition}`;

const twoAtATime = { messages: 2, chunk: 2 };

/** A client that does what the test says: the test is the broker, and the driver. */
class ScriptedClient implements KafkaClient {
  listener!: SubscriptionListener;
  readonly asked: string[] = [];
  readonly commits: { offsets: string; resolve: () => void; reject: (error: Error) => void }[] = [];
  log: readonly PartitionOffsets[] = [
    { partition: 0, earliest: 0, latest: 100 },
    { partition: 1, earliest: 0, latest: 0 },
  ];
  commitsOfGroup = new Map<number, number>();

  async describe(topics: readonly string[]) {
    return new Map(topics.map((topic) => [topic, { partitions: 2, maxMessageBytes: 1_000_000 }]));
  }
  async create() {}
  async offsets() {
    return this.log;
  }
  async committed() {
    return this.commitsOfGroup;
  }
  async producer(): Promise<never> {
    throw new Error("a source does not produce");
  }
  async close() {}
  async subscribe(_options: unknown, listener: SubscriptionListener) {
    this.listener = listener;
    return {
      pause: (partitions: readonly TopicPartition[]) =>
        void this.asked.push(`pause ${partitions.map(named)}`),
      resume: (partitions: readonly TopicPartition[]) =>
        void this.asked.push(`resume ${partitions.map(named)}`),
      commit: (offsets: readonly (TopicPartition & { offset: number })[]) =>
        new Promise<void>((resolve, reject) => {
          const text = offsets.map((offset) => `${named(offset)}@${offset.offset}`).join(" ");
          this.commits.push({ offsets: text, resolve, reject });
        }),
      close: async () => {},
    };
  }

  /** Records of partition 0 at these offsets. */
  give(...positions: number[]): void {
    const records = new PlainRecords(
      positions.map((position) => ({
        position,
        key: null,
        value: Buffer.from(String(position)),
        headers: [],
        timestamp: 0,
      })),
    );
    this.listener.records(zero, records, positions.at(-1)! + 1);
  }
}

async function open(
  options: Partial<KafkaSourceOptions> = {},
  credit: Partial<CreditOptions> = {},
  assigned = [zero, one],
) {
  const context = testContext();
  const client = new ScriptedClient();
  const bed = new SourceBed(context, { messages: 100, bytes: 1e6, span: 400, chunk: 10, ...credit });
  const given = { topics: ["in"], group: "g", commitInterval: 1_000, ...options };
  const session = await openKafkaSource(bed.context, client, "here:9092", given, false);
  const run = (ms: number) => context.clock.run(ms);
  client.listener.assigned(assigned, assigned);
  await run(0);
  return { context, client, bed, session, run };
}

test("a partition that is revoked ends at once: its messages are returned and what they become settles nothing", async () => {
  const { client, bed, run } = await open();
  client.give(0, 1, 2);
  bed.settle(0, 1);
  const revoked = client.listener.revoking([zero]);
  assert.deepEqual(
    bed.controls.map((control) => control.kind === "revoke" && control.lane.name),
    ["in/0"],
  );
  assert.equal(bed.intake.credit.conservation().returned, 2);
  assert.deepEqual(
    client.commits.map(({ offsets }) => offsets),
    ["in/0@1"],
    "what was settled by then, under the epoch that ends",
  );
  client.commits[0]!.resolve();
  await revoked;
  bed.settle();
  client.give(3);
  await run(5_000);
  assert.equal(client.commits.length, 1);
  assert.equal(bed.payloads.length, 3, "nor does more of it come in");
});

test("a partition that is assigned anew has a new lane, one that is kept goes on with its own", async () => {
  const { client, bed, run } = await open();
  client.give(0, 1);
  const [before] = bed.intake.lanes;
  client.listener.assigned([zero, one], []);
  assert.equal(bed.intake.lanes[0], before);
  client.listener.assigned([zero, one], [zero]);
  const after = bed.intake.lanes.find(({ name }) => name === "in/0")!;
  assert.notEqual(after, before);
  assert.ok(before!.ended && after.epoch > before!.epoch);
  bed.settle();
  await run(5_000);
  assert.deepEqual(client.commits, [], "nothing of the new epoch is settled");
  client.listener.assigned([one], []);
  assert.ok(after.ended, "nor is what is not assigned any longer");
});

test("one commit is out at a time, and the next has all that settled meanwhile", async () => {
  const { client, bed, session, run } = await open();
  client.give(0, 1, 2, 3);
  bed.settle(0, 1);
  await run(1_000);
  bed.settle(0, 1);
  const asked = session.commit();
  await run(3_000);
  bed.settle(0, 1);
  assert.deepEqual(
    client.commits.map(({ offsets }) => offsets),
    ["in/0@1"],
  );
  client.commits[0]!.resolve();
  await run(0);
  assert.equal(client.commits[1]!.offsets, "in/0@3");
  client.commits[1]!.resolve();
  await run(0);
  await asked;
  await run(5_000);
  assert.equal(client.commits.length, 2, "and nothing is committed twice");
});

test("a commit that failed is made again for as long as its partition is ours", async () => {
  const { client, bed, run } = await open();
  client.give(0);
  bed.settle();
  await run(1_000);
  client.commits[0]!.reject(new DriverError("retry", "the connection was lost"));
  await run(1_000);
  assert.equal(client.commits[1]!.offsets, "in/0@1");
  client.commits[1]!.reject(new DriverError("fenced", "the generation has passed"));
  await run(1_000);
  assert.equal(client.commits[2]!.offsets, "in/0@1", "it may be a rebalance in which it keeps its partition");
  client.listener.revoking([zero, one]);
  assert.equal(client.commits.length, 4, "a last time, under the epoch that is ending");
  for (const { reject } of client.commits.slice(2))
    reject(new DriverError("fenced", "the generation has passed"));
  await run(10_000);
  assert.equal(client.commits.length, 4);
});

test("offsets that nobody sees are passed once everything before them was taken in and settled", async () => {
  const { client, bed, run } = await open({}, twoAtATime, [zero]);
  client.give(0, 1, 2, 3);
  client.listener.passed(zero, 9);
  const [lane] = bed.intake.lanes;
  bed.settle(0, 2);
  assert.equal(lane!.checkpoint, 2, "two wait for credit");
  await run(0);
  bed.settle();
  assert.equal(lane!.checkpoint, 9);
  client.listener.passed(zero, 12);
  assert.equal(lane!.checkpoint, 12);
  await run(1_000);
  assert.equal(client.commits[0]!.offsets, "in/0@12");
});

test("what is given with a gap behind it passes the gap only when it is settled", async () => {
  const { client, bed } = await open({}, twoAtATime, [zero]);
  client.give(0, 1, 5);
  const [lane] = bed.intake.lanes;
  bed.settle(0, 2);
  assert.equal(lane!.checkpoint, 2);
});

test("a partition whose messages wait for credit is paused, once, and read on when they are taken in", async () => {
  const { client, bed, run } = await open({}, twoAtATime, [zero]);
  client.give(0, 1, 2);
  client.give(3);
  assert.deepEqual(client.asked, ["pause in/0"]);
  bed.settle();
  await run(0);
  assert.deepEqual(client.asked, ["pause in/0", "resume in/0"]);
});

test("what was to be read on from an offset that is gone is told, and begins anew or ends the run", async () => {
  for (const onOffsetOutOfRange of ["earliest", "fail"] as const) {
    const { context, client, bed, run } = await open({ onOffsetOutOfRange });
    client.give(3, 4);
    const [before] = bed.intake.lanes;
    client.listener.outOfRange(zero, 5);
    await run(0);
    assert.equal(context.counted.get("offsets_out_of_range_total"), 1);
    if (onOffsetOutOfRange === "fail") {
      assert.match(String(bed.failure), /in\/0: offset 5 is no longer in the log/);
      continue;
    }
    assert.equal(bed.failure, undefined);
    assert.equal(before!.ended, true, "what was under way belongs to the log that is gone");
    bed.forgetEnded();
    client.give(0, 1);
    bed.settle();
    await run(1_000);
    assert.equal(client.commits.at(-1)?.offsets, "in/0@2", "the new log has offsets of its own");
  }
});

test("a gap in the offsets alone is told to nobody", async () => {
  const { context, client, run } = await open();
  client.give(0);
  client.give(7);
  await run(0);
  assert.equal(context.counted.get("offsets_out_of_range_total"), undefined);
});

test("what has settled when a partition is revoked is committed, though an earlier commit is still out", async () => {
  const { client, bed, run } = await open();
  client.give(0, 1, 2, 3);
  bed.settle(0, 1);
  await run(1_000);
  assert.deepEqual(
    client.commits.map(({ offsets }) => offsets),
    ["in/0@1"],
  );
  bed.settle(0, 2);
  const revoked = client.listener.revoking([zero, one]);
  assert.deepEqual(
    client.commits.map(({ offsets }) => offsets),
    ["in/0@1", "in/0@3"],
  );
  for (const { resolve } of client.commits) resolve();
  await revoked;
});

test("an intake that is stopped from inside the pipeline passes nothing unseen", async () => {
  const { client, bed, session, run } = await open({}, { messages: 100, chunk: 2 });
  bed.intake.stream.subscribe(() => session.stopIntake());
  client.give(0, 1, 2, 3, 4, 5);
  bed.settle();
  const committing = session.commit();
  await run(0);
  client.commits[0]!.resolve();
  await committing;
  assert.deepEqual(
    client.commits.map(({ offsets }) => offsets),
    ["in/0@2"],
  );
});

test("it is at its end when every partition was read to its end, here or by another member of the group", async () => {
  const { client, bed, session, run } = await open({}, twoAtATime, [zero]);
  client.log = [
    { partition: 0, earliest: 0, latest: 4 },
    { partition: 1, earliest: 0, latest: 3 },
  ];
  assert.equal(await session.atEnd(), false, "nothing was read");
  client.give(0, 1, 2, 3);
  client.commitsOfGroup = new Map([[1, 3]]);
  assert.equal(await session.atEnd(), false, "two wait for credit");
  bed.settle();
  await run(0);
  assert.equal(await session.atEnd(), true);
  client.commitsOfGroup = new Map([[1, 2]]);
  assert.equal(await session.atEnd(), false, "the other partition has one more");
  client.commitsOfGroup = new Map();
  assert.equal(await session.atEnd(), false);
});
