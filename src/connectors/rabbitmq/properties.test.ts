import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import type { Headers, HeaderValue } from "../../message/records.ts";
import type { Delivery, FieldTable, Properties, PublishSettings } from "./driver.ts";
import { Deliveries, headersOf, propertiesOf } from "./properties.ts";

const outgoing = {
  key: null as Buffer | null,
  headers: [] as Headers,
  tombstone: false,
  timestamp: 0,
  persistent: true,
  mandatory: true,
};

function written(message: Partial<typeof outgoing>): PublishSettings {
  const settings = propertiesOf({ ...outgoing, ...message });
  assert.ok(!("code" in settings), JSON.stringify(settings));
  return settings;
}

function delivered(properties: Properties, content = Buffer.alloc(0), exchange = ""): Delivery {
  return { fields: { deliveryTag: 1, redelivered: false, exchange, routingKey: "rk" }, properties, content };
}

const read = (...deliveries: Delivery[]) => new Deliveries(deliveries, 1_234, false);

test("each property has its header, and most go back to where they were", () => {
  const properties = {
    contentType: "a/b",
    contentEncoding: "gzip",
    messageId: "m",
    correlationId: "c",
    replyTo: "r",
    type: "t",
    appId: "app",
    expiration: "5",
    userId: "guest",
    priority: 2,
  };
  const headers = headersOf({
    ...delivered(properties, undefined, "x"),
    fields: { deliveryTag: 1, redelivered: true, exchange: "x", routingKey: "rk" },
  });
  assert.deepEqual(headers, [
    ["content-type", "a/b"],
    ["content-encoding", "gzip"],
    ["amqp-message-id", "m"],
    ["amqp-correlation-id", "c"],
    ["amqp-reply-to", "r"],
    ["amqp-type", "t"],
    ["amqp-app-id", "app"],
    ["amqp-expiration", "5"],
    ["amqp-user-id", "guest"],
    ["amqp-priority", 2],
    ["amqp-exchange", "x"],
    ["amqp-routing-key", "rk"],
    ["amqp-redelivered", true],
  ]);
  const { headers: table, mandatory, deliveryMode, timestamp, ...rest } = written({ headers });
  const { expiration, userId, ...kept } = properties;
  assert.deepEqual(rest, kept);
  assert.deepEqual({ ...table }, { "amqp-expiration": expiration, "amqp-user-id": userId });
  assert.deepEqual([mandatory, deliveryMode, timestamp], [true, 2, 0]);
});

test("a property that AMQP cannot hold stays a header", () => {
  const long = "x".repeat(256);
  const settings = written({
    headers: [
      ["amqp-message-id", long],
      ["amqp-correlation-id", 7],
      ["amqp-priority", 256],
      ["amqp-priority", "3"],
      ["content-type", Buffer.from([0xff])],
    ],
  });
  assert.deepEqual(
    { ...settings.headers },
    {
      "amqp-message-id": long,
      "amqp-correlation-id": 7,
      "amqp-priority": 256,
      "content-type": Buffer.from([0xff]),
    },
  );
  assert.equal(settings.priority, 3);
});

test("orders to the broker and facts of an earlier delivery are not written", () => {
  const settings = written({
    headers: [
      "CC",
      "BCC",
      "amqp-routing-key",
      "amqp-exchange",
      "amqp-redelivered",
      "millrace-tag",
      "millrace-key",
    ].map((name) => [name, "x"] as const),
  });
  assert.deepEqual({ ...settings.headers }, {});
});

test("tables and lists become JSON text, timestamps and decimals numbers", () => {
  const table: FieldTable = {
    "x-death": [
      { count: 2, time: { "!": "timestamp", value: 99 }, "routing-keys": ["a"], raw: Buffer.from([0xff]) },
    ],
    price: { "!": "decimal", value: { places: 2, digits: 1_250 } },
    nested: { text: Buffer.from("ü"), list: [1, null, true] },
    "millrace-tag": 7,
  };
  assert.deepEqual(headersOf(delivered({ headers: table })), [
    ["x-death", '[{"count":2,"time":99,"routing-keys":["a"],"raw":{"base64":"/w=="}}]'],
    ["price", 12.5],
    ["nested", '{"text":"ü","list":[1,null,true]}'],
  ]);
});

