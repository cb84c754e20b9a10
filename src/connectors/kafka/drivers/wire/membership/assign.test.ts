import assert from "node:assert/strict";
import { test } from "node:test";
import {
  decodeConsumerProtocolAssignment,
  decodeConsumerProtocolSubscription,
  encodeConsumerProtocolAssignment,
  encodeConsumerProtocolSubscription,
} from "@platformatic/kafka";
import fc from "fast-check";
import { assign } from "./assign.ts";
import {
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
} from "./consumer-protocol.ts";

const topics = ["a", "b", "c"];

const candidates = fc.uniqueArray(
  fc.record({ member: fc.string({ minLength: 1 }), topics: fc.subarray(topics) }),
  { selector: ({ member }) => member, minLength: 1, maxLength: 8 },
);

test("every partition goes to one member that reads its topic, whatever the order of the members", () => {
  fc.assert(
    fc.property(candidates, fc.array(fc.nat(12), { minLength: 3, maxLength: 3 }), (members, counts) => {
      const partitionsOf = (topic: string) => counts[topics.indexOf(topic)]!;
      const shares = assign(members, partitionsOf);
      assert.deepEqual(shares, assign([...members].reverse(), partitionsOf));
      const dealt = [...shares].flatMap(([member, share]) =>
        share.flatMap(({ topic, partitions }) => {
          assert.ok(members.find((one) => one.member === member)!.topics.includes(topic));
          return partitions.map((partition) => `${topic}/${partition}`);
        }),
      );
      const read = topics.filter((topic) => members.some((one) => one.topics.includes(topic)));
      const all = read.flatMap((topic) =>
        Array.from({ length: partitionsOf(topic) }, (_, partition) => `${topic}/${partition}`),
      );
      assert.deepEqual(dealt.sort(), all.sort());
    }),
  );
});

test("members that read the same have as many, give or take one", () => {
  const members = ["x", "y", "z"].map((member) => ({ member, topics: ["a", "b"] }));
  const counts = [...assign(members, () => 5).values()].map((share) =>
    share.reduce((sum, { partitions }) => sum + partitions.length, 0),
  );
  assert.deepEqual(counts.sort(), [3, 3, 4]);
});

test("other clients read what we write, of every version they know, and we what they write", () => {
  const share = [
    { topic: "a", partitions: [0, 2] },
    { topic: "b", partitions: [1] },
  ];
  assert.deepEqual(decodeSubscription(encodeSubscription(["b", "a"])), ["b", "a"]);
  assert.deepEqual(decodeConsumerProtocolSubscription(encodeSubscription(["a"])).topics, ["a"]);
  assert.deepEqual(decodeAssignment(encodeAssignment(share)), share);
  assert.deepEqual(decodeConsumerProtocolAssignment(encodeAssignment(share)).assignedPartitions, share);
  for (const version of [0, 1, 2, 3]) {
    const theirs = encodeConsumerProtocolSubscription({
      version,
      topics: ["a", "b"],
      userData: Buffer.from("x"),
      ownedPartitions: share,
    } as Parameters<typeof encodeConsumerProtocolSubscription>[0]);
    assert.deepEqual(decodeSubscription(theirs), ["a", "b"]);
    const assignment = encodeConsumerProtocolAssignment({
      version,
      assignedPartitions: share,
      userData: null,
    } as unknown as Parameters<typeof encodeConsumerProtocolAssignment>[0]);
    assert.deepEqual(decodeAssignment(assignment), share);
  }
  // A member that is to have nothing may be told so with no bytes at all.
  assert.deepEqual(decodeAssignment(Buffer.alloc(0)), []);
});
