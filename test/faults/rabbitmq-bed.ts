import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Channel, type ChannelModel, connect } from "amqplib";
import type { Random } from "../../src/component/context.ts";
import { type RabbitmqBroker, startRabbitmq } from "../brokers/rabbitmq.ts";
import { until } from "../brokers/until.ts";
import { amqpFrames } from "./amqp-frames.ts";
import { type Bed, type Cut, type Freezable, ordered, type Trouble, unordered } from "./bed.ts";
import type { History } from "./checker.ts";
import { type Count, Counters, idOf, readCount } from "./counters.ts";
import { Faults, TcpProxy } from "./proxy.ts";

const MiB = 2 ** 20;
/** Few in flight: what a fault may repeat is then a small part of what there is. */
const prefetch = 150;

const topologyText = `import { batch, decode, env, rabbitmq, topology } from "millrace";
const broker = rabbitmq({ url: env("AMQP_URL"), heartbeat: "4s", connectTimeout: "4s", queues: {
  in: { type: "classic" }, out: { type: "classic" }, dead: { type: "classic" } } });
export default topology("counters", (t) => {
  t.from(broker.source({ queue: "in", prefetch: ${prefetch} }))
    .pipe(decode("json"), batch({ count: 30, within: "10ms" }))
    .to(broker.sink({ queue: "out", maxBackoff: "500ms" }));
  t.deadLetters(broker.sink({ queue: "dead" }));
});
`;

/**
 * One broker and classic queues. Output and dead letters are taken out of their queues only while no runner is
 * at work and no fault is near, so that nothing that is read is read twice.
 */
export class RabbitmqBed implements Bed {
  static async start(random: Random): Promise<RabbitmqBed> {
    const broker = await startRabbitmq();
    const folder = mkdtempSync(join(tmpdir(), "millrace-faults-"));
    const bed = new RabbitmqBed(random, broker, folder);
    try {
      await bed.#open();
      return bed;
    } catch (error) {
      await bed.stop();
      throw error;
    }
  }

  readonly name = "RabbitMQ → RabbitMQ";
  readonly topology: string;
  readonly faults = new Faults();
  readonly atWork = "topology running";
  readonly span = prefetch;
  readonly admitted = 0;
  readonly keepsOrderAmongMembers = false;
  readonly earlyAcks = new Set<string>();
  readonly regressions: readonly string[] = [];
  readonly cuts: { readonly before: readonly Cut[]; readonly reply: readonly Cut[] } = {
    before: [
      { direction: "request", kind: "publish" },
      { direction: "request", kind: "ack" },
      { direction: "request", kind: "content" },
    ],
    reply: [
      { direction: "reply", kind: "confirm" },
      { direction: "reply", kind: "confirm" },
      { direction: "reply", kind: "deliver" },
    ],
  };
  readonly troubles: Readonly<Record<string, Trouble>>;
  samples = 0;
  readonly #random: Random;
  readonly #broker: RabbitmqBroker;
  readonly #folder: string;
  readonly #counters: Counters;
  #input: Count[] = [];
  /** Messages that went with a queue that was deleted. */
  #gone = 0;
  readonly #output: Count[] = [];
  readonly #dead: Count[] = [];
  readonly #arrived = new Set<string>();
  #proxy: TcpProxy | undefined;
  /** The ordeal's own connection, past the proxy. */
  #connection: Promise<ChannelModel> | undefined;

