/**
 * A sink with onFailure: "stopAtFirst", on Kafka and on RabbitMQ. For any schedule of messages, some of which the sink
 * refuses for good, a step rejects, or come twice, through a dedup and slow calls, with requests lost, crashes, cuts,
 * rebalances, clean stops, and dead letters that nobody takes for a while, so that a stop leaves the failure unsettled:
 *
 * - the prefix rule: when a message is handed to the sink, all before it in its partition or queue are settled: they
 *   are in the output or among the dead letters, or their id is in the output;
 * - each message of a lane alone: no write has two;
 * - no loss, and no deadlock: in the end every message is there, dead-lettered if and only if it must be, or its id is;
 * - nothing is held or waits for ever: the counts of both come back to nothing.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { EmbeddedBroker } from "../../src/component/embedded.ts";
import type { Sink, SinkSession } from "../../src/component/sink.ts";
import type { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import {
  type Bytes,
  compile,
  decode,
  dedup,
  encode,
  kafka,
  mapAsync,
  type Operator,
  type Plan,
  rabbitmq,
  reject,
  topology,
} from "../../src/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";
import { propertyRuns } from "../../src/testing/property-runs.ts";

interface Item {
  readonly n: number;
  readonly id: string;
  /** What becomes of it: the sink refuses it, a step rejects it, or it arrives. */
  readonly fate: "refused" | "rejected" | "good";
  /** How long its call takes, ms. */
  readonly slow: number;
}

type Step =
  | { readonly kind: "feed"; readonly items: readonly (Omit<Item, "n" | "id"> & { readonly id: number })[] }
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "lose" | "crash" | "stop" | "rebalance" | "away" | "back" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("feed" as const),
      items: fc.array(
        fc.record({
          id: fc.nat(40),
          fate: fc.constantFrom("refused" as const, "rejected" as const, "good" as const, "good" as const),
          slow: fc.constantFrom(0, 0, 1, 30),
        }),
        { minLength: 1, maxLength: 12 },
      ),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("time" as const), ms: fc.oneof(fc.nat(40), fc.nat(1_000)) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(...(["lose", "crash", "stop", "rebalance", "away", "back"] as const)),
    }),
  },
);

/** The broker of a world: all that the two kinds differ in. */
interface Place {
  source(): ReturnType<ReturnType<typeof kafka>["source"]>;
  sink(name: string): Sink;
  feed(items: readonly Item[]): void;
  contents(name: string): Item[];
  /** What came before it in its lane. */
  before(item: Item): Item[];
  /** Something between the broker and its clients gets lost. */
  lose(): void;
  /** What is in flight is taken away, and given out again. */
  rebalance(): void;
  /** The dead letters are taken, or not, until this is called again. */
  refuseDead(refuse: boolean): void;
  /** The runner's process is gone. */
  crash(): void;
}

const bytes = (item: Item) => Buffer.from(JSON.stringify(item));
const itemOf = (value: Buffer | null) => JSON.parse(value!.toString()) as Item;

class World {
  readonly context = testContext();
  readonly brokers = new RunEmbeddedBrokers();
  readonly #place: Place;
  readonly #plan: Plan;
  readonly #fed: Item[] = [];
  #run: Run | undefined;
  #broken: string | undefined;
  #deadAway = false;

