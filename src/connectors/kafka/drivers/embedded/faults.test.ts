import assert from "node:assert/strict";
import { type TestContext as NodeTestContext, test } from "node:test";
import { type TestContext, testContext } from "../../../../testing/context.ts";
import { DriverError, type KafkaClient, type ProduceResult, type Producer } from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { batchOf, Recorder } from "../conformance.ts";
import type { RebalanceManner } from "./group.ts";
import { EmbeddedKafka, embeddedDriver } from "./index.ts";

const heartbeat = 1_000;
const session = 10_000;

/** A cluster under virtual time with the topic `t` of two partitions, and the means to use it. */
class Bed {
  readonly context: TestContext = testContext();
  readonly cluster = new EmbeddedKafka(this.context.clock);
  readonly faults = this.cluster.faults;
  readonly manner: RebalanceManner;

  constructor(manner: RebalanceManner = "eager") {
    this.manner = manner;
    this.cluster.create([{ topic: "t", partitions: 2 }]);
  }

  client(node = "test"): KafkaClient {
    const settings = kafkaSettings({ brokers: "embedded:9092", requestTimeout: 5_000 });
    return embeddedDriver(this.cluster, { rebalance: this.manner }).connect(settings, {
      ...this.context,
      node,
    });
  }

  run(ms: number): Promise<void> {
    return this.context.clock.run(ms);
  }

  async after<T>(promise: Promise<T>, ms = 50): Promise<T> {
    promise.catch(() => {});
    await this.run(ms);
    return Promise.race([promise, Promise.reject(new Error(`not settled after ${ms} ms`))]);
  }

  async member(node = "test", recorder = new Recorder(), topics = ["t"]): Promise<Member> {
    const options = {
      group: "g",
      topics,
      sessionTimeout: session,
      rebalanceTimeout: 30_000,
      heartbeatInterval: heartbeat,
      maxBytesPerPartition: 1_000,
      maxWait: 100,
      metadataAge: 30_000,
    };
    recorder.subscription = await this.after(this.client(node).subscribe(options, recorder));
    return recorder as Member;
  }

  feed(partition: number, ...values: string[]): void {
    this.cluster.feed(
      "t",
      values.map((value) => ({ value: Buffer.from(value), partition })),
    );
  }

  stored(partition: number): string[] {
    return [...this.cluster.contents("t")]
      .filter((message) => message.partition === partition)
      .map((message) => message.value!.toString());
  }
}

type Member = Recorder & { readonly subscription: NonNullable<Recorder["subscription"]> };

async function send(producer: Producer, ...batches: [partition: number, value: string][]) {
  const encoded = batches.map(([partition, value]) =>
    producer.encode({ topic: "t", partition }, batchOf([{ value }]), 0, 1),
  );
  return producer.send(await Promise.all(encoded));
}

/** Offset by partition, or the code of the error. */
function outcome(results: readonly ProduceResult[]): [number, number | string | undefined][] {
  return results.map(({ partition, offset, error }) => [partition, error?.code ?? offset]);
}

function rejectsWith(code: string) {
  return (error: unknown) => error instanceof DriverError && error.code === code;
}

test("a dropped request does nothing, a dropped response leaves it done; the client cannot tell them apart", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  bed.faults.dropRequest("produce");
  await assert.rejects(bed.after(send(producer, [0, "a"])), rejectsWith("retry"));
  assert.deepEqual(bed.stored(0), []);
  bed.faults.dropResponse("produce");
  await assert.rejects(bed.after(send(producer, [0, "b"])), rejectsWith("retry"));
  assert.deepEqual(bed.stored(0), ["b"]);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "b"]))), [[0, 1]]);
});

test("a request fails with a code as often as asked for, and is then served again", async () => {
  const bed = new Bed();
  const client = bed.client();
  bed.faults.fail("metadata", "access", 2);
  for (let i = 0; i < 2; i++) await assert.rejects(bed.after(client.describe(["t"])), rejectsWith("access"));
  assert.equal((await bed.after(client.describe(["t"]))).get("t")?.partitions, 2);
});

test("a refused batch has its own error, and the others of the request are stored", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  bed.faults.refuse("invalid", 2, { partition: 1 });
  for (let i = 0; i < 2; i++) {
    const results = await bed.after(send(producer, [0, "a"], [1, "b"]));
    assert.deepEqual(outcome(results), [
      [0, i],
      [1, "invalid"],
    ]);
  }
  assert.deepEqual(outcome(await bed.after(send(producer, [1, "b"]))), [[1, 0]]);
});

