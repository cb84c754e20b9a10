/**
 * The idempotent producer against a broker that does what Kafka's does with identities and sequence numbers, and
 * that loses requests, answers and its own state: what was acknowledged is in the log, in order, and once unless
 * the broker forgot the producer.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Reader } from "@platformatic/kafka";
import fc from "fast-check";
import { testContext } from "../../../../testing/context.ts";
import { DriverError, type EncodedBatch } from "../../driver.ts";
import { batchOf } from "../conformance.ts";
import type { Cluster } from "./cluster.ts";
import type { OwnExchange } from "./connection.ts";
import { ErrorCode } from "./errors.ts";
import type { ProduceAnswer } from "./produce-exchange.ts";
import { WireProducer } from "./producer.ts";
import { decodeRecords } from "./record-batch/decode.ts";

interface Stored {
  readonly first: number;
  readonly last: number;
}

type Fault = "none" | "dropRequest" | "dropResponse" | "forget" | "tooLarge" | "timeout" | "unnamed";

/** One partition's log, and what it knows of producers: the last five batches of each, as Kafka does. */
class Log {
  readonly values: string[] = [];
  readonly producers = new Map<bigint, Stored[]>();

  append(bytes: Buffer): number {
    const id = bytes.readBigInt64BE(43);
    const first = bytes.readInt32BE(53);
    const last = first + bytes.readInt32BE(57) - 1;
    const known = this.producers.get(id);
    if (known?.some((stored) => stored.first === first && stored.last === last)) return 0;
    if (known !== undefined && first !== known.at(-1)!.last + 1) return ErrorCode.outOfOrderSequence;
    if (known === undefined && first !== 0) return ErrorCode.unknownProducer;
    this.producers.set(id, [...(known ?? []), { first, last }].slice(-5));
    const decoded = decodeRecords(Buffer.from(bytes), {
      topic: "t",
      partition: 0,
      from: 0,
      work: { run: async (task) => task.run() },
    });
    assert.ok(!(decoded instanceof Promise));
    for (let i = 0; i < decoded.records.length; i++) this.values.push(decoded.records.value(i)!.toString());
    return 0;
  }
}

class Broker {
  readonly logs = [new Log(), new Log()];
  fault: Fault = "none";
  identities = 0;

  readonly #connection = {
    exchange: (exchange: OwnExchange<ProduceAnswer>) => this.#produce(exchange),
    ask: async () => ({ producerId: BigInt(++this.identities), producerEpoch: 0 }),
  };

  readonly cluster = {
    learn: async () => {},
    suspect: () => {},
    topic: () => ({}),
    leader: () => ({ node: 1, epoch: 0 }),
    connections: { ready: () => this.#connection, toAny: async () => this.#connection },
  } as unknown as Cluster;

  async #produce(exchange: OwnExchange<ProduceAnswer>): Promise<ProduceAnswer> {
    const fault = this.fault;
    this.fault = "none";
    if (fault === "dropRequest") throw new DriverError("retry", "the request was lost");
    const reader = Reader.from(exchange.write(9));
    reader.readNullableString();
    reader.readInt16();
    reader.readInt32();
    const partitions = reader
      .readArray((topics) => {
        const topic = topics.readString();
        return topics.readArray(
          (each) => ({ topic, partition: each.readInt32(), bytes: each.readBytes() }),
          true,
        );
      })
      .flat();
    const answers = partitions.map(({ topic, partition, bytes }) => {
      const log = this.logs[partition]!;
      if (fault === "forget") log.producers.clear();
      const error = fault === "tooLarge" ? 10 : log.append(bytes);
      return {
        topic,
        partition,
        error: fault === "timeout" && error === 0 ? 7 : error,
        detail: null,
        offset: 0,
      };
    });
    if (fault === "dropResponse") throw new DriverError("retry", "the answer was lost");
    return { throttle: 0, partitions: fault === "unnamed" ? [] : answers };
  }
}

interface Step {
  readonly partition: number;
  readonly count: number;
  /** For the attempts at this batch, one after the other; then none. */
  readonly faults: readonly Fault[];
  /** After its faults the sink goes on with the next batch, as it does where it splits or refuses one. */
  readonly givenUp: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  partition: fc.nat(1),
  count: fc.integer({ min: 1, max: 3 }),
  faults: fc.array(
    fc.constantFrom<Fault>("dropRequest", "dropResponse", "forget", "tooLarge", "timeout", "unnamed"),
    { maxLength: 4 },
  ),
  givenUp: fc.boolean(),
});

