import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { MillraceError } from "../errors.ts";
import { collectUnset, env, isUnset, type UnsetVariable } from "./environment.ts";
import { optionProblems } from "./options.ts";

const set = "MILLRACE_TEST_SET";
const empty = "MILLRACE_TEST_EMPTY";
const absent = "MILLRACE_TEST_ABSENT";

before(() => {
  process.env[set] = "value";
  process.env[empty] = "";
  delete process.env[absent];
});
after(() => {
  delete process.env[set];
  delete process.env[empty];
});

test("a variable that is set wins over the default; an empty one counts as unset", () => {
  assert.equal(env(set), "value");
  assert.equal(env(set, "default"), "value");
  assert.equal(env(empty, "default"), "default");
  assert.equal(env(absent, "default"), "default");
  assert.equal(env(absent, ""), "", "an empty default is a default");
});

test("outside of a topology nobody collects, so an unset variable throws at once", () => {
  for (const [name, state] of [
    [absent, "not set"],
    [empty, "empty"],
  ] as const) {
    assert.throws(
      () => env(name),
      (error: unknown) =>
        error instanceof MillraceError &&
        error.code === "env-missing" &&
        error.message === `the environment variable ${name} is ${state}`,
    );
  }
});

test("unset variables are collected by name and line, and never read as text that could pass for a value", () => {
  const unset: UnsetVariable[] = [];
  const value = collectUnset(unset, () => `amqp://${env(absent)}/`);
  assert.ok(isUnset(value));
  assert.doesNotMatch(value, /undefined/);
  assert.equal(unset.length, 1);
  assert.equal(unset[0]!.name, absent);
  assert.equal(unset[0]!.location?.file, import.meta.filename);
  assert.ok(!isUnset("amqp://localhost/") && !isUnset(undefined));
});

test("two collections that interleave keep apart", async () => {
  const [first, second]: [UnsetVariable[], UnsetVariable[]] = [[], []];
  const ask = async (name: string) => {
    await setImmediate();
    env(name);
    await setImmediate();
    env(`${name}_2`);
  };
  await Promise.all([
    collectUnset(first, () => ask("MILLRACE_TEST_A")),
    collectUnset(second, () => ask("MILLRACE_TEST_B")),
  ]);
  assert.deepEqual(
    [first, second].map((unset) => unset.map(({ name }) => name)),
    [
      ["MILLRACE_TEST_A", "MILLRACE_TEST_A_2"],
      ["MILLRACE_TEST_B", "MILLRACE_TEST_B_2"],
    ],
  );
});

test("an option that lacks only its environment variable is not reported a second time", () => {
  const schema = {
    type: "object",
    additionalProperties: false,
    required: ["url", "mode"],
    properties: { url: { type: "string", pattern: "^amqp://" }, mode: { enum: ["a", "b"] } },
  };
  const url = collectUnset([], () => env(absent));
  assert.deepEqual(optionProblems("sink", schema, { url, mode: "a" }), []);
  assert.deepEqual(
    optionProblems("sink", schema, { url, mode: "c" }).map(({ message }) => message),
    ['sink: "mode" must be one of a, b'],
  );
});
