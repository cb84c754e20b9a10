import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "./addresses.ts";
import { kafka } from "./index.ts";

test("an address is a name or an IP address, and a port", () => {
  assert.deepEqual(parseAddress("broker-1.example_net:9092"), { host: "broker-1.example_net", port: 9092 });
  assert.deepEqual(parseAddress("127.0.0.1:1"), { host: "127.0.0.1", port: 1 });
  assert.deepEqual(parseAddress("[::1]:65535"), { host: "::1", port: 65_535 });
  for (const broker of [
    "h",
    "h:",
    "h:0",
    "h:65536",
    "h:99999",
    "h:abc",
    "h:1:2",
    "::1:9092",
    "[h]:1",
    "[::1]",
    "[]:1",
    ":1",
    "h;i:1",
    "h i:1",
    "kafka://h:1",
    "",
  ])
    assert.equal(parseAddress(broker), undefined, broker);
});

const problemsOf = (brokers: string | string[]) => kafka({ brokers }).problems ?? [];

const wrong: Readonly<Record<string, { brokers: string | string[]; told: string[]; remedy: RegExp }>> = {
  "no port": { brokers: "localhost", told: ["localhost"], remedy: /add the port: "localhost:9092"/ },
  "no number": { brokers: "localhost:abc", told: ["localhost:abc"], remedy: /port from 1 to 65535/ },
  "no such port": { brokers: ["a:1", "b:99999"], told: ["b:99999"], remedy: /port from 1 to 65535/ },
  "the wrong comma": { brokers: "h:1;k:2", told: ["h:1;k:2"], remedy: /commas/ },
  "a URL": { brokers: "kafka://127.0.0.1:1", told: ["kafka://127.0.0.1:1"], remedy: /without a protocol/ },
  "bare IPv6": { brokers: "::1:9092,fe80::1", told: ["::1:9092", "fe80::1"], remedy: /in brackets/ },
};

for (const [what, { brokers, told, remedy }] of Object.entries(wrong)) {
  test(`an address that cannot be one is told when it is declared: ${what}`, () => {
    const problems = problemsOf(brokers);
    assert.deepEqual(
      problems.map(({ code, message }) => [code, message]),
      told.map((broker) => ["option-invalid", `kafka: "brokers": "${broker}" is not an address`]),
    );
    for (const problem of problems) assert.match(problem.remedy, remedy);
  });
}

test("brokers that name no address at all are told; a URL's password is not", () => {
  assert.match(problemsOf(" , ")[0]!.message, /names no address/);
  const [problem] = problemsOf("kafka://user:hunter2@h:1");
  assert.doesNotMatch(problem!.message, /hunter2/);
  assert.deepEqual(problemsOf(" a:1, [::1]:2 ,,"), []);
});
