import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import kafkajs from "kafkajs";
import { testContext } from "../../../../testing/context.ts";
import type { DriverError, SubscriptionListener, TopicPartition } from "../../driver.ts";
import { type Answer, protocolError, ScriptedCluster } from "./scripted-cluster.ts";
import { subscribe } from "./subscription.ts";

const { KafkaJSConnectionError, KafkaJSOffsetOutOfRange } = kafkajs;

const zero: TopicPartition = { topic: "t", partition: 0 };
const one: TopicPartition = { topic: "t", partition: 1 };

/** The timers of kafkajs and our clock move together, and only here: waiting costs no time. */
function virtualTime(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const context = testContext();
  const run = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 10) {
      t.mock.timers.tick(10);
      await context.clock.run(10);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const until = async (what: string, condition: () => boolean) => {
    for (let passed = 0; !condition(); passed += 10) {
      if (passed > 120_000) throw new Error(`not within two minutes: ${what}`);
      await run(10);
    }
  };
  return { context, run, until };
}

async function open(t: TestContext, cluster = new ScriptedCluster()) {
  const time = virtualTime(t);
  const told: string[] = [];
  const troubles: DriverError[] = [];
  const listener: SubscriptionListener = {
    assigned: () => void told.push("assigned"),
    revoking: async () => void told.push("revoking"),
    records: ({ partition }, records, next) => {
      const first = records.length === 0 ? "none" : records.position(0);
      told.push(`${partition}: ${first} to ${next}`);
    },
    passed: ({ partition }, next) => void told.push(`${partition}: passed ${next}`),
    outOfRange: ({ partition }, offset) => void told.push(`${partition}: no ${offset}`),
    trouble: (error) => error !== undefined && void troubles.push(error),
  };
  const options = {
    group: "g",
    topics: ["t"],
    sessionTimeout: 30_000,
    rebalanceTimeout: 60_000,
    heartbeatInterval: 100,
    maxBytesPerPartition: 1e6,
    maxWait: 30,
    metadataAge: 30_000,
  };
  let subscription: Awaited<ReturnType<typeof subscribe>> | undefined;
  subscribe(cluster.kafka, time.context, options, listener).then((it) => {
    subscription = it;
  });
  await time.until("the subscription runs", () => subscription !== undefined);
  t.after(async () => {
    const closed = subscription!.close(time.context.clock.now() + 1_000);
    await time.run(2_000);
    await closed;
  });
  return { ...time, cluster, told, troubles, subscription: subscription! };
}

/** A log that ends before `end`, `count` messages an answer. */
const upTo =
  (end: number, count = 10): Answer =>
  async (offset) =>
    Array.from({ length: Math.max(0, Math.min(end - offset, count)) }, (_, i) => ({ offset: offset + i }));

