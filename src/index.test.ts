import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { systemClock } from "./component/system.ts";
import * as millrace from "./index.ts";
import {
  batch,
  compile,
  compress,
  decode,
  dedup,
  encode,
  filter,
  kafka,
  key,
  type MillraceError,
  merge,
  reject,
  run,
  topology,
  validate,
} from "./index.ts";
import { testContext } from "./testing/context.ts";
import { inertSink, inertSource } from "./testing/inert.ts";

const names = [
  "MillraceError",
  "Outcome",
  "PlainRecords",
  "batch",
  "compile",
  "compileAll",
  "compileFiles",
  "compress",
  "decode",
  "decompress",
  "dedup",
  "describePlan",
  "encode",
  "env",
  "file",
  "filter",
  "formatProblems",
  "headers",
  "kafka",
  "key",
  "load",
  "map",
  "mapAsync",
  "merge",
  "producerSettings",
  "rabbitmq",
  "reject",
  "run",
  "secret",
  "sql",
  "stage",
  "stdin",
  "stdout",
  "topology",
  "validate",
  "writer",
];

const order = {
  type: "object",
  required: ["id", "customer", "status", "lines"],
  properties: {
    id: { type: "string" },
    customer: { type: "string" },
    status: { enum: ["open", "paid"] },
    lines: {
      type: "array",
      items: { type: "object", required: ["qty"], properties: { qty: { type: "integer" } } },
    },
  },
} as const;

test("every export has its sentence", () => {
  const lines = readFileSync(new URL("./index.ts", import.meta.url), "utf8").split("\n");
  const undocumented = lines.filter(
    (line, index) => /^export (?!type )/.test(line) && !lines[index - 1]!.endsWith("*/"),
  );
  assert.deepEqual(undocumented, []);
});

test("what a package exports is chosen: a new name is added here too", () => {
  assert.deepEqual(Object.keys(millrace).sort(), names);
});

test("the schema's type flows through the steps, and a wrong field is a compile error", () => {
  const orders = topology("orders", (t) => {
    const valid = t.from(inertSource("orders")).pipe(decode("json"), validate(order));
    valid
      .pipe(
        reject((o) => o.lines.length === 0, "the order has no lines"),
        filter((o) => o.status === "paid"),
        key((o) => o.customer),
        dedup({ id: (o) => o.id, capacity: 1_000 }),
        batch({ count: 100 }),
        compress("zstd"),
      )
      .to(inertSink("paid"));
    const { large, small } = valid.route({ large: (o) => o.lines.length > 10 }, { otherwise: "small" });
    merge(large, small.pipe(key((o) => o.id)))
      .pipe(encode("json"))
      .to(inertSink("all"));
    t.deadLetters(inertSink("dead"));
  });
  const { plan, problems } = compile(orders);
  assert.deepEqual(problems, []);
  assert.deepEqual(plan?.nodes.length, 15);
  topology("mistaken", (t) => {
    const valid = t.from(inertSource("orders")).pipe(decode("json"), validate(order));
    // @ts-expect-error: there is no field "custmer"
    valid.pipe(key((o) => o.custmer));
    // @ts-expect-error: there is no status "payed"
    valid.pipe(filter((o) => o.status === "payed"));
    // @ts-expect-error: lines have no "quantity"
    valid.pipe(reject((o) => o.lines.some((line) => line.quantity === 0), "nothing ordered"));
    valid.pipe(
      filter((o) => o.status === "paid"),
      // @ts-expect-error: the type is still known after a filter
      dedup({ id: (o) => o.number, capacity: 10 }),
    );
    const unknown = t.from(inertSource("more")).pipe(decode("json"));
    // @ts-expect-error: before it is validated, nothing is known of a value
    unknown.pipe(key((o) => o.customer));
  });
});

test("a program runs a plan, and is told what keeps it from running", async () => {
  const cluster = kafka({ brokers: "127.0.0.1:9092", driver: "embedded" });
  const relay = topology("relay", (t) => {
    t.from(cluster.source({ topics: ["in"], group: "g" })).to(cluster.sink({ topic: "out" }));
  });
  const { plan } = compile(relay);
  const early = await run(plan!).finished;
  assert.equal(early.how === "failed" && (early.error as MillraceError).code, "target-missing");

  const context = { ...testContext(), clock: systemClock };
  for (const { connection, requirements } of plan!.connections)
    await connection.create(context, requirements);
  cluster.embedded(context)!.feed("in", [{ value: Buffer.from("1") }, { value: Buffer.from("2") }]);
  const running = run(plan!);
  await running.started;
  await running.untilIdle();
  assert.deepEqual(await running.drain(), { how: "done" });
  const { accepted, delivered, inFlight } = running.status().conservation;
  assert.deepEqual({ accepted, delivered, inFlight }, { accepted: 2, delivered: 2, inFlight: 0 });
});
