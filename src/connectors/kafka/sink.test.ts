import assert from "node:assert/strict";
import { test } from "node:test";
import type { Refusal } from "../../component/sink.ts";
import { MillraceError } from "../../errors.ts";
import { Batch, type Destination } from "../../message/batch.ts";
import { Chunk } from "../../message/chunk.ts";
import { Lane } from "../../message/lane.ts";
import { PlainRecords } from "../../message/records.ts";
import { testContext } from "../../testing/context.ts";
import {
  DriverError,
  type EncodedBatch,
  type KafkaClient,
  type ProduceResult,
  type TopicPartition,
} from "./driver.ts";
import type { KafkaSinkOptions } from "./options.ts";
import { openKafkaSink } from "./sink.ts";

interface Sent extends EncodedBatch {
  readonly payloads: readonly string[];
}

/** A client whose broker does what the test says. */
class ScriptedClient implements KafkaClient {
  limit = 1_000_000;
  partitions = 2;
  missing = false;
  exact = true;
  readonly requests: (readonly Sent[])[] = [];
  readonly stored: string[] = [];
  closed = 0;
  describeError: Error | undefined;
  /** What the broker answers; default: everything is stored. */
  answer: (
    batches: readonly Sent[],
    attempt: number,
  ) => readonly ProduceResult[] | Promise<readonly ProduceResult[]> = (batches) =>
    batches.map((batch) => this.store(batch));

  store(batch: Sent): ProduceResult {
    this.stored.push(...batch.payloads.map((payload) => `${batch.partition}:${payload}`));
    return { topic: batch.topic, partition: batch.partition, offset: 0, error: undefined };
  }

  refuse(batch: TopicPartition, code: DriverError["code"]): ProduceResult {
    return {
      topic: batch.topic,
      partition: batch.partition,
      offset: undefined,
      error: new DriverError(code, code),
    };
  }

  async describe(topics: readonly string[]) {
    if (this.describeError !== undefined) throw this.describeError;
    return new Map(
      topics.map((topic) => [
        topic,
        this.missing ? undefined : { partitions: this.partitions, maxMessageBytes: this.limit },
      ]),
    );
  }

  async producer() {
    return {
      encode: ({ topic, partition }: TopicPartition, batch: Batch, from: number, to: number): Sent => {
        const payloads: string[] = [];
        for (let entry = from; entry < to; entry++) payloads.push(batch.payload(entry)!.toString());
        const size = 61 + payloads.reduce((sum, payload) => sum + payload.length + 10, 0);
        return { topic, partition, count: to - from, size, exact: this.exact, codec: batch.codec, payloads };
      },
      send: async (batches: readonly EncodedBatch[]) => {
        this.requests.push(batches as readonly Sent[]);
        return this.answer(batches as readonly Sent[], this.requests.length);
      },
      close: async () => {
        this.closed++;
      },
    };
  }

  async create() {}
  async offsets() {
    return [];
  }
  async committed() {
    return new Map();
  }
  async subscribe(): Promise<never> {
    throw new Error("a sink does not subscribe");
  }
  async close() {
    this.closed++;
  }
}

async function open(client: ScriptedClient, options: Partial<KafkaSinkOptions> = {}) {
  const context = testContext();
  const session = await openKafkaSink(context, client, "here:9092", { topic: "out", ...options });
  const settled: string[] = [];
  const chunkOf = (...messages: [key: string | null, payload: string][]) => {
    const lane = new Lane({
      origin: { source: "s", target: "t" },
      epoch: 1,
      ack: "cumulative",
      ledger: { taken() {}, settled() {}, branched() {} },
    });
    const records = new PlainRecords(
      messages.map(([key, payload], position) => ({
        position,
        key: key === null ? null : Buffer.from(key),
        value: Buffer.from(payload),
        headers: [],
        timestamp: 0,
      })),
    );
    const owner = { settle: (sequence: number) => settled.push(messages[sequence]![1]) };
    return new Chunk(lane, owner, lane.take(records, 0, records.length), records.length, records, 0);
  };
  const batchTo = (destination: Destination, ...payloads: string[]) => {
    const chunk = chunkOf(...payloads.map((payload): [string, string] => ["k", payload]));
    const batch = new Batch(destination, 0);
    for (let i = 0; i < chunk.length; i++) batch.add(chunk, i);
    return batch;
  };
  const key = ["a", "b", "c", "d"].map((name) => chunkOf([name, "x"]));
  const destinations = [...new Set(key.map((chunk) => session.destinationOf(chunk, 0)))];
  return { context, session, settled, chunkOf, batchTo, destinations };
}