/** A promise, and the way to fulfil it. */
function gate() {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** The next heartbeat fails, and only that. */
function failHeartbeat(cluster: ScriptedCluster, error: Error): void {
  cluster.onHeartbeat = async () => {
    cluster.onHeartbeat = async () => {};
    throw error;
  };
}

/** Partition 0 has moved to another broker, at which kafkajs rejoins from inside its fetch. */
function moveLeader(cluster: ScriptedCluster): void {
  const { generation } = cluster;
  cluster.answers.set(0, async () => {
    if (cluster.generation === generation) throw protocolError("NOT_LEADER_FOR_PARTITION", true);
    return [];
  });
}

test("a fetch under way at one broker while that of another rejoins is not answered into the new epoch", async (t) => {
  const { cluster, told, until } = await open(t);
  const late = gate();
  let waiting = false;
  cluster.answers.set(1, async (offset) => {
    if (offset === 10 && cluster.generation === 1) {
      waiting = true;
      await late.opened;
    }
    return upTo(20)(offset);
  });
  await until("the second fetch is under way", () => waiting);
  assert.deepEqual(told, ["assigned", "1: 0 to 10"]);
  moveLeader(cluster);
  await until("rejoined", () => cluster.generation === 2);
  late.open();
  await until("all is read", () => told.includes("1: 10 to 20"));
  assert.deepEqual(told.slice(2), ["revoking", "assigned", "1: 0 to 10", "1: 10 to 20"]);
});

test("nor is one that waits for its connection while another rejoins", async (t) => {
  const { cluster, told, until } = await open(t);
  const late = gate();
  let waiting = false;
  cluster.onFindBroker = async (nodeId) => {
    if (nodeId !== 2 || !told.includes("1: 0 to 10") || cluster.generation > 1) return;
    waiting = true;
    await late.opened;
  };
  cluster.answers.set(1, upTo(20));
  await until("the second fetch waits", () => waiting);
  moveLeader(cluster);
  await until("rejoined", () => cluster.generation === 2);
  late.open();
  await until("all is read", () => told.includes("1: 10 to 20"));
  assert.deepEqual(told.slice(2), ["revoking", "assigned", "1: 0 to 10", "1: 10 to 20"]);
});

test("nor is what was fetched and waits behind others while another broker's fetch rejoins", async (t) => {
  const partitions = 40;
  const cluster = new ScriptedCluster(partitions);
  const [moved, second, heartbeat] = [gate(), gate(), gate()];
  cluster.answers.set(0, async () => {
    if (cluster.generation > 1) return [];
    await moved.opened;
    throw protocolError("NOT_LEADER_FOR_PARTITION", true);
  });
  let waiting = false;
  for (let partition = 1; partition < partitions; partition++) {
    cluster.answers.set(partition, async (offset) => {
      if (offset === 1) {
        waiting = true;
        await second.opened;
      }
      // kafkajs takes them as texts, "9" last. It has a control record where the others have a message.
      return offset < 2 ? [{ offset, control: offset === 1 && partition === 9 }] : [];
    });
  }
  const { told, until, run } = await open(t, cluster);
  await until("the second fetch is under way", () => waiting);
  // A heartbeat is due after each partition's messages, and takes until the group has come together anew.
  await run(200);
  cluster.onHeartbeat = () => heartbeat.opened;
  second.open();
  await until("some are handed on", () => told.includes("1: 1 to 2"));
  assert.ok(!told.includes("8: 1 to 2") && !told.includes("9: passed 2"), "and some are not");
  moved.open();
  await until("rejoined", () => cluster.generation === 2);
  cluster.onHeartbeat = async () => {};
  heartbeat.open();
  await until("all is read", () => told.includes("8: 1 to 2") && told.includes("9: passed 2"));
  const anew = told.slice(told.lastIndexOf("assigned") + 1);
  const of = (partition: number) => anew.filter((line) => line.startsWith(`${partition}: `));
  assert.deepEqual(of(8), ["8: 0 to 1", "8: 1 to 2"]);
  assert.deepEqual(of(9), ["9: 0 to 1", "9: passed 2"]);
});

test("an offset that is out of range for an epoch that has passed is not given up in the next", async (t) => {
  const { cluster, told, until, run } = await open(t);
  const late = gate();
  let waiting = false;
  cluster.answers.set(1, async (offset) => {
    if (offset < 10) return upTo(10)(offset);
    waiting = true;
    await late.opened;
    throw outOfRange();
  });
  await until("the second fetch is under way", () => waiting);
  moveLeader(cluster);
  await until("rejoined", () => cluster.generation === 2);
  cluster.answers.set(1, async () => []);
  late.open();
  await run(500);
  assert.deepEqual(told, ["assigned", "1: 0 to 10", "revoking", "assigned"]);
  assert.deepEqual(cluster.commits, []);
});

function outOfRange(): Error {
  const error = protocolError("OFFSET_OUT_OF_RANGE", false);
  return new KafkaJSOffsetOutOfRange(error as never, { topic: "t", partition: 1 });
}

test("an offset that the log does not hold is told, with what was asked for, before anything else is read", async (t) => {
  const cluster = new ScriptedCluster();
  cluster.committed.set(1, 5_000);
  cluster.answers.set(1, async (offset) => {
    if (offset === 5_000) throw outOfRange();
    return upTo(10)(offset);
  });
  const { told, until } = await open(t, cluster);
  await until("it is read on", () => told.includes("1: 0 to 10"));
  assert.deepEqual(told, ["assigned", "1: no 5000", "1: 0 to 10"]);
});

test("control records alone are passed", async (t) => {
  const { cluster, told, until } = await open(t);
  cluster.answers.set(1, async (offset) => (offset === 0 ? [{ offset, control: true }] : []));
  await until("passed", () => told.length > 1);
  assert.deepEqual(told, ["assigned", "1: passed 1"]);
});

test("a commit that failed is not repeated under the next generation", async (t) => {
  const { cluster, told, until, run, subscription } = await open(t);
  cluster.answers.set(1, upTo(10));
  await until("something is read", () => told.includes("1: 0 to 10"));
  let failures = 0;
  cluster.onCommit = async () => {
    failures++;
    throw new KafkaJSConnectionError("connection lost");
  };
  let code: string | undefined;
  subscription.commit([{ ...one, offset: 5 }]).catch((error: DriverError) => {
    code = error.code;
  });
  await until("the commit fails", () => failures > 0);
  cluster.onCommit = async () => {};
  failHeartbeat(cluster, protocolError("REBALANCE_IN_PROGRESS", false));
  await until("rejoined", () => cluster.generation === 2);
  await run(10_000);
  assert.deepEqual([failures, code], [1, "retry"]);
  assert.deepEqual(cluster.commits, []);
});

for (const step of ["onJoin", "onRefresh", "onSync"] as const) {
  test(`a rejoin that fails is made up for, though kafkajs would read on as if nothing had happened: ${step}`, async (t) => {
    const { cluster, told, until } = await open(t);
    cluster.leads = true;
    cluster[step] = async () => {
      if (!told.includes("revoking")) return;
      cluster[step] = async () => {};
      throw new KafkaJSConnectionError("connection lost");
    };
    let moved = false;
    cluster.answers.set(0, async () => {
      if (moved) return [];
      moved = true;
      throw protocolError("NOT_LEADER_FOR_PARTITION", true);
    });
    await until("it gave up its partitions", () => told.includes("revoking"));
    await until("it has partitions again", () => told.length > 2);
    cluster.answers.set(1, upTo(10));
    await until("it is read on", () => told.includes("1: 0 to 10"));
    assert.deepEqual(told, ["assigned", "revoking", "assigned", "1: 0 to 10"]);
  });
}

test("a commit that is held up before it is sent does not go out after a later one", async (t) => {
  const { cluster, told, until, run, subscription } = await open(t);
  cluster.answers.set(1, upTo(10));
  await until("something is read", () => told.includes("1: 0 to 10"));
  cluster.coordinatorConnected = false;
  cluster.onFindBroker = async (node) => {
    if (node === 1) throw new KafkaJSConnectionError("connection lost");
  };
  let code: string | undefined;
  subscription.commit([{ ...one, offset: 5 }]).catch((error: DriverError) => {
    code = error.code;
  });
  // Long enough for its coordinator not to be found, and too short for another attempt.
  await run(20);
  cluster.onFindBroker = async () => {};
  await subscription.commit([{ ...one, offset: 9 }]);
  await run(10_000);
  assert.deepEqual([code, cluster.commits.map(({ offset }) => offset)], ["fenced", [9]]);
});

test("what fails while nobody joins makes nobody join", async (t) => {
  const { cluster, told, until, run } = await open(t);
  let failures = 0;
  cluster.onRefresh = async () => {
    cluster.onRefresh = async () => {};
    failures++;
    throw new KafkaJSConnectionError("connection lost");
  };
  cluster.answers.set(0, async () => {
    if (failures > 0) return [];
    throw Object.assign(new Error("no such broker"), { name: "KafkaJSBrokerNotFound" });
  });
  await until("a refresh failed", () => failures > 0);
  await run(5_000);
  assert.deepEqual([told, cluster.joins], [["assigned"], 1]);
});

test("pausing and resuming while the consumer is being replaced throws nothing", async (t) => {
  const { cluster, told, until, subscription } = await open(t);
  const closing = gate();
  let inside = false;
  cluster.onDisconnect = () => {
    inside = true;
    return closing.opened;
  };
  failHeartbeat(cluster, protocolError("GROUP_AUTHORIZATION_FAILED", false));
  await until("kafkajs has stopped the consumer and closes its connections", () => inside);
  assert.deepEqual(told, ["assigned", "revoking"]);
  subscription.pause([zero, one]);
  subscription.resume([zero, one]);
  cluster.onDisconnect = async () => {};
  closing.open();
  await until("there is another consumer", () => cluster.generation === 2);
  assert.deepEqual(told, ["assigned", "revoking", "assigned"]);
});

test("a subscription that is closed while kafkajs restarts its consumer does not join again", async (t) => {
  const { cluster, until, run, context, subscription } = await open(t);
  cluster.onJoin = async () => {
    await joining.opened;
    throw new KafkaJSConnectionError("closed connection");
  };
  const joining = gate();
  cluster.answers.set(0, async () => {
    throw protocolError("COORDINATOR_LOAD_IN_PROGRESS", true);
  });
  await until("it gave up, and its successor is joining", () => cluster.joins === 2);
  const closed = subscription.close(context.clock.now() + 1_000);
  await run(2_000);
  await closed;
  joining.open();
  await run(60_000);
  assert.equal(cluster.joins, 2);
});

test("an attempt to replace the consumer that fails closes its connections", async (t) => {
  const { cluster, until, troubles } = await open(t);
  let attempts = 0;
  cluster.onSubscribe = async () => {
    attempts++;
    throw protocolError("TOPIC_AUTHORIZATION_FAILED", false);
  };
  failHeartbeat(cluster, protocolError("GROUP_AUTHORIZATION_FAILED", false));
  await until("several attempts were made", () => attempts === 5);
  cluster.onSubscribe = async () => {};
  await until("it is in the group again", () => cluster.generation === 2);
  assert.equal(cluster.connected.size, 1);
  assert.ok(troubles.length > 4 && troubles.every(({ code }) => code === "access"));
});
