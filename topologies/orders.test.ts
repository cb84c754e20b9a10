import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { orders } from "../bench/orders.ts";
import { dumped, freshFolder, runMillrace } from "../test/millrace.ts";
import { simulatedRun } from "../test/simulated-run.ts";

const topology = new URL("orders.ts", import.meta.url).pathname;

test("on the embedded broker: every valid order once, each customer's in order, the others rejected", async (t) => {
  const folder = freshFolder(t);
  const sent = [...orders(5_000, 50, 10)];
  const bad = [
    "not json",
    '{"id":"1","customer":"c","status":"created","amount":1,"lines":[{"sku":"s","qty":1}]}',
    '{"id":"ord-x","customer":"c","status":"lost","amount":1,"lines":[{"sku":"s","qty":1}]}',
    '{"id":"ord-y","customer":"c","status":"paid","amount":-1,"lines":[{"sku":"s","qty":1}]}',
    '{"id":"ord-z","customer":"c","status":"paid","amount":1,"lines":[]}',
  ];
  const lines = sent.map(({ key, value }) => JSON.stringify({ key, value }));
  writeFileSync(
    join(folder, "in.ndjson"),
    [...lines.slice(0, 2_000), ...bad, ...lines.slice(2_000)].join("\n"),
  );
  const args = [
    "--embedded",
    "--feed",
    `orders=${join(folder, "in.ndjson")}`,
    "--until-idle",
    "--dump",
    folder,
  ];
  const { code, stdout, stderr } = await runMillrace(t, ["run", topology, ...args]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 5505 = delivered 5000 \+ duplicate 500 \+ deadLettered 5/);
  const accepted = await dumped(folder, "orders.accepted");
  const next = new Map<string, number>();
  for (const { key, value } of accepted) {
    const order = JSON.parse(value as string) as { customer: string; seq: number };
    assert.equal(key, order.customer);
    assert.equal(order.seq, next.get(order.customer) ?? 0, `${order.customer} is in order`);
    next.set(order.customer, order.seq + 1);
  }
  assert.equal(accepted.length, 5_000);
  assert.deepEqual((await dumped(folder, "orders.dead")).map(({ value }) => value).sort(), [...bad].sort());
});

test("what one customer orders within 50 ms is written as one batch", async (t) => {
  const topics = ["orders", "orders.accepted", "orders.dead"].map((topic) => ({ topic }));
  const run = await simulatedRun(t, topology, topics);
  const sent = [...orders(5, 1, 0)].map(({ value }) => value);
  for (const order of sent) await run.send("orders", order, 5);
  await run.pass(100);
  assert.deepEqual(
    run.batchesOf("orders.accepted").map(({ values }) => values),
    [sent],
  );
});
