import { systemClock } from "../src/component/system.ts";
import type { KafkaClient } from "../src/connectors/kafka/driver.ts";
import { wireDriver } from "../src/connectors/kafka/drivers/wire/driver.ts";
import { kafkaSettings } from "../src/connectors/kafka/options.ts";
import { freshName } from "../test/brokers/index.ts";
import { type KafkaCluster, startKafka } from "../test/brokers/kafka.ts";
import { committedOf, countOf, eachRecord, fill, quietKafka } from "../test/kafka-log.ts";
import { benchContext } from "./context.ts";
import type { Input, Output } from "./ends.ts";
import type { Order } from "./orders.ts";

/** The broker of the environment, or one of our own, with what the topics of a job need. */
export class KafkaSide {
  readonly bootstrap: string;
  readonly #owned: KafkaCluster | undefined;
  readonly #client: KafkaClient;

  private constructor(bootstrap: string, owned: KafkaCluster | undefined) {
    this.bootstrap = bootstrap;
    this.#owned = owned;
    this.#client = wireDriver.connect(kafkaSettings({ brokers: bootstrap }), benchContext());
  }

  static async open(): Promise<KafkaSide> {
    const given = process.env.KAFKA_BROKERS;
    if (given) return new KafkaSide(given, undefined);
    const owned = await startKafka();
    return new KafkaSide(owned.bootstrap, owned);
  }

  async create(topic: string, partitions: number, retained?: Retained): Promise<string> {
    const configEntries = Object.entries(retained ?? {}).map(([name, value]) => ({ name, value }));
    await this.#administer((admin) =>
      admin.createTopics({
        // kafkajs gives up at once where the broker does not know a large topic yet.
        waitForLeaders: false,
        topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }],
      }),
    );
    await countOf(this.bootstrap, topic);
    return topic;
  }

  async remove(topic: string | undefined): Promise<void> {
    if (topic !== undefined) await this.#administer((admin) => admin.deleteTopics({ topics: [topic] }));
  }

  /** Messages ever written to a topic, those too that it no longer holds. */
  async written(topic: string): Promise<number> {
    const offsets = await this.#client.offsets(topic);
    return offsets.reduce((sum, { latest }) => sum + latest, 0);
  }

  async #administer(use: (admin: KafkaAdmin) => Promise<unknown>): Promise<void> {
    const admin = quietKafka(this.bootstrap).admin();
    await admin.connect();
    await use(admin).finally(() => admin.disconnect());
  }

  async close(): Promise<void> {
    await this.#client.close(systemClock.now() + 2_000);
    await this.#owned?.stop();
  }
}

/** What a topic holds at most, as Kafka's settings of a topic; all, where nothing is said. */
export interface Retained {
  /** Of a partition. A segment goes once those after it have as much, which the broker looks at every 5 minutes. */
  readonly "retention.bytes": string;
  readonly "segment.bytes": string;
}

type KafkaAdmin = ReturnType<ReturnType<typeof quietKafka>["admin"]>;
type KafkaProducer = ReturnType<ReturnType<typeof quietKafka>["producer"]>;

async function connectedProducer(bootstrap: string): Promise<KafkaProducer> {
  const producer = quietKafka(bootstrap).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  return producer;
}

export class KafkaInput implements Input {
  readonly #side: KafkaSide;
  readonly #orders: () => Iterable<Order>;
  readonly #partitions: number;
  readonly #retained: Retained | undefined;
  #full: string | undefined;
  #empty: string | undefined;
  #group = "";
  #current = "";
  #producer: Promise<KafkaProducer> | undefined;

  constructor(side: KafkaSide, orders: () => Iterable<Order>, partitions: number, retained?: Retained) {
    this.#side = side;
    this.#orders = orders;
    this.#partitions = partitions;
    this.#retained = retained;
  }

  async prepare(what: "full" | "empty"): Promise<Record<string, string>> {
    this.#group = freshName("bench");
    if (what === "full") {
      // One for all runs: reading takes nothing away, and each run has a group of its own.
      if (this.#full === undefined) {
        this.#full = await this.#side.create(freshName("orders"), this.#partitions);
        await fill(this.#side.bootstrap, this.#full, this.#orders());
      }
      this.#current = this.#full;
    } else {
      // A client of kafkajs asks for every topic that it ever wrote to, and fails on one that is gone.
      await (await this.#producer)?.disconnect();
      this.#producer = undefined;
      await this.#side.remove(this.#empty);
      this.#empty = await this.#side.create(freshName("orders"), this.#partitions, this.#retained);
      this.#current = this.#empty;
    }
    return { KAFKA_BROKERS: this.#side.bootstrap, BENCH_INPUT: this.#current, BENCH_GROUP: this.#group };
  }

  async unacknowledged(): Promise<number> {
    const [end, committed] = await Promise.all([
      this.#side.written(this.#current),
      committedOf(this.#side.bootstrap, this.#group, this.#current),
    ]);
    return end - committed;
  }

  async send(orders: readonly Order[]): Promise<void> {
    this.#producer ??= connectedProducer(this.#side.bootstrap);
    const producer = await this.#producer;
    await producer.send({ topic: this.#current, acks: -1, messages: [...orders] });
  }

  async close(): Promise<void> {
    await (await this.#producer)?.disconnect();
    await this.#side.remove(this.#full);
    await this.#side.remove(this.#empty);
  }
}

export class KafkaOutput implements Output {
  readonly #side: KafkaSide;
  readonly #partitions: number;
  readonly #retained: Retained | undefined;
  #topic: string | undefined;
  #dead: string | undefined;

  constructor(side: KafkaSide, partitions: number, retained?: Retained) {
    this.#side = side;
    this.#partitions = partitions;
    this.#retained = retained;
  }

  async prepare(): Promise<Record<string, string>> {
    await this.close();
    this.#topic = await this.#side.create(freshName("accepted"), this.#partitions, this.#retained);
    this.#dead = await this.#side.create(freshName("dead"), 1);
    return { KAFKA_BROKERS: this.#side.bootstrap, BENCH_OUTPUT: this.#topic, BENCH_DEAD: this.#dead };
  }

  count(): Promise<number> {
    return this.#side.written(this.#topic!);
  }

  read(visit: (key: string | null, value: Buffer) => void): Promise<void> {
    return eachRecord(this.#side.bootstrap, this.#topic!, (_partition, { key, value }) =>
      visit(key?.toString() ?? null, value!),
    );
  }

  async listen(visit: (key: string | null, value: Buffer) => void): Promise<() => Promise<void>> {
    const topic = this.#topic!;
    const consumer = quietKafka(this.#side.bootstrap).consumer({
      groupId: freshName("listener"),
      maxWaitTimeInMs: 100,
    });
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    const joined = new Promise<void>((resolve) => {
      consumer.on(consumer.events.GROUP_JOIN, () => resolve());
    });
    await consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch }) => {
        for (const { key, value } of batch.messages) visit(key?.toString() ?? null, value!);
      },
    });
    await joined;
    return () => consumer.disconnect();
  }

  async close(): Promise<void> {
    await this.#side.remove(this.#topic);
    await this.#side.remove(this.#dead);
  }
}
