import type { Connection } from "../../component/connection.ts";
import { isUnset } from "../../component/environment.ts";
import {
  byteCount,
  type Duration,
  milliseconds,
  nearest,
  type OptionProblem,
  type OptionsSchema,
  optionProblems,
  type Size,
} from "../../component/options.ts";
import { reveal, type Secret } from "../../component/secret.ts";
import type { CreditOptions } from "../../component/source.ts";
import { watchSchema } from "../../component/watch-options.ts";
import type { Message } from "../../message/chunk.ts";
import type { GateSettings } from "./depth-gate.ts";
import type { ExchangeSettings, FieldTable, FieldValue, QueueSettings } from "./driver.ts";

/** How to reach a broker, and what must exist on it. */
export interface RabbitmqOptions {
  /**
   * "amqp://user:password@host:5672/vhost", or amqps. The vhost is percent-encoded: "/" is "%2f", and is meant
   * when there is none. Whatever shows this address leaves user and password out.
   */
  readonly url: string | Secret;
  /**
   * How to log in: `plain` with the URL's user and password, or `external`, where the broker knows us by our
   * TLS certificate. Default "plain".
   */
  readonly auth?: "plain" | "external";
  /** For amqps. Certificates are read again at every connect, so that renewed ones are used. */
  readonly tls?: RabbitmqTls;
  /** The client library underneath. Default "amqplib". `--embedded` overrides it. */
  readonly driver?: "amqplib" | "embedded";
  /**
   * A peer that is silent for twice as long is taken for dead. Default "20s". Shorter notices sooner; code that
   * holds the event loop longer than that loses the connection. "0s" turns heartbeats off.
   */
  readonly heartbeat?: Duration;
  /** Longest wait for a connection. Default "10s". */
  readonly connectTimeout?: Duration;
  /** Exchanges to create, or to check that they are as said, at every connect. */
  readonly exchanges?: Readonly<Record<string, RabbitmqExchange>>;
  /** Queues to create, or to check that they are as said, at every connect. */
  readonly queues?: Readonly<Record<string, RabbitmqQueue>>;
  /** Bindings to create at every connect, after exchanges and queues. */
  readonly bindings?: readonly RabbitmqBinding[];
}

export interface RabbitmqTls {
  /** Authorities to trust, a certificate and its key: PEM text, or the path of a file that holds it. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly passphrase?: string | Secret;
  /** The name that the broker's certificate must have. Default: the URL's host. */
  readonly servername?: string;
  /** Accepts any certificate: for tests only; warned of at every connect. */
  readonly insecureSkipVerify?: boolean;
}

export interface RabbitmqExchange {
  /** "direct", "fanout", "topic", "headers", or what a plugin adds. */
  readonly type: string;
  /** Survives a restart of the broker. Default true. */
  readonly durable?: boolean;
  /** Where messages go that no binding takes. */
  readonly alternateExchange?: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
}

export interface RabbitmqQueue {
  /**
   * `classic` lives on one node; `quorum` on several, and counts deliveries. Undefined leaves it to the vhost,
   * whose default is classic.
   */
  readonly type?: "classic" | "quorum";
  /** Survives a restart of the broker. Default true. A quorum queue always does. */
  readonly durable?: boolean;
  /** Where messages go that are rejected, expired, or delivered too often. */
  readonly deadLetterExchange?: string;
  readonly deadLetterRoutingKey?: string;
  /** Deliveries of one message after which a quorum queue gives it up. RabbitMQ 4 has 20 as its default. */
  readonly deliveryLimit?: number;
  /** Highest priority, 1 to 255; few are better. Classic queues only. */
  readonly maxPriority?: number;
  /** Most ready messages. */
  readonly maxLength?: number;
  /** What a full queue does: drops its oldest message, or refuses the newest (the sink then waits). */
  readonly overflow?: "drop-head" | "reject-publish";
  /** One consumer gets everything, the others stand by: the way to keep order with several runners. */
  readonly singleActive?: boolean;
  /** Further arguments, such as "x-message-ttl". */
  readonly arguments?: Readonly<Record<string, unknown>>;
}

