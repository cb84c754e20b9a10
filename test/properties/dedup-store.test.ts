/**
 * For any schedule of feeding ids, new ones and again ones that came before, with requests lost, rebalances, wall
 * clocks that jump, a disk that fills up, clean stops, and crashes of the runner's machine that take away all memory
 * and of the store's disk what was not synced, or leave a part of it or garbage:
 *
 * - no loss: in the end every id is in the output;
 * - the store is ahead: at no time does the group's committed offset pass a message whose id a crash could take away;
 * - repeats: an id is written again only if it was not in the store at the last crash, or when the run failed or lost
 *   its epoch, and once for each of these;
 * - a clean stop forgets nothing: fed all over again after one, nothing of it is written.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ProduceResult } from "../../src/connectors/kafka/driver.ts";
import type { EmbeddedBatch } from "../../src/connectors/kafka/drivers/embedded/batch.ts";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import { kafka } from "../../src/connectors/kafka/index.ts";
import { decode } from "../../src/operators/decode.ts";
import { type DedupOptions, dedup } from "../../src/operators/dedup.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";
import { idsInLog, SimulatedLogDisk, simulatedIdStore } from "../../src/testing/log-disk.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";
import type { Plan } from "../../src/topology/plan.ts";

type Scope = NonNullable<DedupOptions["scope"]>;

type Step =
  | { readonly kind: "feed"; readonly fresh: number; readonly again: readonly number[] }
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "dropRequest"; readonly api: "produce" | "fetch" | "commit" }
  | { readonly kind: "jump"; readonly ms: number }
  | { readonly kind: "full"; readonly on: "write" | "sync" }
  | { readonly kind: "crash" | "stop" | "rebalance" | "expire" };

const one = <const K extends string>(...kinds: K[]) => fc.constantFrom(...kinds);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: one("feed"),
      fresh: fc.nat(12),
      again: fc.array(fc.nat(), { maxLength: 8 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: one("time"), ms: fc.oneof(fc.nat(30), fc.nat(30), fc.nat(2_000)) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: one("dropRequest"), api: one("produce", "fetch", "commit") }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: one("jump"), ms: fc.integer({ min: -7_200_000, max: 7_200_000 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: one("full"), on: one("write", "sync") }) },
  { weight: 3, arbitrary: fc.record({ kind: one("crash", "crash", "stop", "rebalance", "expire") }) },
);

/** Tells of every value that is stored. */
class WatchedKafka extends EmbeddedKafka {
  stored: (topic: string, value: string) => void = () => {};

  override produce(batches: readonly EmbeddedBatch[]): ProduceResult[] {
    const results = super.produce(batches);
    results.forEach(({ error }, i) => {
      if (error !== undefined) return;
      const { topic, values } = batches[i]!;
      for (const value of values) this.stored(topic, value!.toString());
    });
    return results;
  }
}

class World {
  readonly context = testContext();
  readonly cluster: WatchedKafka;
  readonly disk: SimulatedLogDisk;
  readonly #scope: Scope;
  readonly #brokers = new RunEmbeddedBrokers();
  readonly #plan: Plan;
  readonly #fed: string[] = [];
  /** How often each id was written, and how often it may be. */
  readonly #written = new Map<string, number>();
  readonly #allowed = new Map<string, number>();
  #repeated: string | undefined;
  #full = false;
  #run: Run | undefined;

