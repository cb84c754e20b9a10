import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import kafkajs, { type Admin } from "kafkajs";
import type { Random } from "../../src/component/context.ts";
import { type KafkaCluster, startKafka } from "../brokers/kafka.ts";
import { until } from "../brokers/until.ts";
import { quietKafka } from "../kafka-log.ts";
import { type Bed, type Cut, ordered, type Trouble, unordered } from "./bed.ts";
import type { History } from "./checker.ts";
import { CommitTail } from "./commit-tail.ts";
import { Counters, idOf } from "./counters.ts";
import { kafkaFrames } from "./kafka-frames.ts";
import { moveLeaders } from "./leaders.ts";
import { Faults, TcpProxy } from "./proxy.ts";
import { Tail } from "./tail.ts";

const brokers = 3;
const inputs = 4;
// Each lane feeds all of the output's partitions, so that one of them may be stuck and the others not.
const outputs = 6;
const group = "counters";
const MiB = 2 ** 20;
const sampleEvery = 300;

export type KafkaBedDriver = "wire" | "kafkajs";

/** Few in flight, and few settled above a hole: what a fault may repeat is then a small part of what there is. */
const credit = 150;
const span = 75;

const topologyText = (
  driver: KafkaBedDriver,
) => `import { batch, decode, dedup, env, kafka, key, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), requestTimeout: "4s", connectTimeout: "2s", driver: "${driver}" });
export default topology("counters", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "${group}", credit: ${credit}, span: ${span}, chunk: 25, commitInterval: "10ms",
      sessionTimeout: "3s", heartbeatInterval: "500ms", rebalanceTimeout: "10s", maxWait: "100ms" }))
    .pipe(
      decode("json"),
      key("/key"),
      dedup({ id: (count) => \`\${count.key}:\${count.seq}\`, capacity: 20_000, ttl: "10m" }),
      batch({ count: 30, within: "10ms" }),
    )
    .to(cluster.sink({ topic: "out", maxBackoff: "500ms" }));
  t.deadLetters(cluster.sink({ topic: "dead", maxBackoff: "500ms" }));
});
`;

/** `wire` takes part in the newer group protocol. */
const heartbeat = { wire: "ConsumerGroupHeartbeat", kafkajs: "Heartbeat" } as const;

const requests = (...kinds: string[]): Cut[] => kinds.map((kind) => ({ direction: "request", kind }));
const replies = (...kinds: string[]): Cut[] => kinds.map((kind) => ({ direction: "reply", kind }));

/** Three brokers, all topics on each of them, and a dedup that must not take for done what is under way. */
export class KafkaBed implements Bed {
  static async start(random: Random, driver: KafkaBedDriver): Promise<KafkaBed> {
    // A member that was killed is missed as soon as with the classic protocol, where it asks for 3 s itself.
    const properties = { "group.consumer.session.timeout.ms": "3000" };
    const cluster = await startKafka({ brokers, proxied: true, properties });
    const folder = mkdtempSync(join(tmpdir(), "millrace-faults-"));
    const bed = new KafkaBed(random, driver, cluster, folder);
    try {
      await bed.#open();
      return bed;
    } catch (error) {
      await bed.stop();
      throw error;
    }
  }

  readonly name: string;
  readonly topology: string;
  readonly faults = new Faults();
  readonly atWork = "partitions assigned";
  readonly span = inputs * span;
  readonly keepsOrderAmongMembers = true;
  readonly earlyAcks = new Set<string>();
  readonly cuts: { readonly before: readonly Cut[]; readonly reply: readonly Cut[] };
  readonly troubles: Readonly<Record<string, Trouble>>;
  samples = 0;
  readonly #random: Random;
  readonly #driver: KafkaBedDriver;
  readonly #cluster: KafkaCluster;
  readonly #folder: string;
  readonly #counters: Counters;
  readonly #arrived = new Set<string>();
  /** For each partition of the input: below this offset all acknowledged ids were found downstream. */
  readonly #checked: number[] = new Array(inputs).fill(0);
  #admin!: Admin;
  #proxies: TcpProxy[] = [];
  #tails: { readonly input: Tail; readonly output: Tail; readonly dead: Tail } | undefined;
  #commits: CommitTail | undefined;
  #sampling: Promise<void> | undefined;
  #over = false;

