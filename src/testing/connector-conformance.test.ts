/** A tiny connector passes the suite, and with each mistake put into it fails by the name of that mistake. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Context, kafka, type Lane, Outcome, PlainRecords, type Sink, type Source } from "millrace";
import {
  type Anomaly,
  ConformanceError,
  type SinkUnderTest,
  type SourceUnderTest,
  sinkScenarios,
  sourceScenarios,
  type TestContext,
  testContext,
} from "millrace/testing";

type Mistake = "acks early" | "reorders" | "drops on reconnect" | undefined;

/** A broker with one log, one committed position, and connections that it may lose. */
class ToyBroker {
  readonly log: string[] = [];
  committed = 0;
  stalls = false;
  /** Of each connection: told when there is more, and when it is lost. */
  readonly readers = new Set<{ more(): void; lost(): void }>();
  /** What was sent and not stored, with what to call when it is, and when it never will be. */
  sent: { values: readonly string[]; stored(): void; lost(): void }[] = [];

  publish(values: readonly string[]): void {
    this.log.push(...values);
    for (const reader of this.readers) reader.more();
  }

  work(): void {
    if (this.stalls) return;
    for (const { values, stored } of this.sent.splice(0)) {
      this.log.push(...values);
      stored();
    }
  }

  cut(): void {
    for (const { lost } of this.sent.splice(0)) lost();
    for (const reader of this.readers) reader.lost();
  }
}

const connection = kafka({ brokers: "127.0.0.1:9092" });
const described = { type: "toy", name: "toy", connection, problems: [], targets: ["toy"] };
const fine = () => ({ ready: true, lastErrors: [] });

function toySource(broker: ToyBroker, mistake: Mistake): Source {
  return {
    ...described,
    kind: "source",
    capabilities: { ack: "cumulative", holdsRebalance: true, replays: true, order: "lane" },
    credit: { messages: 100, bytes: 1e6, span: 400, chunk: 10 },
    async open({ intake, clock }) {
      let epoch = 0;
      let next = broker.committed;
      let stopped = false;
      const openLane = (start: number) =>
        intake.open({ origin: { target: "toy" }, epoch: ++epoch, ack: "cumulative", start });
      let lane: Lane = openLane(next);
      const more = () =>
        clock.defer(() => {
          const fresh = broker.log.slice(next);
          if (stopped || fresh.length === 0) return;
          const first = next;
          next += fresh.length;
          if (mistake === "reorders") fresh.reverse();
          const records = fresh.map((value, i) => ({
            position: first + i,
            key: null,
            value: Buffer.from(value),
            headers: [],
            timestamp: 0,
          }));
          intake.offer(lane, new PlainRecords(records));
        });
      const lost = () => {
        intake.end(lane);
        if (mistake !== "drops on reconnect") next = broker.committed;
        lane = openLane(next);
        more();
      };
      const reader = { more, lost };
      broker.readers.add(reader);
      more();
      return {
        stream: intake.stream,
        stopIntake() {
          stopped = true;
          intake.stop();
        },
        async commit() {
          broker.committed = mistake === "acks early" ? next : lane.checkpoint;
        },
        async close() {
          broker.readers.delete(reader);
          stopped = true;
          intake.end(lane);
        },
        status: fine,
        atEnd: async () => next === broker.log.length,
      };
    },
  };
}

function toySink(broker: ToyBroker, mistake: Mistake): Sink {
  return {
    ...described,
    kind: "sink",
    capabilities: { order: "always", batches: true },
    async open({ clock }: Context) {
      const destination = { name: "toy" };
      return {
        destinationOf: () => destination,
        write: (batch) =>
          new Promise((resolve) => {
            const values = Array.from({ length: batch.length }, (_, i) => String(batch.payload(i)));
            const settle = () => {
              for (let i = 0; i < batch.length; i++) batch.settle(i, Outcome.delivered);
              resolve([]);
            };
            if (mistake === "acks early") settle();
            const send = () => {
              const lost = () => (mistake === "drops on reconnect" ? settle() : send());
              const one = { values, stored: settle, lost };
              if (mistake === "reorders") broker.sent.unshift(one);
              else broker.sent.push(one);
              clock.defer(() => broker.work());
            };
            send();
          }),
        close: async () => {},
        status: fine,
      };
    },
  };
}

function passing(context: TestContext) {
  return {
    context,
    async comesTrue(condition: () => boolean | Promise<boolean>) {
      for (let turn = 0; turn < 50; turn++) {
        if (await condition()) return true;
        await context.clock.run(100);
      }
      return false;
    },
  };
}

function sourceUnderTest(mistake: Mistake): SourceUnderTest {
  const broker = new ToyBroker();
  return {
    ...passing(testContext()),
    source: toySource(broker, mistake),
    publish: async (values) => broker.publish(values),
    acknowledged: async () => broker.log.slice(0, broker.committed),
    cut: async () => broker.cut(),
  };
}

function sinkUnderTest(mistake: Mistake): SinkUnderTest {
  const broker = new ToyBroker();
  return {
    ...passing(testContext()),
    sink: toySink(broker, mistake),
    stored: async () => broker.log,
    async stall(stalls) {
      broker.stalls = stalls;
      broker.work();
    },
    cut: async () => broker.cut(),
  };
}

/** The anomalies that the suite finds, over all scenarios. */
async function found(mistake: Mistake, kind: "source" | "sink"): Promise<Set<Anomaly>> {
  const anomalies = new Set<Anomaly>();
  const runs =
    kind === "source"
      ? sourceScenarios.map(
          ({ run }) =>
            () =>
              run(sourceUnderTest(mistake)),
        )
      : sinkScenarios.map(
          ({ run }) =>
            () =>
              run(sinkUnderTest(mistake)),
        );
  for (const run of runs) {
    try {
      await run();
    } catch (error) {
      if (!(error instanceof ConformanceError)) throw error;
      anomalies.add(error.anomaly);
    }
  }
  return anomalies;
}

for (const { name, run } of sourceScenarios) test(`toy: ${name}`, () => run(sourceUnderTest(undefined)));
for (const { name, run } of sinkScenarios) test(`toy: ${name}`, () => run(sinkUnderTest(undefined)));

const names = [
  ["acks early", "early-ack"],
  ["reorders", "order-inversion"],
  ["drops on reconnect", "lost-write"],
] as const;

for (const kind of ["source", "sink"] as const) {
  for (const [mistake, anomaly] of names) {
    test(`a ${kind} that ${mistake} fails the suite by the name ${anomaly}`, async () => {
      const anomalies = await found(mistake, kind);
      assert.ok(anomalies.has(anomaly), `found ${[...anomalies].join(", ") || "nothing"}`);
    });
  }
}

test("what a test cannot do, or a source does not promise, is an exemption with its reason", async () => {
  const impossible = "nobody can";
  const under = sourceUnderTest("drops on reconnect");
  const [, , lost, reopened] = sourceScenarios;
  const still = { ...under, cut: { impossible } };
  assert.equal(lost!.exemption(under), undefined);
  assert.equal(lost!.exemption(still), impossible);
  await lost!.run(still);
  const capabilities = { ...under.source.capabilities, replays: false };
  const once = { ...under, source: { ...under.source, capabilities } };
  assert.match(reopened!.exemption(once)!, /capabilities/);
  const sink = { ...sinkUnderTest("acks early"), stall: { impossible } };
  assert.deepEqual(
    sinkScenarios.map(({ exemption }) => exemption(sink)),
    [impossible, undefined, impossible],
  );
  for (const { exemption, run } of sinkScenarios) if (exemption(sink) !== undefined) await run(sink);
});