async function run(steps: readonly Step[]): Promise<void> {
  const broker = new Broker();
  const producer = new WireProducer(broker.cluster, testContext(), 30_000);
  const acknowledged: string[][] = [[], []];
  let forgets = 0;
  let mayRepeat = false;
  for (const [number, { partition, count, faults, givenUp }] of steps.entries()) {
    const values = Array.from({ length: count }, (_, i) => `${number}.${i}`);
    const batch = batchOf(values.map((value) => ({ value })));
    const encoded = (await producer.encode({ topic: "t", partition }, batch, 0, count)) as EncodedBatch;
    let doubtful = false;
    for (let attempt = 0; !givenUp || attempt < faults.length; attempt++) {
      assert.ok(attempt < faults.length + 3, "a broker that is well takes it in the end");
      broker.fault = faults[attempt] ?? "none";
      if (broker.fault === "forget") forgets++;
      if (broker.fault === "tooLarge" && doubtful) mayRepeat = true;
      doubtful ||= ["dropResponse", "timeout", "unnamed"].includes(broker.fault);
      const [result] = await producer.send([encoded]);
      if (result === undefined || result.error !== undefined) continue;
      acknowledged[partition]!.push(...values);
      break;
    }
  }
  for (const [partition, log] of broker.logs.entries()) {
    const firsts = log.values.filter((value, i) => log.values.indexOf(value) === i);
    const expected = acknowledged[partition]!;
    assert.deepEqual(
      firsts.filter((value) => expected.includes(value)),
      expected,
      "all that was acknowledged is there, in order",
    );
    if (forgets === 0 && !mayRepeat) assert.equal(log.values.length, firsts.length, "once");
  }
}

test("what is acknowledged is stored, in order, and once unless the broker forgot the producer", async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 12, size: "max" }), run), {
    numRuns: Number(process.env.MILLRACE_PROPERTY_RUNS ?? 1_000),
  });
});

test("a broker that loses nothing knows the producer by one identity, and takes each batch at once", async () => {
  const broker = new Broker();
  const producer = new WireProducer(broker.cluster, testContext(), 30_000);
  for (const count of [3, 1, 2, 3]) {
    const batch = batchOf(Array.from({ length: count }, () => ({ value: "x" })));
    for (const partition of [0, 1]) {
      const encoded = (await producer.encode({ topic: "t", partition }, batch, 0, count)) as EncodedBatch;
      const [result] = await producer.send([encoded]);
      assert.equal(result?.error, undefined);
    }
  }
  assert.equal(broker.identities, 1);
  assert.deepEqual(
    broker.logs.map(({ values }) => values.length),
    [9, 9],
  );
});

test("seed 001.5, 003.1, 003.3: a resend is the same bytes and is stored once, and a batch sent again after it was stored is another", async () => {
  const broker = new Broker();
  const producer = new WireProducer(broker.cluster, testContext(), 30_000);
  const batch = batchOf([{ value: "a" }]);
  const encoded = (await producer.encode({ topic: "t", partition: 0 }, batch, 0, 1)) as EncodedBatch & {
    readonly bytes: Buffer;
  };
  broker.fault = "dropResponse";
  assert.equal((await producer.send([encoded]))[0]!.error?.code, "retry");
  const sent = Buffer.from(encoded.bytes);
  assert.equal((await producer.send([encoded]))[0]!.error, undefined);
  assert.deepEqual(encoded.bytes, sent);
  assert.deepEqual(broker.logs[0]!.values, ["a"]);
  await producer.send([encoded]);
  assert.notDeepEqual(encoded.bytes, sent);
  assert.deepEqual(broker.logs[0]!.values, ["a", "a"]);
});

test("one partition's lost identity leaves the others theirs", async () => {
  const broker = new Broker();
  const producer = new WireProducer(broker.cluster, testContext(), 30_000);
  const encode = (partition: number, value: string) =>
    producer.encode({ topic: "t", partition }, batchOf([{ value }]), 0, 1) as EncodedBatch;
  await producer.send([encode(0, "a"), encode(1, "a")]);
  const doubtful = encode(1, "b");
  broker.fault = "dropResponse";
  await producer.send([doubtful]);
  broker.logs[0]!.producers.clear();
  const lost = encode(0, "b");
  assert.equal((await producer.send([lost]))[0]!.error?.code, "retry");
  assert.equal((await producer.send([lost, doubtful])).filter(({ error }) => error !== undefined).length, 0);
  assert.deepEqual(
    broker.logs.map(({ values }) => values),
    [
      ["a", "b"],
      ["a", "b"],
    ],
  );
  assert.equal(broker.identities, 2);
});