export interface RabbitmqBinding {
  readonly queue: string;
  readonly exchange: string;
  /** Routing key, or pattern for a topic exchange. Default "". */
  readonly key?: string;
  /** For a headers exchange. */
  readonly arguments?: Readonly<Record<string, unknown>>;
}

export interface RabbitmqSourceOptions {
  readonly queue: string;
  /**
   * Most messages delivered and not yet acknowledged, which is also the most in flight. Default 1000. More hides
   * latency, and a crash redelivers more.
   */
  readonly prefetch?: number;
  /** Most bytes in flight at once, before decoding. Default "16MiB". What is beyond waits, prefetch × largest message at most. */
  readonly creditBytes?: Size;
  /** Most messages between the oldest unsettled and the newest. Default 4 × prefetch. */
  readonly span?: number;
  /** Most messages in one chunk. Default 500. */
  readonly chunk?: number;
  /** Names the consumer to people who look at the broker. Chosen by the broker by default. */
  readonly consumerTag?: string;
  /** No other consumer may read the queue meanwhile. Keeps order. While another one does, this source waits. */
  readonly exclusive?: boolean;
  /** The queue was made with `x-single-active-consumer`, here or elsewhere. Keeps order. */
  readonly singleActive?: boolean;
  /** What becomes the message's key: none, or the routing key it came with. Default "none". */
  readonly key?: "none" | "routing-key";
  /** Reads a quorum queue that drops what it has delivered too often, having no dead-letter exchange. Default false. */
  readonly acceptDrops?: boolean;
  /**
   * The broker's `consumer_timeout`: it closes a channel whose oldest message is unacknowledged for so long.
   * Default "30m". After two thirds of it the source gives everything back by itself, and reads on with one
   * message until that one is through. "0s" turns this off.
   */
  readonly consumerTimeout?: Duration;
  /**
   * How long messages may be ready in the queue while this consumer has room and gets none. Default "2m". One of
   * several consumers that has not had a message yet may be standing by, and is not counted.
   */
  readonly stallTimeout?: Duration;
  /**
   * What is done then, beside saying so in `/readyz`, `/status`, metrics and log: `restart` consumes anew on another
   * connection, at most once in `stallTimeout`, later less often; `report` does nothing more. It is for a source that
   * stands still by itself: where a sink keeps it waiting, nothing is restarted. Default "restart".
   */
  readonly onStall?: "restart" | "report";
  /** Takes nothing in while queues further down the line are too deep. */
  readonly gate?: RabbitmqGate;
}

/**
 * Flow control between brokers: a source stops taking in while a queue that its messages end in holds too many.
 * It is soft. Depths are looked at from time to time, so beyond `closeAt` a queue may grow by what each process
 * lets through between two looks (its rate × `every`), and by what it then has in flight (`prefetch` at most).
 */
export interface RabbitmqGate {
  /** The broker that has the queues. It may be another one than the source's, and for the gate to help it should be. */
  readonly on: Connection;
  readonly queues: readonly string[];
  /** Closes when any of the queues holds so many ready messages. */
  readonly closeAt: number;
  /** Opens again when all of them hold no more than this. Default: half of `closeAt`. */
  readonly openAt?: number;
  /** Between two looks. Default "1s". */
  readonly every?: Duration;
}

export interface RabbitmqSinkOptions {
  /** Exchange to publish to, with `key`. */
  readonly exchange?: string;
  /** Routing key, the same for all or made from each message: a pure function. Default "". */
  readonly key?: string | ((message: Message) => string);
  /** Queue to publish to, through the default exchange: instead of `exchange` and `key`. */
  readonly queue?: string;
  /** Messages survive a restart of the broker where their queue does. Default true. */
  readonly persistent?: boolean;
  /**
   * A message for which no queue is bound is refused and goes to the dead letters. Default true. With false it
   * vanishes: for broadcasts that nobody needs to hear.
   */
  readonly mandatory?: boolean;
  /** Most messages sent and not yet confirmed. Default 2000. More hides latency, and a lost connection repeats more. */
  readonly unconfirmed?: number;
  /** Most bytes sent and not yet confirmed; one message may always go. Default "16MiB". */
  readonly unconfirmedBytes?: Size;
  /**
   * Larger messages are refused before they are sent. Default "128MiB". A lower limit of the broker's
   * (`max_message_size`) is learned when it first objects.
   */
  readonly maxMessageBytes?: Size;
  /** Longest wait between attempts after a refusal of the whole queue. Default "5s"; attempts never end. */
  readonly maxBackoff?: Duration;
}