test("an omitted batch is in no answer, whether it was stored or not", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  bed.faults.omit(false, 1, { partition: 0 });
  bed.faults.omit(true, 1, { partition: 1 });
  assert.deepEqual(await bed.after(send(producer, [0, "a"], [1, "b"])), []);
  assert.deepEqual([bed.stored(0), bed.stored(1)], [[], ["b"]]);
});

test("a partition whose leader moves refuses with retry and cannot be read meanwhile; others go on", async () => {
  const bed = new Bed();
  const member = await bed.member();
  const producer = await bed.client().producer();
  bed.faults.moveLeader("t", 0, 500);
  bed.feed(0, "hidden");
  bed.feed(1, "seen");
  const results = await bed.after(send(producer, [0, "a"], [1, "b"]));
  assert.deepEqual(outcome(results), [
    [0, "retry"],
    [1, 1],
  ]);
  assert.deepEqual(member.values, ["seen", "b"]);
  await bed.run(460);
  assert.deepEqual(member.values, ["seen", "b", "hidden"]);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "a"]))), [[0, 1]]);
});

test("a cut makes what is under way unknown, keeps connections closed, and is told as trouble until it is over", async () => {
  const bed = new Bed();
  const member = await bed.member();
  const client = bed.client();
  const producer = await client.producer();
  bed.faults.latency = 10;
  const under = send(producer, [0, "a"]);
  under.catch(() => {});
  // It has arrived, and its answer is on the way.
  await bed.run(15);
  assert.deepEqual(bed.stored(0), ["a"]);
  bed.faults.cut(2_000);
  await assert.rejects(bed.after(under, 1), rejectsWith("retry"));
  await assert.rejects(bed.after(send(producer, [0, "b"])), rejectsWith("retry"));
  await assert.rejects(bed.after(client.describe(["t"])), rejectsWith("retry"));
  await assert.rejects(bed.after(bed.client().describe(["t"])), rejectsWith("retry"));
  await bed.run(1_000);
  assert.equal(member.troubles.at(-1)?.code, "retry");
  assert.deepEqual(bed.stored(0), ["a"]);
  await bed.run(1_500);
  assert.equal(member.troubles.at(-1), undefined);
  assert.deepEqual(member.values, ["a"]);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "b"]))), [[0, 1]]);
  assert.equal(member.assignments.length, 1, "its session outlived the cut");
});

test("a cut of one client leaves the others alone; one that lasts beyond the session expels the member", async () => {
  const bed = new Bed();
  const [first, second] = [await bed.member("first"), await bed.member("second")];
  await bed.run(2 * heartbeat);
  assert.deepEqual([first.owned.length, second.owned.length], [1, 1]);
  bed.faults.cut(3 * session, "first");
  await bed.run(2 * session);
  assert.deepEqual(second.owned, ["t/0", "t/1"]);
  assert.equal(second.troubles.length, 0);
  bed.feed(0, "x");
  await bed.run(100);
  assert.deepEqual([first.values, second.values], [[], ["x"]]);
  await assert.rejects(
    bed.after(first.subscription.commit([{ topic: "t", partition: 0, offset: 1 }])),
    rejectsWith("retry"),
  );
  await bed.run(2 * session);
  assert.deepEqual([first.owned.length, second.owned.length], [1, 1], "it came back as a new member");
});

test("a killed client is never heard of again; its partitions move when its session has ended", async () => {
  const bed = new Bed();
  const [first, second] = [await bed.member("first"), await bed.member("second")];
  await bed.run(2 * heartbeat);
  const heard = first.assignments.length + first.revoked.length + first.received.length;
  const commit = first.subscription.commit([{ topic: "t", partition: 0, offset: 0 }]);
  let settled = false;
  commit.then(
    () => (settled = true),
    () => (settled = true),
  );
  bed.faults.kill("first");
  await bed.run(session - 2 * heartbeat);
  assert.equal(second.owned.length, 1);
  await bed.run(4 * heartbeat);
  assert.equal(second.owned.length, 2);
  assert.equal(first.assignments.length + first.revoked.length + first.received.length, heard);
  assert.equal(settled, false);
});

test("stalled produce is carried out at its release, in order, though the clients have given up by then", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  bed.faults.stall("t");
  const first = send(producer, [0, "a"]);
  first.catch(() => {});
  await bed.run(4_000);
  const second = send(await bed.client().producer(), [0, "b"]);
  await bed.run(1_500);
  await assert.rejects(first, rejectsWith("retry"));
  assert.deepEqual(bed.stored(0), []);
  bed.faults.release();
  assert.deepEqual(outcome(await bed.after(second)), [[0, 1]]);
  assert.deepEqual(bed.stored(0), ["a", "b"]);
});

