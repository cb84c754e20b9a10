/**
 * The watchdog, over whole topologies on the embedded brokers, in virtual time:
 *
 * - a consumer that is assigned, has lag and gets nothing is named within a quarter more than its time: in status,
 *   which is not ready, in a metric, and in one line; and in one more when it is over (`silent`);
 * - one that is restarted loses nothing, and what could be settled before is not repeated (`lost`, `duplicate`);
 * - where a sink keeps it waiting, the sink is named and nothing is restarted (`blamed`);
 * - where there is nothing to read, or a window holds what there is, nothing is said (`false alarm`).
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import { kafka } from "../../src/connectors/kafka/index.ts";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { rabbitmq } from "../../src/connectors/rabbitmq/index.ts";
import { batch, compile, topology } from "../../src/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import { testContext } from "../../src/testing/context.ts";

interface Given {
  readonly from?: "kafka" | "rabbitmq";
  readonly to?: "kafka" | "rabbitmq";
  readonly onStall?: "restart" | "report";
  /** Messages a window holds, for so long. */
  readonly window?: { readonly count: number; readonly within: string };
  /** Messages in flight at once. */
  readonly credit?: number;
  readonly singleActive?: boolean;
}

/** A minute: what the sources are given to stand still. */
const patience = 60_000;

class Bench {
  readonly context = testContext();
  readonly cluster: EmbeddedKafka;
  readonly broker: EmbeddedRabbitmq;
  run!: Run;
  /** Starts the run. */
  readonly begin: () => void;
  readonly #given: Given;
  #fed = 0;

  constructor(given: Given = {}) {
    this.#given = given;
    const { from = "kafka", to = "kafka", onStall, window, credit = 100, singleActive = false } = given;
    const { context } = this;
    const brokers = new RunEmbeddedBrokers();
    const cluster = kafka({ brokers: "127.0.0.1:9092" });
    const rabbit = rabbitmq({
      url: "amqp://127.0.0.1",
      queues: { in: { singleActive }, out: {} },
    });
    const embedded = { ...context, embedded: brokers };
    this.cluster = cluster.embedded(embedded) as EmbeddedKafka;
    this.broker = rabbit.embedded(embedded) as EmbeddedRabbitmq;
    this.cluster.create([
      { topic: "in", partitions: 2 },
      { topic: "out", partitions: 1 },
    ]);
    const watch = { stallTimeout: patience, ...(onStall === undefined ? {} : { onStall }) };
    const { plan, problems } = compile(
      topology("watched", (t) => {
        const stream = t.from(
          from === "kafka"
            ? cluster.source({ topics: ["in"], group: "g", credit, ...watch })
            : rabbit.source({ queue: "in", prefetch: credit, singleActive, ...watch }),
        );
        (window === undefined ? stream : stream.pipe(batch(window as never))).to(
          to === "kafka" ? cluster.sink({ topic: "out" }) : rabbit.sink({ queue: "out" }),
        );
      }),
    );
    assert.ok(plan !== undefined, JSON.stringify(problems));
    this.begin = () => {
      this.run = start(plan, { ...context, embedded: brokers });
    };
  }

  get source() {
    return this.run.status().sources[0]!;
  }

  get restarts(): number {
    return this.run.status().counters.source_restarts_total ?? 0;
  }

  /** Lines that begin with a level and text. */
  lines(begin: string | RegExp): string[] {
    return this.context.logged.filter((line) => new RegExp(begin).test(line));
  }

