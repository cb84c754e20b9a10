/**
 * A sink that stands still while the input goes on: what is in flight stays within its limit and memory flat, the
 * consumer stays in its group, and full speed comes back as soon as the sink does.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { orders } from "../../bench/orders.ts";
import { freshName, needs, ownKafka, sharedKafka } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { fill } from "../kafka-log.ts";
import { freshFolder, millrace } from "../millrace.ts";

/** How long the sink stands still: a minute where brokers are required, as on a machine for continuous integration. */
const stall = process.env.MILLRACE_REQUIRE_BROKERS === "1" ? 60_000 : 10_000;
const credit = 10_000;

test(`a sink stalled for ${stall / 1_000} s`, {
  ...needs("kafka", "own kafka"),
  timeout: 240_000,
}, async (t) => {
  const [from, to] = [await sharedKafka(), await ownKafka(t)];
  const prefix = freshName("stall");
  const [input, output] = [`${prefix}.in`, `${prefix}.out`];
  await from.createTopic(input);
  await to.createTopic(output);
  await fill(from.bootstrap, input, orders(400_000));
  const file = join(freshFolder(t), "stall.ts");
  writeFileSync(
    file,
    `import { decode, env, kafka, topology } from "millrace";
const from = kafka({ brokers: env("FROM") });
const to = kafka({ brokers: env("TO") });
export default topology("${prefix}", (t) => {
  t.from(from.source({ topics: ["${input}"], group: "${prefix}", credit: ${credit}, sessionTimeout: "10s" }))
    .pipe(decode("json"))
    .to(to.sink({ topic: "${output}" }));
  t.deadLetters(to.sink({ topic: "${output}" }));
});
`,
  );
  const runner = millrace(t, ["run", file, "--http", "127.0.0.1:0"], {
    FROM: from.bootstrap,
    TO: to.bootstrap,
  });
  await until("it delivers", async () => (await runner.status()).conservation.delivered > 20_000, 60_000);
  to.pause();
  await until(
    "all credit is used",
    async () => (await runner.status()).conservation.inFlight > credit * 0.6,
    30_000,
  );
  const before = await runner.status();
  const memory = await runner.memory();
  let most = memory;
  const end = performance.now() + stall;
  await until(
    "the stall is over",
    async () => {
      const status = await runner.status();
      assert.ok(status.conservation.inFlight <= credit, `${status.conservation.inFlight} in flight`);
      most = Math.max(most, await runner.memory());
      return performance.now() >= end;
    },
    stall + 30_000,
  );
  const during = await runner.status();
  assert.deepEqual(
    during.sources[0]!.lanes.map(({ epoch }) => epoch),
    before.sources[0]!.lanes.map(({ epoch }) => epoch),
    "the consumer stayed in its group",
  );
  const growth = (most - memory) / 2 ** 20;
  t.diagnostic(
    `${stall / 1_000} s stalled: at most ${during.conservation.inFlight} in flight, ${growth.toFixed(1)} MiB more memory`,
  );
  assert.ok(growth <= 64, `memory grew by ${growth} MiB`);
  to.resume();
  const released = performance.now();
  await until(
    "it delivers again",
    async () => (await runner.status()).conservation.delivered > during.conservation.delivered,
    30_000,
  );
  const first = performance.now() - released;
  const { delivered } = (await runner.status()).conservation;
  await until(
    "it goes on",
    async () => (await runner.status()).conservation.delivered >= delivered + 20_000,
    30_000,
  );
  t.diagnostic(
    `the first delivery came ${Math.round(first)} ms after the release, 20,000 more ${Math.round(performance.now() - released)} ms after it`,
  );
  const { code, stderr } = await runner.stop();
  assert.equal(code, 0, stderr);
});
