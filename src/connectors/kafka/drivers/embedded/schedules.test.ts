import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { settlePromises } from "../../../../testing/clock.ts";
import { testContext } from "../../../../testing/context.ts";
import { propertyRuns } from "../../../../testing/property-runs.ts";
import type {
  KafkaClient,
  ProduceResult,
  Producer,
  SubscribeOptions,
  Subscription,
  TopicPartition,
} from "../../driver.ts";
import { kafkaSettings } from "../../options.ts";
import { batchOf, type Received, Recorder } from "../conformance.ts";
import type { Api } from "./connection.ts";
import type { RebalanceManner } from "./group.ts";
import { EmbeddedKafka, embeddedDriver } from "./index.ts";

/*
 * Producers, members and faults in any order. Afterwards, with the faults over:
 *
 * - A log holds nothing that was not sent, each value at most as often as it was sent, and what was acknowledged
 *   at the offset it was acknowledged with. Offsets rise.
 * - The members own all partitions, each one once.
 * - Members commit what they were given and no more, so every record still in a log was given to somebody.
 * - In one epoch a member gets a partition's records in order and once, from the committed offset on.
 * - At no time does the group hold one partition for two members.
 */

const partitions = 3;
const apis: readonly Api[] = ["produce", "fetch", "join", "heartbeat", "leave", "commit"];

type Step =
  | { readonly kind: "produce"; readonly partition: number; readonly count: number }
  | { readonly kind: "commit" | "close" | "kill" | "pause" | "resume"; readonly who: number }
  | { readonly kind: "lose"; readonly api: number; readonly answer: boolean; readonly times: number }
  | { readonly kind: "refuse" | "omit" | "omitStored" | "gap"; readonly partition: number }
  | { readonly kind: "moveLeader"; readonly partition: number; readonly ms: number }
  | { readonly kind: "cut" | "pass"; readonly ms: number }
  | { readonly kind: "deleteRecords"; readonly partition: number; readonly part: number }
  | {
      readonly kind:
        | "join"
        | "standIn"
        | "standInLeaves"
        | "rebalance"
        | "expire"
        | "stall"
        | "release"
        | "slow";
    };

