import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { Context } from "../../../component/context.ts";
import { Batch, type Codec } from "../../../message/batch.ts";
import { Chunk } from "../../../message/chunk.ts";
import { Lane } from "../../../message/lane.ts";
import {
  type Headers,
  noHeaders,
  type PlainRecord,
  PlainRecords,
  type Records,
} from "../../../message/records.ts";
import {
  DriverError,
  type KafkaClient,
  type ProduceResult,
  type Producer,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicPartition,
} from "../driver.ts";

/** What a driver and its broker do, as data: it decides which scenarios apply, and what they expect. */
export interface DriverFeatures {
  /** `revoking` is awaited before partitions are given up. */
  readonly holdsRebalance: boolean;
  /** A rebalance moves only the partitions that change hands; otherwise everyone starts again with all of them. */
  readonly incremental: boolean;
  /** A header's value may be null; otherwise null arrives as no bytes. */
  readonly nullHeaders: boolean;
  /** Headers arrive in the order they were sent; otherwise those of one name come together. */
  readonly headerOrder: boolean;
  readonly codecs: readonly Codec[];
  /** A committed offset that is out of range is erased from the group, and nobody is told. */
  readonly erasesOutOfRange: boolean;
}

/** A driver connected to a broker, for one scenario. Whatever is opened here is closed with it. */
export interface DriverUnderTest {
  readonly context: Context;
  readonly features: DriverFeatures;
  connect(): KafkaClient;
  /** Creates a topic by other means than the driver. */
  freshTopic(options?: { readonly partitions?: number; readonly maxMessageBytes?: number }): Promise<string>;
  freshName(prefix: string): string;
  /** Forgets the records below `offset`, as retention does. */
  deleteRecords(topic: string, partition: number, offset: number): Promise<void>;
  /** Adds partitions to a topic, up to so many. */
  growPartitions(topic: string, partitions: number): Promise<void>;
  /** Uses up two offsets that no reader sees: a message of an aborted transaction and the abort marker. */
  abortTransaction(topic: string, partition: number): Promise<void>;
  /** Waits for a condition, letting the broker's time pass; rejects with `what` when it never comes. */
  until(what: string, condition: () => boolean | Promise<boolean>): Promise<void>;
  readonly groupTimes: Pick<SubscribeOptions, "sessionTimeout" | "rebalanceTimeout" | "heartbeatInterval">;
}

export interface Scenario {
  /** A sentence that holds for every driver. */
  readonly name: string;
  /** Absent: for all. */
  readonly applies?: (features: DriverFeatures) => boolean;
  run(bed: DriverUnderTest): Promise<void>;
}

export interface Received extends PlainRecord {
  readonly topic: string;
  readonly partition: number;
  /** Number of the assignment in which its partition was last fresh. */
  readonly epoch: number;
}

/** A listener that keeps all it is told, and checks what must hold of every driver while it listens. */
export class Recorder implements SubscriptionListener {
  subscription: Subscription | undefined;
  readonly received: Received[] = [];
  readonly troubles: (DriverError | undefined)[] = [];
  readonly assignments: { readonly owned: readonly string[]; readonly fresh: readonly string[] }[] = [];
  readonly revoked: (readonly string[])[] = [];
  readonly passes: { readonly partition: string; readonly next: number }[] = [];
  /** Where reading was to go on and could not. */
  readonly lost: string[] = [];
  readonly violations: string[] = [];
  /** Runs inside `revoking`. */
  onRevoking: (partitions: readonly TopicPartition[]) => Promise<void> | void = () => {};
  onRecords: (partition: TopicPartition) => void = () => {};
  /** Epoch and next offset of each owned partition. */
  readonly #epochs = new Map<string, { readonly epoch: number; next: number | undefined }>();

