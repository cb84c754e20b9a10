import assert from "node:assert/strict";
import { test } from "node:test";
import { addressName, parseAddress } from "./connection.ts";
import {
  checkVersions,
  chooseApi,
  chooseVersion,
  fetchRequest,
  groupHeartbeatRequest,
  initProducerIdRequest,
  understands,
} from "./requests.ts";

const kafka41 = new Map(
  [
    [0, 3, 13],
    [1, 4, 18],
    [2, 1, 11],
    [3, 0, 13],
    [8, 2, 10],
    [9, 1, 10],
    [10, 0, 6],
    [11, 2, 9],
    [12, 0, 4],
    [13, 0, 5],
    [14, 0, 5],
    [22, 0, 6],
    [68, 0, 1],
  ].map(([key, min, max]) => [key!, { min: min!, max: max! }]),
);

test("of the versions in common the newest is used", () => {
  checkVersions(kafka41, "b");
  assert.equal(chooseVersion(fetchRequest, kafka41, "b"), 17);
  assert.equal(chooseVersion(fetchRequest, new Map([[1, { min: 4, max: 14 }]]), "b"), 14);
  assert.equal(chooseApi(initProducerIdRequest, kafka41, "b").version, 5);
  assert.equal(chooseApi(initProducerIdRequest, new Map([[22, { min: 0, max: 4 }]]), "b").version, 4);
  assert.equal(understands(groupHeartbeatRequest, kafka41), true);
  assert.equal(understands(groupHeartbeatRequest, new Map([[68, { min: 0, max: 0 }]])), false);
  assert.equal(understands(groupHeartbeatRequest, new Map()), false);
});

test("a broker that is too old, or too new, is refused at once, by name", () => {
  for (const [range, theirs] of [
    [{ min: 0, max: 12 }, "versions 0 to 12"],
    [{ min: 18, max: 20 }, "versions 18 to 20"],
    [undefined, "none"],
  ] as const) {
    const versions = new Map(kafka41);
    if (range === undefined) versions.delete(1);
    else versions.set(1, range);
    assert.throws(() => checkVersions(versions, "kafka-7:9092"), {
      code: "unsupported",
      message: `broker kafka-7:9092 understands ${theirs} of Fetch requests, and the driver "wire" writes versions 13 to 17: it needs Kafka 3.2 or newer, kafka({ driver: "kafkajs" }) does with older ones`,
    });
  }
});

test("addresses: names, IPv4, bracketed IPv6, with and without a port", () => {
  for (const [text, host, port] of [
    ["kafka.example:9093", "kafka.example", 9093],
    ["127.0.0.1", "127.0.0.1", 9092],
    ["[::1]:9094", "::1", 9094],
    ["[fe80::1]", "fe80::1", 9092],
  ] as const) {
    assert.deepEqual(parseAddress(text), { host, port });
    assert.equal(addressName({ host, port }), host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);
  }
});
