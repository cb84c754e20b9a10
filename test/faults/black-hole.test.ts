/** A connection that stays open and on which no answer ever comes: it is given up, and the work goes on. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { orders } from "../../bench/orders.ts";
import { needs, ownKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { countOf, fill } from "../kafka-log.ts";
import { freshFolder, millrace } from "../millrace.ts";
import { kafkaFrames } from "./kafka-frames.ts";
import { Faults, TcpProxy } from "./proxy.ts";

for (const driver of ["wire", "kafkajs"]) {
  test(`black holes under a Kafka source and sink, driver ${driver}`, {
    ...needs("own kafka"),
    timeout: 200_000,
  }, async (t) => {
    const kafka = await ownKafka(t, { proxied: true });
    const faults = new Faults();
    const [door] = kafka.doors;
    const proxy = await TcpProxy.start(kafkaFrames, faults, door!.advertised, door!.listens);
    t.after(() => proxy.close());
    for (const topic of ["in", "out", "dead"]) await kafka.createTopic(topic);
    const file = join(freshFolder(t), "copy.ts");
    writeFileSync(
      file,
      `import { decode, env, kafka, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), requestTimeout: "2s", driver: "${driver}" });
export default topology("copy", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "copy", sessionTimeout: "6s", heartbeatInterval: "1s" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "out", maxBackoff: "500ms" }));
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`,
    );
    const runner = millrace(t, ["run", file], { KAFKA_BROKERS: `127.0.0.1:${proxy.port}` });
    await runner.logged("partitions assigned", 60_000);
    let wanted = 0;
    for (const [direction, kind] of [
      ["request", "Produce"],
      ["reply", "Produce"],
      ["reply", "OffsetCommit"],
      // kafkajs' consumer gives up only after several attempts; half a minute.
      ["reply", "Fetch"],
    ] as const) {
      await t.test(`${direction} ${kind}`, async () => {
        const struck = faults.inject({ direction, kind, action: "black hole" });
        wanted += await fill(kafka.bootstrap, "in", orders(1_000));
        await struck;
        // Something new must come through, however much of the first was repeated.
        const before = await countOf(kafka.bootstrap, "out");
        wanted += await fill(kafka.bootstrap, "in", orders(1_000));
        await until(
          "it delivers",
          async () => {
            const count = await countOf(kafka.bootstrap, "out");
            return count >= wanted && count > before;
          },
          40_000,
        );
      });
    }
    const { code, stderr } = await runner.stop();
    assert.equal(code, 0, stderr);
  });
}