/** How to connect, checked and with every default filled in. Holds secrets: never shown. */
export interface Broker {
  readonly host: string;
  readonly port: number;
  /** Decoded. */
  readonly vhost: string;
  readonly username: string;
  readonly password: string;
  readonly external: boolean;
  /** Undefined for plain TCP. */
  readonly tls: RabbitmqTls | undefined;
  /** Whole seconds; 0 is off. */
  readonly heartbeat: number;
  /** ms */
  readonly connectTimeout: number;
  /** Host, port and vhost, for people: "127.0.0.1:5672/%2f". */
  readonly address: string;
}

/** What a connection declares, in the words of the driver port. */
export interface Declarations {
  readonly exchanges: ReadonlyMap<string, ExchangeSettings>;
  readonly queues: ReadonlyMap<string, QueueSettings>;
  readonly bindings: readonly (Required<Omit<RabbitmqBinding, "arguments">> & {
    readonly arguments: FieldTable;
  })[];
}

const name = { type: "string", minLength: 1, maxLength: 255 } as const;
const routingKey = { type: "string", maxLength: 255 } as const;
const text = { type: "string", minLength: 1 } as const;
const duration = { isDuration: true } as const;
const size = { isSize: true } as const;
const flag = { type: "boolean" } as const;
const table = { type: "object" } as const;

export const rabbitmqSchema: OptionsSchema = {
  type: "object",
  required: ["url"],
  additionalProperties: false,
  properties: {
    url: { isSecret: true },
    auth: { enum: ["plain", "external"] },
    tls: {
      type: "object",
      additionalProperties: false,
      properties: {
        ca: text,
        cert: text,
        key: text,
        passphrase: { isSecret: true },
        servername: text,
        insecureSkipVerify: flag,
      },
      dependencies: { cert: ["key"], key: ["cert"] },
    },
    driver: { enum: ["amqplib", "embedded"] },
    heartbeat: duration,
    connectTimeout: duration,
    exchanges: {
      type: "object",
      additionalProperties: {
        type: "object",
        required: ["type"],
        additionalProperties: false,
        properties: { type: text, durable: flag, alternateExchange: name, arguments: table },
      },
    },
    queues: {
      type: "object",
      additionalProperties: {
        type: "object",
        additionalProperties: false,
        properties: {
          type: { enum: ["classic", "quorum"] },
          durable: flag,
          deadLetterExchange: { type: "string", maxLength: 255 },
          deadLetterRoutingKey: routingKey,
          deliveryLimit: { type: "integer", minimum: -1 },
          maxPriority: { type: "integer", minimum: 1, maximum: 255 },
          maxLength: { type: "integer", minimum: 1 },
          overflow: { enum: ["drop-head", "reject-publish"] },
          singleActive: flag,
          arguments: table,
        },
      },
    },
    bindings: {
      type: "array",
      items: {
        type: "object",
        required: ["queue", "exchange"],
        additionalProperties: false,
        properties: { queue: name, exchange: name, key: routingKey, arguments: table },
      },
    },
  },
};

export const rabbitmqSourceSchema: OptionsSchema = {
  type: "object",
  required: ["queue"],
  additionalProperties: false,
  properties: {
    queue: name,
    // 0 would be "unlimited".
    prefetch: { type: "integer", minimum: 1, maximum: 65_535 },
    creditBytes: size,
    span: { type: "integer", minimum: 1 },
    chunk: { type: "integer", minimum: 1, maximum: 100_000 },
    consumerTag: name,
    exclusive: flag,
    singleActive: flag,
    key: { enum: ["none", "routing-key"] },
    acceptDrops: flag,
    consumerTimeout: duration,
    ...watchSchema,
    gate: {
      type: "object",
      required: ["on", "queues", "closeAt"],
      additionalProperties: false,
      properties: {
        // A connection to RabbitMQ, which its own file can tell.
        on: {},
        queues: { type: "array", minItems: 1, items: name },
        closeAt: { type: "integer", minimum: 1 },
        openAt: { type: "integer", minimum: 0 },
        every: duration,
      },
    },
  },
};

