import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { EmbeddedBroker, EmbeddedBrokers } from "../src/component/embedded.ts";
import type { ProduceResult } from "../src/connectors/kafka/driver.ts";
import type { EmbeddedBatch } from "../src/connectors/kafka/drivers/embedded/batch.ts";
import { EmbeddedKafka } from "../src/connectors/kafka/drivers/embedded/index.ts";
import { start } from "../src/runtime/run.ts";
import type { RunStatus } from "../src/runtime/status.ts";
import { testContext } from "../src/testing/context.ts";
import { compileFiles } from "../src/topology/load.ts";

/** A record batch as the broker was given it: what a dump of records no longer tells. */
export interface WrittenBatch {
  readonly topic: string;
  readonly codec: string;
  readonly values: readonly string[];
}

class RecordingKafka extends EmbeddedKafka {
  readonly written: WrittenBatch[] = [];

  override produce(batches: readonly EmbeddedBatch[]): ProduceResult[] {
    const results = super.produce(batches);
    results.forEach(({ error }, i) => {
      if (error !== undefined) return;
      const { topic, codec, values } = batches[i]!;
      this.written.push({ topic, codec, values: values.map((value) => value?.toString() ?? "") });
    });
    return results;
  }
}

/** A topology file on simulated brokers in virtual time, with every batch that it writes to Kafka. */
export interface SimulatedRun {
  readonly kafka: EmbeddedKafka;
  /** Publishes one value into a topic or queue, and lets so many ms pass. */
  send(target: string, value: string, ms: number): Promise<void>;
  pass(ms: number): Promise<void>;
  /** The batches of a topic so far. */
  batchesOf(topic: string): readonly WrittenBatch[];
  /** Of each runner. */
  statuses(): readonly RunStatus[];
}

/** Starts the topology of a file on brokers that hold these topics (of one partition) and queues, by so many runners. */
export async function simulatedRun(
  t: TestContext,
  file: string,
  topics: readonly { readonly topic: string; readonly maxMessageBytes?: number }[],
  runners = 1,
): Promise<SimulatedRun> {
  const { plans, problems } = await compileFiles([file]);
  assert.ok(plans, problems.map(({ message }) => message).join("\n"));
  const { clock, random, work, logger, ...context } = testContext();
  const kafka = new RecordingKafka(clock);
  kafka.create(topics.map((topic) => ({ partitions: 1, ...topic })));
  const others = new Map<string, EmbeddedBroker>();
  // One cluster whatever its address, so that KAFKA_BROKERS in the environment changes nothing.
  const embedded: EmbeddedBrokers = {
    of: <B extends EmbeddedBroker>(kind: string, _address: string, create: () => B): B => {
      if (kind === "kafka") return kafka as EmbeddedBroker as B;
      if (!others.has(kind)) others.set(kind, create());
      return others.get(kind) as B;
    },
    all: () => [],
  };
  for (const { connection, requirements } of plans[0]!.connections) {
    const broker = connection.embedded({ ...context, clock, random, work, logger, embedded });
    for (const { kind, name } of requirements) if (kind === "queue") broker?.feed(name, []);
  }
  const runs = Array.from({ length: runners }, () =>
    start(plans[0]!, { clock, random, work, logger, embedded }),
  );
  t.after(() => {
    for (const run of runs) run.abort(new Error("the test is over"));
  });
  await clock.run(1_000);
  const statuses = () => runs.map((run) => run.status());
  for (const { ready, lastErrors } of statuses()) assert.ok(ready, JSON.stringify(lastErrors));
  return {
    kafka,
    send: async (target, value, ms) => {
      const broker = kafka.find(target) === undefined ? others.get("rabbitmq")! : kafka;
      broker.feed(target, [{ value: Buffer.from(value) }]);
      await clock.run(ms);
    },
    pass: (ms) => clock.run(ms),
    statuses,
    batchesOf: (topic) => kafka.written.filter((batch) => batch.topic === topic),
  };
}
