import assert from "node:assert/strict";
import { test } from "node:test";
import { freshName, needs, sharedKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { quietKafka } from "../kafka-log.ts";
import { CommitTail } from "./commit-tail.ts";

/** As the broker writes a commit to its log. */
function commitRecord(group: string, topic: string, partition: number, offset: number) {
  const text = (value: string) => {
    const bytes = Buffer.from(value);
    const length = Buffer.alloc(2);
    length.writeInt16BE(bytes.length);
    return [length, bytes];
  };
  const number = Buffer.alloc(4);
  number.writeInt32BE(partition);
  const value = Buffer.alloc(24);
  value.writeInt16BE(3);
  value.writeBigInt64BE(BigInt(offset), 2);
  return { key: Buffer.concat([Buffer.from([0, 1]), ...text(group), ...text(topic), number]), value };
}

test("a commit behind the last one is noted, whichever bytes it has", needs("kafka", "kcat"), async (t) => {
  const kafka = await sharedKafka();
  const log = await kafka.createTopic(freshName("commits"), { partitions: 1 });
  const tail = new CommitTail(kafka.bootstrap, "orders-etl", "orders", log);
  t.after(() => tail.stop());
  const producer = quietKafka(kafka.bootstrap).producer();
  await producer.connect();
  // 657930 is three line feeds. A group's own records, other groups and other topics are passed by.
  const messages = [
    commitRecord("orders-etl", "orders", 0, 5),
    commitRecord("orders-etl", "orders", 10, 657_930),
    { key: Buffer.from([0, 3, 10, 10]), value: Buffer.from("\n\n") },
    commitRecord("orders-etl", "orders", 0, 7),
    commitRecord("other", "orders", 0, 1),
    commitRecord("orders-etl", "other", 0, 1),
    commitRecord("orders-etl", "orders", 10, 657_929),
    { ...commitRecord("orders-etl", "orders", 0, 7), value: null },
    commitRecord("orders-etl", "orders", 0, 7),
    commitRecord("orders-etl", "orders", 0, 6),
  ];
  for (const message of messages) await producer.send({ topic: log, messages: [message] });
  await producer.disconnect();
  await until("all are read", () => tail.count === 6);
  assert.deepEqual(tail.regressions, ["orders/10: 657930 to 657929", "orders/0: 7 to 6"]);
});

test(
  "what an interval admits: the largest steps of all partitions, without those after a pause",
  needs("kafka", "kcat"),
  async (t) => {
    const kafka = await sharedKafka();
    const log = await kafka.createTopic(freshName("commits"), { partitions: 1 });
    const tail = new CommitTail(kafka.bootstrap, "orders-etl", "orders", log);
    t.after(() => tail.stop());
    const producer = quietKafka(kafka.bootstrap).producer();
    await producer.connect();
    const commits = [
      [0, 100, 0],
      [0, 110, 20],
      [1, 50, 20],
      [0, 135, 40],
      [1, 57, 60],
      [0, 1_000, 141],
      [0, 1_003, 150],
    ] as const;
    const began = Date.now();
    const messages = commits.map(([partition, offset, after]) => ({
      ...commitRecord("orders-etl", "orders", partition, offset),
      timestamp: String(began + after),
    }));
    await producer.send({ topic: log, messages });
    await producer.disconnect();
    await until("all are read", () => tail.count === commits.length);
    assert.equal(tail.admitted, 25 + 7);
  },
);