export const rabbitmqSinkSchema: OptionsSchema = {
  type: "object",
  additionalProperties: false,
  properties: {
    exchange: name,
    // Text or a function: see sinkProblems, which says it in one sentence.
    key: {},
    queue: name,
    persistent: flag,
    mandatory: flag,
    unconfirmed: { type: "integer", minimum: 1, maximum: 1_000_000 },
    unconfirmedBytes: size,
    maxMessageBytes: size,
    maxBackoff: duration,
  },
};

/** Checks the options of a connection; `broker` is undefined when there is a problem that concerns it. */
export function readRabbitmqOptions(options: RabbitmqOptions): {
  readonly problems: readonly OptionProblem[];
  readonly broker: Broker | undefined;
  readonly declarations: Declarations;
} {
  const problems = optionProblems("rabbitmq", rabbitmqSchema, options);
  if (problems.length > 0) return { problems, broker: undefined, declarations: nothing };
  const broker = readUrl(options, problems);
  problems.push(...declarationProblems(options));
  return { problems, broker, declarations: declarationsOf(options) };
}

const nothing: Declarations = { exchanges: new Map(), queues: new Map(), bindings: [] };

const example = 'give one such as "amqp://user:password@127.0.0.1:5672/%2f"';

/** Nothing here may show the URL itself: it can hold a password. */
function readUrl(options: RabbitmqOptions, problems: OptionProblem[]): Broker | undefined {
  const invalid = (message: string, remedy: string) => {
    problems.push({ code: "option-invalid", message: `rabbitmq: ${message}`, remedy });
    return undefined;
  };
  const given = reveal(options.url);
  // An environment variable that is not set has been reported as such.
  if (isUnset(given)) return undefined;
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (url === undefined || (url.protocol !== "amqp:" && url.protocol !== "amqps:") || url.hostname === "") {
    return invalid('"url" is not an AMQP address', example);
  }
  const secure = url.protocol === "amqps:";
  if (url.search !== "" || url.hash !== "") {
    return invalid('"url" has a part after "?" or "#"', "use the options heartbeat, connectTimeout and tls");
  }
  if (url.pathname.slice(1).includes("/"))
    return invalid('"url" has a vhost with a bare "/"', 'write it as "%2f"');
  if (options.tls !== undefined && !secure) {
    return invalid('"tls" is given, and the address is not amqps', 'begin "url" with amqps://');
  }
  if (options.auth === "external" && options.tls?.cert === undefined) {
    return invalid('auth "external" needs a client certificate', "give tls.cert and tls.key");
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port === "" ? (secure ? 5671 : 5672) : Number(url.port);
  try {
    const vhost = url.pathname.length > 1 ? decodeURIComponent(url.pathname.slice(1)) : "/";
    const named = url.username !== "" || url.password !== "";
    return {
      host,
      port,
      vhost,
      username: named ? decodeURIComponent(url.username) : "guest",
      password: named ? decodeURIComponent(url.password) : "guest",
      external: options.auth === "external",
      tls: secure ? (options.tls ?? {}) : undefined,
      // AMQP has 16 bits for it.
      heartbeat: Math.min(65_535, Math.ceil(milliseconds(options.heartbeat, 20_000) / 1000)),
      connectTimeout: milliseconds(options.connectTimeout, 10_000),
      address: `${url.hostname}:${port}/${encodeURIComponent(vhost).replaceAll("%2F", "%2f")}`,
    };
  } catch {
    return invalid('"url" has a "%" that escapes nothing', 'write a "%" in a name or password as "%25"');
  }
}

function declarationProblems({
  exchanges = {},
  queues = {},
  bindings = [],
}: RabbitmqOptions): OptionProblem[] {
  const problems: OptionProblem[] = [];
  const invalid = (message: string, remedy: string) =>
    problems.push({ code: "option-invalid", message: `rabbitmq: ${message}`, remedy });
  for (const [label, names] of [
    ["exchange", Object.keys(exchanges)],
    ["queue", Object.keys(queues)],
  ] as const) {
    for (const declared of names) {
      if (declared === "" || Buffer.byteLength(declared) > 255) {
        invalid(
          `"${declared}" cannot name ${label === "exchange" ? "an exchange" : "a queue"}`,
          "use 1 to 255 bytes",
        );
      } else if (declared.startsWith("amq.")) {
        invalid(
          `${label} "${declared}": the broker keeps names that begin with "amq." for itself`,
          "use another name",
        );
      }
    }
  }
  for (const [queue, { type, durable, maxPriority, deliveryLimit }] of Object.entries(queues)) {
    if (type === "quorum" && durable === false) {
      invalid(`queue "${queue}": a quorum queue is always durable`, "leave out durable: false");
    }
    if (type === "quorum" && maxPriority !== undefined) {
      invalid(`queue "${queue}": a quorum queue has no maxPriority`, 'leave it out, or use type: "classic"');
    }
    if (type !== "quorum" && deliveryLimit !== undefined) {
      invalid(
        `queue "${queue}": only a quorum queue has a deliveryLimit`,
        'add type: "quorum", or leave it out',
      );
    }
  }
  for (const { queue, exchange } of bindings) {
    for (const [label, wanted, known] of [
      ["queue", queue, Object.keys(queues)],
      ["exchange", exchange, Object.keys(exchanges)],
    ] as const) {
      if (known.includes(wanted) || wanted.startsWith("amq.")) continue;
      const near = nearest(wanted, known);
      // Bound to something that others made: it must be there. A misspelled name of our own is likelier.
      if (near !== undefined) {
        invalid(`a binding names the ${label} "${wanted}", which is not declared`, `did you mean "${near}"?`);
      }
    }
  }
  return problems;
}

function declarationsOf({ exchanges = {}, queues = {}, bindings = [] }: RabbitmqOptions): Declarations {
  return {
    exchanges: new Map(
      Object.entries(exchanges).map(([exchange, options]) => [
        exchange,
        {
          type: options.type,
          durable: options.durable ?? true,
          arguments: tableOf(options.arguments, { "alternate-exchange": options.alternateExchange }),
        },
      ]),
    ),
    queues: new Map(
      Object.entries(queues).map(([queue, options]) => [
        queue,
        {
          durable: options.durable ?? true,
          arguments: tableOf(options.arguments, {
            "x-queue-type": options.type,
            "x-dead-letter-exchange": options.deadLetterExchange,
            "x-dead-letter-routing-key": options.deadLetterRoutingKey,
            "x-delivery-limit": options.deliveryLimit,
            "x-max-priority": options.maxPriority,
            "x-max-length": options.maxLength,
            "x-overflow": options.overflow,
            "x-single-active-consumer": options.singleActive,
          }),
        },
      ]),
    ),
    bindings: bindings.map(({ queue, exchange, key = "", arguments: table }) => ({
      queue,
      exchange,
      key,
      arguments: tableOf(table, {}),
    })),
  };
}

function tableOf(
  given: Readonly<Record<string, unknown>> | undefined,
  known: Readonly<Record<string, FieldValue | undefined>>,
): FieldTable {
  const entries = [...Object.entries(given ?? {}), ...Object.entries(known)];
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined)) as FieldTable;
}

