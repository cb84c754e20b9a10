import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Kafka as Client, logLevel } from "kafkajs";
import { Home } from "./home.ts";
import { kafkaJars } from "./jars.ts";
import { freePort } from "./port.ts";
import { type RunOptions, type RunResult, run } from "./run.ts";
import { Server } from "./server.ts";
import { until } from "./until.ts";

const logging = fileURLToPath(new URL("log4j2.properties", import.meta.url));

export interface TopicOptions {
  /** Default 4. */
  readonly partitions?: number;
  /** Default 1. */
  readonly replication?: number;
  /** Kafka's topic settings, as in `{ "max.message.bytes": "65536" }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A Kafka cluster to talk to, ours or not. */
export class Kafka {
  /** Comma-separated `host:port` list, as KAFKA_BROKERS has it. */
  readonly bootstrap: string;

  constructor(bootstrap: string) {
    this.bootstrap = bootstrap;
  }

  get brokers(): string[] {
    return this.bootstrap.split(",");
  }

  /** Creates a topic; returns its name once every partition has a leader that serves it. */
  async createTopic(topic: string, options: TopicOptions = {}): Promise<string> {
    const { partitions = 4, replication = 1, settings = {} } = options;
    const admin = quietAdmin(this.brokers);
    await admin.connect();
    try {
      const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }));
      await admin.createTopics({
        // One of several brokers may not know the topic yet, which ends kafkajs' own wait.
        waitForLeaders: false,
        topics: [{ topic, numPartitions: partitions, replicationFactor: replication, configEntries }],
      });
      await until(`topic ${topic} has leaders`, async () => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
        const found = topics[0]?.partitions ?? [];
        if (found.length !== partitions || found.some((partition) => partition.leader < 0)) return false;
        // A leader is named before it knows of it.
        return (await admin.fetchTopicOffsets(topic)).length === partitions;
      });
    } finally {
      await admin.disconnect();
    }
    return topic;
  }

  /** Runs one of Kafka's own tools, as in `javaTool("org.apache.kafka.tools.TopicCommand", ["--list"])`. */
  javaTool(mainClass: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return this.java(mainClass, ["--bootstrap-server", this.bootstrap, ...args], options);
  }

  /** The same for a tool that is told in another way where the brokers are. */
  async java(mainClass: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const [program, all] = await this.javaCommand(mainClass, args);
    return run(program, all, options);
  }

  /** Program and arguments of one of Kafka's tools, for those that run until they are told to end. */
  async javaCommand(mainClass: string, args: readonly string[]): Promise<[string, string[]]> {
    const classPath = join(await kafkaJars(), "*");
    return ["java", [...quickJvm, "-cp", classPath, mainClass, ...args]];
  }

  /** Runs kcat, the C client, against this cluster. */
  kcat(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run("kcat", ["-b", this.bootstrap, ...args], options);
  }
}

export interface KafkaOptions {
  /** Default 1. */
  readonly brokers?: 1 | 3;
  /** Server properties on top of ours. */
  readonly properties?: Readonly<Record<string, string>>;
  /**
   * One more listener, {@link KafkaCluster.securedBootstrap}, where this user must log in, with SASL PLAIN or SCRAM,
   * or anybody with an unsigned token (OAUTHBEARER).
   */
  readonly sasl?: { readonly username: string; readonly password: string };
  /** One more listener on each broker, for clients that come through a proxy: {@link KafkaCluster.doors}. */
  readonly proxied?: boolean;
  /**
   * The listener for logins speaks TLS. PEM files: the broker's key and certificate together, and the authority that
   * must have signed the clients' certificates, where they need one.
   */
  readonly tls?: { readonly keystore: string; readonly clients?: string };
}

/** A listener that is advertised at another port than its own: a proxy belongs between them. */
export interface Door {
  readonly advertised: number;
  readonly listens: number;
}

/** A cluster of ours, whose brokers may be stopped, killed and frozen. A broker's number counts from 0. */
export class KafkaCluster extends Kafka {
  readonly #home: Home;
  readonly #nodes: readonly Node[];

  constructor(home: Home, nodes: readonly Node[]) {
    super(nodes.map((node) => node.address).join(","));
    this.#home = home;
    this.#nodes = nodes;
  }

  /** Addresses of the listener that asks for a password or speaks TLS; undefined without one. */
  get securedBootstrap(): string | undefined {
    const addresses = this.#nodes.flatMap((node) => node.securedAddress ?? []);
    return addresses.length === 0 ? undefined : addresses.join(",");
  }

  /**
   * With the option `proxied`, one of each broker. Whoever comes in through it is told of these advertised ports
   * alone, whatever broker it looks for.
   */
  get doors(): Door[] {
    return this.#nodes.flatMap((node) => node.door ?? []);
  }