test("a key always has one destination, the same object each time; partitions share a request", async () => {
  const client = new ScriptedClient();
  const { context, session, batchTo, destinations, settled } = await open(client);
  assert.equal(destinations.length, 2);
  const writes = [
    session.write(batchTo(destinations[0]!, "a")),
    session.write(batchTo(destinations[1]!, "b")),
  ];
  await context.clock.run(0);
  assert.deepEqual(await Promise.all(writes), [[], []]);
  assert.equal(client.requests.length, 1);
  assert.deepEqual(settled.sort(), ["a", "b"]);
});

test("messages without a key go to one partition chunk by chunk, and to the next for the next chunk", async () => {
  const { session, chunkOf } = await open(new ScriptedClient());
  const [one, two] = [chunkOf([null, "1"], [null, "2"]), chunkOf([null, "3"])];
  assert.equal(session.destinationOf(one, 0), session.destinationOf(one, 1));
  assert.notEqual(session.destinationOf(one, 0), session.destinationOf(two, 0));
});

test("a partition has one batch outstanding, retries included, so order holds", async () => {
  const client = new ScriptedClient();
  client.answer = (batches, attempt) => {
    if (attempt <= 3) throw new DriverError("retry", "connection lost");
    return batches.map((batch) => client.store(batch));
  };
  const { context, session, batchTo, destinations } = await open(client);
  const writes = ["1", "2", "3"].map((payload) => session.write(batchTo(destinations[0]!, payload)));
  await context.clock.run(60_000);
  await Promise.all(writes);
  assert.deepEqual(
    client.stored.map((entry) => entry.split(":")[1]),
    ["1", "2", "3"],
  );
  assert.equal(client.requests.length, 6);
  assert.equal(client.requests[0]![0], client.requests[3]![0], "a resend is the same bytes");
});

test("seed 001.5, 003.1: a partition that the answer does not name is not settled, and is sent again alone", async () => {
  const client = new ScriptedClient();
  client.answer = (batches, attempt) =>
    attempt === 1 ? [client.store(batches[0]!)] : batches.map((batch) => client.store(batch));
  const { context, session, batchTo, destinations, settled } = await open(client);
  const writes = [
    session.write(batchTo(destinations[0]!, "a")),
    session.write(batchTo(destinations[1]!, "b")),
  ];
  await context.clock.run(0);
  assert.deepEqual(settled, ["a"]);
  assert.equal(session.status().ready, false);
  await context.clock.run(10_000);
  await Promise.all(writes);
  assert.deepEqual(settled, ["a", "b"]);
  assert.deepEqual(client.stored.length, 2);
  assert.equal(session.status().ready, true);
});

test("a batch too large is split until it fits, in order; a message too large by itself is refused alone", async () => {
  const client = new ScriptedClient();
  client.limit = 20_000;
  const { context, session, batchTo, destinations, settled } = await open(client);
  const big = "B".repeat(30_000);
  const payloads = [..."abcdefg"].map((letter) => letter.repeat(6_000));
  const write = session.write(batchTo(destinations[0]!, ...payloads.slice(0, 3), big, ...payloads.slice(3)));
  await context.clock.run(60_000);
  const refusals = await write;
  assert.deepEqual(
    refusals.map(({ entry, failure }) => [entry, failure.code, failure.class]),
    [[3, "record-too-large", "business"]],
  );
  assert.deepEqual(
    client.stored.map((entry) => entry[2]),
    [..."abcdefg"],
  );
  assert.deepEqual(settled.length, 7);
});

test("when the topic's limit has shrunk, the topic is sick, not the message: it waits", async () => {
  const client = new ScriptedClient();
  client.exact = false;
  const { context, session, batchTo, destinations, settled } = await open(client);
  client.limit = 1;
  client.answer = (batches) =>
    batches.map((batch) => (client.limit === 1 ? client.refuse(batch, "too-large") : client.store(batch)));
  const write = session.write(batchTo(destinations[0]!, "a", "b"));
  await context.clock.run(30_000);
  assert.deepEqual(settled, []);
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason ?? "", /at most 1 bytes/);
  assert.ok(client.requests.length < 5, "no storm of requests");
  client.limit = 1_000_000;
  await context.clock.run(30_000);
  assert.deepEqual(await write, []);
  assert.deepEqual(settled, ["a", "b"]);
});

