import fc from "fast-check";
import type { Sink } from "../../src/component/sink.ts";
import { EmbeddedKafka } from "../../src/connectors/kafka/drivers/embedded/index.ts";
import { kafka } from "../../src/connectors/kafka/index.ts";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { rabbitmq } from "../../src/connectors/rabbitmq/index.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { type Run, start } from "../../src/runtime/run.ts";
import type { RunStatus } from "../../src/runtime/status.ts";
import { settlePromises } from "../../src/testing/clock.ts";
import { seededRandom, testContext } from "../../src/testing/context.ts";
import type { Plan } from "../../src/topology/plan.ts";
import { type Broker, type Graph, planOf } from "./graph.ts";
import { Anomaly, History, uidOf } from "./history.ts";

const partitions = 2;
/** Of a Kafka topic, bytes: a lower one would be taken for a mistake of the topic's. */
const limit = 16 * 1024;
/** More than that, whatever the codec. */
const pad = randomText(2 * limit);
/** Of the group's commits, ms. */
export const commitInterval = 200;

export type Event =
  | {
      readonly kind: "feed";
      readonly source: number;
      readonly count: number;
      /** Every so many-th message is another copy of the one so many before it; 0: none is. */
      readonly twin: number;
      /** One more that no decoder understands. */
      readonly garbage: boolean;
      /** The last one is larger than a Kafka topic takes. */
      readonly fat: boolean;
    }
  | { readonly kind: "time"; readonly ms: number }
  /** Turns of the event loop, so that what comes next comes between any two of them. */
  | { readonly kind: "turns"; readonly count: number }
  | { readonly kind: "dropRequest" | "dropResponse"; readonly api: "produce" | "fetch" | "commit" }
  | {
      readonly kind: "refuse" | "omit" | "omitStored" | "moveLeader";
      readonly target: number;
      readonly partition: number;
    }
  | { readonly kind: "cutKafka" | "awayRabbitmq"; readonly ms: number }
  | { readonly kind: "rebalance" | "expire" | "join" | "leave"; readonly source: number }
  | { readonly kind: "stall" | "sick" | "full"; readonly target: number }
  /** Offsets that hold no message; and old messages, done with, that retention deletes. */
  | { readonly kind: "gap" | "retire"; readonly source: number; readonly partition: number }
  /** Retention passes so many quarters of what was not committed yet. */
  | {
      readonly kind: "outrun";
      readonly source: number;
      readonly partition: number;
      readonly quarters: number;
    }
  /** A queue that is read is deleted, with all that is in it. */
  | { readonly kind: "deleteQueue"; readonly source: number }
  /** A topic gets partitions: of an input, keys go elsewhere from then on; of an output, they stay where they are. */
  | { readonly kind: "growInput"; readonly source: number; readonly partitions: number }
  | { readonly kind: "growOutput"; readonly target: number; readonly partitions: number }
  /** The wall clock is set. */
  | { readonly kind: "clock"; readonly ms: number }
  | {
      readonly kind: "cutRabbitmq";
      readonly requests: "lost" | "applied";
      readonly role: "consume" | "publish" | undefined;
    }
  | { readonly kind: "release" | "alarm" | "calm" | "withhold" | "confirm" | "kill" | "stop" };

const source = fc.nat(2);
/** The three sinks, and the dead letters. */
const target = fc.nat(3);
/** Partitions of a topic that has grown. */
const grown = fc.integer({ min: partitions + 1, max: partitions + 2 });
const one = <const K extends string>(...kinds: K[]) => fc.constantFrom(...kinds);

export const feed: fc.Arbitrary<Event> = fc.record({
  kind: one("feed"),
  source,
  count: fc.integer({ min: 1, max: 40 }),
  twin: fc.constantFrom(0, 0, 1, 2, 5),
  garbage: fc.boolean(),
  fat: fc.constantFrom(false, false, false, false, false, true),
});

