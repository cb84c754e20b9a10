import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { EmbeddedBroker, FedMessage, StoredMessage } from "../component/embedded.ts";
import { recordForm } from "./dump.ts";
import { UsageError } from "./exit-code.ts";
import { fedMessage, feed, linesOf, parseFeed } from "./feed.ts";

async function* pieces(content: Buffer, sizes: readonly number[] = []): AsyncGenerator<Buffer> {
  let from = 0;
  for (const size of sizes) {
    yield content.subarray(from, from + size);
    from += size;
  }
  yield content.subarray(from);
}

async function lines(content: string | Buffer, sizes?: readonly number[]): Promise<string[]> {
  const found: string[] = [];
  for await (const line of linesOf(pieces(Buffer.from(content), sizes))) found.push(line.toString("latin1"));
  return found;
}

test("--feed splits at the first =", () => {
  assert.deepEqual(parseFeed("orders=data/a=b.ndjson"), { target: "orders", file: "data/a=b.ndjson" });
  for (const wrong of ["orders", "=file", "orders=", ""]) assert.throws(() => parseFeed(wrong), UsageError);
});

test("lines are taken as they are, without their ends and a byte order mark", async () => {
  assert.deepEqual(await lines("\ufeffa\r\n\n  b \nc"), ["a", "", "  b ", "c"]);
  assert.deepEqual(await lines("a\n\ufeffb"), ["a", Buffer.from("\ufeffb").toString("latin1")]);
  assert.deepEqual(await lines("a\n"), ["a"]);
  assert.deepEqual(await lines(""), []);
  assert.deepEqual(await lines(Buffer.from([0xff, 0x0a, 0x80])), ["\xff", "\x80"]);
});

test("lines do not depend on how the file is read", async () => {
  const content = fc.string({ unit: fc.constantFrom("a", "\n", "\r", "ü"), maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(content, fc.array(fc.nat(5), { maxLength: 10 }), async (text, sizes) => {
      const expected = text
        .split("\n")
        .map((line) => line.replace(/\r$/, ""))
        .map((line) => Buffer.from(line).toString("latin1"));
      // What comes after the last line feed is a line only if there is something.
      if (expected.at(-1) === "") expected.pop();
      assert.deepEqual(await lines(text, sizes), expected);
    }),
  );
});

const value = (line: string) => fedMessage(Buffer.from(line));

test("a line that is exactly the record form is taken apart", () => {
  assert.deepEqual(value('{"value":"v","key":null}'), { value: Buffer.from("v"), key: null });
  assert.deepEqual(value('{"key":{"base64":"/wA="},"value":null,"partition":3,"offset":9,"timestamp":5}'), {
    value: null,
    key: Buffer.from([0xff, 0]),
    partition: 3,
    timestamp: 5,
  });
  assert.deepEqual(value('{"value":"v","headers":[["a","1"],["a",{"base64":"gA=="}],["n",null],["i",3]]}'), {
    value: Buffer.from("v"),
    headers: [
      ["a", "1"],
      ["a", Buffer.from([0x80])],
      ["n", null],
      ["i", 3],
    ],
  });
});

test("any other line is the value itself", () => {
  for (const line of [
    "text",
    "{",
    "null",
    '"value"',
    "[]",
    '{"value":"v"}',
    '{"key":"k","headers":[]}',
    '{"value":"v","key":"k","id":1}',
    '{"value":5,"key":"k"}',
    '{"value":"v","key":5}',
    '{"value":"v","partition":-1}',
    '{"value":"v","partition":"0"}',
    '{"value":"v","timestamp":1.5}',
    '{"value":"v","headers":{"a":"b"}}',
    '{"value":"v","headers":[["a"]]}',
    '{"value":{"base64":"not base64"},"key":"k"}',
    '{"value":{"base64":"AA==","more":1},"key":"k"}',
    '{"value":"\\ud800","key":"k"}',
    '{"value":"v","__proto__":null}',
  ]) {
    assert.deepEqual(value(line), { value: Buffer.from(line) }, line);
  }
});

test("what was dumped is fed again as it was", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 8 }).map((array) => Buffer.from(array)),
    fc.string({ unit: "grapheme", maxLength: 8 }).map((text) => Buffer.from(text)),
  );
  const maybe = fc.option(bytes, { nil: null });
  const stored: fc.Arbitrary<StoredMessage> = fc.record({
    partition: fc.nat(20),
    position: fc.maxSafeNat(),
    key: maybe,
    value: maybe,
    headers: fc.array(fc.tuple(fc.string({ maxLength: 5 }), maybe), { maxLength: 3 }),
    timestamp: fc.integer({ min: -1 }),
  });
  const asBytes = (header: unknown) => (typeof header === "string" ? Buffer.from(header) : header);
  fc.assert(
    fc.property(stored, (message) => {
      const fed = fedMessage(Buffer.from(recordForm(message)));
      assert.deepEqual(fed.value, message.value);
      assert.deepEqual(fed.key, message.key);
      assert.equal(fed.partition, message.partition);
      assert.equal(fed.timestamp, message.timestamp);
      assert.deepEqual(
        (fed.headers ?? []).map(([name, header]) => [name, asBytes(header)]),
        message.headers,
      );
    }),
  );
});

test("a file is published in portions, in order", async () => {
  const portions: (readonly FedMessage[])[] = [];
  const broker: EmbeddedBroker = {
    targets: () => [],
    feed: (target, messages) => {
      assert.equal(target, "orders");
      portions.push(messages);
    },
    contents: () => [],
  };
  const content = Buffer.from(Array.from({ length: 2_500 }, (_, i) => `${i}\n`).join(""));
  assert.deepEqual(await feed(broker, "orders", pieces(content, [7, 4_000])), {
    messages: 2_500,
    emptyLines: 0,
    nearlyRecords: 0,
    firstNearly: undefined,
  });
  assert.deepEqual(
    portions.map(({ length }) => length),
    [1_000, 1_000, 500],
  );
  assert.deepEqual(
    portions.flat().map((message) => Number(message.value)),
    Array.from({ length: 2_500 }, (_, i) => i),
  );
});

test("lines that are empty, and those that are nearly the record form, are counted", async () => {
  const fed: FedMessage[] = [];
  const broker: EmbeddedBroker = {
    targets: () => [],
    feed: (_, messages) => fed.push(...messages),
    contents: () => [],
  };
  const near = [
    '{"value":"v","timestamp":"x"}',
    '{"value":"v","timestamp":1.5}',
    '{"value":"v","partition":-1}',
    '{"value":"v","headers":{"a":"b"}}',
    '{"value":null,"key":{"base64":"!!"}}',
    '{"value":{"base64":"!!"},"key":"k"}',
  ];
  const others = [
    "text",
    '{"value":21.5,"timestamp":1}',
    '{"value":{"a":1},"key":5}',
    '{"value":"v"}',
    '{"value":"v","unit":"C","key":5}',
    '{"value":"v","key":"k"}',
  ];
  const text = ["", ...others, "\r", ...near, "", ""].join("\n");
  const { messages, ...counted } = await feed(broker, "orders", pieces(Buffer.from(text)));
  assert.equal(messages, near.length + others.length);
  assert.equal(fed.length, messages);
  assert.deepEqual(counted, { emptyLines: 3, nearlyRecords: near.length, firstNearly: others.length + 3 });
});