test("a stall of one topic leaves others alone", async () => {
  const bed = new Bed();
  bed.faults.stall("other");
  assert.deepEqual(outcome(await bed.after(send(await bed.client().producer(), [0, "a"]))), [[0, 0]]);
});

test("the limit may change while the topic is in use", async () => {
  const bed = new Bed();
  const client = bed.client();
  const producer = await client.producer();
  bed.faults.limit("t", 1);
  assert.equal((await bed.after(client.describe(["t"]))).get("t")?.maxMessageBytes, 1);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "a"]))), [[0, "too-large"]]);
  bed.faults.limit("t", 1_000);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "a"]))), [[0, 0]]);
});

test("a forced rebalance makes an eager member start again from what is committed", async () => {
  const bed = new Bed();
  bed.feed(0, "a", "b", "c");
  const member = await bed.member();
  await bed.after(member.subscription.commit([{ topic: "t", partition: 0, offset: 1 }]));
  bed.faults.rebalance("g");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.values, ["a", "b", "c", "b", "c"]);
  assert.deepEqual(member.revoked, [["t/0", "t/1"]]);
  assert.equal(member.assignments.length, 2);
  assert.deepEqual(member.violations, []);
});

test("an eager member keeps its generation until it rejoins: commits count until then, and not after", async () => {
  const bed = new Bed();
  bed.feed(0, "a", "b", "c");
  const member = await bed.member();
  const commit = (offset: number) =>
    bed.after(member.subscription.commit([{ topic: "t", partition: 0, offset }]));
  bed.faults.rebalance("g");
  await commit(1);
  bed.faults.expireSession("g");
  await assert.rejects(commit(2), rejectsWith("fenced"));
  assert.equal(bed.cluster.group("g").committed("t").get(0), 1);
  await bed.run(2 * heartbeat);
  assert.equal(member.owned.length, 2);
  await commit(3);
  assert.equal(bed.cluster.group("g").committed("t").get(0), 3);
});

test("an incremental member keeps what it keeps through rebalances, and gives up the rest only when it is done", async () => {
  const bed = new Bed("incremental");
  bed.feed(0, "a0");
  bed.feed(1, "a1");
  const member = await bed.member();
  await bed.run(heartbeat);
  let release = () => {};
  member.onRevoking = () =>
    new Promise<void>((resolve) => {
      release = resolve;
    });
  const leave = bed.faults.join("g", ["t"], "incremental");
  await bed.run(3 * heartbeat);
  assert.deepEqual(member.revoked, [["t/1"]]);
  assert.deepEqual(
    [...bed.cluster.group("g").members.values()].map((owned) => owned.length),
    [0, 2],
  );
  release();
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.owned, ["t/0"]);
  assert.ok(bed.cluster.group("g").stable);
  bed.feed(0, "b0");
  bed.feed(1, "b1");
  await bed.run(heartbeat);
  leave();
  await bed.run(3 * heartbeat);
  assert.deepEqual(member.owned, ["t/0", "t/1"]);
  assert.deepEqual(
    member.assignments.map((assignment) => assignment.fresh),
    [["t/0", "t/1"], [], ["t/1"]],
  );
  assert.deepEqual([...member.values].sort(), ["a0", "a1", "a1", "b0", "b1"]);
  assert.deepEqual(member.violations, []);
});

test("an incremental member is given nothing more of what it is giving up", async () => {
  const bed = new Bed("incremental");
  const member = await bed.member();
  await bed.run(heartbeat);
  member.onRevoking = () => new Promise(() => {});
  bed.faults.join("g", ["t"], "incremental");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.revoked, [["t/1"]]);
  bed.feed(0, "kept");
  bed.feed(1, "lost");
  await bed.run(heartbeat);
  assert.deepEqual(member.values, ["kept"]);
});

test("an eager member does not wait for the listener to let go", async () => {
  const bed = new Bed();
  const member = await bed.member();
  member.onRevoking = () => new Promise(() => {});
  bed.faults.rebalance("g");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.owned, ["t/0", "t/1"]);
  assert.equal(member.assignments.length, 2);
});