export const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 8, arbitrary: feed },
  { weight: 8, arbitrary: fc.record({ kind: one("time"), ms: fc.integer({ min: 0, max: 3_000 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: one("turns"), count: fc.integer({ min: 1, max: 12 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: one("dropRequest", "dropResponse"),
      api: one("produce", "fetch", "commit"),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: one("refuse", "omit", "omitStored", "moveLeader"),
      target,
      partition: fc.nat(partitions - 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: one("cutKafka", "awayRabbitmq"),
      ms: fc.integer({ min: 1, max: 9_000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: one("rebalance", "expire", "join", "leave"), source }) },
  { weight: 2, arbitrary: fc.record({ kind: one("stall", "sick", "full"), target }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: one("gap", "retire"), source, partition: fc.nat(partitions - 1) }),
  },
  {
    weight: 2,
    arbitrary: fc.oneof(
      fc.record({
        kind: one("outrun"),
        source,
        partition: fc.nat(partitions - 1),
        quarters: fc.integer({ min: 1, max: 4 }),
      }),
      fc.record({ kind: one("deleteQueue"), source }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({ kind: one("growInput"), source, partitions: grown }),
      fc.record({ kind: one("growOutput"), target, partitions: grown }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: one("clock"),
      ms: fc.constantFrom(-86_400_000, -3_600_000, -1_000, 1_000, 3_600_000, 86_400_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: one("cutRabbitmq"),
      requests: one("lost", "applied"),
      role: one("consume", "publish", undefined as never),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: one("release", "alarm", "calm", "withhold", "confirm", "kill", "stop"),
    }),
  },
);

/** Those after which nothing may be repeated, and order holds. */
export const calmEvent = event.filter(
  ({ kind }) =>
    ![
      "dropResponse",
      "omitStored",
      "cutKafka",
      "awayRabbitmq",
      "rebalance",
      "expire",
      "join",
      "leave",
      "growInput",
      "outrun",
      "deleteQueue",
      "cutRabbitmq",
      "withhold",
      "confirm",
      "kill",
    ].includes(kind),
);

/**
 * A topology between a simulated Kafka and a simulated RabbitMQ, in virtual time, and everything that happens to
 * them. All chance comes from the seed.
 */
export class World {
  readonly context;
  readonly history: History;
  readonly cluster: EmbeddedKafka;
  readonly broker: EmbeddedRabbitmq;
  readonly graph: Graph;
  readonly #brokers = new RunEmbeddedBrokers();
  readonly plan: Plan;
  readonly #kafkaRead = new Map<string, number>();
  readonly #rabbitmqRead = new Map<string, number>();
  readonly #leave = new Map<number, () => void>();
  readonly #newest: string[][];
  #run: Run | undefined;
  #stalledSince: number | undefined;
  #withheld = false;
  repeatsAllowed = false;
  orderHolds = true;
  /** Something went wrong where nobody could throw it. */
  #failure: unknown;

  constructor(graph: Graph, seed: number) {
    this.graph = graph;
    this.context = testContext(seed);
    this.history = new History(graph);
    this.#newest = graph.sources.map(() => []);
    const { clock } = this.context;
    const kafkaConnection = kafka({ brokers: "simulated:9092" });
    const queues = ["in0", "in1", "in2", "out0", "out1", "out2", "dead", "events"];
    const rabbitmqConnection = rabbitmq({
      url: "amqp://simulated",
      queues: Object.fromEntries(queues.map((name) => [name, {}])),
    });
    this.cluster = this.#brokers.of(
      "kafka",
      "simulated:9092",
      () => new EmbeddedKafka(clock, { partitions }),
    );
    this.cluster.faults.latency = 5;
    for (const name of queues) this.cluster.feed(name, []);
    for (const name of outputs) this.cluster.faults.limit(name, limit);
    this.broker = rabbitmqConnection.embedded({
      ...this.context,
      embedded: this.#brokers,
    }) as EmbeddedRabbitmq;
    for (const name of queues) this.broker.feed(name, []);
    const sinkOf = (broker: Broker, name: string): Sink =>
      broker === "kafka"
        ? kafkaConnection.sink({ topic: name, metadataAge: "1s" })
        : rabbitmqConnection.sink({ queue: name, unconfirmed: 17 });
    const sinks = graph.sinks.map((broker, number) => sinkOf(broker, `out${number}`));
    this.plan = planOf(graph, {
      clock,
      source: (number) => {
        const { broker, credit, chunk } = graph.sources[number]!;
        return broker === "kafka"
          ? kafkaConnection.source({
              topics: [`in${number}`],
              group: `g${number}`,
              credit,
              chunk,
              commitInterval,
              sessionTimeout: "6s",
            })
          : rabbitmqConnection.source({ queue: `in${number}`, prefetch: credit, chunk });
      },
      sink: (number) => sinks[number]!,
      deadLetters: sinkOf(graph.deadLetters, "dead"),
      audit: sinkOf(graph.deadLetters, "events"),
    });
    this.#watchCommits();
    this.#watchAcknowledgements();
  }

  get run(): Run {
    return this.#run!;
  }

  get status(): RunStatus {
    return this.run.status();
  }

  async begin(): Promise<void> {
    const { clock, random, work, logger } = this.context;
    this.#run = start(this.plan, { clock, random, work, logger, embedded: this.#brokers });
    this.#run.started.catch(() => {});
    await clock.run(0);
  }

  async do(event: Event): Promise<void> {
    const { faults } = this.cluster;
    const { clock } = this.context;
    switch (event.kind) {
      case "feed":
        this.feed(
          event.source % this.graph.sources.length,
          event.count,
          event.twin,
          event.garbage,
          event.fat,
        );
        break;
      case "time":
        await clock.run(event.ms);
        break;
      case "turns":
        for (let i = 0; i < event.count; i++) {
          clock.step(clock.now());
          await settlePromises();
        }
        break;
      case "dropRequest":
        faults.dropRequest(event.api);
        break;
      case "dropResponse":
        this.repeatsAllowed = true;
        faults.dropResponse(event.api);
        break;
      case "refuse":
        faults.refuse("retry", 1, { topic: targetName(event.target), partition: event.partition });
        break;
      case "omit":
        faults.omit(false, 1, { topic: targetName(event.target), partition: event.partition });
        break;
      case "omitStored":
        this.repeatsAllowed = true;
        faults.omit(true, 1, { topic: targetName(event.target), partition: event.partition });
        break;
      case "moveLeader":
        faults.moveLeader(targetName(event.target), event.partition, 500);
        break;
      case "cutKafka":
        this.#disturbed();
        faults.cut(event.ms);
        break;
      case "awayRabbitmq":
        this.#disturbed();
        this.broker.stop();
        await clock.run(event.ms);
        this.broker.start();
        break;
      case "rebalance":
        this.#disturbed();
        faults.rebalance(`g${event.source}`);
        break;
      case "expire":
        this.#disturbed();
        faults.expireSession(`g${event.source}`);
        break;
      case "join":
        this.#disturbed();
        if (this.graph.sources[event.source]?.broker === "kafka" && !this.#leave.has(event.source))
          this.#leave.set(event.source, faults.join(`g${event.source}`, [`in${event.source}`]));
        break;
      case "leave":
        this.#disturbed();
        this.#leave.get(event.source)?.();
        this.#leave.delete(event.source);
        break;
      case "stall":
        this.#stalledSince ??= clock.now();
        faults.stall(targetName(event.target));
        break;
      case "release":
        this.#release();
        break;
      case "sick":
        faults.limit(targetName(event.target), 1);
        break;
      case "full":
        this.broker.refusePublishes(targetName(event.target), true);
        break;
      case "gap":
        faults.gap(`in${event.source}`, event.partition, 3);
        break;
      case "retire": {
        const done = this.cluster
          .group(`g${event.source}`)
          .committed(`in${event.source}`)
          .get(event.partition);
        if (done !== undefined) faults.deleteRecords(`in${event.source}`, event.partition, done);
        break;
      }
      case "outrun":
        this.#outrun(event.source % this.graph.sources.length, event.partition, event.quarters);
        break;
      case "deleteQueue": {
        const source = event.source % this.graph.sources.length;
        if (this.graph.sources[source]!.broker !== "rabbitmq") break;
        this.history.takeAway(source);
        // What was in flight is forgotten, and a copy of it may come.
        this.repeatsAllowed = true;
        this.broker.deleteQueue(`in${source}`);
        break;
      }
      case "growInput":
        this.#disturbed();
        faults.growPartitions(`in${event.source}`, event.partitions);
        break;
      case "growOutput":
        faults.growPartitions(targetName(event.target), event.partitions);
        break;
      case "clock":
        clock.jumpWall(event.ms);
        break;
      case "cutRabbitmq":
        this.repeatsAllowed = true;
        if (event.role !== "publish") this.orderHolds = false;
        this.broker.cut(event.requests, event.role);
        break;
      case "alarm":
        this.broker.setAlarm("memory");
        break;
      case "calm":
        this.broker.setAlarm(undefined);
        break;
      case "withhold":
        this.#withheld = true;
        this.broker.withholdConfirms(true);
        break;
      case "confirm":
        this.#confirmAgain();
        break;
      case "kill":
        await this.kill();
        break;
      case "stop":
        if ((await this.drain()) !== "done") this.#disturbed();
        await this.begin();
        break;
    }
    // A request that got no answer in time is sent again, and the broker carries out both in the end.
    if (clock.now() - (this.#stalledSince ?? clock.now()) > 20_000) this.repeatsAllowed = true;
    this.check();
  }

  feed(source: number, count: number, twin = 0, garbage = false, fat = false): void {
    const own = this.#newest[source]!;
    const messages = [];
    for (let i = 0; i < count; i++) {
      const uid = `u${this.history.fed.size}`;
      const isTwin = twin > 0 && i % (twin + 1) === twin && own.length >= twin;
      const id = isTwin ? own.at(-twin)! : `s${source}-${own.length}`;
      if (!isTwin) own.push(id);
      const key = `k${Number(id.slice(id.indexOf("-") + 1)) % 5}`;
      const content = { uid, id, key, path: "", ...(fat && i === count - 1 ? { pad } : {}) };
      this.history.feed(source, content, true);
      messages.push({ key: Buffer.from(key), value: Buffer.from(JSON.stringify(content)) });
    }
    if (garbage) {
      const uid = `u${this.history.fed.size}`;
      this.history.feed(source, { uid, id: uid, key: "", path: "" }, false);
      messages.push({ key: null, value: Buffer.from(uid) });
    }
    if (this.graph.sources[source]!.broker === "kafka") this.cluster.feed(`in${source}`, messages);
    else this.broker.feed(`in${source}`, messages);
  }

  async kill(): Promise<void> {
    this.repeatsAllowed = true;
    // A queue gives out again what comes before what its consumer had not read.
    if (this.graph.sources.some(({ broker }) => broker === "rabbitmq")) this.orderHolds = false;
    this.cluster.faults.kill();
    this.broker.cut("lost");
    this.run.abort(new Error("killed"));
    await this.begin();
  }

  /** What a crash now would repeat: read from Kafka, and not committed. */
  replay(): number {
    let count = 0;
    for (const [number, { lanes }] of this.status.sources.entries()) {
      if (this.graph.sources[number]!.broker !== "kafka") continue;
      const committed = this.cluster.group(`g${number}`).committed(`in${number}`);
      for (const { name, checkpoint, span } of lanes) {
        const offset = committed.get(Number(name.slice(name.indexOf("/") + 1))) ?? 0;
        // A lane that has read nothing yet does not know where it begins.
        count += Math.max(0, checkpoint + span - offset);
      }
    }
    return count;
  }

  /** How the drain ended. */
  async drain(): Promise<string> {
    const { clock } = this.context;
    let how: string | undefined;
    this.run.drain().then((result) => {
      how = result.how;
    });
    for (let turn = 0; turn < 400 && how === undefined; turn++) await clock.run(100);
    if (how === undefined) throw new Anomaly("stuck", "a drain does not end");
    return how;
  }

  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.collect();
    const { conservation, sources, lastErrors, mode } = this.status;
    if (mode === "failed") throw new Anomaly("stuck", `the run has failed: ${lastErrors[0]?.message}`);
    const { accepted, inFlight, ...outcomes } = conservation;
    const ended = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
    if (accepted !== ended + inFlight) {
      throw new Anomaly("conservation", `${accepted} accepted, ${ended} ended, ${inFlight} in flight`);
    }
    for (const source of sources) {
      const flying = source.conservation.inFlight;
      if (flying < 0 || flying > source.creditMessages) {
        throw new Anomaly(
          "memory-overrun",
          `${flying} in flight of ${source.creditMessages} at ${source.name}`,
        );
      }
      for (const { name, span } of source.lanes) {
        if (span > 4 * source.creditMessages) throw new Anomaly("memory-overrun", `span ${span} of ${name}`);
      }
    }
    const told = this.context.logged.find((line) => line.includes("delivery tag"));
    if (told !== undefined) throw new Anomaly("foreign-commit", told);
    if (this.orderHolds) this.history.checkOrder();
    if (!this.repeatsAllowed) this.history.checkRepeats();
  }

  /** Deletes messages that were not committed, read or not: nobody can be blamed for what is missing of them. */
  #outrun(source: number, partition: number, quarters: number): void {
    const topic = `in${source}`;
    if (this.graph.sources[source]!.broker !== "kafka") return;
    const log = this.cluster.require(topic).logs[partition]!;
    const done = this.cluster.group(`g${source}`).committed(topic).get(partition) ?? log.start;
    const from = Math.max(done, log.start);
    const to = from + Math.ceil(((log.end - from) * quarters) / 4);
    const gone = new Set<string>();
    for (const { partition: of, position, value } of this.cluster.contents(topic))
      if (of === partition && position < to) gone.add(uidOf(value));
    this.history.takeAway(source, gone);
    // What was in flight belongs to an epoch that is over, and a copy of it may come.
    this.repeatsAllowed = true;
    this.cluster.faults.deleteRecords(topic, partition, to);
  }

  /** Whatever kept an output from taking messages ends. */
  #release(): void {
    this.#stalledSince = undefined;
    this.cluster.faults.release();
    for (const name of outputs) this.cluster.faults.limit(name, limit);
    this.cluster.faults.limit("dead", 1_000_000);
    for (const name of [...outputs, "dead"]) this.broker.refusePublishes(name, false);
  }

  /** Every fault ends. */
  heal(): void {
    for (const leave of this.#leave.values()) {
      this.#disturbed();
      leave();
    }
    this.#leave.clear();
    this.#release();
    this.broker.setAlarm(undefined);
    if (this.#withheld) this.#confirmAgain();
  }

  /** Until everything is where it should be, or nothing has moved for a minute: a long window may hold the rest. */
  async settle(): Promise<boolean> {
    let ended = -1;
    for (let still = 0; still < 120; still++) {
      this.collect();
      if (this.history.firstMissing() === undefined) return true;
      await this.context.clock.run(500);
      const { accepted, inFlight } = this.status.conservation;
      if (accepted - inFlight !== ended) still = 0;
      ended = accepted - inFlight;
    }
    return false;
  }

  /** The faults are over: everything must arrive, and nothing be left. */
  async finish(): Promise<void> {
    this.heal();
    for (let round = 0; !(await this.settle()); round++) {
      if (round === 2) this.#tellMissing();
      for (const { name, backlog, conservation, held, waiting } of this.status.sources) {
        if (backlog > 0)
          throw new Anomaly(
            "stuck",
            `${backlog} wait for credit at ${name}, ${conservation.inFlight} are in flight, ${held} held, ${waiting} waiting`,
          );
      }
      // Windows may hold the rest for longer than we care to wait.
      const how = await this.drain();
      if (how !== "done") throw new Anomaly("stuck", `without a fault a drain ends as ${how}`);
      this.check();
      await this.begin();
    }
    // Rebalances that are under way come to their end.
    await this.context.clock.run(10_000);
    // What is read again may take longer than a drain waits. Windows may hold on to some of it.
    for (let turn = 0, still = 0, ended = -1; turn < 600 && still < 6; turn++) {
      await this.context.clock.run(500);
      const { accepted, inFlight } = this.status.conservation;
      still = this.#isRead && accepted - inFlight === ended ? still + 1 : 0;
      ended = accepted - inFlight;
    }
    if ((await this.drain()) !== "done") throw new Anomaly("stuck", "the last drain is not done");
    this.check();
    if (this.graph.audit) this.history.checkAudit();
    await this.#end();
  }

  /** Everything that was fed has been taken in. */
  get #isRead(): boolean {
    const { sources } = this.status;
    return this.graph.sources.every(({ broker }, number) => {
      const { backlog, lanes } = sources.find(({ name }) => name === `in${number}`)!;
      if (broker === "rabbitmq") {
        const queue = `in${number}`;
        // One that was deleted is there again when its reader is.
        return this.broker.has(queue) && this.broker.depth(queue).ready === 0 && backlog === 0;
      }
      return this.cluster.require(`in${number}`).logs.every(({ start, end }, partition) => {
        const lane = lanes.find(({ name }) => name === `in${number}/${partition}`);
        return start === end || (lane !== undefined && lane.checkpoint + lane.span === end);
      });
    });
  }

  #tellMissing(): never {
    const { fed, what } = this.history.firstMissing()!;
    const acked = this.history.isAcked(fed.uid);
    throw new Anomaly(acked ? "lost-write" : "stuck", `${what}: ${fed.uid} of ${fed.id}`);
  }

  async #end(): Promise<void> {
    const { sources, conservation } = this.status;
    if (conservation.inFlight > 0)
      throw new Anomaly("leak", `${conservation.inFlight} in flight after the end`);
    for (const { name, held, waiting, lanes, bytesInFlight } of sources) {
      if (held !== 0 || waiting !== 0 || lanes.length > 0 || bytesInFlight !== 0)
        throw new Anomaly("leak", `${name}: ${held} held, ${waiting} waiting, ${lanes.length} lanes`);
    }
    this.graph.sources.forEach(({ broker }, number) => {
      if (broker === "rabbitmq") {
        const left = [...this.broker.remaining(`in${number}`)].length;
        if (left > 0) throw new Anomaly("stuck", `${left} are left in queue in${number}`);
        return;
      }
      const committed = this.cluster.group(`g${number}`).committed(`in${number}`);
      this.cluster.require(`in${number}`).logs.forEach((log, partition) => {
        if (log.end > log.start && committed.get(partition) !== log.end)
          throw new Anomaly(
            "stuck",
            `in${number}/${partition} is committed to ${committed.get(partition)} of ${log.end}`,
          );
      });
    });
    const { clock } = this.context;
    await clock.run(60_000);
    if (this.broker.connections.size > 0 || this.cluster.connections.size > 0)
      throw new Anomaly("leak", "connections are left");
    if (clock.pending > 0) throw new Anomaly("leak", `${clock.pending} timers are left`);
  }

  /** Tells the history what the sinks hold by now. */
  collect(): void {
    for (let number = 0; number < 3; number++) {
      this.#read(`out${number}`, (value) => this.history.store(number, value));
    }
    this.#read("dead", (value) => this.history.deadLetter(value));
    this.#read("events", (value) => this.history.event(value));
  }

  #read(name: string, each: (value: Buffer | null) => void): void {
    this.cluster.require(name).logs.forEach((log, partition) => {
      const at = `${name}/${partition}`;
      for (let position = this.#kafkaRead.get(at) ?? 0; ; ) {
        const found = log.read(position, Number.POSITIVE_INFINITY);
        if (found.kind !== "records") break;
        for (let i = 0; i < found.records.length; i++) each(found.records.value(i));
        position = found.next;
        this.#kafkaRead.set(at, position);
      }
    });
    const { history } = this.broker.queue(name);
    for (let i = this.#rabbitmqRead.get(name) ?? 0; i < history.length; i++) each(history[i]!.content);
    this.#rabbitmqRead.set(name, history.length);
  }

  #disturbed(): void {
    this.repeatsAllowed = true;
    this.orderHolds = false;
  }

  /** What was withheld comes no more: only a new connection makes it good. */
  #confirmAgain(): void {
    this.#withheld = false;
    this.broker.withholdConfirms(false);
    this.repeatsAllowed = true;
    this.broker.cut("applied", "publish");
  }

  #watchCommits(): void {
    this.graph.sources.forEach(({ broker }, number) => {
      if (broker !== "kafka") return;
      const group = this.cluster.group(`g${number}`);
      const commit = group.commit.bind(group);
      const inputs = new Map<number, { readonly position: number; readonly uid: string }[]>();
      group.commit = (member, generation, offsets) => {
        commit(member, generation, offsets);
        this.#guard(() => {
          this.collect();
          const held = group.members.get(member) ?? [];
          inputs.clear();
          for (const { partition, position, value } of this.cluster.contents(`in${number}`)) {
            const list = inputs.get(partition) ?? [];
            list.push({ position, uid: uidOf(value) });
            inputs.set(partition, list);
          }
          for (const { topic, partition, offset } of offsets) {
            const holds = held.some((own) => own.topic === topic && own.partition === partition);
            this.history.commit(group.name, member, `${topic}/${partition}`, offset, holds);
            for (const { position, uid } of inputs.get(partition) ?? [])
              if (position < offset) this.history.ack(uid);
          }
        });
      };
    });
  }

  #watchAcknowledgements(): void {
    const acknowledge = this.broker.acknowledge.bind(this.broker);
    this.broker.acknowledge = (channel, tag, multiple) => {
      this.#guard(() => {
        this.collect();
        for (const [each, { queued }] of channel.unacknowledged) {
          if (each === tag || (multiple && each < tag)) this.history.ack(uidOf(queued.message.content));
        }
      });
      acknowledge(channel, tag, multiple);
    };
  }

  /** Keeps what a check throws until somebody can be told, since the broker is in the middle of something. */
  #guard(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.#failure ??= error;
    }
  }
}

const outputs = ["out0", "out1", "out2"];

/** Text that no codec makes much smaller. */
function randomText(length: number): string {
  const random = seededRandom(1);
  return Array.from({ length }, () => String.fromCharCode(97 + Math.floor(random.next() * 26))).join("");
}

function targetName(number: number): string {
  return number === 3 ? "dead" : `out${number}`;
}