  get owned(): readonly string[] {
    return [...this.#epochs.keys()].sort();
  }

  /** Where the driver reads on in an owned partition; undefined while it has told nothing of it. */
  next(topic: string, partition: number): number | undefined {
    return this.#epochs.get(keyOf({ topic, partition }))?.next;
  }

  /** Values received, as text. */
  get values(): readonly string[] {
    return this.received.map((record) => record.value?.toString() ?? "null");
  }

  assigned(partitions: readonly TopicPartition[], fresh: readonly TopicPartition[]): void {
    const owned = new Set(partitions.map(keyOf));
    for (const partition of fresh) {
      if (!owned.has(keyOf(partition))) this.violations.push(`${keyOf(partition)} is fresh and not owned`);
      this.#epochs.set(keyOf(partition), { epoch: this.assignments.length, next: undefined });
    }
    for (const key of [...this.#epochs.keys()]) if (!owned.has(key)) this.#epochs.delete(key);
    for (const key of owned) {
      if (!this.#epochs.has(key)) this.violations.push(`${key} is owned, and was neither kept nor fresh`);
    }
    this.assignments.push({ owned: [...owned].sort(), fresh: fresh.map(keyOf).sort() });
  }

  async revoking(partitions: readonly TopicPartition[]): Promise<void> {
    for (const partition of partitions) {
      if (!this.#epochs.has(keyOf(partition)))
        this.violations.push(`${keyOf(partition)} is revoked and not owned`);
    }
    this.revoked.push(partitions.map(keyOf).sort());
    await this.onRevoking(partitions);
  }

  records(partition: TopicPartition, records: Records, next: number): void {
    const key = keyOf(partition);
    const epoch = this.#epochs.get(key);
    if (epoch === undefined) {
      this.violations.push(`records of ${key}, which is not owned`);
      return;
    }
    if (records.length === 0) this.violations.push(`no records of ${key}`);
    for (let i = 0; i < records.length; i++) {
      const position = records.position(i);
      if (epoch.next !== undefined && position < epoch.next) {
        this.violations.push(`${key}: offset ${position} after ${epoch.next - 1} in one epoch`);
      }
      epoch.next = position + 1;
      this.received.push({
        topic: partition.topic,
        partition: partition.partition,
        epoch: epoch.epoch,
        position,
        key: records.key(i),
        value: records.value(i),
        headers: records.headers(i),
        timestamp: records.timestamp(i),
      });
    }
    if (epoch.next === undefined || next < epoch.next) this.violations.push(`${key}: next is ${next}`);
    epoch.next = next;
    this.onRecords(partition);
  }

  outOfRange(partition: TopicPartition, offset: number): void {
    const key = keyOf(partition);
    if (!this.#epochs.has(key)) this.violations.push(`${key} is out of range and not owned`);
    this.lost.push(`${key}@${offset}`);
    this.#epochs.set(key, { epoch: this.assignments.length, next: undefined });
  }

  passed(partition: TopicPartition, next: number): void {
    const epoch = this.#epochs.get(keyOf(partition));
    if (epoch === undefined) return;
    if (epoch.next !== undefined && next < epoch.next) {
      this.violations.push(`${keyOf(partition)}: passed back to ${next}`);
    }
    epoch.next = next;
    this.passes.push({ partition: keyOf(partition), next });
  }

  trouble(error: DriverError | undefined): void {
    this.troubles.push(error);
  }
}

/** A message to produce; what is left out is null, empty or now. */
export interface ProducedMessage {
  readonly value: Buffer | string | null;
  readonly key?: Buffer | string | null;
  readonly headers?: Headers;
  readonly timestamp?: number;
}

/** A batch of messages as a sink session would have it, of a lane that nobody keeps books of. */
export function batchOf(
  messages: readonly ProducedMessage[],
  codec: Codec = "none",
  now = 1_700_000_000_000,
): Batch {
  const lane = new Lane({
    origin: { source: "conformance", target: "none" },
    epoch: 1,
    ack: "cumulative",
    ledger: { taken() {}, settled() {}, branched() {} },
  });
  const records = new PlainRecords(
    messages.map(({ value, key, headers, timestamp }, position) => ({
      position,
      key: bytesOf(key ?? null),
      value: bytesOf(value),
      headers: headers ?? noHeaders,
      timestamp: timestamp ?? now,
    })),
  );
  const chunk = new Chunk(lane, lane, lane.take(records, 0, records.length), records.length, records, 0);
  const batch = new Batch({ name: "conformance" }, 0);
  batch.codec = codec;
  for (let i = 0; i < chunk.length; i++) batch.add(chunk, i);
  return batch;
}

/** Sends one batch to one partition; returns what the broker answered for it. */
export async function produce(
  producer: Producer,
  topic: string,
  partition: number,
  messages: readonly (ProducedMessage | string)[],
  codec: Codec = "none",
): Promise<ProduceResult> {
  const batch = batchOf(
    messages.map((message) => (typeof message === "string" ? { value: message } : message)),
    codec,
  );
  const encoded = await producer.encode({ topic, partition }, batch, 0, batch.length);
  const [result] = await producer.send([encoded]);
  assert.ok(result !== undefined, "the answer names the partition");
  return result;
}

/** Joins a group with a recorder. */
export async function join(
  bed: DriverUnderTest,
  client: KafkaClient,
  group: string,
  topics: readonly string[],
  recorder = new Recorder(),
): Promise<Recorder & { readonly subscription: Subscription }> {
  const options = {
    group,
    topics,
    maxBytesPerPartition: 2 ** 20,
    maxWait: 100,
    metadataAge: 1_000,
    ...bed.groupTimes,
  };
  recorder.subscription = await client.subscribe(options, recorder);
  return recorder as Recorder & { readonly subscription: Subscription };
}

export const scenarios: readonly Scenario[] = [
  {
    name: "a message comes back as it was sent: keys, values, headers and timestamps, null and empty ones too",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const binary = Buffer.from([0, 255, 128, 10, 13]);
      const sent: ProducedMessage[] = [
        { key: null, value: "no key" },
        { key: Buffer.alloc(0), value: "a key of no bytes" },
        { key: "k", value: null },
        { key: "k", value: Buffer.alloc(0) },
        { key: binary, value: binary },
        { value: "ünïcödé", timestamp: 1_234_567_890_123 },
        { value: "old", timestamp: 0 },
        { value: "one header", headers: [["a", binary]] },
        {
          value: "names repeat",
          headers: [
            ["a", Buffer.from("1")],
            ["a", Buffer.from("2")],
            ["b", Buffer.alloc(0)],
          ],
        },
        {
          value: "text and numbers",
          headers: [
            ["text", "ü"],
            ["number", 7],
            ["truth", true],
          ],
        },
      ];
      const result = await produce(await client.producer(), topic, 0, sent);
      assert.equal(result.error, undefined);
      if (result.offset !== undefined) assert.equal(result.offset, 0);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("all arrive", () => member.received.length >= sent.length);
      for (const [i, message] of sent.entries()) {
        const received = member.received[i]!;
        const expected = bytesOf(message.value);
        assert.equal(received.position, i);
        assert.deepEqual(received.key, bytesOf(message.key ?? null), `key of ${i}`);
        assert.deepEqual(received.value, expected, `value of ${i}`);
        assert.equal(received.timestamp, message.timestamp ?? 1_700_000_000_000, `timestamp of ${i}`);
        const headers = (message.headers ?? []).map(([name, content]) => [
          name,
          Buffer.isBuffer(content) ? content : Buffer.from(String(content)),
        ]);
        assert.deepEqual(
          received.headers.map(([name, content]) => [name, toBytes(content)]),
          headers,
          `headers of ${i}`,
        );
      }
      assert.deepEqual(member.violations, []);
    },
  },
  {
    name: "a header's null value stays null",
    applies: (features) => features.nullHeaders,
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      await produce(await client.producer(), topic, 0, [{ value: "v", headers: [["nothing", null]] }]);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("it arrives", () => member.received.length === 1);
      assert.deepEqual(member.received[0]!.headers, [["nothing", null]]);
    },
  },
  {
    name: "headers keep their order",
    applies: (features) => features.headerOrder,
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const headers: Headers = ["a", "b", "a", "10", "2"].map((name, i) => [name, Buffer.from([i])]);
      await produce(await client.producer(), topic, 0, [{ value: "v", headers }]);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("it arrives", () => member.received.length === 1);
      assert.deepEqual(member.received[0]!.headers, headers);
    },
  },
  {
    name: "each codec carries a batch",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      const sent: string[] = [];
      for (const codec of bed.features.codecs) {
        const values = Array.from({ length: 50 }, (_, i) => `${codec} ${i} ${"lorem ipsum ".repeat(10)}`);
        const result = await produce(producer, topic, 0, values, codec);
        assert.equal(result.error, undefined, codec);
        sent.push(...values);
      }
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("all arrive", () => member.received.length >= sent.length);
      assert.deepEqual(member.values, sent);
    },
  },
  {
    name: "records of a partition arrive in order and once, whatever the batches, with others between",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 3 });
      const client = bed.connect();
      const producer = await client.producer();
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("assigned", () => member.assignments.length > 0);
      const sent: string[][] = [[], [], []];
      for (let round = 0; round < 12; round++) {
        for (let partition = 0; partition < 3; partition++) {
          const values = Array.from({ length: 1 + ((round * 7 + partition) % 5) }, (_, i) => `${round}.${i}`);
          await produce(producer, topic, partition, values);
          sent[partition]!.push(...values);
        }
      }
      await bed.until("all arrive", () => member.received.length >= sent.flat().length);
      for (const [partition, values] of sent.entries()) {
        const received = member.received.filter((record) => record.partition === partition);
        assert.deepEqual(
          received.map((record) => record.value?.toString()),
          values,
        );
        assert.deepEqual(
          received.map((record) => record.position),
          values.map((_, i) => i),
        );
      }
      assert.deepEqual(member.violations, []);
    },
  },
  {
    name: "a topic is described with its partitions and limit; a missing one is undefined and is not created",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 3, maxMessageBytes: 77_777 });
      const missing = bed.freshName("missing");
      const client = bed.connect();
      for (let attempt = 0; attempt < 2; attempt++) {
        const described = await client.describe([missing, topic]);
        assert.deepEqual(described.get(topic), { partitions: 3, maxMessageBytes: 77_777 });
        assert.ok(described.has(missing));
        assert.equal(described.get(missing), undefined);
      }
    },
  },
  {
    name: "topics are created as asked for, and one that exists stays as it is",
    async run(bed) {
      const topic = bed.freshName("created");
      const client = bed.connect();
      await client.create([{ topic, partitions: 2, replicationFactor: 1 }]);
      await bed.until(
        "it is there",
        async () => (await client.describe([topic])).get(topic)?.partitions === 2,
      );
      await produce(await client.producer(), topic, 1, ["kept"]);
      await client.create([{ topic, partitions: 5, replicationFactor: 1 }]);
      assert.equal((await client.describe([topic])).get(topic)?.partitions, 2);
      assert.deepEqual(sorted(await client.offsets(topic)), [
        { partition: 0, earliest: 0, latest: 0 },
        { partition: 1, earliest: 0, latest: 1 },
      ]);
    },
  },
  {
    name: "offsets tell the first offset and the next one of every partition",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const client = bed.connect();
      const producer = await client.producer();
      await produce(producer, topic, 1, ["a", "b"]);
      const second = await produce(producer, topic, 1, ["c"]);
      if (second.offset !== undefined) assert.equal(second.offset, 2);
      assert.deepEqual(sorted(await client.offsets(topic)), [
        { partition: 0, earliest: 0, latest: 0 },
        { partition: 1, earliest: 0, latest: 3 },
      ]);
    },
  },
  {
    name: "a topic that does not exist is unknown to offsets and to a send",
    async run(bed) {
      const missing = bed.freshName("missing");
      const client = bed.connect();
      await assert.rejects(client.offsets(missing), (error) => codeOf(error) === "unknown-topic");
      const producer = await client.producer();
      assert.equal(await sendError(producer, missing, 0, ["x"]), "unknown-topic");
      assert.equal((await client.describe([missing])).get(missing), undefined);
    },
  },
  {
    name: "an answer names every partition sent, each once",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 4 });
      const other = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      const batch = batchOf([{ value: "x" }, { value: "y" }]);
      const targets = [0, 1, 2, 3].map((partition): TopicPartition => ({ topic, partition }));
      targets.push({ topic: other, partition: 0 });
      const encoded = await Promise.all(
        targets.map((target) => producer.encode(target, batch, 0, batch.length)),
      );
      const results = await producer.send(encoded);
      assert.deepEqual(results.map(keyOf).sort(), targets.map(keyOf).sort());
      for (const result of results) assert.equal(result.error, undefined);
      for (const { latest } of await client.offsets(topic)) assert.equal(latest, 2);
    },
  },
  {
    name: "part of a batch may be encoded and sent, and the same encoding may be sent twice",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      const batch = batchOf(["a", "b", "c", "d"].map((value) => ({ value })));
      const encoded = await producer.encode({ topic, partition: 0 }, batch, 1, 3);
      assert.equal(encoded.count, 2);
      await producer.send([encoded]);
      await producer.send([encoded]);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("all arrive", () => member.received.length >= 4);
      assert.deepEqual(member.values, ["b", "c", "b", "c"]);
    },
  },
  {
    name: "a batch above the topic's limit is too large, and a smaller one after it is stored",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1, maxMessageBytes: 20_000 });
      const client = bed.connect();
      const producer = await client.producer();
      const noise = randomBytes(30_000);
      for (const codec of bed.features.codecs) {
        assert.equal(await sendError(producer, topic, 0, [{ value: noise }], codec), "too-large", codec);
      }
      assert.equal((await produce(producer, topic, 0, ["small"])).error, undefined);
      assert.equal((await client.offsets(topic))[0]!.latest, 1);
    },
  },
  {
    name: "what counts against the limit is the batch as compressed",
    applies: (features) => features.codecs.includes("gzip"),
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1, maxMessageBytes: 20_000 });
      const producer = await bed.connect().producer();
      const sparse = { value: Buffer.alloc(100_000, "a") };
      assert.equal(await sendError(producer, topic, 0, [sparse]), "too-large");
      assert.equal((await produce(producer, topic, 0, [sparse], "gzip")).error, undefined);
    },
  },
  {
    name: "an encoded size is never below what the broker counts, and equal to it where it says exact",
    async run(bed) {
      const client = bed.connect();
      const producer = await client.producer();
      const messages = Array.from({ length: 40 }, (_, i) => ({
        key: i % 3 === 0 ? null : Buffer.alloc(i * 5, "k"),
        value: i % 7 === 0 ? null : Buffer.alloc(i * 17, "v"),
        timestamp: 1_700_000_000_000 + (i % 2 === 0 ? i * 100 : -i * 9),
        headers: i % 5 === 0 ? ([["näme", Buffer.alloc(i * 3)]] as const) : noHeaders,
      }));
      const batch = batchOf(messages);
      const measured = await producer.encode({ topic: "any", partition: 0 }, batch, 0, batch.length);
      const fits = await bed.freshTopic({ partitions: 1, maxMessageBytes: measured.size });
      assert.equal((await produce(producer, fits, 0, messages)).error, undefined);
      if (!measured.exact) return;
      const tooSmall = await bed.freshTopic({ partitions: 1, maxMessageBytes: measured.size - 1 });
      assert.equal(await sendError(producer, tooSmall, 0, messages), "too-large");
    },
  },
  {
    name: "a group has no committed offsets until it commits, and then those it committed",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 3 });
      const group = bed.freshName("group");
      const client = bed.connect();
      assert.deepEqual(await client.committed(group, topic), new Map());
      const member = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => member.owned.length === 3);
      await member.subscription.commit([{ topic, partition: 1, offset: 0 }]);
      await member.subscription.commit([{ topic, partition: 2, offset: 5 }]);
      assert.deepEqual(
        [...(await client.committed(group, topic))].sort(([a], [b]) => a - b),
        [
          [1, 0],
          [2, 5],
        ],
      );
    },
  },
  {
    name: "a member that comes after another has left reads on from the committed offsets",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const producer = await client.producer();
      for (const partition of [0, 1]) await produce(producer, topic, partition, ["0", "1", "2", "3", "4"]);
      const first = await join(bed, client, group, [topic]);
      await bed.until("all arrive", () => first.received.length === 10);
      await first.subscription.commit([
        { topic, partition: 0, offset: 3 },
        { topic, partition: 1, offset: 5 },
      ]);
      await first.subscription.close(bed.context.clock.now() + 5_000);
      const second = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => second.owned.length === 2);
      await produce(producer, topic, 1, ["5"]);
      await bed.until("the rest arrives", () => second.received.length >= 3);
      const places = second.received.map(({ partition, position }) => `${partition}:${position}`).sort();
      assert.deepEqual(places, ["0:3", "0:4", "1:5"]);
      assert.equal(first.received.length, 10);
    },
  },
  {
    name: "commits below the committed offset and for partitions of another member are taken",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const other = bed.connect();
      const first = await join(bed, client, group, [topic]);
      const second = await join(bed, other, group, [topic]);
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
      const foreign = Number(second.owned[0]!.split("/")[1]);
      await first.subscription.commit([{ topic, partition: foreign, offset: 9 }]);
      await first.subscription.commit([{ topic, partition: foreign, offset: 4 }]);
      assert.equal((await client.committed(group, topic)).get(foreign), 4);
    },
  },
  {
    name: "a commit for an epoch that has passed is fenced, and commits nothing",
    applies: (features) => !features.incremental,
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      await produce(await client.producer(), topic, 0, ["0", "1", "2"]);
      const first = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => first.owned.length === 2);
      await first.subscription.commit([{ topic, partition: 0, offset: 1 }]);
      let late: Promise<unknown> | undefined;
      first.onRevoking = () => {
        // Once this has returned, the member has given up its epoch and is on its way into the next.
        late ??= new Promise<void>((resolve) => bed.context.clock.defer(resolve)).then(() =>
          first.subscription.commit([{ topic, partition: 0, offset: 2 }]),
        );
        late.catch(() => {});
      };
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
      await assert.rejects(late!, (error) => codeOf(error) === "fenced");
      assert.equal((await client.committed(group, topic)).get(0), 1);
    },
  },
  {
    name: "a commit made in `revoking` either counts or is fenced",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      await produce(await client.producer(), topic, 0, ["0", "1", "2"]);
      const first = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => first.owned.length === 2);
      const commits: Promise<number | "fenced">[] = [];
      first.onRevoking = async () => {
        const offset = commits.length + 1;
        const commit = first.subscription.commit([{ topic, partition: 0, offset }]).then(
          () => offset,
          (error): "fenced" => {
            assert.equal(codeOf(error), "fenced");
            return "fenced";
          },
        );
        commits.push(commit);
        await commit;
      };
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
      assert.ok(commits.length > 0);
      const counted = (await Promise.all(commits)).filter((commit) => commit !== "fenced");
      assert.equal((await client.committed(group, topic)).get(0), counted.at(-1));
      if (bed.features.holdsRebalance) assert.equal(counted.length, commits.length);
    },
  },
  {
    name: "a subscription that was closed commits nothing, and says so",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const member = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => member.owned.length === 1);
      await member.subscription.close(bed.context.clock.now() + 5_000);
      await assert.rejects(
        member.subscription.commit([{ topic, partition: 0, offset: 1 }]),
        (error) => codeOf(error) === "fenced",
      );
      assert.deepEqual(await client.committed(group, topic), new Map());
    },
  },
  {
    name: "two members have disjoint partitions, and get all messages between them",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 4 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const first = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => first.owned.length === 4);
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared", () => first.owned.length === 2 && second.owned.length === 2);
      assert.deepEqual(
        [...first.owned, ...second.owned].sort(),
        [0, 1, 2, 3].map((p) => `${topic}/${p}`),
      );
      const producer = await client.producer();
      for (let i = 0; i < 4; i++) await produce(producer, topic, i, [`m${i}`]);
      const all = () => [...first.values, ...second.values].sort();
      await bed.until("all arrive", () => all().length >= 4);
      assert.deepEqual(all(), ["m0", "m1", "m2", "m3"]);
      assert.deepEqual([first.violations, second.violations], [[], []]);
    },
  },
  {
    name: "a member without partitions is told so, and gets them when the other leaves",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const members = [
        await join(bed, client, group, [topic]),
        await join(bed, bed.connect(), group, [topic]),
      ];
      const settled = () => members.map((member) => member.assignments.at(-1)?.owned.length).sort();
      await bed.until("one has it", () => settled().join() === "0,1");
      const owner = members.find((member) => member.owned.length === 1)!;
      const idle = members.find((member) => member !== owner)!;
      await owner.subscription.close(bed.context.clock.now() + 5_000);
      await bed.until("the other has it", () => idle.owned.length === 1);
    },
  },
  {
    name: "a rebalance reads on from the committed offsets, for everything that is fresh",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const producer = await client.producer();
      for (const partition of [0, 1]) await produce(producer, topic, partition, ["a", "b"]);
      const first = await join(bed, client, group, [topic]);
      await bed.until("all arrive", () => first.received.length === 4);
      await first.subscription.commit([{ topic, partition: 0, offset: 1 }]);
      const before = first.assignments.length;
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
      for (const partition of [0, 1]) await produce(producer, topic, partition, ["c"]);
      const again = (member: Recorder, from: number) =>
        member.received
          .filter((record) => record.epoch >= from)
          .map(({ partition, position }) => `${partition}:${position}`);
      const last = () => again(second, 0).concat(first.received.map((r) => `${r.partition}:${r.position}`));
      await bed.until("the new ones arrive", () => last().includes("0:2") && last().includes("1:2"));
      const fresh = first.assignments.slice(before).flatMap((assignment) => assignment.fresh);
      if (bed.features.incremental) assert.deepEqual(fresh, [], "what it keeps goes on where it was");
      else assert.ok(fresh.length > 0, "everything starts again");
      const moved = second.owned[0] === `${topic}/0` ? ["0:1", "0:2"] : ["1:0", "1:1", "1:2"];
      assert.deepEqual(again(second, 0), moved);
      assert.deepEqual([first.violations, second.violations], [[], []]);
    },
  },
  {
    name: "a rebalance waits for the promise of `revoking`",
    applies: (features) => features.holdsRebalance,
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const first = await join(bed, bed.connect(), group, [topic]);
      await bed.until("assigned", () => first.owned.length === 2);
      let release: () => void = () => {};
      first.onRevoking = () => new Promise<void>((resolve) => (release = resolve));
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("asked to let go", () => first.revoked.length === 1);
      const asked = bed.context.clock.now();
      // Several heartbeats and the session time-out, but not the rebalance time-out.
      await bed.until(
        "time has passed",
        () => bed.context.clock.now() > asked + 2 * bed.groupTimes.sessionTimeout,
      );
      assert.deepEqual(second.owned, []);
      release();
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
    },
  },
  {
    name: "a paused partition delivers nothing until it is resumed, while others go on",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const client = bed.connect();
      const producer = await client.producer();
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("assigned", () => member.owned.length === 2);
      const arrived = (value: string) => bed.until(`${value} arrives`, () => member.values.includes(value));
      await produce(producer, topic, 0, ["before"]);
      await arrived("before");
      member.subscription.pause([{ topic, partition: 0 }]);
      // What was under way at the pause is over once the other partition has been read twice since.
      for (const value of ["w1", "w2"]) {
        await produce(producer, topic, 1, [value]);
        await arrived(value);
      }
      await produce(producer, topic, 0, ["held"]);
      for (const value of ["w3", "w4"]) {
        await produce(producer, topic, 1, [value]);
        await arrived(value);
      }
      assert.ok(!member.values.includes("held"));
      member.subscription.resume([{ topic, partition: 0 }]);
      await arrived("held");
      assert.deepEqual(
        member.received.filter((record) => record.partition === 0).map((record) => record.position),
        [0, 1],
      );
      assert.deepEqual(member.violations, []);
    },
  },
  {
    name: "a pause ends with its epoch",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 2 });
      const group = bed.freshName("group");
      const client = bed.connect();
      const producer = await client.producer();
      const first = await join(bed, client, group, [topic]);
      await bed.until("assigned", () => first.owned.length === 2);
      first.subscription.pause([
        { topic, partition: 0 },
        { topic, partition: 1 },
      ]);
      const second = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared", () => first.owned.length === 1 && second.owned.length === 1);
      await first.subscription.close(bed.context.clock.now() + 5_000);
      await bed.until("second has all", () => second.owned.length === 2);
      const third = await join(bed, bed.connect(), group, [topic]);
      await bed.until("shared again", () => second.owned.length === 1 && third.owned.length === 1);
      for (const partition of [0, 1]) await produce(producer, topic, partition, ["x"]);
      await bed.until("all arrive", () => second.received.length + third.received.length === 2);
    },
  },
  {
    name: "offsets that nobody sees are passed over, in the middle and at the end",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      await produce(producer, topic, 0, ["a"]);
      await bed.abortTransaction(topic, 0);
      await produce(producer, topic, 0, ["b"]);
      await bed.abortTransaction(topic, 0);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("the end is reached", () => member.next(topic, 0) === 6);
      assert.deepEqual(
        member.received.map((record) => record.position),
        [0, 3],
      );
      assert.deepEqual(member.values, ["a", "b"]);
      await produce(producer, topic, 0, ["c"]);
      await bed.until("the next one arrives", () => member.values.includes("c"));
      assert.deepEqual(member.violations, []);
    },
  },
  {
    name: "a member whose committed offset is gone reads from the earliest there is",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const group = bed.freshName("group");
      const client = bed.connect();
      await produce(await client.producer(), topic, 0, ["0", "1", "2", "3", "4", "5"]);
      const first = await join(bed, client, group, [topic]);
      await bed.until("all arrive", () => first.received.length === 6);
      await first.subscription.commit([{ topic, partition: 0, offset: 2 }]);
      await first.subscription.close(bed.context.clock.now() + 5_000);
      await bed.deleteRecords(topic, 0, 4);
      assert.deepEqual(await client.offsets(topic), [{ partition: 0, earliest: 4, latest: 6 }]);
      const second = await join(bed, client, group, [topic]);
      await bed.until("the rest arrives", () => second.received.length >= 2);
      assert.deepEqual(
        second.received.map((record) => record.position),
        [4, 5],
      );
      assert.deepEqual(second.lost, [`${topic}/0@2`]);
      const left = bed.features.erasesOutOfRange ? new Map() : new Map([[0, 2]]);
      assert.deepEqual(await client.committed(group, topic), left);
    },
  },
  {
    name: "a topic that gains partitions: they are described and written to, become fresh, and are read from their beginning",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      await produce(producer, topic, 0, ["a"]);
      const member = await join(bed, client, bed.freshName("group"), [topic]);
      await bed.until("the first arrives", () => member.received.length === 1);
      await bed.growPartitions(topic, 3);
      await bed.until(
        "they are described",
        async () => (await client.describe([topic])).get(topic)?.partitions === 3,
      );
      for (const partition of [1, 2]) {
        await bed.until(
          `partition ${partition} is written to`,
          async () => (await sendError(producer, topic, partition, [`p${partition}`])) === "no error",
        );
      }
      await bed.until("they are owned", () => member.owned.length === 3);
      await bed.until("what they hold arrives", () =>
        ["p1", "p2"].every((value) => member.values.includes(value)),
      );
      const fresh = member.assignments.slice(1).flatMap((assignment) => assignment.fresh);
      for (const partition of [1, 2]) assert.ok(fresh.includes(`${topic}/${partition}`));
      const firsts = member.received.filter(({ partition }) => partition > 0).map(({ position }) => position);
      assert.ok(firsts.filter((position) => position === 0).length >= 2, "from the beginning");
      assert.deepEqual(member.violations, []);
    },
  },
  {
    name: "a group may read several topics",
    async run(bed) {
      const topics = [await bed.freshTopic({ partitions: 2 }), await bed.freshTopic({ partitions: 1 })];
      const client = bed.connect();
      const producer = await client.producer();
      const member = await join(bed, client, bed.freshName("group"), topics);
      await bed.until("assigned", () => member.owned.length === 3);
      for (const topic of topics) await produce(producer, topic, 0, [topic]);
      await bed.until("all arrive", () => member.received.length >= 2);
      assert.deepEqual([...member.values].sort(), [...topics].sort());
      for (const record of member.received) assert.equal(record.value?.toString(), record.topic);
    },
  },
  {
    name: "a partition whose log is longer than one fetch arrives whole",
    async run(bed) {
      const topic = await bed.freshTopic({ partitions: 1 });
      const client = bed.connect();
      const producer = await client.producer();
      const count = 3_000;
      for (let from = 0; from < count; from += 500) {
        const values = Array.from({ length: 500 }, (_, i) => `${from + i} ${"x".repeat(200)}`);
        await produce(producer, topic, 0, values);
      }
      const recorder = new Recorder();
      const fetches: number[] = [];
      recorder.onRecords = () => fetches.push(recorder.received.length);
      recorder.subscription = await client.subscribe(
        {
          group: bed.freshName("group"),
          topics: [topic],
          maxBytesPerPartition: 64 * 1024,
          maxWait: 100,
          metadataAge: 1_000,
          ...bed.groupTimes,
        },
        recorder,
      );
      await bed.until("all arrive", () => recorder.received.length >= count);
      assert.ok(fetches.length > 1);
      assert.deepEqual(
        recorder.received.map((record) => record.position),
        Array.from({ length: count }, (_, i) => i),
      );
      assert.deepEqual(recorder.violations, []);
    },
  },
];

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

function bytesOf(content: Buffer | string | null): Buffer | null {
  return typeof content === "string" ? Buffer.from(content) : content;
}

function toBytes(content: Headers[number][1]): Buffer {
  return Buffer.isBuffer(content) ? content : Buffer.from(String(content));
}

function codeOf(error: unknown): string {
  return error instanceof DriverError ? error.code : `no DriverError: ${error}`;
}

function sorted<T extends { readonly partition: number }>(entries: readonly T[]): T[] {
  return [...entries].sort((a, b) => a.partition - b.partition);
}

/** The code of the error that a send ends with, whether the answer or the call says so. */
async function sendError(
  producer: Producer,
  topic: string,
  partition: number,
  messages: readonly (ProducedMessage | string)[],
  codec: Codec = "none",
): Promise<string> {
  try {
    const result = await produce(producer, topic, partition, messages, codec);
    return result.error?.code ?? "no error";
  } catch (error) {
    return codeOf(error);
  }
}