  /** Starts a broker that was killed; one that runs is first stopped in good order. Same port, same data. */
  async restart(broker = 0): Promise<void> {
    const node = this.#node(broker);
    await node.server.stop();
    await startNode(node);
    await this.#ready();
  }

  /** SIGTERM; returns when the process is gone. {@link restart} brings it back. */
  shutDown(broker = 0): Promise<void> {
    return this.#node(broker).server.stop();
  }

  /** SIGKILL; returns when the process is gone. */
  kill(broker = 0): Promise<void> {
    return this.#node(broker).server.kill();
  }

  /** SIGSTOP: connections stay open, nothing is answered. */
  pause(broker = 0): void {
    this.#node(broker).server.pause();
  }

  resume(broker = 0): void {
    this.#node(broker).server.resume();
  }

  /** Until it is started again no file of this broker grows, as on a disk that is full. */
  async fillDisk(broker = 0): Promise<void> {
    // A limit of the process needs no rights and no disk of its own; a broker makes no difference between the two.
    await run("prlimit", ["--pid", String(this.#node(broker).server.pid), "--fsize=1:"]);
  }

  /** Whether the process lives. */
  runs(broker = 0): boolean {
    return this.#node(broker).server.running;
  }

  /** What a broker logged since it was last started. */
  log(broker = 0): string {
    return this.#node(broker).server.output();
  }

  /** Ends the cluster and throws its data away. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.server.kill()));
    await this.#home.remove();
  }

  async start(): Promise<void> {
    await Promise.all(this.#nodes.map(startNode));
    await this.#ready();
  }

  /** Every running broker must have heard of all the running ones. */
  async #ready(): Promise<void> {
    const running = this.#nodes.filter((node) => node.server.running);
    for (const { address } of running) {
      await until(`Kafka broker ${address} knows the cluster`, async () => {
        const admin = quietAdmin([address]);
        try {
          await admin.connect();
          const known = (await admin.describeCluster()).brokers.map(
            (broker) => `${broker.host}:${broker.port}`,
          );
          return running.every((node) => known.includes(node.address));
        } finally {
          await admin.disconnect();
        }
      });
    }
  }

  #node(broker: number): Node {
    const node = this.#nodes[broker];
    if (node === undefined) throw new RangeError(`there is no broker ${broker} among ${this.#nodes.length}`);
    return node;
  }
}

interface Node {
  readonly address: string;
  readonly securedAddress: string | undefined;
  readonly door: Door | undefined;
  readonly server: Server;
}

/** Starts a cluster in KRaft mode on free loopback ports. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  const { brokers = 1, properties = {}, sasl, tls, proxied = false } = options;
  const jars = join(await kafkaJars(), "*");
  const home = new Home("kafka");
  try {
    const ids = Array.from({ length: brokers }, (_, index) => index + 1);
    const ports = await Promise.all(ids.map(async () => [await freePort(), await freePort()] as const));
    const voters = ids.map((id, index) => `${id}@127.0.0.1:${ports[index]![1]}`).join(",");
    const clusterId = randomBytes(16).toString("base64url");
    const nodes = await Promise.all(
      ids.map(async (id, index) => {
        const [port, controllerPort] = ports[index]!;
        const file = join(home.path, `kafka-${id}.properties`);
        const data = join(home.path, `data-${id}`);
        const plain = settings({ id, port, controllerPort, voters, data, brokers });
        const extra = sasl !== undefined || tls !== undefined;
        const securedAddress = extra ? `127.0.0.1:${await freePort()}` : undefined;
        const secured =
          securedAddress === undefined ? plain : withSecured(plain, securedAddress, { sasl, tls });
        const door = proxied ? { advertised: await freePort(), listens: await freePort() } : undefined;
        const all = { ...(door === undefined ? secured : withDoor(secured, door)), ...properties };
        writeFileSync(
          file,
          Object.entries(all)
            .map((entry) => `${entry.join("=")}\n`)
            .join(""),
        );
        const format = [
          "-cp",
          jars,
          "kafka.tools.StorageTool",
          "format",
          `--cluster-id=${clusterId}`,
          "-c",
          file,
          ...(sasl === undefined ? [] : scramUsers(sasl)),
        ];
        await run("java", [...quickJvm, ...format]);
        const server = new Server(home, {
          name: `kafka-${id}`,
          file: "java",
          args: [...serverJvm, "-cp", jars, "kafka.Kafka", file],
          env: process.env,
        });
        return { address: `127.0.0.1:${port}`, securedAddress, door, server };
      }),
    );
    const cluster = new KafkaCluster(home, nodes);
    await cluster.start();
    return cluster;
  } catch (error) {
    await home.remove();
    throw error;
  }
}

const serverJvm = ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", `-Dlog4j2.configurationFile=file:${logging}`];

/** A tool lives for a second: the optimizing compiler would cost more than it gives. */
const quickJvm = [
  "-XX:TieredStopAtLevel=1",
  "-XX:+UseSerialGC",
  `-Dlog4j2.configurationFile=file:${logging}`,
  "-Dmillrace.log.level=error",
];

interface NodeSettings {
  readonly id: number;
  readonly port: number;
  readonly controllerPort: number;
  readonly voters: string;
  readonly data: string;
  readonly brokers: number;
}

function settings({ id, port, controllerPort, voters, data, brokers }: NodeSettings): Record<string, string> {
  return {
    "process.roles": "broker,controller",
    "node.id": String(id),
    "controller.quorum.voters": voters,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "advertised.listeners": `PLAINTEXT://127.0.0.1:${port}`,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": data,
    // Test data carries the timestamps of its day, which retention would take for a reason to delete it.
    "log.retention.ms": "-1",
    // The default, 128 MiB, is a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": String(2 * 1024 * 1024),
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": String(brokers),
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": String(brokers),
    "transaction.state.log.min.isr": String(Math.min(brokers, 2)),
    // A killed broker may not register again before its old session has ended: 9 s by default.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    // With the newer group protocol members cannot ask for times of their own: a killed one is missed after 6 s.
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
  };
}

/** The same with a listener more, on which one user may log in, or which speaks TLS, or both. */
function withSecured(
  plain: Record<string, string>,
  address: string,
  { sasl, tls }: { readonly sasl: KafkaOptions["sasl"]; readonly tls: KafkaOptions["tls"] },
): Record<string, string> {
  const protocol = [...(sasl ? ["SASL"] : []), ...(tls ? ["SSL"] : sasl ? ["PLAINTEXT"] : [])].join("_");
  const listener = "listener.name.secured";
  const login = "org.apache.kafka.common.security";
  return {
    ...plain,
    listeners: `${plain.listeners},SECURED://${address}`,
    "advertised.listeners": `${plain["advertised.listeners"]},SECURED://${address}`,
    "listener.security.protocol.map": `${plain["listener.security.protocol.map"]},SECURED:${protocol}`,
    ...(sasl === undefined
      ? {}
      : {
          "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
          [`${listener}.plain.sasl.jaas.config`]: `${login}.plain.PlainLoginModule required user_${sasl.username}="${sasl.password}";`,
          [`${listener}.scram-sha-256.sasl.jaas.config`]: `${login}.scram.ScramLoginModule required;`,
          [`${listener}.scram-sha-512.sasl.jaas.config`]: `${login}.scram.ScramLoginModule required;`,
          // Takes tokens that nobody has signed, as long as they are in date.
          [`${listener}.oauthbearer.sasl.jaas.config`]: `${login}.oauthbearer.OAuthBearerLoginModule required;`,
        }),
    ...(tls === undefined
      ? {}
      : {
          [`${listener}.ssl.keystore.type`]: "PEM",
          [`${listener}.ssl.keystore.location`]: tls.keystore,
          ...(tls.clients === undefined
            ? {}
            : {
                [`${listener}.ssl.client.auth`]: "required",
                [`${listener}.ssl.truststore.type`]: "PEM",
                [`${listener}.ssl.truststore.location`]: tls.clients,
              }),
        }),
  };
}

/** The same with a listener more, whose clients believe it to be elsewhere. */
function withDoor(plain: Record<string, string>, { advertised, listens }: Door): Record<string, string> {
  return {
    ...plain,
    listeners: `${plain.listeners},PROXIED://127.0.0.1:${listens}`,
    "advertised.listeners": `${plain["advertised.listeners"]},PROXIED://127.0.0.1:${advertised}`,
    "listener.security.protocol.map": `${plain["listener.security.protocol.map"]},PROXIED:PLAINTEXT`,
  };
}

/** SCRAM's users are kept in the cluster's own metadata, which begins with them. */
function scramUsers({ username, password }: NonNullable<KafkaOptions["sasl"]>): string[] {
  return ["SCRAM-SHA-256", "SCRAM-SHA-512"].flatMap((mechanism) => [
    "--add-scram",
    `${mechanism}=[name=${username},password=${password}]`,
  ]);
}

function startNode({ server }: Node): Promise<void> {
  // Logged after the controller has unfenced the broker; an open port alone says too little.
  return server.start(() => server.output().includes("Kafka Server started"));
}

function quietAdmin(brokers: string[]) {
  return new Client({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 3 } }).admin();
}
