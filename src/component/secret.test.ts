import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { optionProblems } from "./options.ts";
import { reveal, Secret, secret } from "./secret.ts";

test("a secret prints as *** however it is printed", () => {
  const password = secret("canary");
  for (const printed of [
    `${password}`,
    String(password),
    JSON.stringify({ password }),
    inspect(password),
    inspect({ deep: [{ password }] }, { depth: 9, showHidden: true }),
    Object.entries(password).join(),
  ]) {
    assert.doesNotMatch(printed, /canary/);
  }
  assert.equal(`${password}`, "***");
  assert.equal(JSON.stringify({ password }), '{"password":"***"}');
});

test("only reveal gives the text", () => {
  assert.equal(reveal(secret("canary")), "canary");
  assert.equal(reveal("plain"), "plain");
});

test("an option may be a secret or text, and nothing else", () => {
  const schema = { type: "object", properties: { password: { isSecret: true } } };
  for (const password of ["text", new Secret("text")]) {
    assert.deepEqual(optionProblems("kafka", schema, { password }), []);
  }
  for (const password of ["", 7, null, {}]) {
    assert.deepEqual(
      optionProblems("kafka", schema, { password }).map(({ message }) => message),
      ['kafka: "password" must be text or a secret'],
    );
  }
});