  constructor(kind: "kafka" | "rabbitmq") {
    this.#place = kind === "kafka" ? this.#kafka() : this.#rabbitmq();
    const { clock } = this.context;
    const place = this.#place;
    const { plan, problems } = compile(
      topology("prefix", (t) => {
        t.from(place.source())
          .pipe(
            decode("json") as Operator<Bytes, Item>,
            reject((item: Item) => item.fate === "rejected", "it is to be"),
            dedup<Item>({ id: (item) => item.id, scope: "topology" }),
            mapAsync(
              (item: Item) =>
                item.slow === 0
                  ? Promise.resolve(item)
                  : new Promise<Item>((resolve) => clock.after(item.slow, () => resolve(item))),
              { concurrency: 4 },
            ),
            encode("json"),
          )
          .to(this.#watched(place.sink("out")), { onFailure: "stopAtFirst" });
        t.deadLetters(place.sink("dead"));
      }),
    );
    assert.ok(plan, JSON.stringify(problems));
    this.#plan = plan;
  }

  async begin(): Promise<void> {
    const { clock, random, work, logger } = this.context;
    this.#run = start(this.#plan, { clock, random, work, logger, embedded: this.brokers });
    this.#run.started.catch(() => {});
    await clock.run(0);
  }

  async do(step: Step): Promise<void> {
    switch (step.kind) {
      case "feed": {
        const items = step.items.map((item, i) => ({
          ...item,
          n: this.#fed.length + i,
          // A fate is the id's, so that each id has one.
          id: `${item.fate}-${item.id}`,
        }));
        this.#fed.push(...items);
        this.#place.feed(items);
        break;
      }
      case "time":
        await this.context.clock.run(step.ms);
        break;
      case "lose":
        this.#place.lose();
        break;
      case "rebalance":
        this.#place.rebalance();
        break;
      case "away":
      case "back":
        this.#deadAway = step.kind === "away";
        this.#place.refuseDead(this.#deadAway);
        break;
      case "crash":
        this.#place.crash();
        this.#run!.abort(new Error("crashed"));
        await this.begin();
        break;
      case "stop":
        await this.#stop();
        await this.begin();
        break;
    }
    assert.equal(this.#broken, undefined);
  }

  async finish(): Promise<void> {
    this.#deadAway = false;
    this.#place.refuseDead(false);
    for (let turn = 0; turn < 300 && this.#firstOpen(this.#fed) !== undefined; turn++) {
      await this.context.clock.run(500);
      assert.equal(this.#broken, undefined);
    }
    assert.equal(this.#firstOpen(this.#fed), undefined, "all is settled");
    await this.context.clock.run(5_000);
    const [source] = this.#run!.status().sources;
    assert.deepEqual([source!.held, source!.waiting, source!.conservation.inFlight], [0, 0, 0]);
    for (const { fate } of this.#place.contents("out")) assert.equal(fate, "good");
    for (const { fate } of this.#place.contents("dead")) assert.notEqual(fate, "good");
    await this.#stop();
  }

  async #stop(): Promise<void> {
    let how: string | undefined;
    this.#run!.drain().then((result) => {
      how = result.how;
    });
    for (let turn = 0; turn < 400 && how === undefined; turn++) await this.context.clock.run(100);
    // What cannot be dead-lettered stays where it came from.
    if (!this.#deadAway) assert.equal(how, "done");
  }

  /** The first of these that is neither in the output, by its id, nor among the dead letters. */
  #firstOpen(items: readonly Item[]): Item | undefined {
    const out = new Set(this.#place.contents("out").map(({ id }) => id));
    const dead = new Set(this.#place.contents("dead").map(({ n }) => n));
    return items.find(({ n, id }) => !out.has(id) && !dead.has(n));
  }

  /** The sink, with its refusals, and a look at whatever is handed to it. */
  #watched(sink: Sink): Sink {
    const look = (items: readonly Item[]) => {
      if (items.length !== 1) this.#broken ??= `${items.length} messages in a write`;
      for (const item of items) {
        const open = this.#firstOpen(this.#place.before(item));
        if (open !== undefined) this.#broken ??= `${item.n} is written before ${open.n} is settled`;
      }
    };
    return {
      ...sink,
      open: async (context) => {
        const session = await sink.open(context);
        const watched: SinkSession = {
          destinationOf: (chunk, index) => session.destinationOf(chunk, index),
          async write(batch) {
            const items = Array.from({ length: batch.length }, (_, i) => itemOf(batch.payload(i)));
            look(items);
            if (items[0]!.fate !== "refused") return session.write(batch);
            const message = "it is to be";
            return [{ entry: 0, failure: { class: "business", code: "record-refused", message } }];
          },
          close: (deadline) => session.close(deadline),
          status: () => session.status(),
        };
        return watched;
      },
    };
  }

  #kafka(): Place {
    const connection = kafka({ brokers: "simulated:9092" });
    const { context, brokers } = this;
    const cluster = connection.embedded({ ...context, embedded: brokers }) as EmbeddedKafka;
    cluster.faults.latency = 5;
    cluster.create(["in", "out", "dead"].map((topic) => ({ topic, partitions: 2 })));
    return {
      source: () =>
        connection.source({ topics: ["in"], group: "g", credit: 20, chunk: 5, commitInterval: "100ms" }),
      sink: (topic) => connection.sink({ topic }),
      feed: (items) =>
        cluster.feed(
          "in",
          items.map((item) => ({ key: Buffer.from(`${item.n % 3}`), value: bytes(item) })),
        ),
      contents: (topic) => [...cluster.contents(topic)].map(({ value }) => itemOf(value)),
      before: ({ n }) => {
        const partitions = Map.groupBy(cluster.contents("in"), ({ partition }) => partition);
        const lanes = [...partitions.values()].map((records) => records.map(({ value }) => itemOf(value)));
        const own = lanes.find((items) => items.some((item) => item.n === n))!;
        return own.slice(
          0,
          own.findIndex((item) => item.n === n),
        );
      },
      lose: () => cluster.faults.dropRequest("produce"),
      rebalance: () =>
        this.#fed.length % 2 ? cluster.faults.rebalance("g") : cluster.faults.expireSession("g"),
      refuseDead: (refuse) => (refuse ? cluster.faults.stall("dead") : cluster.faults.release()),
      crash: () => cluster.faults.kill(),
    };
  }

  #rabbitmq(): Place {
    const queues = { in: {}, out: {}, dead: {} };
    const connection = rabbitmq({ url: "amqp://simulated", queues });
    const broker = connection.embedded({ ...this.context, embedded: this.brokers }) as EmbeddedBroker &
      EmbeddedRabbitmq;
    for (const queue of Object.keys(queues)) broker.feed(queue, []);
    return {
      source: () => connection.source({ queue: "in", prefetch: 20, chunk: 5 }),
      sink: (queue) => connection.sink({ queue }),
      feed: (items) =>
        broker.feed(
          "in",
          items.map((item) => ({ value: bytes(item) })),
        ),
      contents: (queue) => [...broker.contents(queue)].map(({ value }) => itemOf(value)),
      before: ({ n }) => this.#fed.slice(0, n),
      lose: () => broker.cut("lost"),
      rebalance: () => broker.cut("applied", "consume"),
      refuseDead: (refuse) => broker.refusePublishes("dead", refuse),
      crash: () => broker.cut("lost"),
    };
  }
}

for (const kind of ["kafka", "rabbitmq"] as const) {
  test(`${kind}: behind a message that fails nothing of its lane is written before it is settled`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30, size: "max" }), async (steps) => {
        const world = new World(kind);
        await world.begin();
        for (const it of steps) await world.do(it);
        await world.finish();
      }),
      propertyRuns(60),
    );
  });
}
