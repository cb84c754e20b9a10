import assert from "node:assert/strict";
import { test } from "node:test";
import { kafka } from "./index.ts";

const cluster = kafka({ brokers: "127.0.0.1:9092" });

test("a topic that no cluster would take is told when it is declared, at a source and at a sink", () => {
  for (const topic of ["b b", "..", ".", "ä", "a/b", "x".repeat(250)]) {
    const source = cluster.source({ topics: ["fine", topic], group: "g" });
    const sink = cluster.sink({ topic });
    for (const [{ problems }, owner] of [
      [source, "kafka source"],
      [sink, "kafka sink"],
    ] as const) {
      assert.deepEqual(
        problems.map(({ code }) => code),
        ["option-invalid"],
        topic,
      );
      assert.ok(problems[0]!.message.startsWith(`${owner}: `));
      assert.ok(problems[0]!.message.length < 100, "without repeating a very long name");
    }
  }
});

test("any other name may be one", () => {
  for (const topic of ["a", "...", "Orders.accepted_2-x", "x".repeat(249)])
    assert.deepEqual(cluster.sink({ topic }).problems, [], topic);
});
