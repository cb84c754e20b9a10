/** The orders topology on a real Kafka, with topics of its own and input in them, and what must hold of its output. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { orders } from "../bench/orders.ts";
import { freshName } from "./brokers/index.ts";
import type { TopicOptions } from "./brokers/kafka.ts";
import { until } from "./brokers/until.ts";
import { committedOf, countOf, fill, type LogRecord } from "./kafka-log.ts";
import type { Millrace } from "./millrace.ts";
import { withNames } from "./topology-copy.ts";

const topology = new URL("../topologies/orders.ts", import.meta.url).pathname;
const customers = 500;

export interface OrdersJob {
  readonly file: string;
  readonly input: string;
  readonly output: string;
  readonly group: string;
  readonly env: NodeJS.ProcessEnv;
}

export interface OrdersJobOptions {
  /** Default: the one that the topology has. */
  readonly driver?: string;
  /** Default 1 each. */
  readonly replication?: number;
  /** Options of the source, as in `credit: 100`. */
  readonly source?: string;
}

/** Creates the topics and writes `count` orders. */
export async function prepareOrders(
  t: TestContext,
  kafka: { bootstrap: string; createTopic(name: string, options?: TopicOptions): Promise<string> },
  count: number,
  { driver, replication = 1, source = "" }: OrdersJobOptions = {},
): Promise<OrdersJob> {
  const names = withNames(t, topology, ["orders", "orders.accepted", "orders.dead"], freshName("o"));
  // A killed member is waited for until its session times out; the broker's least is 6 s.
  let text = readFileSync(names.file, "utf8").replace(
    `group: "${names.group}"`,
    `group: "${names.group}", sessionTimeout: "6s", heartbeatInterval: "1s", ${source}`,
  );
  if (driver !== undefined) text = text.replace("kafka({", `kafka({ driver: "${driver}",`);
  writeFileSync(names.file, text);
  for (const topic of Object.values(names.topics)) await kafka.createTopic(topic, { replication });
  await fill(kafka.bootstrap, names.topics.orders!, orders(count, customers));
  return {
    file: names.file,
    input: names.topics.orders!,
    output: names.topics["orders.accepted"]!,
    group: names.group,
    env: { KAFKA_BROKERS: kafka.bootstrap },
  };
}

/**
 * Waits until `more` than now are in the output. Also until nothing is left to do: a runner may be through with its input
 * while nobody looks.
 */
export async function written(kafka: { bootstrap: string }, job: OrdersJob, more: number): Promise<void> {
  const { bootstrap } = kafka;
  const [before, all] = [await countOf(bootstrap, job.output), await countOf(bootstrap, job.input)];
  await until(
    `${more} more are written`,
    async () =>
      (await countOf(bootstrap, job.output)) > before + more ||
      (await committedOf(bootstrap, job.group, job.input)) === all,
  );
}

/** What the output holds against `count` orders that went in. */
export function checkOrders(
  records: readonly LogRecord[],
  count: number,
): { missing: number; duplicates: number; inversions: string[] } {
  const seen = new Map<string, Set<number>>();
  const highest = new Map<string, number>();
  let duplicates = 0;
  const inversions: string[] = [];
  for (const { partition, offset, key, value } of records) {
    const { seq, customer } = JSON.parse(value!) as { seq: number; customer: string };
    assert.equal(key, customer);
    let own = seen.get(customer);
    if (own === undefined) {
      own = new Set();
      seen.set(customer, own);
    }
    // The first arrival of an order must come after the first arrival of every earlier one of its customer.
    if (own.has(seq)) duplicates++;
    else if (seq !== (highest.get(customer) ?? -1) + 1)
      inversions.push(`${customer} ${seq} at ${partition}/${offset}`);
    own.add(seq);
    highest.set(customer, Math.max(seq, highest.get(customer) ?? -1));
  }
  let present = 0;
  for (const own of seen.values()) present += own.size;
  return { missing: count - present, duplicates, inversions };
}

/** Waits for a run that ends by itself, well. */
export async function finish(runner: Millrace): Promise<void> {
  const { code, stderr } = await runner.ended;
  assert.equal(code, 0, stderr);
}
