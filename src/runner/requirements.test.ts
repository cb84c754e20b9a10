import assert from "node:assert/strict";
import { test } from "node:test";
import type { Connection, Requirement } from "../component/connection.ts";
import type { EmbeddedBroker } from "../component/embedded.ts";
import { MillraceError } from "../errors.ts";
import { type TestContext, testContext } from "../testing/context.ts";
import { isCreatable, meetRequirements } from "./requirements.ts";

const requirement: Requirement = { kind: "topic", name: "orders", role: "source", at: "orders.ts:3" };

interface Fake {
  readonly connection: Connection;
  readonly existing: Set<string>;
  /** Thrown by `verify`, one at a time. */
  readonly errors: Error[];
  asked: number;
}

function fake(broker?: EmbeddedBroker): Fake {
  const existing = new Set<string>();
  const self: Fake = {
    existing,
    errors: [],
    asked: 0,
    connection: {
      connector: "kafka",
      address: "127.0.0.1:9092",
      embedded: () => broker,
      verify: async (_, requirements) => {
        self.asked++;
        const error = self.errors.shift();
        if (error !== undefined) throw error;
        return requirements
          .filter(({ name }) => !existing.has(name))
          .map((missing) => ({ requirement: missing, problem: "missing", remedy: "create it" }));
      },
      create: async (_, requirements) => {
        const missing = requirements.filter(({ name }) => !existing.has(name));
        for (const { name } of missing) existing.add(name);
        return missing;
      },
    },
  };
  return self;
}

async function meet(one: Fake, options: { create?: boolean; wait?: boolean; context?: TestContext } = {}) {
  const { create = false, wait = true, context = testContext() } = options;
  const plans = [{ connections: [{ connection: one.connection, requirements: [requirement] }] }];
  const met = meetRequirements(plans, { create, wait, contextFor: () => context });
  let over = false;
  const end = () => {
    over = true;
  };
  met.then(end, end);
  for (let turn = 0; !over && turn < 1_000; turn++) await context.clock.run(100);
  return met;
}

test("what is missing on a real broker is told and not created", async () => {
  const one = fake();
  assert.deepEqual(await meet(one), [{ requirement, problem: "missing", remedy: "create it" }]);
  assert.deepEqual([...one.existing], []);
});

test("with create it is created; on an embedded broker always", async () => {
  const real = fake();
  assert.deepEqual(await meet(real, { create: true }), []);
  assert.deepEqual([...real.existing], ["orders"]);
  const embedded = fake({ targets: () => [], feed: () => {}, contents: () => [] });
  assert.deepEqual(await meet(embedded), []);
  assert.deepEqual([...embedded.existing], ["orders"]);
});

test("only what is missing on a broker can be created", () => {
  const unmet = { requirement, problem: "", remedy: "" };
  assert.equal(isCreatable(unmet), true);
  assert.equal(isCreatable({ ...unmet, code: "target-missing" }), true);
  assert.equal(isCreatable({ ...unmet, code: "target-mismatch" }), false);
  assert.equal(isCreatable({ ...unmet, requirement: { ...requirement, kind: "file" } }), false);
});

test("a broker that is away is waited for, or not", async () => {
  const one = fake();
  one.existing.add("orders");
  one.errors.push(...Array.from({ length: 20 }, () => new Error("ECONNREFUSED")));
  assert.deepEqual(await meet(one), []);
  assert.equal(one.asked, 21);
  one.errors.push(new MillraceError("connection-lost", "away"));
  await assert.rejects(meet(one, { wait: false }), { code: "connection-lost" });
});

test("refused credentials are tried three times, other mistakes once", async () => {
  const one = fake();
  one.errors.push(...Array.from({ length: 9 }, () => new MillraceError("access-refused", "no")));
  await assert.rejects(meet(one), { code: "access-refused" });
  assert.equal(one.asked, 3);
  const other = fake();
  other.errors.push(new MillraceError("target-mismatch", "no"));
  await assert.rejects(meet(other), { code: "target-mismatch" });
  assert.equal(other.asked, 1);
});

test("waiting ends when the process is told to stop", async () => {
  const context = testContext();
  const one = fake();
  one.errors.push(...Array.from({ length: 1_000 }, () => new Error("ECONNREFUSED")));
  const met = meetRequirements(
    [{ connections: [{ connection: one.connection, requirements: [requirement] }] }],
    { create: false, wait: true, contextFor: () => context },
  );
  const ended = assert.rejects(met, /told to stop/);
  await context.clock.run(5_000);
  const before = one.asked;
  context.abort(new Error("told to stop"));
  await ended;
  assert.ok(before > 1);
  assert.equal(one.asked, before);
});