  feed(count: number): void {
    const messages = Array.from({ length: count }, (_, i) => ({
      key: Buffer.from(String((this.#fed + i) % 7)),
      value: Buffer.from(String(this.#fed + i)),
    }));
    this.#fed += count;
    (this.#given.from === "rabbitmq" ? this.broker : this.cluster).feed("in", messages);
  }

  time(ms: number): Promise<void> {
    return this.context.clock.run(ms);
  }

  /** What the sink's target got, in the order of sending. */
  get written(): number[] {
    const broker = this.#given.to === "rabbitmq" ? this.broker : this.cluster;
    return [...broker.contents("out")].map(({ value }) => Number(value)).sort((a, b) => a - b);
  }

  get all(): number[] {
    return Array.from({ length: this.#fed }, (_, i) => i);
  }

  goDumb(options: { readonly newOnes?: boolean } = {}): void {
    this.cluster.faults.ignoreFetches(options);
    this.broker.dumbConsumers(options);
  }

  wakeNew(): void {
    this.cluster.faults.answerNewFetches();
    this.broker.heedNewConsumers();
  }

  async untilRestarting(): Promise<void> {
    for (let step = 0; step < 40_000 && this.restarts === 0; step++) await this.time(5);
    assert.equal(this.restarts, 1);
  }

  async drain(): Promise<void> {
    let how: string | undefined;
    this.run.drain().then((result) => {
      how = result.how;
    });
    await this.time(40_000);
    assert.equal(how, "done");
  }
}

async function begin(given: Given = {}): Promise<Bench> {
  const bench = new Bench(given);
  bench.begin();
  await bench.time(2_000);
  await bench.run.started;
  bench.feed(20);
  await bench.time(5_000);
  assert.deepEqual(bench.written, given.window === undefined ? bench.all : []);
  return bench;
}

for (const from of ["kafka", "rabbitmq"] as const) {
  test(`${from}: a consumer that goes dumb is named, and restarted; nothing is lost or repeated`, async () => {
    const bench = await begin({ from });
    const before = bench.source.lanes.map(({ epoch }) => epoch);
    bench.goDumb();
    bench.feed(30);
    await bench.time(patience - 1_000);
    assert.equal(bench.source.stall, undefined, "not yet");
    assert.equal(bench.run.status().ready, true);
    await bench.time(patience / 2 + 1_000);
    assert.deepEqual(bench.written, bench.all);
    assert.equal(bench.restarts, 1);
    assert.ok(bench.source.lanes.every(({ epoch }) => epoch > Math.max(...before)));
    bench.feed(10);
    await bench.time(patience);
    assert.deepEqual(bench.written, bench.all, "it goes on as before");
    assert.equal(bench.source.stall, undefined);
    assert.equal(bench.run.status().ready, true);
    assert.equal(bench.lines("^error .*gives nothing of in").length, 1);
    assert.equal(bench.lines("^info it moves again").length, 1);
    // A session that came later goes on acknowledging through faults as the first would.
    bench.cluster.faults.dropRequest("commit", 3);
    bench.feed(1);
    await bench.time(200);
    await bench.drain();
  });

  test(`${from}: one that stays dumb is restarted less and less often, and recovers by itself`, async () => {
    const bench = await begin({ from });
    bench.goDumb({ newOnes: true });
    bench.feed(30);
    const at: number[] = [];
    const began = bench.context.clock.now();
    for (let step = 0; step < 40; step++) {
      await bench.time(patience / 2);
      while (at.length < bench.restarts) at.push(Math.round((bench.context.clock.now() - began) / patience));
    }
    const waits = at.map((time, i) => time - (at[i - 1] ?? 0));
    assert.ok(waits.length >= 4, waits.join());
    for (const [i, wait] of waits.entries()) assert.ok(wait >= 2 ** i && wait <= 2 ** i + 2, waits.join());
    assert.equal(bench.lines("^error .*gives nothing of in").length, 1, "one incident, one line");
    assert.equal(bench.run.status().ready, false);
    assert.equal(bench.source.stall?.restarts, bench.restarts);
    bench.wakeNew();
    await bench.time(40 * patience);
    assert.deepEqual(bench.written, bench.all);
    assert.equal(bench.source.stall, undefined);
    assert.equal(bench.lines("^info it moves again").length, 1);
    await bench.drain();
  });

  test(`${from}: with onStall "report" it is said for as long as it lasts, and nothing is done`, async () => {
    const bench = await begin({ from, onStall: "report" });
    bench.goDumb();
    const fedAt = bench.context.clock.wall();
    bench.feed(30);
    await bench.time(10 * patience);
    const { stall, ready, reason } = bench.source;
    assert.equal(ready, false);
    assert.equal(stall?.awaiting, "source");
    assert.match(
      reason!,
      from === "kafka"
        ? /in gives nothing of in\/[01], in\/[01], and the broker holds 30 messages/
        : /in gives nothing of in, and the broker holds 30 messages/,
    );
    assert.ok(stall.since >= fedAt && stall.since <= fedAt + patience / 2, "since when");
    assert.match(stall.remedy, /restart the process, or set onStall/);
    assert.equal(bench.lines("^error .*gives nothing of in").length, 1);
    assert.equal(bench.run.status().counters.stalls_total, 1);
    assert.equal(bench.restarts, 0);
  });

  test(`${from}: nothing is said where there is nothing to read, for hours`, async () => {
    const bench = await begin({ from });
    bench.goDumb();
    await bench.time(100 * patience);
    assert.equal(bench.run.status().counters.stalls_total, undefined);
    assert.equal(bench.run.status().ready, true);
  });

  test(`${from}: nothing is said where a window holds what there is`, async () => {
    const bench = await begin({ from, window: { count: 50, within: "15m" } });
    await bench.time(20 * patience);
    assert.equal(bench.run.status().counters.stalls_total, undefined);
    await bench.time(20 * patience);
    assert.deepEqual(bench.written, bench.all);
  });

  test(`${from}: a sink that takes nothing is named in place of its source, and nothing is restarted`, async () => {
    const bench = await begin({ from, credit: 10 });
    bench.cluster.faults.stall("out");
    bench.feed(100);
    await bench.time(10 * patience);
    const { stall, ready } = bench.source;
    assert.equal(ready, false);
    assert.equal(stall?.awaiting, "sink");
    assert.match(stall.reason, /progress awaited from the sink out/);
    assert.equal(bench.lines("^error progress awaited").length, 1);
    assert.equal(bench.restarts, 0);
    bench.cluster.faults.release();
    await bench.time(2 * patience);
    assert.equal(bench.source.stall, undefined);
    assert.deepEqual([...new Set(bench.written)], bench.all);
    await bench.drain();
  });

  test(`${from}: an alarm of the broker that is written to is the sink's, even where all was read`, async () => {
    const bench = await begin({ from, to: "rabbitmq" });
    bench.broker.setAlarm("low on memory");
    bench.feed(10);
    await bench.time(5 * patience);
    assert.equal(bench.source.stall?.awaiting, "sink");
    assert.match(bench.source.stall.reason, /progress awaited from the sink out: .*low on memory/);
    assert.equal(bench.restarts, 0);
    bench.broker.setAlarm(undefined);
    await bench.time(patience);
    assert.deepEqual(bench.written, bench.all);
    assert.equal(bench.source.stall, undefined);
    await bench.drain();
  });

  test(`${from}: what a window holds is settled before a restart, and not repeated`, async () => {
    const bench = await begin({ from, window: { count: 50, within: "15m" } });
    bench.goDumb();
    bench.feed(40);
    await bench.time(2 * patience);
    assert.equal(bench.restarts, 1);
    assert.equal(bench.source.conservation.returned, 0);
    await bench.drain();
    assert.deepEqual(bench.written, bench.all);
  });

  test(`${from}: what cannot be settled before a restart comes again, and the old session settles nothing`, async () => {
    const bench = await begin({ from });
    bench.cluster.faults.stall("out");
    bench.feed(10);
    await bench.time(1_000);
    assert.equal(bench.source.conservation.inFlight, 10);
    bench.goDumb();
    bench.feed(10);
    await bench.time(2 * patience);
    assert.equal(bench.restarts, 1);
    assert.ok(bench.source.conservation.returned >= 10, "given back");
    bench.cluster.faults.release();
    await bench.time(patience);
    await bench.drain();
    assert.deepEqual([...new Set(bench.written)], bench.all, "nothing is lost");
    const { accepted, delivered, returned, inFlight } = bench.run.status().conservation;
    assert.deepEqual([accepted, inFlight], [delivered + returned, 0]);
  });

  test(`${from}: a drain in the middle of a restart ends as usual`, async () => {
    const bench = await begin({ from });
    bench.goDumb();
    bench.feed(10);
    await bench.untilRestarting();
    await bench.drain();
    assert.equal(bench.run.status().conservation.inFlight, 0);
  });

  test(`${from}: so does one while the broker is away, and the source cannot be opened again`, async () => {
    const bench = await begin({ from });
    bench.goDumb();
    bench.feed(10);
    bench.cluster.faults.latency = 100;
    await bench.untilRestarting();
    if (from === "kafka") bench.cluster.faults.cut(10 * patience);
    else bench.broker.stop();
    await bench.time(20_000);
    assert.deepEqual(bench.source.lanes, [], "not open");
    await bench.drain();
  });
}

test("kafka: a lane that its sink keeps waiting is not taken for dead; one beside it that is dead is, alone", async () => {
  const bench = await begin({ credit: 20 });
  const { cluster } = bench;
  const feed = (partition: number, count: number) =>
    cluster.feed(
      "in",
      Array.from({ length: count }, () => ({ partition, value: Buffer.from("0") })),
    );
  cluster.faults.stall("out");
  feed(0, 100);
  await bench.time(10 * patience);
  feed(1, 1);
  await bench.time(patience / 4);
  assert.deepEqual([bench.source.stall?.awaiting, bench.restarts], ["sink", 0]);
  bench.goDumb();
  feed(1, 1);
  await bench.untilRestarting();
  assert.deepEqual(
    bench.source.stall?.lanes.map(({ name }) => name),
    ["in/1"],
  );
  assert.equal(bench.lines("^error .*gives nothing of in/1,").length, 1);
  cluster.faults.release();
  await bench.time(2 * patience);
  assert.equal(bench.source.stall, undefined);
  assert.deepEqual([bench.restarts, bench.source.backlog], [1, 0]);
  await bench.drain();
  const ends = cluster.require("in").logs.map(({ end }) => end);
  assert.deepEqual([...cluster.group("g").committed("in").values()], ends);
});

test("rabbitmq: a consumer that stands by for another one is not taken for dead", async () => {
  const bench = new Bench({ from: "rabbitmq", singleActive: true });
  const nothing = { closed() {}, blocked() {}, unblocked() {} };
  bench.broker
    .connect("consume", nothing)
    .then((connection) => connection.openChannel({ closed() {} }))
    .then((channel) => channel.prefetch(1).then(() => channel))
    .then((channel) => channel.consume("in", { consumerTag: undefined, exclusive: false }));
  await bench.time(10);
  bench.begin();
  await bench.time(5_000);
  bench.feed(10);
  await bench.time(1_000);
  // The other one takes nothing beyond its prefetch of one.
  assert.deepEqual(bench.broker.depth("in"), { ready: 9, unacknowledged: 1, consumers: 2 });
  await bench.time(10 * patience);
  assert.equal(bench.run.status().counters.stalls_total, undefined);
});