test("a timestamp is in seconds, unless it is so large that it must be milliseconds", () => {
  const at = (timestamp: number | undefined) =>
    read(delivered(timestamp === undefined ? {} : { timestamp })).timestamp(0);
  assert.equal(at(1_700_000_000), 1_700_000_000_000);
  assert.equal(at(1_700_000_000_123), 1_700_000_000_123);
  assert.equal(at(0), 0);
  assert.equal(at(undefined), 1_234);
  assert.equal(written({ timestamp: -1 }).timestamp, undefined);
  assert.equal(written({ timestamp: 1_999 }).timestamp, 1);
});

test("the key is the routing key where that is asked for", () => {
  const records = new Deliveries([delivered({ headers: { "millrace-key": "k" } })], 0, true);
  assert.equal(records.key(0)?.toString(), "rk");
});

test("only an empty body that says so is a tombstone", () => {
  const said = { headers: { "millrace-tombstone": true } };
  assert.equal(read(delivered(said)).value(0), null);
  assert.equal(
    read(delivered(said, Buffer.from("x")))
      .value(0)
      ?.toString(),
    "x",
  );
  assert.equal(read(delivered({})).value(0)?.length, 0);
});

test("no table is larger than the client's buffer", () => {
  const refused = (headers: Headers, key: Buffer | null = null) => {
    const settings = propertiesOf({ ...outgoing, headers, key });
    return "code" in settings ? settings.code : undefined;
  };
  assert.equal(refused([["a", "x".repeat(61_000)]]), undefined);
  assert.equal(refused([["a", "x".repeat(62_000)]]), "record-too-large");
  assert.equal(refused(Array.from({ length: 8_000 }, (_, i) => [`h${i}`, i] as const)), "record-too-large");
  assert.equal(refused([], Buffer.alloc(70_000)), "record-too-large");
  assert.equal(refused([["ü".repeat(128), 1]]), "record-refused");
});

/** What a header is when it has gone through AMQP: bytes that are text come back as text, odd numbers as text. */
function expected(value: HeaderValue): HeaderValue {
  if (Buffer.isBuffer(value)) return isUtf8(value) ? value.toString() : value;
  return typeof value === "number" && !(value > -(2 ** 63) && value < Number.POSITIVE_INFINITY)
    ? String(value)
    : value;
}

const value: fc.Arbitrary<HeaderValue> = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.integer(),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
  fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
);
const name = fc.oneof(
  { weight: 8, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 10 }) },
  { weight: 1, arbitrary: fc.constantFrom("__proto__", "constructor", "toString", "!", "x-death") },
);

test("property: keys, null values and headers of any name come back, each header once", () => {
  const headers = fc.uniqueArray(fc.tuple(name, value), { selector: ([own]) => own, maxLength: 8 });
  const key = fc.option(fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)));
  fc.assert(
    fc.property(headers, key, fc.boolean(), (given, key, tombstone) => {
      const settings = written({ headers: given, key, tombstone });
      const records = read(delivered(settings));
      assert.deepEqual(records.key(0), key);
      assert.equal(records.value(0) === null, tombstone);
      // Names that look like numbers come first in any JavaScript object: the order is not AMQP's to keep.
      const byName = (list: Headers) =>
        list.map(([own, of]) => [own, of] as const).toSorted(([a], [b]) => (a < b ? -1 : 1));
      assert.deepEqual(
        byName(records.headers(0)),
        byName(given.map(([own, of]) => [own, expected(of)] as const)),
      );
      assert.equal(records.headers(0), records.headers(0));
      assert.ok(records.size(0) >= 0);
      assert.equal(({} as { admin?: boolean }).admin, undefined);
    }),
  );
});
