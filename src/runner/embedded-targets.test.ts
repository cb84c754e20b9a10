import assert from "node:assert/strict";
import { test } from "node:test";
import type { EmbeddedBroker } from "../component/embedded.ts";
import { RunEmbeddedBrokers } from "./embedded-brokers.ts";
import { findTarget } from "./embedded-targets.ts";
import { UsageError } from "./exit-code.ts";

const broker = (): EmbeddedBroker => ({ targets: () => [], feed: () => {}, contents: () => [] });
const target = (name: string, connector = "kafka", address = "a:1") => ({
  name,
  connector,
  address,
  broker: broker(),
});

test("a target is found by name, else the nearest one is told", () => {
  const targets = [target("orders"), target("orders.dead")];
  assert.equal(findTarget("orders", targets), targets[0]);
  assert.throws(() => findTarget("order", targets), /no such topic or queue; did you mean "orders"\?/);
  assert.throws(() => findTarget("xyz", targets), /it has: orders, orders\.dead$/);
  assert.throws(() => findTarget("xyz", []), UsageError);
});

test("a name that two brokers have needs the connector", () => {
  const targets = [target("orders"), target("orders", "rabbitmq")];
  assert.throws(() => findTarget("orders", targets), /one of them: kafka:orders, rabbitmq:orders$/);
  assert.equal(findTarget("rabbitmq:orders", targets), targets[1]);
});

test("a name that two brokers of one kind have needs the address, and what is told can be given", () => {
  const targets = [target("orders"), target("orders", "kafka", "b:1,b:2"), target("other")];
  for (const name of ["orders", "kafka:orders"]) {
    const told = /one of them: kafka:orders@a:1, kafka:orders@b:1,b:2$/;
    assert.throws(() => findTarget(name, targets), told);
  }
  assert.equal(findTarget("kafka:orders@a:1", targets), targets[0]);
  assert.equal(findTarget("kafka:orders@b:1,b:2", targets), targets[1]);
  assert.throws(() => findTarget("kafka:orders@c:1", targets), UsageError);
  // A topic may be called anything: its own name comes first.
  const odd = [...targets, target("kafka:orders@a:1")];
  assert.equal(findTarget("kafka:orders@a:1", odd), odd[3]);
});

test("one broker for each kind and address, made at first use", () => {
  const brokers = new RunEmbeddedBrokers();
  const first = brokers.of("kafka", "a:1", broker);
  assert.equal(brokers.of("kafka", "a:1", broker), first);
  assert.notEqual(brokers.of("kafka", "a:2", broker), first);
  assert.notEqual(brokers.of("rabbitmq", "a:1", broker), first);
  assert.deepEqual(
    brokers.all().map(({ kind, address }) => `${kind} ${address}`),
    ["kafka a:1", "kafka a:2", "rabbitmq a:1"],
  );
});
