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
      'option-invalid | source: "group" must be text, not a number | give text',
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
  for (const [options, given] of [
    [undefined, "undefined"],
    [null, "null"],
    [7, "7"],
    ["text", "text"],
    [[], "an empty list"],
  ]) {
    assert.deepEqual(told(options), [
      `option-invalid | source: the options must be an object, not ${String(given)} | give an object with group, mode, and if wanted within, bytes, keep, tls`,
    ]);
  }
});

const choosing = {
  type: "object",
  additionalProperties: false,
  properties: {
    id: {
      anyOf: [
        { isFunction: true },
        { type: "string", description: "a JSON pointer" },
        { type: "array", items: { type: "string" }, minItems: 1, description: "a list of them" },
      ],
    },
    brokers: {
      anyOf: [
        { type: "string", minLength: 1 },
        { type: "array", minItems: 1, items: { type: "string", minLength: 1 } },
      ],
    },
    tls: {
      anyOf: [
        { type: "boolean" },
        {
          type: "object",
          additionalProperties: false,
          properties: { cert: { type: "string" }, key: { type: "string" }, server: { type: "string" } },
          dependencies: { cert: ["key"], key: ["cert"] },
        },
      ],
    },
    topics: { type: "array", minItems: 1, uniqueItems: true, items: { type: "string", minLength: 1 } },
    count: { type: "integer", minimum: 1, maximum: 9 },
    ratio: { type: "number", minimum: 1 },
    name: { type: "string", minLength: 1, maxLength: 5 },
    flag: { type: "boolean" },
    passphrase: { type: "string" },
  },
};

test("a mistake is one line, whatever choices there are, and says what to give", () => {
  for (const [options, ...lines] of [
    [{ id: 5 }, '"id" must be a function, a JSON pointer or a list of them, not 5'],
    [{ id: [] }, '"id" must be a function, a JSON pointer or a list of them, not an empty list'],
    [{ id: ["a", 5] }, '"id.1" must be text, not a number'],
    [{ brokers: "" }, '"brokers" must be non-empty text or a list of one or more texts, not empty text'],
    [{ brokers: [] }, '"brokers" must be non-empty text or a list of one or more texts, not an empty list'],
    [{ brokers: ["a", ""] }, '"brokers.1" must be non-empty text, not empty text'],
    [{ tls: 1 }, '"tls" must be true or false or an object, not 1'],
    [{ topics: "a" }, '"topics" must be a list of one or more texts, not text'],
    [{ topics: ["a", "b", "a"] }, '"topics" has the same entry twice, as number 1 and 3'],
    [{ count: 0 }, '"count" must be a whole number from 1 to 9, not 0'],
    [{ count: 1.5 }, '"count" must be a whole number from 1 to 9, not 1.5'],
    [{ ratio: Number.NaN }, '"ratio" must be a number of at least 1, not NaN'],
    [{ name: "abcdef" }, '"name" must be text of 1 to 5 characters, not text of 6 characters'],
    [{ flag: "yes" }, '"flag" must be true or false, not text'],
    [
      { count: {}, flag: () => 1 },
      '"count" must be a whole number from 1 to 9, not an object',
      '"flag" must be true or false, not a function',
    ],
    [{ passphrase: 123456 }, '"passphrase" must be text, not a number'],
  ] as const) {
    const problems = optionProblems("source", choosing, options);
    assert.deepEqual(
      problems.map(({ code, message }) => [code, message]),
      lines.map((line) => ["option-invalid", `source: ${line}`]),
    );
    for (const { remedy } of problems) assert.match(remedy, /^(give|remove) /);
  }
});

test("in a choice that was plainly meant its own mistakes are told", () => {
  const told = (options: unknown) =>
    optionProblems("source", choosing, options).map(({ message, remedy }) => `${message} | ${remedy}`);
  assert.deepEqual(told({ tls: { cert: "x" } }), [
    'source needs the option "tls.key" with "tls.cert" | add tls.key, or leave out tls.cert',
  ]);
  assert.deepEqual(told({ tls: { sever: "x" } }), [
    'source has no option "tls.sever" | did you mean "server"?',
  ]);
  assert.deepEqual(told({ tls: { server: 5 } }), [
    'source: "tls.server" must be text, not a number | give text',
  ]);
});

test("nearest finds what was probably meant, and nothing where nothing is near", () => {
  assert.equal(nearest("cuont", ["count", "bytes", "within"]), "count");
  assert.equal(nearest("Count", ["count", "bytes"]), "count");
  assert.equal(nearest("emial", ["time", "email", "emails"], 1), "email");
  assert.equal(nearest("emali", ["email"], 0), undefined);
  assert.equal(nearest("elephant", ["count", "bytes"]), undefined);
  assert.equal(nearest("x", []), undefined);
});