/** Problems of a source that its schema cannot say. */
export function sourceProblems(source: RabbitmqSourceOptions, connection: RabbitmqOptions): OptionProblem[] {
  const queue = connection.queues?.[source.queue];
  if (queue === undefined) return [];
  const problems: OptionProblem[] = [];
  const quorum = queue.type === "quorum" || queue.arguments?.["x-queue-type"] === "quorum";
  const letters = queue.deadLetterExchange ?? queue.arguments?.["x-dead-letter-exchange"];
  if (quorum && letters === undefined && queue.deliveryLimit !== -1 && source.acceptDrops !== true) {
    problems.push({
      code: "topology-unsafe",
      message: `rabbitmq source "${source.queue}": a quorum queue drops a message it has delivered too often, and this one has no dead-letter exchange to keep it`,
      remedy: `add deadLetterExchange to queues["${source.queue}"], or acceptDrops: true to the source`,
    });
  }
  const single = queue.singleActive ?? queue.arguments?.["x-single-active-consumer"];
  if (source.singleActive === true && single !== true) {
    problems.push({
      code: "option-invalid",
      message: `rabbitmq source "${source.queue}": singleActive, and the queue is declared without it`,
      remedy: `add singleActive: true to queues["${source.queue}"]`,
    });
  }
  return problems;
}

