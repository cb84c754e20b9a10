import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest, optionProblems } from "./options.ts";

const schema = {
  type: "object",
  additionalProperties: false,
  required: ["group", "mode"],
  properties: {
    group: { type: "string" },
    mode: { enum: ["first", "last"] },
    within: { isDuration: true },
    bytes: { isSize: true },
    keep: { isFunction: true },
    tls: {
      type: "object",
      additionalProperties: false,
      required: ["cert"],
      properties: { cert: { type: "string" }, key: { type: "string" } },
    },
  },
};
const told = (options: unknown) =>
  optionProblems("source", schema, options).map(({ code, message, remedy }) =>
    [code, message, remedy].join(" | "),
  );

test("options that follow their schema have no problem", () => {
  const options = {
    group: "g",
    mode: "last",
    within: "5m",
    bytes: "1MiB",
    keep: () => true,
    tls: { cert: "c" },
  };
  assert.deepEqual(told(options), []);
});

test("every mistake is told, and which option or value is near", () => {
  assert.deepEqual(
    told({ group: 1, mode: "lsat", widthin: 1, within: "5 years", bytes: -1, keep: "it", tls: { kye: "" } }),
    [
      'option-unknown | source has no option "widthin" | did you mean "within"?',
      'option-invalid | source: "group" must be string | see the component\'s options',
      'option-invalid | source: "mode" must be one of first, last | did you mean "last"?',
      'option-invalid | source: "within" is not a duration | give milliseconds or text such as "250ms", "10s", "5m", "2h"; at most 24 days',
      'option-invalid | source: "bytes" is not a size in bytes | give a whole number of bytes or text such as "64KiB", "1MiB"',
      'option-invalid | source: "keep" must be a function | give a function',
      'option-missing | source needs the option "tls.cert" | add tls.cert',
      'option-unknown | source has no option "tls.kye" | did you mean "key"?',
    ],
  );
});

test("a required option with a typing error in its name is one mistake, at whatever depth", () => {
  assert.deepEqual(told({ grup: "g", mode: "first", tls: { crt: "" } }), [
    'option-unknown | source has no option "grup" | did you mean "group"?',
    'option-unknown | source has no option "tls.crt" | did you mean "cert"?',
  ]);
  assert.deepEqual(told({ topic: "g", mode: "first" }), [
    'option-missing | source needs the option "group" | add group',
    'option-unknown | source has no option "topic" | use one of: group, mode, within, bytes, keep, tls',
  ]);
});

test("options that are none at all are one mistake", () => {
  for (const options of [undefined, null, 7, "text", []]) {
    assert.deepEqual(told(options), ["option-invalid | source must be object | see the component's options"]);
  }
});

test("nearest finds what was probably meant, and nothing where nothing is near", () => {
  assert.equal(nearest("cuont", ["count", "bytes", "within"]), "count");
  assert.equal(nearest("Count", ["count", "bytes"]), "count");
  assert.equal(nearest("elephant", ["count", "bytes"]), undefined);
  assert.equal(nearest("x", []), undefined);
});
