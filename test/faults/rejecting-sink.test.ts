/**
 * A sink topic that refuses everything for a while, under a topology that drops repeats: a consumer that marks an id as
 * seen before it is delivered loses the messages of that while; one that gives up goes idle. Ours does neither.
 *
 * MILLRACE_REJECTED_ORDERS: how many orders flow, 80,000 unless told otherwise.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { orders } from "../../bench/orders.ts";
import { freshName, needs, sharedKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { committedOf, fill, quietKafka, readTopic } from "../kafka-log.ts";
import { freshFolder, millrace } from "../millrace.ts";

const count = Number(process.env.MILLRACE_REJECTED_ORDERS ?? 80_000);
/** One order in so many is sent twice. */
const repeat = 100;
/** How long the topic refuses everything, ms. */
const refusing = 4_000;

for (const driver of ["wire", "kafkajs"] as const) {
  test(`driver ${driver}: a topic that refuses everything for ${refusing / 1_000} s loses nothing and repeats nothing`, {
    ...needs("kafka"),
    timeout: 600_000,
  }, async (t) => {
    const kafka = await sharedKafka();
    const { bootstrap } = kafka;
    const name = freshName("rejecting");
    for (const end of ["in", "out", "dead"]) await kafka.createTopic(`${name}.${end}`, { partitions: 4 });
    const admin = quietKafka(bootstrap).admin();
    await admin.connect();
    t.after(() => admin.disconnect());
    const limit = (configEntries: { name: string; value: string }[]) =>
      admin.alterConfigs({
        validateOnly: false,
        resources: [{ type: 2, name: `${name}.out`, configEntries }],
      });

    const sent = await fill(bootstrap, `${name}.in`, orders(count, 1_000, repeat));
    const file = join(freshFolder(t), "rejecting.ts");
    writeFileSync(
      file,
      `import { batch, decode, dedup, env, kafka, key, topology } from "millrace";
const cluster = kafka({ brokers: env("KAFKA_BROKERS"), driver: "${driver}" });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}", credit: 2_000 }))
    .pipe(
      decode("json"),
      key((o: { customer: string; id: string }) => o.customer),
      dedup({ id: (o: { id: string }) => o.id, capacity: ${2 * count}, ttl: "1h" }),
      batch({ count: 200, within: "20ms" }),
    )
    .to(cluster.sink({ topic: "${name}.out" }));
  t.deadLetters(cluster.sink({ topic: "${name}.dead" }));
});
`,
    );
    const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], { KAFKA_BROKERS: bootstrap });
    await until(
      "it delivers",
      async () => (await runner.status()).conservation.delivered > count / 20,
      60_000,
    );
    await limit([{ name: "max.message.bytes", value: "1" }]);
    await until("status names the trouble", async () => {
      const [sink] = (await runner.status()).sinks;
      return sink!.ready === false && sink!.reason?.includes(`${name}.out`) === true;
    });
    const since = performance.now();
    const atTrouble = (await runner.status()).conservation.delivered;
    assert.ok(atTrouble < count, "the trouble came before the end");
    await until(
      "it has lasted",
      async () => {
        const { ready, conservation } = await runner.status();
        assert.equal(ready, false, "and is told all the while");
        assert.equal(conservation.deadLettered, 0, "no message is to blame");
        return performance.now() - since >= refusing;
      },
      refusing + 60_000,
    );
    await limit([]);

    await until(
      "all is committed",
      async () => (await committedOf(bootstrap, name, `${name}.in`)) === sent,
      300_000,
    );
    await until("it is well again", async () => (await runner.status()).ready);
    const { code, stdout } = await runner.stop();
    assert.equal(code, 0, runner.stderr);
    const repeated = sent - count;
    assert.match(stdout, new RegExp(`accepted ${sent} = delivered ${count} \\+ duplicate ${repeated}\\n$`));
    const ids = (await readTopic(bootstrap, `${name}.out`)).map(
      ({ value }) => (JSON.parse(value!) as { id: string }).id,
    );
    assert.equal(new Set(ids).size, count, "no id is lost");
    assert.equal(ids.length, count, "no id is repeated");
    t.diagnostic(`${sent} orders in, ${ids.length} out; delivered when the trouble came: ${atTrouble}`);
  });
}