  private constructor(random: Random, broker: RabbitmqBroker, folder: string) {
    this.#random = random;
    this.#broker = broker;
    this.#folder = folder;
    this.#counters = new Counters(random);
    this.topology = join(folder, "counters.ts");
    writeFileSync(this.topology, topologyText);
    this.troubles = {
      "memory alarm": () =>
        this.#alarm(
          ["set_vm_memory_high_watermark", "absolute", "1MB"],
          ["set_vm_memory_high_watermark", "0.4"],
        ),
      "disk alarm": () => this.#alarm(["set_disk_free_limit", "1000000GB"], ["set_disk_free_limit", "50MB"]),
      "broker frozen": () => this.#freeze(),
      "output deleted": (runner) => this.#deleteOutput(runner),
      "input deleted": (runner) => this.#deleteInput(runner),
    };
  }

  get env(): NodeJS.ProcessEnv {
    return { AMQP_URL: `amqp://guest:guest@127.0.0.1:${this.#proxy!.port}` };
  }

  losses(log: string): number {
    return log.match(/connection lost|the consumer stopped|the publisher stopped/g)?.length ?? 0;
  }

  get fed(): number {
    return this.#counters.fed - this.#gone;
  }

  async feed(count: number, family: string): Promise<void> {
    const channel = await (await this.#connected()).createConfirmChannel();
    const closed = new Promise<never>((_, reject) => {
      channel.on("error", reject);
      channel.on("close", () => reject(new Error("the channel was closed while it fed")));
    });
    closed.catch(() => {});
    const fed = this.#counters.take(count, family);
    for (const { value } of fed) channel.sendToQueue("in", Buffer.from(value), { persistent: true });
    await Promise.race([channel.waitForConfirms(), closed]);
    for (const { value } of fed) this.#input.push(readCount(value));
    await channel.close();
  }

  async delivered(): Promise<number> {
    return this.#on(async (channel) => {
      const out = await channel.checkQueue("out");
      const dead = await channel.checkQueue("dead");
      return this.#arrived.size + out.messageCount + dead.messageCount;
    });
  }

  /** Unacknowledged messages too; the broker tells of them through its command only. */
  async drained(): Promise<boolean> {
    const { stdout } = await this.#broker.ctl("list_queues", "-q", "--no-table-headers", "name", "messages");
    return /^in\t0$/m.test(stdout);
  }

  /**
   * With no consumer left, what is unacknowledged is all in the input again. So everything fed is there, or
   * downstream.
   */
  async inspect(): Promise<number> {
    await until("the runner's consumer is gone", () =>
      this.#on(async (channel) => (await channel.checkQueue("in")).consumerCount === 0),
    );
    await this.#collect();
    const left = new Set((await read(await this.#connected(), "in", "leave")).map(idOf));
    for (const count of this.#input) {
      const id = idOf(count);
      if (!left.has(id) && !this.#arrived.has(id)) this.earlyAcks.add(id);
    }
    this.samples++;
    return this.#input.filter((count) => left.has(idOf(count)) && this.#arrived.has(idOf(count))).length;
  }

  async restart(how: "kill" | "clean", meanwhile: () => Promise<void>): Promise<void> {
    await this.#leave();
    if (how === "kill") await this.#broker.kill();
    else await this.#broker.shutDown();
    await meanwhile();
    await this.#broker.restart();
  }

  /** The prefetch at its largest message, κ = 3 for parsed JSON, and a batch in and out. */
  memoryLimit(base: number): number {
    return base + 16 * MiB + 3 * 16 * MiB + 2 * MiB;
  }

  async harvest(): Promise<History> {
    await this.#collect();
    return { input: this.#input, output: this.#output, dead: this.#dead, unordered };
  }

  async stop(): Promise<void> {
    await this.#leave().catch(() => {});
    await this.#proxy?.close();
    await this.#broker.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    const port = Number(new URL(this.#broker.url).port);
    this.#proxy = await TcpProxy.start(amqpFrames, this.faults, 0, port);
    await this.#on(async (channel) => {
      for (const queue of ["in", "out", "dead"]) {
        await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "classic" } });
      }
    });
    await this.#broker.settleNames();
  }

  #connected(): Promise<ChannelModel> {
    if (this.#connection !== undefined) return this.#connection;
    const connecting = connect(this.#broker.url);
    this.#connection = connecting;
    const forget = () => {
      if (this.#connection === connecting) this.#connection = undefined;
    };
    connecting.then((connection) => {
      connection.on("error", () => {});
      connection.on("close", forget);
    }, forget);
    return connecting;
  }

  /** On a channel of its own: the broker closes one that asks for a queue which is not there. */
  async #on<T>(work: (channel: Channel) => Promise<T>): Promise<T> {
    const channel = await (await this.#connected()).createChannel();
    channel.on("error", () => {});
    const result = await work(channel);
    await channel.close();
    return result;
  }

  async #leave(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await (await connection)?.close();
  }

  async #collect(): Promise<void> {
    const connection = await this.#connected();
    for (const [queue, into] of [
      ["out", this.#output],
      ["dead", this.#dead],
    ] as const) {
      for (const count of await read(connection, queue, "take")) {
        into.push(count);
        this.#arrived.add(idOf(count));
      }
    }
  }

  /** The alarm is raised over messages that were fed before it: it stops whoever publishes. */
  async #alarm(raise: readonly string[], end: readonly string[]): Promise<void> {
    await this.feed(1_000, ordered);
    await this.#broker.ctl(...raise);
    await pause(1_000 + this.#random.next() * 2_000);
    await this.#broker.ctl(...end);
  }

  /**
   * Deleted at a moment when it is empty and nothing is on its way to it, so that the fault loses nothing by
   * itself. The topology declares it, so the sink makes it again.
   */
  async #deleteOutput(runner: Freezable): Promise<void> {
    runner.freeze();
    await until("the output is empty and can be deleted", async () => {
      await this.#collect();
      return this.#on((channel) => channel.deleteQueue("out", { ifEmpty: true }));
    });
    runner.thaw();
    // The sink hears of it when it publishes.
    await this.feed(100, ordered);
    await until("the sink has made its queue again", () => this.#on((channel) => channel.checkQueue("out")));
    await this.#broker.settleNames();
  }

  /**
   * Deleted with messages in it, of which some are on their way: those that do not arrive are gone by the will of
   * whoever deleted it, and no others. The source makes it again, and reads on.
   */
  async #deleteInput(runner: Freezable): Promise<void> {
    await until("the input is done", () => this.drained());
    runner.freeze();
    const before = this.#input.length;
    await this.feed(3 * prefetch, ordered);
    const doomed = this.#input.slice(before);
    await this.#on((channel) => channel.deleteQueue("in"));
    runner.thaw();
    await until("the source has made its queue again", async () => {
      const { stdout } = await this.#broker.ctl("list_queues", "-q", "--no-table-headers", "name");
      return stdout.split("\n").includes("in");
    });
    await this.#broker.settleNames();
    // Behind what was on its way.
    await this.feed(100, ordered);
    await until("the input is done", () => this.drained());
    runner.freeze();
    await this.#collect();
    runner.thaw();
    const gone = new Set(doomed.filter((count) => !this.#arrived.has(idOf(count))));
    this.#input = this.#input.filter((count) => !gone.has(count));
    this.#gone += gone.size;
  }

  async #freeze(): Promise<void> {
    this.#broker.pause();
    await pause(1_000 + this.#random.next() * 2_000);
    this.#broker.resume();
  }
}

/** All that is ready in a queue, in its order; what is left is put back where it was. */
async function read(connection: ChannelModel, queue: string, how: "take" | "leave"): Promise<Count[]> {
  const channel: Channel = await connection.createChannel();
  const { messageCount } = await channel.checkQueue(queue);
  const counts: Count[] = [];
  if (messageCount > 0) {
    await new Promise<void>((resolve, reject) => {
      channel.once("error", reject);
      channel
        .consume(queue, (message) => {
          if (message === null || counts.length === messageCount) return;
          counts.push(readCount(message.content.toString()));
          if (counts.length < messageCount) return;
          if (how === "take") channel.ack(message, true);
          resolve();
        })
        .catch(reject);
    });
  }
  await channel.close();
  return counts;
}