test("what was fetched for an epoch that is over by now is dropped", async () => {
  const bed = new Bed();
  const member = await bed.member();
  bed.feed(0, "a");
  await bed.run(10);
  await bed.after(member.subscription.commit([{ topic: "t", partition: 0, offset: 0 }]));
  bed.faults.rebalance("g");
  // The heartbeat that learns of it is answered while a fetch of "b" is under way.
  await bed.run(heartbeat - bed.context.clock.now() - 50);
  bed.faults.latency = 100;
  await bed.run(149);
  bed.feed(0, "b");
  await bed.run(10);
  assert.equal(member.revoked.length, 0);
  await bed.run(150);
  assert.equal(member.revoked.length, 1);
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.values, ["a", "a", "b"]);
  assert.deepEqual(member.violations, []);
});

test("each fetch begins with another partition", async () => {
  const bed = new Bed();
  bed.cluster.create([{ topic: "three", partitions: 3 }]);
  const member = await bed.member("test", new Recorder(), ["three"]);
  const firsts = new Set<number>();
  for (let round = 0; round < 6; round++) {
    const from = member.received.length;
    const partitions = [0, 1, 2];
    bed.cluster.feed(
      "three",
      partitions.map((partition) => ({ value: Buffer.from("x"), partition })),
    );
    await bed.run(10);
    firsts.add(member.received[from]!.partition);
  }
  assert.equal(firsts.size, 3);
});

test("an incremental member that does not give up in time is expelled", async () => {
  const bed = new Bed("incremental");
  const member = await bed.member();
  await bed.run(heartbeat);
  member.onRevoking = () => new Promise(() => {});
  bed.faults.join("g", ["t"], "incremental");
  await bed.run(31_000 + heartbeat);
  assert.deepEqual([...bed.cluster.group("g").members.keys()], ["stand-in-1"]);
});

test("a group without some member's rejoin goes on without it after the rebalance time-out", async () => {
  const bed = new Bed("held");
  const first = await bed.member("first");
  first.onRevoking = () => new Promise(() => {});
  const second = await bed.member("second");
  await bed.run(29_000);
  assert.deepEqual(second.owned, []);
  await bed.run(3_000);
  assert.deepEqual(second.owned, ["t/0", "t/1"]);
});

test("members of one group must rebalance in one manner", async () => {
  const bed = new Bed();
  await bed.member("first");
  const other = new Bed("held");
  const recorder = new Recorder();
  const fatal: boolean[] = [];
  recorder.trouble = (_error, isFatal = false) => fatal.push(isFatal);
  const driver = embeddedDriver(bed.cluster, { rebalance: other.manner });
  const client = driver.connect(kafkaSettings({ brokers: "embedded:9092" }), bed.context);
  await bed.after(
    client.subscribe(
      {
        group: "g",
        topics: ["t"],
        sessionTimeout: session,
        rebalanceTimeout: session,
        heartbeatInterval: heartbeat,
        maxBytesPerPartition: 100,
        maxWait: 1,
        metadataAge: 30_000,
      },
      recorder,
    ),
  );
  await bed.run(1_000);
  assert.deepEqual(fatal, [true]);
});

test("a stand-in takes its share and gives it back when it leaves", async () => {
  const bed = new Bed();
  const member = await bed.member();
  const leave = bed.faults.join("g", ["t"]);
  await bed.run(2 * heartbeat);
  assert.equal(member.owned.length, 1);
  leave();
  await bed.run(2 * heartbeat);
  assert.equal(member.owned.length, 2);
});

test("offsets that someone else commits are where the next epoch begins", async () => {
  const bed = new Bed();
  bed.feed(0, "a", "b", "c");
  bed.faults.commit("g", "t", 0, 2);
  const member = await bed.member();
  assert.deepEqual(member.values, ["c"]);
  bed.faults.commit("g", "t", 0, 0);
  bed.faults.rebalance("g");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.values, ["c", "a", "b", "c"]);
});

test("records that are deleted under a member are passed by, and a gap is passed over", async () => {
  const bed = new Bed();
  const member = await bed.member();
  member.subscription.pause([{ topic: "t", partition: 0 }]);
  bed.feed(0, "a", "b");
  bed.faults.gap("t", 0, 3);
  bed.feed(0, "c");
  bed.faults.gap("t", 0, 2);
  bed.faults.deleteRecords("t", 0, 1);
  member.subscription.resume([{ topic: "t", partition: 0 }]);
  await bed.run(10);
  assert.deepEqual(member.values, ["b", "c"]);
  assert.deepEqual(
    member.received.map((record) => record.position),
    [1, 5],
  );
  assert.deepEqual(member.passes, [{ partition: "t/0", next: 8 }]);
});