test("no message is to blame for an absurd limit, though it was as absurd when the sink was opened", async () => {
  const client = new ScriptedClient();
  client.exact = false;
  client.limit = 1;
  const { context, session, batchTo, destinations, settled } = await open(client);
  // Well while the message is encoded, and sick again when the broker gets it.
  client.limit = 1_000_000;
  client.answer = (batches) => {
    client.limit = 1;
    return batches.map((batch) => client.refuse(batch, "too-large"));
  };
  const write = session.write(batchTo(destinations[0]!, "a"));
  await context.clock.run(30_000);
  assert.deepEqual(settled, []);
  client.limit = 1_000_000;
  client.answer = (batches) => batches.map((batch) => client.store(batch));
  await context.clock.run(30_000);
  assert.deepEqual(await write, []);
  assert.deepEqual(settled, ["a"]);
});

test("a message that fitted when the sink was opened is not to blame for a lower limit, and no batch is split in vain", async () => {
  const client = new ScriptedClient();
  const { context, session, batchTo, destinations, settled } = await open(client);
  client.limit = 20_000;
  client.answer = (batches) =>
    batches.map((batch) =>
      batch.size > client.limit ? client.refuse(batch, "too-large") : client.store(batch),
    );
  const write = session.write(batchTo(destinations[0]!, "x".repeat(30_000)));
  await context.clock.run(30_000);
  assert.deepEqual([settled.length, session.status().ready], [0, false]);
  client.limit = 1_000;
  const several = session.write(batchTo(destinations[1]!, "a".repeat(600), "b".repeat(600)));
  await context.clock.run(30_000);
  assert.equal(
    context.counted.get("batches_split_total"),
    undefined,
    "one by one they would not fit for long",
  );
  client.limit = 1_000_000;
  await context.clock.run(30_000);
  assert.deepEqual([await write, await several], [[], []]);
  assert.equal(settled.length, 3);
});

test("a write that was split is done when its last part is", async () => {
  const client = new ScriptedClient();
  client.limit = 20_000;
  const { context, session, batchTo, destinations, settled } = await open(client);
  let wait = false;
  const held: (() => void)[] = [];
  client.answer = async (batches) => {
    if (wait) await new Promise<void>((resolve) => held.push(resolve));
    wait = true;
    return batches.map((batch) => client.store(batch));
  };
  let done = false;
  session.write(batchTo(destinations[0]!, "a".repeat(12_000), "b".repeat(12_000))).then(() => {
    done = true;
  });
  await context.clock.run(1_000);
  assert.deepEqual([settled.length, held.length, done], [1, 1, false]);
  held[0]!();
  await context.clock.run(1_000);
  assert.deepEqual([settled.length, done], [2, true]);
});

test("an invalid record is found by halving, and its neighbours get through in order", async () => {
  const client = new ScriptedClient();
  client.answer = (batches) =>
    batches.map((batch) =>
      batch.payloads.includes("bad") ? client.refuse(batch, "invalid") : client.store(batch),
    );
  const { context, session, batchTo, destinations } = await open(client);
  const write = session.write(batchTo(destinations[0]!, "a", "bad", "c", "d"));
  await context.clock.run(60_000);
  const refusals = await write;
  assert.deepEqual(
    refusals.map(({ entry, failure }) => [entry, failure.code]),
    [[1, "record-refused"]],
  );
  assert.deepEqual(
    client.stored.map((entry) => entry.split(":")[1]),
    ["a", "c", "d"],
  );
});

