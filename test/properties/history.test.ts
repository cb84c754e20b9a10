/** The checkers see what they are for: each anomaly is shown a history, made by hand, that has it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunStatus } from "../../src/runtime/status.ts";
import type { Content, Graph, Step } from "./graph.ts";
import { Anomaly, type AnomalyKind, History } from "./history.ts";
import { World } from "./world.ts";

function graphWith(...steps: Step[]): Graph {
  const flow = { steps, end: { kind: "sink" as const, sink: 0, window: undefined, codec: undefined } };
  return {
    sources: [{ broker: "kafka", credit: 8, chunk: 4 }],
    merged: false,
    flows: [flow, flow, flow],
    sinks: ["kafka", "kafka", "kafka"],
    deadLetters: "kafka",
    audit: false,
  };
}

const content = (uid: string, id = uid): Content => ({ uid, id, key: "k", path: "" });
const stored = (uid: string, id = uid, path = "0") =>
  Buffer.from(JSON.stringify({ ...content(uid, id), path }));

/** A history to which messages a and b of one key, and one that nobody can decode, were fed. */
function begun(): History {
  const history = new History(graphWith());
  history.feed(0, content("a"), true);
  history.feed(0, content("b"), true);
  history.feed(0, content("garbage"), false);
  return history;
}

function shows(kind: AnomalyKind, bad: () => unknown): void {
  assert.throws(bad, (error) => error instanceof Anomaly && error.message.startsWith(`${kind}: `));
}

test("a history without an anomaly passes every check", () => {
  const history = begun();
  for (const uid of ["a", "b"]) history.store(0, stored(uid));
  history.deadLetter(Buffer.from("garbage"));
  for (const uid of ["a", "b", "garbage"]) history.ack(uid);
  for (const offset of [1, 2, 2, 3]) history.commit("g", "member", "in0/0", offset, true);
  history.checkOrder();
  history.checkRepeats();
  assert.equal(history.firstMissing(), undefined);
});

test("early-ack: acknowledged before it is stored, or before its dead letter is", () => {
  const history = begun();
  shows("early-ack", () => history.ack("a"));
  shows("early-ack", () => history.ack("garbage"));
});

test("early-ack: a twin is acknowledged before its owner is stored", () => {
  const history = new History(graphWith({ kind: "dedup", scope: "lane" }));
  history.feed(0, content("a", "id"), true);
  history.feed(0, content("twin", "id"), true);
  shows("early-ack", () => history.ack("twin"));
  history.store(0, stored("a", "id"));
  history.ack("twin");
});

test("commit-regression: a committed offset goes back", () => {
  const history = begun();
  history.commit("g", "member", "in0/0", 2, true);
  history.commit("g", "member", "in0/1", 1, true);
  shows("commit-regression", () => history.commit("g", "member", "in0/0", 1, true));
});

test("foreign-commit: for a partition that the member does not hold", () => {
  shows("foreign-commit", () => begun().commit("g", "member", "in0/0", 1, false));
});

test("order-inversion: the first arrivals of two of a key change places", () => {
  const history = begun();
  for (const uid of ["b", "a"]) history.store(0, stored(uid));
  shows("order-inversion", () => history.checkOrder());
});

test("duplicate-beyond-bound: one more than the topology makes", () => {
  const history = begun();
  for (const uid of ["a", "a"]) history.store(0, stored(uid));
  shows("duplicate-beyond-bound", () => history.checkRepeats());
  assert.deepEqual([...history.excess().values()], [1]);
});

test("misclassified: what nobody fed, at the wrong place, or a good message among the dead letters", () => {
  const history = begun();
  shows("misclassified", () => history.store(0, stored("nobody")));
  shows("misclassified", () => history.store(1, stored("a")));
  shows("misclassified", () => history.store(0, stored("a", "a", "0.1")));
  shows("misclassified", () => history.deadLetter(stored("a")));
});

async function world(steps: readonly Step[] = []): Promise<World> {
  const made = new World(graphWith(...steps), 1);
  await made.begin();
  await made.context.clock.run(1_000);
  return made;
}

async function ends(kind: AnomalyKind, made: World): Promise<void> {
  await assert.rejects(
    made.finish(),
    (error) => error instanceof Anomaly && error.message.startsWith(`${kind}: `),
  );
}

test("a world in which nothing goes wrong ends well", async () => {
  const made = await world();
  made.feed(0, 20);
  await made.finish();
});

test("lost-write: a record is gone that its group has committed", async () => {
  const made = await world();
  made.history.feed(0, content("lost"), true);
  made.history.commit("g0", "member", "in0/0", 1, true);
  // A real acknowledgement of it would be told as early-ack before.
  made.history.isAcked = (uid) => uid === "lost";
  await ends("lost-write", made);
});

test("stuck: a message never arrives, and nobody was told that it has", async () => {
  const made = await world();
  made.history.feed(0, content("stuck"), true);
  await ends("stuck", made);
});

test("stuck: what stands in the way of a sink does not end", async () => {
  const made = await world();
  made.heal = () => {};
  await made.do({ kind: "stall", target: 0 });
  made.feed(0, 20);
  await ends("stuck", made);
});

test("leak: a timer, or a connection, is left", async () => {
  const timer = await world();
  timer.context.clock.after(10_000_000, () => {});
  await ends("leak", timer);
  const connection = await world();
  connection.cluster.connect("somebody");
  await ends("leak", connection);
});

/** What the runtime tells of itself, changed by hand. */
function tells(made: World, change: (status: RunStatus) => RunStatus): void {
  Object.defineProperty(made, "status", { get: () => change(made.run.status()) });
}

test("conservation: a message has two outcomes, or none", async () => {
  for (const by of [-1, 1]) {
    const made = await world();
    tells(made, (status) => {
      const { delivered } = status.conservation;
      return { ...status, conservation: { ...status.conservation, delivered: delivered + by } };
    });
    shows("conservation", () => made.check());
  }
});

test("memory-overrun: more is in flight than there is credit", async () => {
  const made = await world();
  tells(made, (status) => ({
    ...status,
    sources: status.sources.map((source) => ({
      ...source,
      conservation: { ...source.conservation, inFlight: source.creditMessages + 1 },
    })),
  }));
  shows("memory-overrun", () => made.check());
});