/** Problems of a gate that the schema cannot say. */
export function gateProblems(gate: RabbitmqGate): OptionProblem[] {
  const { closeAt, openAt, every } = gateSettings(gate);
  const problems: OptionProblem[] = [];
  if (openAt >= closeAt) {
    problems.push({
      code: "option-invalid",
      message: `rabbitmq source: gate.openAt is ${openAt}, and gate.closeAt ${closeAt}`,
      remedy: "let it open well below where it closes, or it would do both at every look",
    });
  }
  if (every < shortestLook) {
    problems.push({
      code: "option-invalid",
      message: `rabbitmq source: gate.every is ${every} ms`,
      remedy: `give ${shortestLook} ms or more: every look asks the broker for every queue`,
    });
  }
  return problems;
}

/** Between two looks at the depth of queues, ms. */
const shortestLook = 10;

export function gateSettings({ queues, closeAt, openAt, every }: RabbitmqGate): GateSettings {
  return {
    queues,
    closeAt,
    openAt: openAt ?? Math.floor(closeAt / 2),
    every: milliseconds(every, 1_000),
  };
}

/** Problems of a sink that its schema cannot say. */
export function sinkProblems({ exchange, key, queue }: RabbitmqSinkOptions): OptionProblem[] {
  if (queue === undefined && exchange === undefined) {
    return [
      {
        code: "option-missing",
        message: 'rabbitmq sink needs "queue" or "exchange"',
        remedy: 'add queue: "…", or exchange: "…" with a key',
      },
    ];
  }
  if (queue !== undefined && (exchange !== undefined || key !== undefined)) {
    return [
      {
        code: "option-invalid",
        message: `rabbitmq sink "${queue}": "queue" goes without "exchange" and "key"`,
        remedy: "leave out queue, or the other two",
      },
    ];
  }
  const isText = typeof key === "string" && Buffer.byteLength(key) <= 255;
  if (key !== undefined && !isText && typeof key !== "function") {
    return [
      {
        code: "option-invalid",
        message: `rabbitmq sink "${exchange}": "key" must be a routing key of at most 255 bytes, or a function`,
        remedy: 'give text, or a function such as (message) => "orders.new"',
      },
    ];
  }
  return [];
}

/** True when everything of the queue goes to one consumer, so that order holds. */
export function keepsOrder(source: RabbitmqSourceOptions, connection: RabbitmqOptions): boolean {
  return (
    source.exclusive === true ||
    source.singleActive === true ||
    connection.queues?.[source.queue]?.singleActive === true
  );
}

export const defaultPrefetch = 1_000;

/**
 * How old the oldest unacknowledged message may become before the source gives everything back by itself, ms; 0: any
 * age. The broker would close the channel at `consumer_timeout`.
 */
export function oldestUnacknowledged({
  consumerTimeout,
}: Pick<RabbitmqSourceOptions, "consumerTimeout">): number {
  return (milliseconds(consumerTimeout, 30 * 60_000) * 2) / 3;
}

export function rabbitmqCredit(options: RabbitmqSourceOptions): CreditOptions {
  const messages = options.prefetch ?? defaultPrefetch;
  return {
    messages,
    bytes: byteCount(options.creditBytes, 16 * 2 ** 20),
    span: options.span ?? 4 * messages,
    chunk: options.chunk ?? 500,
  };
}