test("a topic that finds everything invalid is sick, and no message of it is to blame: all of it waits, in order", async () => {
  const client = new ScriptedClient();
  let sick = true;
  client.answer = (batches) =>
    batches.map((batch) => (sick ? client.refuse(batch, "invalid") : client.store(batch)));
  const { context, session, batchTo, destinations, settled } = await open(client);
  const writes = [
    session.write(batchTo(destinations[0]!, "1", "2", "3", "4")),
    session.write(batchTo(destinations[0]!, "5")),
    session.write(batchTo(destinations[1]!, "a", "b")),
  ];
  let done = 0;
  for (const write of writes) write.then(() => done++);
  await context.clock.run(300_000);
  assert.deepEqual([settled.length, done], [0, 0]);
  assert.deepEqual([session.status().ready, session.status().reason?.includes("invalid")], [false, true]);
  assert.ok(client.requests.length < 1_500, `${client.requests.length} requests in five minutes`);
  sick = false;
  await context.clock.run(60_000);
  assert.deepEqual(await Promise.all(writes), [[], [], []]);
  for (const [destination, payloads] of [
    [0, "12345"],
    [1, "ab"],
  ] as const) {
    const { partition } = destinations[destination] as Destination & TopicPartition;
    const stored = client.stored.filter((entry) => entry.startsWith(`${partition}:`));
    assert.deepEqual(
      stored.map((entry) => entry.slice(2)),
      [...payloads],
    );
  }
  assert.deepEqual(session.status().ready, true);
});

test("of invalid records between good ones of a partition only they are refused, in whatever batch they are", async () => {
  const client = new ScriptedClient();
  client.answer = (batches) =>
    batches.map((batch) =>
      batch.payloads.some((payload) => payload.startsWith("bad"))
        ? client.refuse(batch, "invalid")
        : client.store(batch),
    );
  const { context, session, batchTo, destinations, settled } = await open(client);
  const writes = [
    session.write(batchTo(destinations[0]!, "bad-1")),
    session.write(batchTo(destinations[0]!, "bad-2", "a", "b", "bad-3")),
    session.write(batchTo(destinations[0]!, "c")),
  ];
  await context.clock.run(60_000);
  const refusals = await Promise.all(writes);
  assert.deepEqual(
    refusals.map((list) => list.map(({ entry, failure }) => [entry, failure.code, failure.class])),
    [
      [[0, "record-refused", "business"]],
      [
        [0, "record-refused", "business"],
        [3, "record-refused", "business"],
      ],
      [],
    ],
  );
  assert.match(refusals[0]![0]!.failure.message, /takes others: invalid/);
  assert.deepEqual(settled, ["a", "b", "c"]);
  assert.equal(session.status().ready, true);
});

test("an invalid record that is alone in its partition is to blame once the topic takes others elsewhere", async () => {
  const client = new ScriptedClient();
  client.answer = (batches) =>
    batches.map((batch) =>
      batch.payloads.includes("bad") ? client.refuse(batch, "invalid") : client.store(batch),
    );
  const { context, session, batchTo, destinations } = await open(client);
  let refusals: readonly Refusal[] | undefined;
  session.write(batchTo(destinations[0]!, "bad")).then((list) => {
    refusals = list;
  });
  await context.clock.run(60_000);
  assert.deepEqual([refusals, session.status().ready], [undefined, false], "nothing shows whose fault it is");
  session.write(batchTo(destinations[1]!, "good"));
  await context.clock.run(60_000);
  assert.deepEqual(
    refusals?.map(({ failure }) => failure.code),
    ["record-refused"],
  );
});

test("a batch refused for its size is written in the end, though the limit could not be read at first", async () => {
  const client = new ScriptedClient();
  client.exact = false;
  const { context, session, batchTo, destinations, settled } = await open(client);
  const limit = 20_000;
  client.answer = (batches) =>
    batches.map((batch) => (batch.size > limit ? client.refuse(batch, "too-large") : client.store(batch)));
  client.describeError = new DriverError("retry", "connection lost");
  const write = session.write(batchTo(destinations[0]!, "a".repeat(15_000), "b".repeat(15_000)));
  await context.clock.run(1_000);
  assert.match(session.status().reason ?? "", /too-large/);
  assert.deepEqual(settled, []);
  client.describeError = undefined;
  client.limit = limit;
  await context.clock.run(60_000);
  assert.deepEqual(await write, []);
  assert.deepEqual(
    settled.map((payload) => payload[0]),
    ["a", "b"],
  );
});

test("a sink that is closed leaves nothing on the clock", async () => {
  const client = new ScriptedClient();
  client.answer = (batches) => batches.map((batch) => client.refuse(batch, "retry"));
  const { context, session, batchTo, destinations } = await open(client);
  for (const destination of destinations) session.write(batchTo(destination, "a"));
  await context.clock.run(60_000);
  assert.ok(context.clock.pending > 0, "it is going to try again");
  await session.close(context.clock.now());
  assert.equal(context.clock.pending, 0);
});

