import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { type ConfirmChannel, connect } from "amqplib";
import { type RabbitmqBroker, startRabbitmq } from "../../test/brokers/rabbitmq.ts";
import { type Millrace, millrace } from "../../test/millrace.ts";

export const file = (name: string) => new URL(name, import.meta.url).pathname;

export const documents = readFileSync(file("data/cdar2.ndjson"), "utf8")
  .trim()
  .split("\n")
  .map((line) => (JSON.parse(line) as { value: string }).value) as [string, string, string, string, string];
export const bundle = readFileSync(file("data/fhir.ndjson"), "utf8").trim();

export type Worker = "ingester" | "transformer" | "loader";

/** Two RabbitMQ instances, with the vhosts that XFM has. The first has both, to show what one instance does. */
export class XfmBed {
  static async start(): Promise<XfmBed> {
    const [gateway, messaging] = await Promise.all([startRabbitmq(), startRabbitmq()]);
    const bed = new XfmBed(gateway, messaging);
    await Promise.all([addVhosts(gateway, "gateway", "messaging"), addVhosts(messaging, "messaging")]);
    return bed;
  }

  readonly gateway: RabbitmqBroker;
  readonly messaging: RabbitmqBroker;

  private constructor(gateway: RabbitmqBroker, messaging: RabbitmqBroker) {
    this.gateway = gateway;
    this.messaging = messaging;
  }

  get gatewayUrl(): string {
    return `${this.gateway.url}/gateway`;
  }

  get messagingUrl(): string {
    return `${this.messaging.url}/messaging`;
  }

  /** Where both vhosts are on one instance. */
  get sameInstanceUrl(): string {
    return `${this.gateway.url}/messaging`;
  }

  async stop(): Promise<void> {
    await Promise.all([this.gateway.stop(), this.messaging.stop()]);
  }

  /** The addresses of both brokers, for a worker, and what else it is given. */
  env(others: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    return { GATEWAY_URL: this.gatewayUrl, MESSAGING_URL: this.messagingUrl, ...others };
  }

  worker(
    t: TestContext,
    worker: Worker,
    env: NodeJS.ProcessEnv = {},
    nodeArgs: readonly string[] = [],
  ): Millrace {
    return millrace(t, ["run", file(`${worker}.ts`), "--http", "127.0.0.1:0"], this.env(env), nodeArgs);
  }

  /** Runs one of the scripts that are no topologies. */
  async script(
    name: "install.ts" | "decommission.ts",
    args: readonly string[],
    env: NodeJS.ProcessEnv,
  ): Promise<string> {
    const child = spawn(process.execPath, ["--conditions=millrace:source", file(name), ...args], {
      env: { ...process.env, ...this.env(env) },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [out, err, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, "exit"),
    ]);
    if (code !== 0) throw new Error(`${name} ended with ${code}: ${err}`);
    return out;
  }
}

/** One call of rabbitmqctl for all of it: each takes a second. */
async function addVhosts(broker: RabbitmqBroker, ...names: readonly string[]): Promise<void> {
  const steps = names.flatMap((name) => [
    `ok = rabbit_vhost:add(<<"${name}">>, <<"test">>)`,
    `rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"${name}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>)`,
  ]);
  await broker.ctl("eval", `${steps.join(", ")}.`);
}

/** A vhost by hand: what sources and people do there. */
export class Hand {
  static async on(t: TestContext, url: string): Promise<Hand> {
    const connection = await connect(url);
    connection.on("error", () => {});
    t.after(() => connection.close().catch(() => {}));
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => {});
    return new Hand(channel);
  }

  readonly #channel: ConfirmChannel;

  private constructor(channel: ConfirmChannel) {
    this.#channel = channel;
  }

  /** As a source of messages does: to the exchange, which must lead somewhere. */
  async publish(exchange: string, key: string, bodies: readonly string[]): Promise<void> {
    let returned = 0;
    const count = () => returned++;
    this.#channel.on("return", count);
    for (const body of bodies) {
      this.#channel.publish(exchange, key, Buffer.from(body), { persistent: true, mandatory: true });
    }
    await this.#channel.waitForConfirms();
    this.#channel.off("return", count);
    if (returned > 0) throw new Error(`${returned} messages with key ${key} lead nowhere`);
  }

  async depth(queue: string): Promise<number> {
    return (await this.#channel.checkQueue(queue)).messageCount;
  }

  async take(queue: string): Promise<{ readonly body: string; readonly headers: Record<string, unknown> }[]> {
    const taken: { body: string; headers: Record<string, unknown> }[] = [];
    for (;;) {
      const message = await this.#channel.get(queue, { noAck: true });
      if (message === false) return taken;
      taken.push({ body: message.content.toString(), headers: message.properties.headers ?? {} });
    }
  }

  async purge(...queues: readonly string[]): Promise<void> {
    for (const queue of queues) await this.#channel.purgeQueue(queue);
  }
}