test("a topic made anew is read from its beginning, though more was committed", async () => {
  const bed = new Bed();
  bed.feed(0, "old", "older");
  const member = await bed.member();
  await bed.after(member.subscription.commit([{ topic: "t", partition: 0, offset: 2 }]));
  bed.faults.recreate("t");
  bed.feed(0, "new");
  await bed.run(3 * heartbeat);
  assert.equal(member.values.at(-1), "new");
  assert.equal(member.received.at(-1)?.position, 0);
  assert.equal(
    bed.cluster.group("g").committed("t").get(0),
    undefined,
    "erased without a word, as kafkajs does",
  );
});

test("a deleted topic is unknown, and is read again once it is there again", async () => {
  const bed = new Bed();
  const member = await bed.member();
  const producer = await bed.client().producer();
  bed.faults.deleteTopic("t");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.owned, []);
  assert.deepEqual(outcome(await bed.after(send(producer, [0, "a"]))), [[0, "unknown-topic"]]);
  bed.cluster.create([{ topic: "t", partitions: 1 }]);
  bed.feed(0, "back");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.values, ["back"]);
});

test("partitions added to a topic are read from their beginning", async () => {
  const bed = new Bed();
  const member = await bed.member();
  bed.faults.growPartitions("t", 3);
  bed.feed(2, "first of the new one");
  await bed.run(2 * heartbeat);
  assert.deepEqual(member.owned, ["t/0", "t/1", "t/2"]);
  assert.deepEqual(member.values, ["first of the new one"]);
});

test("requests of one connection keep their order though the latency falls", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  bed.faults.latency = 100;
  const slow = send(producer, [0, "a"]);
  await bed.run(0);
  bed.faults.latency = 0;
  const quick = send(producer, [1, "b"]);
  const answered: string[] = [];
  slow.then(() => answered.push("slow"));
  quick.then(() => answered.push("quick"));
  await bed.run(300);
  assert.deepEqual(answered, ["slow", "quick"]);
});

test("a lost answer to a join makes the member ask again, and it gets its partitions", async (t: NodeTestContext) => {
  for (const manner of ["eager", "held", "incremental"] as const) {
    await t.test(manner, async () => {
      const bed = new Bed(manner);
      bed.faults.dropResponse("join");
      bed.faults.dropRequest("heartbeat", 2);
      bed.faults.dropResponse("fetch", 2);
      const member = await bed.member();
      bed.feed(0, "a");
      await bed.run(5 * heartbeat);
      assert.deepEqual(member.owned, ["t/0", "t/1"]);
      assert.deepEqual(member.values, ["a"]);
      assert.equal(member.troubles.at(-1), undefined);
      assert.deepEqual(member.violations, []);
    });
  }
});

test("closing gives up at its deadline, and the member stays until its session has ended", async () => {
  const bed = new Bed();
  const first = await bed.member("first");
  bed.faults.cut(1_000_000, "first");
  bed.faults.dropRequest("leave", 1);
  await bed.after(first.subscription.close(bed.context.clock.now() + 500), 600);
  assert.equal(bed.cluster.group("g").members.size, 1);
  await bed.run(session);
  assert.equal(bed.cluster.group("g").members.size, 0);
  assert.equal(bed.context.clock.pending, 0, "nothing is scheduled any more");
});

test("a closed client fails what is under way and what comes later", async () => {
  const bed = new Bed();
  const client = bed.client();
  const producer = await client.producer();
  bed.faults.latency = 100;
  const under = send(producer, [0, "a"]);
  under.catch(() => {});
  await bed.after(client.close(bed.context.clock.now()), 1);
  await assert.rejects(bed.after(under, 1), rejectsWith("retry"));
  await assert.rejects(bed.after(send(producer, [0, "b"])), rejectsWith("retry"));
  await assert.rejects(bed.after(client.describe(["t"])), rejectsWith("retry"));
});

test("a subscription to a topic that does not exist is refused", async () => {
  const bed = new Bed();
  await assert.rejects(bed.member("test", new Recorder(), ["t", "missing"]), rejectsWith("unknown-topic"));
});

test("of two batches of one partition that are out at once, the second is acknowledged and not stored", async () => {
  const bed = new Bed();
  const producer = await bed.client().producer();
  const both = [send(producer, [0, "a"]), send(producer, [0, "b"], [1, "c"])];
  assert.deepEqual((await bed.after(Promise.all(both))).map(outcome), [
    [[0, 0]],
    [
      [1, 0],
      [0, undefined],
    ],
  ]);
  await bed.after(send(producer, [0, "d"]));
  assert.deepEqual([bed.stored(0), bed.stored(1)], [["a", "d"], ["c"]]);
});
