import { type Contestant, franzGo, handWritten, kafkaStreams, kcatIntoKcat, ours } from "./contestants.ts";
import type { Input, Output } from "./ends.ts";
import { KafkaInput, KafkaOutput, KafkaSide } from "./kafka-ends.ts";
import { orders } from "./orders.ts";
import { Pipeline } from "./pipeline.ts";
import { RabbitmqInput, RabbitmqOutput, RabbitmqSide } from "./rabbitmq-ends.ts";
import type { Figure } from "./report.ts";
import type { Sample } from "./sample.ts";
import { sampleOfScript } from "./script.ts";

/** What is to be reached: a figure of ours, or its ratio to a peer's. */
export interface Goal {
  readonly figure: Figure;
  readonly against?: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** One job that several programs do. */
export interface Job {
  readonly name: string;
  /** Unless told otherwise. */
  readonly messages: number;
  /** The first one is ours. */
  readonly contestants: readonly Contestant[];
  readonly goals: readonly Goal[];
  open(messages: number): Promise<OpenJob>;
}

export interface OpenJob {
  throughput(contestant: Contestant): Promise<Sample>;
  /** Undefined where it makes no sense. */
  readonly latency: Pipeline["latency"] | undefined;
  close(): Promise<void>;
}

/** One order in so many is in the input twice, so that the removal of duplicates is tested and has its price. */
export const repeat = 20;

/** Messages a second at which the latency is taken. */
export const latencyRate = 5_000;

type Ends = (side: Sides, messages: number) => { readonly input: Input; readonly output: Output };

interface Sides {
  readonly kafka: KafkaSide;
  readonly rabbitmq: RabbitmqSide;
}

const kafkaToKafka =
  (partitions: number, repeated = repeat): Ends =>
  ({ kafka }, messages) => ({
    input: new KafkaInput(kafka, () => orders(messages, 1_000, repeated), partitions),
    output: new KafkaOutput(kafka, partitions),
  });

const rabbitmqToRabbitmq: Ends = ({ rabbitmq }, messages) => ({
  input: new RabbitmqInput(rabbitmq, () => orders(messages, 1_000, repeat)),
  output: new RabbitmqOutput(rabbitmq),
});

const rabbitmqToKafka: Ends = ({ rabbitmq, kafka }, messages) => ({
  input: new RabbitmqInput(rabbitmq, () => orders(messages, 1_000, repeat)),
  output: new KafkaOutput(kafka, 4),
});

/** A job between brokers, which are started for it where the environment names none. */
async function onBrokers(
  needed: readonly ("kafka" | "rabbitmq")[],
  use: (sides: Sides) => OpenJob,
): Promise<OpenJob> {
  const [kafka, rabbitmq] = await Promise.all([
    needed.includes("kafka") ? KafkaSide.open() : undefined,
    needed.includes("rabbitmq") ? RabbitmqSide.open() : undefined,
  ]);
  const job = use({ kafka, rabbitmq } as Sides);
  return {
    ...job,
    async close() {
      await job.close();
      await kafka?.close();
      await rabbitmq?.close();
    },
  };
}

function between(
  needed: readonly ("kafka" | "rabbitmq")[],
  ends: Ends,
  { keyed = true, repeated = repeat }: { readonly keyed?: boolean; readonly repeated?: number } = {},
): Job["open"] {
  return (messages) =>
    onBrokers(needed, (sides) => {
      const { input, output } = ends(sides, messages);
      const inputs = repeated === 0 ? 1 : 1 + Math.ceil(messages / repeated) / messages;
      const pipeline = new Pipeline(input, output, messages, inputs, keyed);
      return {
        throughput: (contestant) => pipeline.throughput(contestant),
        latency: (contestant, load) => pipeline.latency(contestant, load),
        close: () => pipeline.close(),
      };
    });
}

const ordersPeers = (env: Readonly<Record<string, string>>): Contestant[] => [
  handWritten("platformatic", env),
  kafkaStreams(env),
  franzGo("orders", env),
  handWritten("own-driver", env),
];

function compressed(codec: "lz4" | "zstd"): Job {
  const env = { BENCH_CODEC: codec };
  return {
    name: `orders-${codec}`,
    messages: 1_000_000,
    contestants: [ours("orders.ts", env), ours("orders.ts", {}, "ours uncompressed"), ...ordersPeers(env)],
    goals: [{ figure: "steady", against: "ours uncompressed", atLeast: 0.8 }],
    open: between(["kafka"], kafkaToKafka(4)),
  };
}

/** The same job on ever more partitions: what a message costs should not grow. */
function partitionsJob(): Job {
  const counts = [4, 1, 32, 256];
  const nameOf = (count: number) => (count === 4 ? "ours" : `ours on ${count} partitions`);
  return {
    name: "partitions",
    messages: 1_000_000,
    contestants: counts.map((count) => ours("orders.ts", {}, nameOf(count))),
    goals: counts
      .slice(1)
      .map((count) => ({ figure: "steadyCpu", against: nameOf(count), atLeast: 0.8 }) as const),
    open: (messages) =>
      onBrokers(["kafka"], (sides) => {
        const pipelines = new Map(
          counts.map((count) => {
            const { input, output } = kafkaToKafka(count)(sides, messages);
            const inputs = 1 + Math.ceil(messages / repeat) / messages;
            return [nameOf(count), new Pipeline(input, output, messages, inputs, true)];
          }),
        );
        return {
          throughput: (contestant) => pipelines.get(contestant.name)!.throughput(contestant),
          latency: undefined,
          async close() {
            for (const pipeline of pipelines.values()) await pipeline.close();
          },
        };
      }),
  };
}

/** One that a script does by itself, which says how it went. */
function scripted(name: string, messages: number, sides: Readonly<Record<string, readonly string[]>>): Job {
  return {
    name,
    messages,
    contestants: Object.keys(sides).map((side) => ({
      name: side,
      command: () => Promise.reject(new Error("a script is no process of its own")),
    })),
    goals: [],
    open: async (count) => ({
      throughput: ({ name: side }) => sampleOfScript([...sides[side]!, String(count)]),
      latency: undefined,
      close: async () => {},
    }),
  };
}

export const jobs: readonly Job[] = [
  {
    name: "orders",
    messages: 1_000_000,
    contestants: [ours("orders.ts"), handWritten("kafkajs"), ...ordersPeers({})],
    goals: [
      { figure: "steady", against: "kafkajs", atLeast: 3 },
      { figure: "steady", against: "platformatic", atLeast: 2.5 },
      { figure: "steady", against: "kafka-streams", atLeast: 1.1 },
      { figure: "steady", against: "own-driver", atLeast: 0.85 },
      { figure: "cpu", against: "kafka-streams", atMost: 0.45 },
      { figure: "peakMiB", atMost: 300 },
      { figure: "p99", atMost: 60 },
    ],
    open: between(["kafka"], kafkaToKafka(4)),
  },
  {
    name: "orders-workers",
    messages: 1_000_000,
    contestants: [
      { ...ours("orders.ts", {}, "ours with 2 workers", ["--workers", "2"]), parts: 4 },
      ours("orders.ts"),
      kafkaStreams(),
      franzGo("orders"),
    ],
    goals: [
      { figure: "steady", against: "kafka-streams", atLeast: 1.4 },
      { figure: "steady", against: "franz-go", atLeast: 1 },
    ],
    open: between(["kafka"], kafkaToKafka(4)),
  },
  {
    name: "orders-prompt",
    messages: 1_000_000,
    contestants: [ours("orders.ts", { BENCH_WITHIN: "0ms" }), ours("orders.ts", {}, "ours with a window")],
    goals: [{ figure: "p99", atMost: 10 }],
    open: between(["kafka"], kafkaToKafka(4)),
  },
  compressed("lz4"),
  compressed("zstd"),
  {
    name: "relay",
    messages: 1_000_000,
    contestants: [ours("relay.ts"), kcatIntoKcat, franzGo("relay")],
    goals: [
      { figure: "steadyCpu", against: "kcat into kcat", atMost: 1 },
      { figure: "steady", against: "kcat into kcat", atLeast: 2 },
    ],
    open: between(["kafka"], kafkaToKafka(4, 0), { repeated: 0 }),
  },
  partitionsJob(),
  {
    name: "rabbitmq-rabbitmq",
    messages: 100_000,
    contestants: [ours("rabbitmq-rabbitmq.ts"), handWritten("amqplib"), handWritten("rabbitmq-client")],
    goals: [
      { figure: "steady", against: "amqplib", atLeast: 1.1 },
      { figure: "p99", against: "amqplib", atMost: 1 },
    ],
    open: between(["rabbitmq"], rabbitmqToRabbitmq, { keyed: false }),
  },
  {
    name: "rabbitmq-kafka",
    messages: 200_000,
    contestants: [ours("rabbitmq-kafka.ts"), handWritten("amqplib-kafkajs")],
    goals: [{ figure: "steady", against: "amqplib-kafkajs", atLeast: 1.3 }],
    open: between(["rabbitmq", "kafka"], rabbitmqToKafka),
  },
  scripted("embedded", 200_000, {
    ours: ["embedded.ts", "pipeline"],
    "plain loop": ["embedded.ts", "loop"],
  }),
  scripted("record-batch-encode", 100_000, {
    ours: ["record-batch.ts", "encode", "ours"],
    kafkajs: ["record-batch.ts", "encode", "kafkajs"],
  }),
  scripted("record-batch-decode", 100_000, {
    ours: ["record-batch.ts", "decode", "ours"],
    kafkajs: ["record-batch.ts", "decode", "kafkajs"],
  }),
];