  private constructor(random: Random, driver: KafkaBedDriver, cluster: KafkaCluster, folder: string) {
    this.name = `Kafka → Kafka, ${driver}`;
    this.cuts = {
      before: requests("Produce", "Fetch", "OffsetCommit", heartbeat[driver]),
      reply: replies("Produce", "Produce", "OffsetCommit", "Fetch"),
    };
    this.#random = random;
    this.#driver = driver;
    this.#cluster = cluster;
    this.#folder = folder;
    this.#counters = new Counters(random);
    this.topology = join(folder, "counters.ts");
    writeFileSync(this.topology, topologyText(driver));
    this.troubles = {
      "leaders moved": () => this.#moveLeaders(),
      "leaders moved every 2 s": () => this.#keepMovingLeaders(),
      "sink rejects all": () => this.#rejectAll(),
      "broker frozen": () => this.#freeze(),
      "log disk full": () => this.#fillDisk(),
    };
  }

  get env(): NodeJS.ProcessEnv {
    return { KAFKA_BROKERS: this.#proxies.map(({ port }) => `127.0.0.1:${port}`).join(",") };
  }

  get regressions(): readonly string[] {
    return this.#commits?.regressions ?? [];
  }

  get admitted(): number {
    return this.#commits?.admitted ?? 0;
  }

  get fed(): number {
    return this.#counters.fed;
  }

  async feed(count: number, family: string): Promise<void> {
    const lines = this.#counters.take(count, family).map(({ key, value }) => `${key}\t${value}\n`);
    const settings = ["enable.idempotence=true", "partitioner=murmur2_random"].flatMap((one) => ["-X", one]);
    await this.#cluster.kcat(["-P", "-t", "in", "-K", "\t", ...settings], {
      stdin: lines.join(""),
      within: 120_000,
    });
  }

  async delivered(): Promise<number> {
    return this.#arrived.size;
  }

  async drained(): Promise<boolean> {
    return this.#arrived.size === this.fed;
  }

  /**
   * `wire` finishes what it gives up, and loses only what is taken from it, which is all; and a write in doubt is made
   * once. With kafkajs each assignment but the first ends the one before, and a write in doubt may be made twice.
   */
  losses(log: string): number {
    const assigned = [...log.matchAll(/"partitions":"([^"]*)"[^\n]*"partitions assigned"/g)].map(
      ([, all]) => all,
    );
    if (this.#driver === "wire")
      return assigned.filter((now, i) => now === "none" && (assigned[i - 1] ?? "none") !== "none").length;
    return Math.max(0, assigned.length - 1) + (log.match(/sink is in trouble/g)?.length ?? 0);
  }

  async inspect(): Promise<number> {
    // Right after a broker came back a partition may be without a leader.
    await until("the brokers answer", async () => {
      await this.#sample();
      return true;
    });
    const { input } = this.#tails!;
    return input.partitions.reduce(
      (sum, records, partition) =>
        sum +
        records.slice(this.#checked[partition]).filter((count) => this.#arrived.has(idOf(count))).length,
      0,
    );
  }

  async restart(how: "kill" | "clean", meanwhile: () => Promise<void>): Promise<void> {
    const broker = this.#anyBroker();
    if (how === "kill") await this.#cluster.kill(broker);
    else await this.#cluster.shutDown(broker);
    await meanwhile();
    await this.#cluster.restart(broker);
  }

  /** Per broker one fetch as it came and as records, κ = 3 for parsed JSON, a batch per lane in and out, dedup. */
  memoryLimit(base: number): number {
    const fetches = brokers * 2 * inputs * MiB;
    return base + fetches + 3 * 16 * MiB + inputs * 2 * MiB + 20_000 * 300;
  }

  async harvest(): Promise<History> {
    await this.#caughtUp();
    await until("commits were read", () => (this.#commits?.count ?? 0) > 0);
    const all = ({ partitions }: Tail) => partitions.flat();
    const { input, output, dead } = this.#tails!;
    return { input: all(input), output: all(output), dead: all(dead), unordered };
  }

  async stop(): Promise<void> {
    this.#over = true;
    await this.#sampling;
    const { input, output, dead } = this.#tails ?? {};
    await Promise.all([input, output, dead, this.#commits].map((tail) => tail?.stop()));
    await this.#admin?.disconnect().catch(() => {});
    await Promise.all(this.#proxies.map((proxy) => proxy.close()));
    await this.#cluster.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    const { bootstrap, doors } = this.#cluster;
    this.#proxies = await Promise.all(
      doors.map(({ advertised, listens }) => TcpProxy.start(kafkaFrames, this.faults, advertised, listens)),
    );
    const settings = { "min.insync.replicas": "2" };
    await this.#cluster.createTopic("in", { partitions: inputs, replication: brokers, settings });
    await this.#cluster.createTopic("out", { partitions: outputs, replication: brokers, settings });
    await this.#cluster.createTopic("dead", { partitions: 1, replication: brokers, settings });
    this.#admin = quietKafka(bootstrap).admin();
    await this.#admin.connect();
    const arrived = (count: Parameters<typeof idOf>[0]) => this.#arrived.add(idOf(count));
    this.#tails = {
      input: new Tail(bootstrap, "in", inputs),
      output: new Tail(bootstrap, "out", outputs, arrived),
      dead: new Tail(bootstrap, "dead", 1, arrived),
    };
    this.#commits = new CommitTail(bootstrap, group, "in");
    this.#sampling = this.#keepSampling();
  }

  async #keepSampling(): Promise<void> {
    while (!this.#over) {
      // Brokers come and go; the next sample is as good.
      await this.#sample().catch(() => {});
      await pause(sampleEvery);
    }
  }

  /**
   * What was committed is read first, and where the output ends afterwards: everything below the commit must
   * have been written before that end.
   */
  async #sample(): Promise<void> {
    const [topic] = await this.#admin.fetchOffsets({ groupId: group, topics: ["in"] });
    const committed = new Map(
      topic!.partitions.map(({ partition, offset }) => [partition, Math.max(0, Number(offset))]),
    );
    await this.#caughtUp();
    const { input } = this.#tails!;
    await until("the input is read", () => this.#over || input.reached(committed));
    for (const [partition, offset] of committed) {
      for (let at = this.#checked[partition]!; at < offset; at++) {
        const id = idOf(input.partitions[partition]![at]!);
        if (!this.#arrived.has(id)) this.earlyAcks.add(id);
      }
      this.#checked[partition] = Math.max(this.#checked[partition]!, offset);
    }
    this.samples++;
  }

  /** Until what the brokers hold of the output now has been read. */
  async #caughtUp(): Promise<void> {
    const { output, dead } = this.#tails!;
    for (const [tail, topic] of [
      [output, "out"],
      [dead, "dead"],
    ] as const) {
      const offsets = await this.#admin.fetchTopicOffsets(topic);
      const ends = new Map(offsets.map(({ partition, high }) => [partition, Number(high)]));
      await until(`${topic} is read`, () => this.#over || tail.reached(ends));
    }
  }

  #anyBroker(): number {
    return Math.floor(this.#random.next() * brokers);
  }

  async #moveLeaders(): Promise<void> {
    for (const topic of ["in", "out"]) await moveLeaders(this.#admin, topic, this.#random);
  }

  async #keepMovingLeaders(): Promise<void> {
    for (let moves = 0; moves < 8; moves++) {
      await this.#moveLeaders();
      await this.feed(300, ordered);
      await pause(2_000);
    }
  }

  /** A fault of the sink that is no fault of any message. */
  async #rejectAll(): Promise<void> {
    const limit = (entries: { name: string; value: string }[]) =>
      this.#admin.alterConfigs({
        validateOnly: false,
        resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: "out", configEntries: entries }],
      });
    const insync = { name: "min.insync.replicas", value: "2" };
    await limit([insync, { name: "max.message.bytes", value: "1" }]);
    await this.feed(1_000, ordered);
    await pause(4_000);
    await limit([insync]);
  }

  /** A broker that cannot write gives up by itself; somebody makes room, and starts it again. */
  async #fillDisk(): Promise<void> {
    const broker = this.#anyBroker();
    await this.#cluster.fillDisk(broker);
    await this.feed(1_000, ordered);
    await until("the broker has given up", () => !this.#cluster.runs(broker));
    await this.feed(1_000, ordered);
    await this.#cluster.restart(broker);
  }

  async #freeze(): Promise<void> {
    const broker = this.#anyBroker();
    this.#cluster.pause(broker);
    await pause(1_000 + this.#random.next() * 2_000);
    this.#cluster.resume(broker);
  }
}
