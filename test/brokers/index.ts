/**
 * Real brokers for tests. `npm test` starts one Kafka, one RabbitMQ and one PostgreSQL for the whole run; a test file run by
 * itself starts its own at the first call. A test says what it needs, and takes it:
 *
 *     test("orders arrive", needs("kafka"), async () => {
 *       const kafka = await sharedKafka();
 *       const topic = await kafka.createTopic(freshName("orders"));
 *     });
 *     test("survives kill -9 of the broker", needs("own kafka"), async (t) => {
 *       const kafka = await ownKafka(t);
 *     });
 */
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import { kafkaAbsence } from "./jars.ts";
import { Kafka, type KafkaCluster, type KafkaOptions, startKafka } from "./kafka.ts";
import { Postgres, type PostgresServer, postgresAbsence, startPostgres } from "./postgres.ts";
import { findProgram } from "./program.ts";
import {
  Rabbitmq,
  type RabbitmqBroker,
  type RabbitmqOptions,
  rabbitmqAbsence,
  startRabbitmq,
} from "./rabbitmq.ts";

/** "own …" is a broker that the test may kill, freeze and reconfigure. */
export type Need = "kafka" | "own kafka" | "rabbitmq" | "own rabbitmq" | "postgres" | "own postgres" | "kcat";

/**
 * What `npm test` hands down to each test file: addresses of the brokers it started, or why there are none.
 * `.ci/test.mjs` sets them.
 */
const { KAFKA_BROKERS, AMQP_URL, POSTGRES_URL } = process.env;
const { MILLRACE_TEST_KAFKA, MILLRACE_TEST_KAFKA_ABSENT } = process.env;
const { MILLRACE_TEST_AMQP, MILLRACE_TEST_AMQP_ABSENT } = process.env;
const { MILLRACE_TEST_POSTGRES, MILLRACE_TEST_POSTGRES_ABSENT } = process.env;

/** Test options that skip a test, by name and with the reason, where something it needs is missing. */
export function needs(...all: readonly Need[]): { skip: string | false } {
  const reasons = new Set(all.map((need) => absence[need]()).filter((reason) => reason !== undefined));
  return { skip: reasons.size > 0 && [...reasons].join("; ") };
}

const absence: Record<Need, () => string | undefined> = {
  kafka: () => (KAFKA_BROKERS || MILLRACE_TEST_KAFKA ? undefined : absence["own kafka"]()),
  "own kafka": () => {
    if (KAFKA_BROKERS) return "needs a Kafka of its own, and KAFKA_BROKERS names one that is not";
    const reason = MILLRACE_TEST_KAFKA_ABSENT ?? kafkaAbsence();
    return reason && `needs Kafka: ${reason}`;
  },
  rabbitmq: () => (AMQP_URL || MILLRACE_TEST_AMQP ? undefined : absence["own rabbitmq"]()),
  "own rabbitmq": () => {
    if (AMQP_URL) return "needs a RabbitMQ of its own, and AMQP_URL names one that is not";
    const reason = MILLRACE_TEST_AMQP_ABSENT ?? rabbitmqAbsence();
    return reason && `needs RabbitMQ: ${reason}`;
  },
  postgres: () => (POSTGRES_URL || MILLRACE_TEST_POSTGRES ? undefined : absence["own postgres"]()),
  "own postgres": () => {
    if (POSTGRES_URL) return "needs a PostgreSQL of its own, and POSTGRES_URL names one that is not";
    const reason = MILLRACE_TEST_POSTGRES_ABSENT ?? postgresAbsence();
    return reason && `needs PostgreSQL: ${reason}`;
  },
  kcat: () => (findProgram("kcat") === undefined ? "needs kcat, which is not installed" : undefined),
};

let kafka: Promise<Kafka> | undefined;
let rabbitmq: Promise<Rabbitmq> | undefined;
let postgres: Promise<Postgres> | undefined;

/** The Kafka that all tests use: leave it running, and use only topics and groups of a {@link freshName}. */
export function sharedKafka(): Promise<Kafka> {
  const address = KAFKA_BROKERS || MILLRACE_TEST_KAFKA;
  kafka ??= address ? Promise.resolve(new Kafka(address)) : startKafka();
  return kafka;
}

/** The RabbitMQ that all tests use: leave it running, and use only queues of a {@link freshName}. */
export function sharedRabbitmq(): Promise<Rabbitmq> {
  const address = AMQP_URL || MILLRACE_TEST_AMQP;
  rabbitmq ??= address ? Promise.resolve(new Rabbitmq(address)) : startRabbitmq();
  return rabbitmq;
}

/** The PostgreSQL that all tests use: leave it running, and use only databases of {@link Postgres.freshDatabase}. */
export function sharedPostgres(): Promise<Postgres> {
  const address = POSTGRES_URL || MILLRACE_TEST_POSTGRES;
  postgres ??= address ? Promise.resolve(new Postgres(address)) : startPostgres();
  return postgres;
}

/** A cluster for one test, about 6 s to start; it ends with the test. */
export async function ownKafka(t: TestContext, options?: KafkaOptions): Promise<KafkaCluster> {
  const cluster = await startKafka(options);
  t.after(() => cluster.stop());
  return cluster;
}

/** A broker for one test, about 9 s to start; it ends with the test. */
export async function ownRabbitmq(t: TestContext, options?: RabbitmqOptions): Promise<RabbitmqBroker> {
  const broker = await startRabbitmq(options);
  t.after(() => broker.stop());
  return broker;
}

/** A server for one test, about 2 s to start; it ends with the test. */
export async function ownPostgres(t: TestContext): Promise<PostgresServer> {
  const server = await startPostgres();
  t.after(() => server.stop());
  return server;
}

/** A name that no other test and no earlier run has used, as in `orders-3f9c1a2b`. */
export function freshName(prefix: string): string {
  return `${prefix}-${randomBytes(4).toString("hex")}`;
}