  constructor(scope: Scope) {
    this.#scope = scope;
    const { clock } = this.context;
    this.disk = new SimulatedLogDisk({ clock, latency: 4 });
    const connection = kafka({ brokers: "simulated:9092" });
    this.cluster = this.#brokers.of(
      "kafka",
      "simulated:9092",
      () => new WatchedKafka(clock, { partitions: 2 }),
    );
    this.cluster.faults.latency = 5;
    this.cluster.stored = (topic, value) => {
      if (topic === "out") this.#write((JSON.parse(value) as { id: string }).id);
    };
    for (const topic of ["in", "out"]) this.cluster.feed(topic, []);
    const source = connection.source({
      topics: ["in"],
      group: "g",
      credit: 40,
      chunk: 5,
      commitInterval: "100ms",
      sessionTimeout: "6s",
    });
    const node = (name: string, from: string) => ({ name, location: undefined, inputs: [{ node: from }] });
    this.#plan = {
      name: "remembering",
      nodes: [
        { kind: "source", name: "in", location: undefined, inputs: [], source },
        { ...node("decode", "in"), kind: "operator", operator: decode("json") },
        {
          ...node("dedup", "decode"),
          kind: "operator",
          operator: dedup({ id: "/id", scope, store: simulatedIdStore(this.disk) }),
        },
        {
          ...node("out", "dedup"),
          kind: "sink",
          sink: connection.sink({ topic: "out" }),
          audit: undefined,
        },
      ],
      deadLetters: undefined,
      connections: [],
      warnings: [],
    };
  }

  async begin(): Promise<void> {
    const { clock, random, work, logger } = this.context;
    this.#run = start(this.#plan, { clock, random, work, logger, embedded: this.#brokers });
    this.#run.started.catch(() => {});
    await clock.run(0);
  }

  async do(step: Step): Promise<void> {
    const { clock, random } = this.context;
    const { faults } = this.cluster;
    switch (step.kind) {
      case "feed": {
        const fresh = Array.from({ length: step.fresh }, (_, i) => `id-${this.#fed.length + i}`);
        this.#fed.push(...fresh);
        this.#feed([...fresh, ...step.again.flatMap((n) => this.#fed[n % this.#fed.length] ?? [])]);
        break;
      }
      case "time":
        await clock.run(step.ms);
        break;
      case "dropRequest":
        faults.dropRequest(step.api);
        break;
      case "jump":
        clock.jumpWall(step.ms);
        break;
      case "full":
        this.#full = true;
        this.disk.fail("ENOSPC", step.on);
        break;
      case "crash":
        faults.kill();
        this.disk.crash(random);
        this.#full = false;
        await this.#mayRepeat();
        this.#run!.abort(new Error("crashed"));
        await this.begin();
        break;
      case "stop":
        await this.#stop();
        await this.begin();
        break;
      case "rebalance":
      case "expire":
        await this.#mayRepeat();
        if (step.kind === "rebalance") faults.rebalance("g");
        else faults.expireSession("g");
        await this.#epochsEnd();
        break;
    }
    await this.#check();
  }

  /** All is delivered; stopped in good order and fed all over again, nothing of it is delivered once more. */
  async finish(): Promise<void> {
    this.disk.fail(undefined);
    this.#full = false;
    const { clock } = this.context;
    for (let turn = 0; turn < 400 && (await this.#stored()).size < this.#fed.length; turn++) {
      await clock.run(500);
      await this.#check();
    }
    assert.equal(this.#written.size, this.#fed.length, "no loss: every id is in the output");
    assert.equal((await this.#stored()).size, this.#fed.length, "and in the store");
    await this.#stop();
    this.#allowed.clear();
    const before = [...this.#written.values()].reduce((sum, count) => sum + count, 0);
    await this.begin();
    this.#feed(this.#fed);
    await clock.run(20_000);
    await this.#stop();
    const after = [...this.#written.values()].reduce((sum, count) => sum + count, 0);
    assert.equal(after, before, "a clean stop forgets nothing");
  }

  /** The members learn of it at a heartbeat; something is always under way then. */
  async #epochsEnd(): Promise<void> {
    const epochs = () => JSON.stringify(this.#run!.status().sources[0]!.lanes.map(({ epoch }) => epoch));
    const before = epochs();
    for (let turn = 0; turn < 80 && epochs() === before; turn++) {
      const id = `id-${this.#fed.length}`;
      this.#fed.push(id);
      this.#allowed.set(id, 1);
      this.#feed([id]);
      await this.context.clock.run(120);
    }
  }

  #feed(ids: readonly string[]): void {
    this.cluster.feed(
      "in",
      ids.map((id) => ({ key: Buffer.from(id), value: Buffer.from(JSON.stringify({ id })) })),
    );
  }

  #write(id: string): void {
    const count = (this.#written.get(id) ?? 0) + 1;
    this.#written.set(id, count);
    if (count > 1 + (this.#allowed.get(id) ?? 0)) this.#repeated ??= id;
  }

  async #stop(): Promise<void> {
    let how: string | undefined;
    this.#run!.drain().then((result) => {
      how = result.how;
    });
    for (let turn = 0; turn < 400 && how === undefined; turn++) await this.context.clock.run(100);
    assert.ok(how !== undefined, "a drain ends");
    if (how === "done") return;
    assert.ok(this.#full, `a drain ends well: ${how}`);
    await this.#recover();
  }

  /** After a failure: there is room again, and what had not reached the store may come once more. */
  async #recover(): Promise<void> {
    this.disk.fail(undefined);
    this.#full = false;
    await this.#mayRepeat();
    await this.context.clock.run(1_000);
  }

  /** Ids that are not in the store may be written once more each, whether or not they were already. */
  async #mayRepeat(): Promise<void> {
    const stored = await this.#stored();
    for (const id of this.#fed) {
      if (!stored.has(id)) this.#allowed.set(id, (this.#allowed.get(id) ?? 0) + 1);
    }
  }

  async #stored(): Promise<ReadonlySet<string>> {
    return new Set(await idsInLog(this.disk.safe, { scope: this.#scope, from: "/id" }));
  }

  async #check(): Promise<void> {
    if (this.#run!.status().mode === "failed") {
      let error: Error | undefined;
      this.#run!.finished.then((result) => {
        error = (result as { readonly error?: Error }).error;
      });
      for (let turn = 0; turn < 200 && error === undefined; turn++) await this.context.clock.run(100);
      assert.match(
        error?.message ?? "it does not end",
        /^the id store "simulated" cannot be (written|read): ENOSPC/,
      );
      assert.ok(this.#full, "the disk was full");
      await this.#recover();
      await this.begin();
    }
    assert.equal(this.#repeated, undefined, "written again though it was in the store");
    const stored = await this.#stored();
    const perPartition = Map.groupBy(this.cluster.contents("in"), ({ partition }) => partition);
    for (const [partition, committed] of this.cluster.group("g").committed("in")) {
      for (const { position, value } of perPartition.get(partition) ?? []) {
        if (position >= committed) continue;
        const { id } = JSON.parse(value!.toString()) as { id: string };
        assert.ok(stored.has(id), `${id} at ${partition}/${position} is committed and not in the store`);
      }
    }
  }
}

for (const scope of ["lane", "topology"] as const) {
  test(`scope ${scope}: a store that loses what it may loses no message, and repeats what it must`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 50, size: "max" }), async (steps) => {
        const world = new World(scope);
        await world.begin();
        for (const it of steps) await world.do(it);
        await world.finish();
      }),
      propertyRuns(100),
    );
  });
}