test("best effort: what could not be written for so long is lost and counted, and what is younger still goes", async () => {
  const client = new ScriptedClient();
  let away = true;
  client.answer = (batches) =>
    batches.map((batch) => (away ? client.refuse(batch, "retry") : client.store(batch)));
  const { context, session, batchTo, destinations } = await open(client, {
    giveUpAfter: "10s",
    maxBackoff: "1s",
  });
  const [old, young] = [batchTo(destinations[0]!, "a", "b"), batchTo(destinations[0]!, "c")];
  const givenUp = session.write(old);
  await context.clock.run(5_000);
  const kept = session.write(young);
  await context.clock.run(4_000);
  assert.equal(old.lost, 0);
  await context.clock.run(2_500);
  assert.deepEqual([await givenUp, old.lost], [[], 2]);
  away = false;
  await context.clock.run(2_000);
  assert.deepEqual([await kept, young.lost], [[], 0]);
  assert.deepEqual(client.stored, ["0:c"]);
});

test("without giveUpAfter nothing is given up", async () => {
  const client = new ScriptedClient();
  client.answer = (batches) => batches.map((batch) => client.refuse(batch, "retry"));
  const { context, session, batchTo, destinations } = await open(client, { maxBackoff: "60s" });
  const batch = batchTo(destinations[0]!, "a");
  session.write(batch);
  await context.clock.run(24 * 3_600_000);
  assert.equal(batch.lost, 0);
});

test("seed 002.3: a time-out of InitProducerId is explained by the brokers' replication factor", async () => {
  const client = new ScriptedClient();
  client.answer = () => {
    throw new DriverError("retry", "Timeout expired after 60000ms while awaiting InitProducerId");
  };
  const { context, session, batchTo, destinations } = await open(client);
  session.write(batchTo(destinations[0]!, "a"));
  await context.clock.run(100);
  assert.match(session.status().reason ?? "", /InitProducerId.*transaction\.state\.log\.replication\.factor/);
  context.abort();
});

test("other partitions go on while one is failing", async () => {
  const client = new ScriptedClient();
  const { context, session, batchTo, destinations, settled } = await open(client);
  const [sick, well] = destinations as [Destination & TopicPartition, Destination & TopicPartition];
  client.answer = (batches) =>
    batches.map((batch) =>
      batch.partition === sick.partition ? client.refuse(batch, "retry") : client.store(batch),
    );
  session.write(batchTo(sick, "stuck"));
  await context.clock.run(1_000);
  await Promise.all([
    ...["1", "2", "3"].map((payload) => session.write(batchTo(well, payload))),
    context.clock.run(1_000),
  ]);
  assert.deepEqual(settled, ["1", "2", "3"]);
});

test("a missing topic and refused credentials end the start; a broker that is away is waited for", async () => {
  const gone = new ScriptedClient();
  gone.missing = true;
  await assert.rejects(
    open(gone),
    (error: unknown) =>
      error instanceof MillraceError && error.code === "target-missing" && error.message.includes('"out"'),
  );
  assert.equal(gone.closed, 1, "the client of a sink that cannot be opened");

  const context = testContext();
  const shut = new ScriptedClient();
  shut.describeError = new DriverError("access", "SASL authentication failed");
  const refused = openKafkaSink(context, shut, "here:9092", { topic: "out" });
  refused.catch(() => {});
  await context.clock.run(60_000);
  await assert.rejects(
    refused,
    (error: unknown) => error instanceof MillraceError && error.code === "access-refused",
  );

  const away = new ScriptedClient();
  away.describeError = new DriverError("retry", "connect ECONNREFUSED");
  let opened = false;
  const waiting = openKafkaSink(context, away, "here:9092", { topic: "out" }).then(() => {
    opened = true;
  });
  await context.clock.run(120_000);
  assert.equal(opened, false);
  away.describeError = undefined;
  await context.clock.run(10_000);
  await waiting;
  assert.ok(opened);

  const given = testContext();
  const never = new ScriptedClient();
  never.describeError = new DriverError("retry", "connect ECONNREFUSED");
  const stopped = openKafkaSink(given, never, "here:9092", { topic: "out" });
  stopped.catch(() => {});
  await given.clock.run(1_000);
  given.abort(new Error("stopped"));
  await assert.rejects(stopped, { message: "stopped" });
  assert.equal(never.closed, 1, "the client of a sink that gave up");
});