const partition = fc.nat(partitions - 1);
const who = fc.nat(3);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("produce" as const),
      partition,
      count: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("commit" as const), who }) },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.integer({ min: 0, max: 4_000 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("close" as const, "kill" as const, "pause" as const, "resume" as const),
      who,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("lose" as const),
      api: fc.nat(apis.length - 1),
      answer: fc.boolean(),
      times: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom("refuse" as const, "omit" as const, "omitStored" as const, "gap" as const),
      partition,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("moveLeader" as const),
      partition,
      ms: fc.integer({ min: 1, max: 3_000 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("cut" as const), ms: fc.integer({ min: 1, max: 15_000 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("deleteRecords" as const),
      partition,
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "join" as const,
        "standIn" as const,
        "standInLeaves" as const,
        "rebalance" as const,
        "expire" as const,
        "stall" as const,
        "release" as const,
        "slow" as const,
      ),
    }),
  },
);

/** Knows what was committed when each of its epochs began. */
class Reader extends Recorder {
  readonly #committed: () => ReadonlyMap<number, number>;
  readonly #starts = new Map<string, number>();

  constructor(committed: () => ReadonlyMap<number, number>) {
    super();
    this.#committed = committed;
  }

  override assigned(partitions: readonly TopicPartition[], fresh: readonly TopicPartition[]): void {
    for (const { partition } of fresh) {
      this.#starts.set(`${this.assignments.length}:${partition}`, this.#committed().get(partition) ?? 0);
    }
    super.assigned(partitions, fresh);
  }

  /** The committed offset at the beginning of the epoch in which the record came. */
  startOf(record: Received): number {
    return this.#starts.get(`${record.epoch}:${record.partition}`)!;
  }
}

interface Member {
  readonly recorder: Reader;
  readonly client: KafkaClient;
  readonly name: string;
  subscription: Subscription | undefined;
  gone: boolean;
}

interface Sent {
  readonly partition: number;
  readonly values: readonly string[];
  times: number;
  readonly acknowledged: number[];
}

class Schedule {
  readonly context = testContext();
  readonly cluster = new EmbeddedKafka(this.context.clock);
  readonly members: Member[] = [];
  readonly sent: Sent[] = [];
  readonly standIns: (() => void)[] = [];
  readonly manner: RebalanceManner;
  #producer: Promise<Producer> | undefined;
  #queues = Array.from({ length: partitions }, () => Promise.resolve());
  #values = 0;

  constructor(manner: RebalanceManner) {
    this.manner = manner;
    this.cluster.create([{ topic: "t", partitions }]);
  }

  get present(): Member[] {
    return this.members.filter((member) => !member.gone);
  }

  apply(step: Step): void {
    const { cluster } = this;
    const { faults } = cluster;
    switch (step.kind) {
      case "produce":
        this.produce(step.partition, step.count);
        break;
      case "commit":
        this.commit(this.present[step.who]);
        break;
      case "close":
      case "kill": {
        const member = this.present[step.who];
        if (member === undefined) break;
        member.gone = true;
        if (step.kind === "kill") faults.kill(member.name);
        else member.client.close(this.context.clock.now() + 1_000);
        break;
      }
      case "pause":
      case "resume": {
        const member = this.present[step.who];
        const owned = [0, 1, 2].map((partition) => ({ topic: "t", partition }));
        member?.subscription?.[step.kind](owned);
        break;
      }
      case "lose": {
        const api = apis[step.api]!;
        if (step.answer) faults.dropResponse(api, step.times);
        else faults.dropRequest(api, step.times);
        break;
      }
      case "refuse":
        faults.refuse("retry", 1, { partition: step.partition });
        break;
      case "omit":
      case "omitStored":
        faults.omit(step.kind === "omitStored", 1, { partition: step.partition });
        break;
      case "gap":
        faults.gap("t", step.partition);
        break;
      case "moveLeader":
        faults.moveLeader("t", step.partition, step.ms);
        break;
      case "cut":
        faults.cut(step.ms);
        break;
      case "deleteRecords": {
        // Retention reaches only what everyone is done with: what it takes unread, nobody can be given.
        const log = cluster.require("t").logs[step.partition]!;
        const committed = cluster.group("g").committed("t").get(step.partition) ?? 0;
        faults.deleteRecords("t", step.partition, Math.floor(step.part * Math.min(committed, log.end)));
        break;
      }
      case "join":
        if (this.present.length < 4) this.join();
        break;
      case "standIn":
        if (cluster.group("g").members.size > 0) this.standIns.push(faults.join("g", ["t"], this.manner));
        break;
      case "standInLeaves":
        this.standIns.shift()?.();
        break;
      case "rebalance":
        faults.rebalance("g");
        break;
      case "expire":
        faults.expireSession("g");
        break;
      case "stall":
        faults.stall();
        break;
      case "release":
        faults.release();
        break;
      case "slow":
        faults.latency = faults.latency === 0 ? 30 : 0;
        break;
      case "pass":
        break;
    }
  }

  join(): void {
    const name = `member-${this.members.length}`;
    const client = this.#client(name);
    const recorder = new Reader(() => this.cluster.group("g").committed("t"));
    const member: Member = { recorder, client, name, subscription: undefined, gone: false };
    this.members.push(member);
    const options: SubscribeOptions = {
      group: "g",
      topics: ["t"],
      sessionTimeout: 6_000,
      rebalanceTimeout: 20_000,
      heartbeatInterval: 500,
      maxBytesPerPartition: 20,
      maxWait: 100,
      metadataAge: 30_000,
    };
    client.subscribe(options, recorder).then(
      (subscription) => {
        member.subscription = subscription;
      },
      () => {
        member.gone = true;
      },
    );
  }

  /** Sends a batch until it is acknowledged, after those before it of its partition. */
  produce(partition: number, count: number): void {
    const values = Array.from({ length: count }, () => `v${this.#values++}`);
    const entry: Sent = { partition, values, times: 0, acknowledged: [] };
    this.sent.push(entry);
    this.#queues[partition] = this.#queues[partition]!.then(async () => {
      this.#producer ??= this.#client("producer").producer();
      const producer = await this.#producer;
      const batch = batchOf(values.map((value) => ({ value })));
      const encoded = await producer.encode({ topic: "t", partition }, batch, 0, count);
      while (entry.acknowledged.length === 0) {
        entry.times++;
        const results: readonly ProduceResult[] = await producer.send([encoded]).catch(() => []);
        for (const { offset } of results) if (offset !== undefined) entry.acknowledged.push(offset);
        if (entry.acknowledged.length === 0) {
          await new Promise<void>((resolve) => this.context.clock.after(200, resolve));
        }
      }
    });
  }

  /** Commits, for each partition, all that the member was given in its current epoch. */
  commit(member: Member | undefined): void {
    if (member?.subscription === undefined) return;
    const offsets = [0, 1, 2].flatMap((partition) => {
      const offset = member.recorder.next("t", partition);
      return offset === undefined ? [] : [{ topic: "t", partition, offset }];
    });
    member.subscription.commit(offsets).catch(() => {});
  }

  /** Ends all faults, and gives everyone the time to finish. */
  async quiet(): Promise<void> {
    const { faults } = this.cluster;
    for (const leave of this.standIns.splice(0)) leave();
    faults.release();
    faults.latency = 0;
    await this.context.clock.run(60_000);
    if (this.present.length === 0) this.join();
    for (const member of this.present) {
      member.subscription?.resume([0, 1, 2].map((partition) => ({ topic: "t", partition })));
    }
    await this.context.clock.run(60_000);
    this.checkDelivered();
    // An append on any turn of a fetch of something else is noticed, with nothing else going on.
    for (let turns = 0; turns < 6; turns++) {
      this.produce(0, 1);
      for (let i = 0; i < turns; i++) {
        await settlePromises();
        this.context.clock.step(this.context.clock.now());
      }
      this.produce(1 + (turns % 2), 1);
      await this.context.clock.run(400);
      this.checkDelivered();
    }
  }

  /** No partition is held for two members. */
  checkHeld(): void {
    const held = [...this.cluster.group("g").members.values()].flat().map(({ partition }) => partition);
    assert.equal(new Set(held).size, held.length, `held: ${held}`);
  }

  /** Every record still in the log was given to somebody. */
  checkDelivered(): void {
    const delivered = new Set(
      this.members.flatMap(({ recorder }) =>
        recorder.received.map(({ partition, position, value }) => `${partition}:${position}:${value}`),
      ),
    );
    for (const { partition, position, value } of this.cluster.contents("t")) {
      const record = `${partition}:${position}:${value}`;
      assert.ok(delivered.has(record), `${record} was given to nobody`);
    }
  }

  check(): void {
    this.checkDelivered();
    for (const { recorder } of this.members) {
      assert.deepEqual(recorder.violations, []);
      for (const record of recorder.received) {
        assert.ok(record.position >= recorder.startOf(record), "reads on from the committed offset");
      }
    }
    const owned = this.present.flatMap((member) => member.recorder.owned).sort();
    assert.deepEqual(owned, ["t/0", "t/1", "t/2"]);

    const stored = new Map<string, string>();
    const copies = new Map<string, number>();
    const last = new Map<number, number>();
    for (const { partition, position, value } of this.cluster.contents("t")) {
      assert.ok(position > (last.get(partition) ?? -1), "offsets rise");
      last.set(partition, position);
      stored.set(`${partition}:${position}`, String(value));
      copies.set(String(value), (copies.get(String(value)) ?? 0) + 1);
    }
    for (const { partition, values, times, acknowledged } of this.sent) {
      assert.ok(acknowledged.length > 0, "every batch is acknowledged in the end");
      const start = this.cluster.require("t").logs[partition]!.start;
      for (const [i, value] of values.entries()) {
        assert.ok((copies.get(value) ?? 0) <= times, `${value} is stored more often than sent`);
        copies.delete(value);
        for (const offset of acknowledged) {
          if (offset + i >= start) assert.equal(stored.get(`${partition}:${offset + i}`), value);
        }
      }
    }
    assert.deepEqual([...copies.keys()], [], "nothing is stored that was not sent");
  }

  #client(node: string): KafkaClient {
    const settings = kafkaSettings({ brokers: "embedded:9092", requestTimeout: 3_000 });
    return embeddedDriver(this.cluster, { rebalance: this.manner }).connect(settings, {
      ...this.context,
      node,
    });
  }
}

for (const manner of ["eager", "held", "incremental"] as const) {
  test(`${manner}: any schedule of faults leaves sound logs, and every record is given to somebody`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const schedule = new Schedule(manner);
        schedule.join();
        for (const step of steps) {
          schedule.apply(step);
          if (step.kind === "pass") await schedule.context.clock.run(step.ms);
          else await schedule.context.clock.run(1);
          schedule.checkHeld();
        }
        await schedule.quiet();
        schedule.check();
      }),
      propertyRuns(),
    );
  });
}
