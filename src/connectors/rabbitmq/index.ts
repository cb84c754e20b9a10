import type { Connection, Requirement, Unmet } from "../../component/connection.ts";
import type { Context } from "../../component/context.ts";
import { callerLocation, type Location } from "../../component/location.ts";
import { type OptionProblem, optionProblems } from "../../component/options.ts";
import type { Sink } from "../../component/sink.ts";
import type { Source } from "../../component/source.ts";
import { watchOptions, watchProblems } from "../../component/watch-options.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import {
  type Administration,
  administer,
  createMissing,
  declareAll,
  hasQueue,
  unmetRequirements,
} from "./declare.ts";
import type { AmqpConnection, AmqpDriver, Role } from "./driver.ts";
import { amqplibDriver } from "./drivers/amqplib/driver.ts";
import { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { embeddedDriver } from "./drivers/embedded/driver.ts";
import { lastingError, missingTarget } from "./errors.ts";
import { Link } from "./link.ts";
import {
  type Broker,
  type Declarations,
  gateProblems,
  keepsOrder,
  oldestUnacknowledged,
  type RabbitmqOptions,
  type RabbitmqSinkOptions,
  type RabbitmqSourceOptions,
  rabbitmqCredit,
  rabbitmqSinkSchema,
  rabbitmqSourceSchema,
  readRabbitmqOptions,
  sinkProblems,
  sourceProblems,
} from "./options.ts";
import { openRabbitmqSink } from "./sink.ts";
import { openRabbitmqSource } from "./source.ts";
import { takeOne } from "./take.ts";

export type {
  RabbitmqBinding,
  RabbitmqExchange,
  RabbitmqGate,
  RabbitmqOptions,
  RabbitmqQueue,
  RabbitmqSinkOptions,
  RabbitmqSourceOptions,
  RabbitmqTls,
} from "./options.ts";

/** A RabbitMQ broker: sources and sinks are made from it. */
export interface RabbitmqConnection extends Connection {
  /** Reads a queue; each message is acknowledged by itself, once everything behind it is done. */
  source(options: RabbitmqSourceOptions): Source;
  /** Publishes to an exchange or a queue; a message counts as delivered when the broker has confirmed it. */
  sink(options: RabbitmqSinkOptions): Sink;
  /**
   * Takes one message off a queue, on a connection of its own; undefined when the queue is empty. `use` is given
   * its payload; once it resolves the message is acknowledged, and once the broker has taken that this resolves.
   * When it rejects the message goes back; after a lost connection it may be back although `use` was through.
   * For what a component needs once, such as a range of numbers to count with; messages that flow are for `source`.
   * Throws a {@link MillraceError}: class network while the broker is away, `target-missing` without the queue.
   */
  take<T>(context: Context, queue: string, use: (content: Buffer) => Promise<T>): Promise<T | undefined>;
}

/**
 * A RabbitMQ broker. Opens nothing: mistakes in the options are reported by the compiler, and connections are
 * made when the topology runs: one for all its sources and one for all its sinks. What is declared here is
 * created, or checked, at every connect; queues and exchanges that are used and not declared must be there.
 *
 * @example rabbitmq({ url: env("AMQP_URL", "amqp://127.0.0.1:5672/%2f"), queues: { jobs: { type: "classic" } } })
 */
export function rabbitmq(options: RabbitmqOptions): RabbitmqConnection {
  return new RabbitmqBroker(options);
}

/** The connections of one run. */
type Links = { [R in Role]?: Link };

class RabbitmqBroker implements RabbitmqConnection {
  readonly connector = "rabbitmq";
  readonly address: string;
  readonly location: Location | undefined;
  readonly problems: readonly OptionProblem[];
  readonly #options: RabbitmqOptions;
  readonly #broker: Broker | undefined;
  readonly #declarations: Declarations;
  /** By the signal that ends the run. */
  readonly #links = new WeakMap<AbortSignal, Links>();
  readonly #declaredTo = new WeakSet<EmbeddedRabbitmq>();
  #own: EmbeddedRabbitmq | undefined;

  // JavaScript may leave options out; the schema then says what is missing.
  constructor(options: RabbitmqOptions = {} as RabbitmqOptions) {
    const { problems, broker, declarations } = readRabbitmqOptions(options);
    this.#options = options;
    this.problems = problems;
    this.#broker = broker;
    this.#declarations = declarations;
    this.address = broker?.address ?? "";
    this.location = callerLocation();
  }

  source(options: RabbitmqSourceOptions = {} as RabbitmqSourceOptions): Source {
    const problems = optionProblems("rabbitmq source", rabbitmqSourceSchema, options);
    if (problems.length === 0) problems.push(...watchProblems("rabbitmq source", options));
    const sound = problems.length === 0 && this.problems.length === 0;
    if (sound) problems.push(...sourceProblems(options, this.#options));
    const gate = sound ? options.gate : undefined;
    if (gate !== undefined) {
      problems.push(...gateProblems(gate));
      if (!(gate.on instanceof RabbitmqBroker)) problems.push(gateOnNothing);
      else if (gate.on !== this) problems.push(...gate.on.problems);
    }
    return {
      kind: "source",
      type: "rabbitmq",
      name: String(options.queue),
      connection: this,
      capabilities: {
        ack: "individual",
        holdsRebalance: false,
        replays: true,
        order: sound && keepsOrder(options, this.#options) ? "lane" : "none",
        competing: options.exclusive !== true,
      },
      problems,
      ...(sound && oldestUnacknowledged(options) > 0 ? { ackWithin: oldestUnacknowledged(options) } : {}),
      location: callerLocation(),
      targets: [String(options.queue)],
      targetKind: "queue",
      lanes: 1,
      credit: rabbitmqCredit(options),
      watch: watchOptions(options),
      open: (context) => {
        const setting = this.#setting(context, "consume");
        if (gate === undefined) return openRabbitmqSource(context, setting, options);
        // Not for consuming: nothing of what it looks at waits for an acknowledgement of ours.
        const watched = (gate.on as RabbitmqBroker).#setting(context, "check");
        return openRabbitmqSource(context, { ...setting, gate: watched }, options);
      },
    };
  }

  sink(options: RabbitmqSinkOptions = {} as RabbitmqSinkOptions): Sink {
    const problems = optionProblems("rabbitmq sink", rabbitmqSinkSchema, options);
    if (problems.length === 0) problems.push(...sinkProblems(options));
    const target = String(options.queue ?? options.exchange);
    return {
      kind: "sink",
      type: "rabbitmq",
      name: target,
      connection: this,
      capabilities: { order: "unlessRefused", batches: false },
      problems,
      location: callerLocation(),
      targets: [target],
      targetKind: options.queue === undefined ? "exchange" : "queue",
      open: (context) => openRabbitmqSink(context, this.#setting(context, "publish"), options),
    };
  }

  embedded(context: Context): EmbeddedRabbitmq | undefined {
    let broker: EmbeddedRabbitmq | undefined;
    if (context.embedded !== undefined) {
      broker = context.embedded.of("rabbitmq", this.address, () => new EmbeddedRabbitmq(context.clock));
    } else if (this.#options.driver === "embedded") {
      this.#own ??= new EmbeddedRabbitmq(context.clock);
      broker = this.#own;
    }
    if (broker !== undefined && !this.#declaredTo.has(broker)) {
      // Before anything is fed into a queue, which would make it with other settings.
      this.#declaredTo.add(broker);
      broker.declare(this.#declarations);
    }
    return broker;
  }

  verify(context: Context, requirements: readonly Requirement[]): Promise<readonly Unmet[]> {
    return this.#administer(context, (administration) =>
      unmetRequirements(administration, this.#declarations, requirements, this.address),
    );
  }

  create(context: Context, requirements: readonly Requirement[]): Promise<readonly Requirement[]> {
    return this.#administer(context, (administration) =>
      createMissing(administration, this.#declarations, requirements, this.address),
    );
  }

  async take<T>(
    context: Context,
    queue: string,
    use: (content: Buffer) => Promise<T>,
  ): Promise<T | undefined> {
    let own: { readonly error: unknown } | undefined;
    const attempt = async (content: Buffer) => {
      try {
        return await use(content);
      } catch (error) {
        own = { error };
        throw error;
      }
    };
    try {
      return await this.#connected(context, async (connection) => {
        await administer(connection, async (administration) => {
          if (await hasQueue(administration, queue)) return;
          if (!this.#declarations.queues.has(queue)) throw missingTarget("queue", queue, this.address);
          await declareAll(administration, this.#declarations, this.address);
        });
        return takeOne(context, connection, queue, attempt);
      });
    } catch (error) {
      throw own === undefined ? error : own.error;
    }
  }

  #administer<T>(context: Context, use: (administration: Administration) => Promise<T>): Promise<T> {
    return this.#connected(context, (connection) => administer(connection, use));
  }

  /** Opens a connection for something short, and closes it. */
  async #connected<T>(context: Context, use: (connection: AmqpConnection) => Promise<T>): Promise<T> {
    try {
      const connection = await this.#driverFor(context).connect(this.#broker!, "check", context, {
        closed: () => {},
        blocked: () => {},
        unblocked: () => {},
      });
      try {
        return await use(connection);
      } finally {
        await connection.close(context.clock.now() + 2_000);
      }
    } catch (error) {
      throw (
        lastingError(error, this.address) ??
        new MillraceError("connection-lost", `RabbitMQ at ${this.address}: ${messageOf(error)}`, {
          remedy: "check that it runs and that the url leads to it",
          cause: error,
        })
      );
    }
  }

  #setting(context: Context, role: Role) {
    let links = this.#links.get(context.signal);
    if (links === undefined) {
      links = {};
      this.#links.set(context.signal, links);
    }
    let link = links[role];
    if (link === undefined || link.over) {
      link = new Link(this.#driverFor(context), role, this.#broker!, this.#declarations, context);
      links[role] = link;
    }
    return {
      link,
      declarations: this.#declarations,
      address: this.address,
      creates: this.embedded(context) !== undefined,
    };
  }

  #driverFor(context: Context): AmqpDriver {
    const broker = this.embedded(context);
    return broker === undefined ? amqplibDriver : embeddedDriver(broker);
  }
}

const gateOnNothing: OptionProblem = {
  code: "option-invalid",
  message: 'rabbitmq source: "gate.on" must be a RabbitMQ connection',
  remedy: 'give what rabbitmq({ url: "…" }) returned for the broker that has the queues',
};
