import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { propertyRuns } from "../../../../testing/property-runs.ts";
import type { FieldValue, PublishSettings } from "../../driver.ts";
import { PublishFrames } from "./publish-frames.ts";

/** What amqplib reads frames with: not part of what it exports. */
const require = createRequire(import.meta.url);
const library = join(require.resolve("amqplib"), "../lib");
const frame = require(join(library, "frame.js")) as {
  parseFrame(bytes: Buffer, max: number): { rest: Buffer } | false;
  decodeFrame(frame: object): {
    id?: number;
    channel: number;
    fields?: object;
    size?: number;
    content?: Buffer;
  };
};

const frameMax = 4_096;

/** Publishes as amqplib's own reader understands them. */
function readBack(buffers: readonly Buffer[]) {
  const read: { fields: object; properties: Record<string, unknown>; content: Buffer }[] = [];
  for (const buffer of buffers) {
    let rest = buffer;
    while (rest.length > 0) {
      const parsed = frame.parseFrame(rest, frameMax);
      assert.notEqual(parsed, false, "each buffer holds whole frames");
      if (parsed === false) break;
      rest = parsed.rest;
      const { channel, fields, size, content } = frame.decodeFrame(parsed);
      assert.equal(channel, 7);
      if (content !== undefined) {
        const last = read.at(-1)!;
        last.content = Buffer.concat([last.content, content]);
      } else if (size !== undefined) {
        read.at(-1)!.properties = { ...fields, size };
      } else read.push({ fields: fields!, properties: {}, content: Buffer.alloc(0) });
    }
  }
  return read;
}

const short = fc.string({ maxLength: 60, unit: "grapheme" }).filter((text) => Buffer.byteLength(text) <= 255);
/** amqplib's reader sets a prototype instead of a field of that name, and takes "!" for one of its own. */
const name = short.filter((text) => text !== "__proto__" && text !== "!");
const scalar: fc.Arbitrary<FieldValue> = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.maxSafeInteger(),
  fc.integer({ min: -200, max: 200 }),
  fc.integer({ min: -70_000, max: 70_000 }),
  fc.double({ noNaN: true }),
  fc.boolean(),
  fc.constant(null),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  fc.nat().map((value) => ({ "!": "timestamp", value }) as const),
  fc.record({ places: fc.nat(9), digits: fc.nat() }).map((value) => ({ "!": "decimal", value }) as const),
);
const field = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 4 }),
  fc.dictionary(name, scalar, { maxKeys: 4, noNullPrototype: true }),
) as fc.Arbitrary<FieldValue>;
const settings: fc.Arbitrary<PublishSettings> = fc.record(
  {
    mandatory: fc.boolean(),
    headers: fc.dictionary(name, field, { maxKeys: 5, noNullPrototype: true }),
    contentType: short,
    contentEncoding: short,
    deliveryMode: fc.constantFrom(1, 2),
    priority: fc.nat(255),
    correlationId: short,
    replyTo: short,
    messageId: short,
    timestamp: fc.nat(),
    type: short,
    appId: short,
  },
  { requiredKeys: ["mandatory", "headers"] },
);
const message = fc.record({
  exchange: short,
  routingKey: short,
  content: fc.uint8Array({ maxLength: 10_000, size: "max" }).map((bytes) => Buffer.from(bytes)),
  settings,
});

/** Buffers, and whole numbers that amqplib gives back as they are. */
function comparable(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, each: unknown) => (Object.is(each, -0) ? 0 : each)));
}

test("amqplib reads what was written: any properties, headers and contents, each message whole", () => {
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 20 }), (messages) => {
      const frames = new PublishFrames(7, frameMax);
      for (const { exchange, routingKey, content, settings } of messages) {
        frames.add(exchange, routingKey, content, settings);
      }
      const read = readBack(frames.take());
      assert.equal(read.length, messages.length);
      for (const [i, { exchange, routingKey, content, settings }] of messages.entries()) {
        const { mandatory, ...properties } = settings;
        const { size, ...rest } = read[i]!.properties;
        const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
        assert.deepEqual(comparable(read[i]!.fields), {
          ticket: 0,
          exchange,
          routingKey,
          mandatory,
          immediate: false,
        });
        assert.equal(size, content.length);
        assert.deepEqual(comparable(given), comparable(properties));
        assert.ok(read[i]!.content.equals(content));
      }
      assert.deepEqual(frames.take(), []);
    }),
    propertyRuns(100),
  );
});

test("a message that AMQP cannot carry adds nothing", () => {
  const frames = new PublishFrames(7, frameMax);
  const plain = { mandatory: true, headers: {} };
  frames.add("", "orders", Buffer.from("one"), plain);
  assert.throws(
    () => frames.add("", "k".repeat(256), Buffer.from("two"), plain),
    /routing key has 256 bytes/,
  );
  const strange = { mandatory: true, headers: { a: 1, strange: (() => 1) as unknown as FieldValue } };
  assert.throws(() => frames.add("", "orders", Buffer.from("three"), strange), /cannot be a function/);
  assert.throws(
    () => frames.add("", "orders", Buffer.from("four"), { ...plain, type: "ü".repeat(128) }),
    /type has 256 bytes/,
  );
  frames.add("", "orders", Buffer.from("five"), plain);
  assert.deepEqual(
    readBack(frames.take()).map(({ content }) => content.toString()),
    ["one", "five"],
  );
});
