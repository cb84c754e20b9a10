import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect as dial } from "node:net";
import { join } from "node:path";
import { connect } from "amqplib";
import { Home } from "./home.ts";
import { freePort } from "./port.ts";
import { findProgram } from "./program.ts";
import { type RunResult, run } from "./run.ts";
import { Server } from "./server.ts";

/**
 * Debian's wrappers in /usr/sbin change to the user `rabbitmq` and its home; these are the scripts behind them,
 * which run as whoever calls them, root included.
 */
const SCRIPTS = ["/usr/lib/rabbitmq/bin"];
const ERLANG = ["/usr/lib/erlang/bin"];

/** Why RabbitMQ cannot be started on this machine; undefined if it can. */
export function rabbitmqAbsence(): string | undefined {
  if (findProgram("rabbitmq-server", SCRIPTS) === undefined) return "RabbitMQ is not installed";
  if (findProgram("epmd", ERLANG) === undefined) return "Erlang's epmd is not installed";
  return undefined;
}

/** A RabbitMQ broker to talk to, ours or not. */
export class Rabbitmq {
  /** An `amqp:` URL with user and password, as AMQP_URL has it. */
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }
}

export interface RabbitmqOptions {
  /** Lines for rabbitmq.conf on top of ours, as in `{ "vm_memory_high_watermark.absolute": "256MB" }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A broker of ours, which may be stopped, killed, frozen and administered. */
export class RabbitmqBroker extends Rabbitmq {
  readonly #home: Home;
  readonly #names: Server;
  readonly #server: Server;
  readonly #env: NodeJS.ProcessEnv;

  constructor(url: string, home: Home, names: Server, server: Server, env: NodeJS.ProcessEnv) {
    super(url);
    this.#home = home;
    this.#names = names;
    this.#server = server;
    this.#env = env;
  }

  /** Where it keeps its data. */
  get folder(): string {
    return this.#home.path;
  }

  /** Runs rabbitmqctl, as in `ctl("list_queues", "-q", "name", "messages")`. Takes about a second. */
  ctl(...args: string[]): Promise<RunResult> {
    return run(findProgram("rabbitmqctl", SCRIPTS)!, args, { env: this.#env });
  }

  /**
   * Returns when what was declared so far is on the broker's disk. Killed within a second or two after a declaration,
   * RabbitMQ 3.10 may come back without the queue, durable though it is, and without what it had confirmed for it:
   * nothing that a client could prevent.
   */
  async settleNames(): Promise<void> {
    await this.ctl("eval", "mnesia:sync_log(), mnesia:dump_log().");
  }

  /** Starts the broker if it was killed; one that runs is first stopped in good order. Same port, same data. */
  async restart(): Promise<void> {
    await this.#server.stop();
    await this.#startServer();
  }

  /** SIGTERM; returns when the process is gone. {@link restart} brings it back. */
  shutDown(): Promise<void> {
    return this.#server.stop();
  }

  /** SIGKILL; returns when the process is gone. */
  kill(): Promise<void> {
    return this.#server.kill();
  }

  /** SIGSTOP: connections stay open, nothing is answered. */
  pause(): void {
    this.#server.pause();
  }

  resume(): void {
    this.#server.resume();
  }

  /** What the broker logged since it was last started. */
  log(): string {
    return this.#server.output();
  }

  /** Ends the broker and throws its data away. Idempotent. */
  async stop(): Promise<void> {
    await this.#server.kill();
    await this.#names.kill();
    await this.#home.remove();
  }

  async start(): Promise<void> {
    const port = Number(this.#env.ERL_EPMD_PORT);
    await this.#names.start(() => accepts(port));
    await this.#startServer();
  }

  /** The broker opens its port last, when queues are recovered; a finished AMQP handshake shows it. */
  #startServer(): Promise<void> {
    return this.#server.start(async () => {
      const connection = await connect(this.url);
      connection.on("error", () => {});
      await connection.close();
      return true;
    });
  }
}

/**
 * Starts a broker without plugins on free loopback ports. It has an Erlang name server (epmd) to itself: the one
 * that Erlang would start by itself is shared by the machine and stays behind.
 */
export async function startRabbitmq(options: RabbitmqOptions = {}): Promise<RabbitmqBroker> {
  const home = new Home("rabbitmq");
  try {
    const [port, distributionPort, epmdPort] = await Promise.all([freePort(), freePort(), freePort()]);
    const env = environment({ home: home.path, port, distributionPort, epmdPort });
    writeFileSync(join(home.path, ".erlang.cookie"), randomBytes(16).toString("hex"), { mode: 0o400 });
    writeFileSync(join(home.path, "enabled_plugins"), "[].\n");
    const settings = { ...ourSettings, ...options.settings };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(join(home.path, "rabbitmq.conf"), lines.join(""));
    mkdirSync(join(home.path, "log"));
    const names = new Server(home, {
      name: "epmd",
      file: findProgram("epmd", ERLANG)!,
      args: ["-port", String(epmdPort), "-address", "127.0.0.1"],
      env,
    });
    const server = new Server(home, {
      name: "rabbitmq",
      file: findProgram("rabbitmq-server", SCRIPTS)!,
      args: [],
      env,
    });
    const broker = new RabbitmqBroker(`amqp://guest:guest@127.0.0.1:${port}`, home, names, server, env);
    await broker.start();
    return broker;
  } catch (error) {
    await home.remove();
    throw error;
  }
}

const ourSettings: Record<string, string> = {
  "log.console": "true",
  "log.console.level": "info",
  "log.file": "false",
  // The alarm is for tests that raise it, not for a machine whose disk is nearly full.
  "disk_free_limit.absolute": "50MB",
};

interface Places {
  readonly home: string;
  readonly port: number;
  readonly distributionPort: number;
  readonly epmdPort: number;
}

function environment({ home, port, distributionPort, epmdPort }: Places): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(RABBITMQ|ERL)_/.test(name));
  return {
    ...Object.fromEntries(inherited),
    HOME: home,
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_NODENAME: `millrace-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
    RABBITMQ_MNESIA_BASE: join(home, "data"),
    RABBITMQ_LOG_BASE: join(home, "log"),
    RABBITMQ_PID_FILE: join(home, "data", "pid"),
    RABBITMQ_CONFIG_FILE: join(home, "rabbitmq.conf"),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(home, "advanced.config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(home, "enabled_plugins"),
    // The machine's /etc/rabbitmq/rabbitmq-env.conf is not meant for us.
    RABBITMQ_CONF_ENV_FILE: "/dev/null",
    // Makes the start script become the Erlang machine instead of its parent, so that our signals meet it.
    RUNNING_UNDER_SYSTEMD: "true",
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = dial({ port, host: "127.0.0.1" }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
