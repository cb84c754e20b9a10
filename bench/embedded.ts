// What the framework costs: the orders job on the embedded broker, from first fetch to last acknowledgement,
// against a plain loop over the same buffers that parses, validates and deduplicates them.
import { Ajv } from "ajv";
import { LRUCache } from "lru-cache";
import { PooledWork, systemClock, systemRandom } from "../src/component/system.ts";
import { RunEmbeddedBrokers } from "../src/runner/embedded-brokers.ts";
import { start } from "../src/runtime/run.ts";
import { compileFiles } from "../src/topology/load.ts";
import { orders } from "./orders.ts";
import { stopwatch, type Taken } from "./stopwatch.ts";

const [mode, countText] = process.argv.slice(2);
const count = Number(countText);
const values = [...orders(count)].map(({ key, value }) => ({
  key: Buffer.from(key),
  value: Buffer.from(value),
}));

async function pipeline(): Promise<Taken> {
  const { plans, problems } = await compileFiles(["topologies/orders.ts"]);
  const plan = plans?.[0];
  if (plan === undefined) throw new Error(problems.map(({ message }) => message).join("\n"));
  const silent = { debug() {}, info() {}, warn() {}, error() {} };
  const embedded = new RunEmbeddedBrokers();
  const context = {
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
    logger: silent,
    embedded,
  };
  const connection = plan.connections[0]!.connection;
  const full = { ...context, signal: new AbortController().signal, meter: { count() {} }, node: "bench" };
  await connection.create(full, plan.connections[0]!.requirements);
  connection.embedded(full)!.feed("orders", values);
  const taken = stopwatch();
  const run = start(plan, context);
  await run.started;
  while (run.status().conservation.delivered < count) await new Promise((resolve) => setTimeout(resolve, 2));
  const result = taken();
  const { accepted, delivered } = run.status().conservation;
  if (accepted !== count || delivered !== count)
    throw new Error(`accepted ${accepted}, delivered ${delivered}`);
  await run.drain();
  return result;
}

async function loop(): Promise<Taken> {
  const { order } = await import("../topologies/orders.schema.ts");
  const validate = new Ajv({ ownProperties: true }).compile<{ id: string; customer: string }>(order);
  const seen = new LRUCache<string, true>({ max: 100_000 });
  const out: { key: Buffer; value: Buffer }[] = [];
  const taken = stopwatch();
  for (const { value } of values) {
    const parsed: unknown = JSON.parse(value.toString());
    if (!validate(parsed)) throw new Error("not valid");
    if (seen.has(parsed.id)) continue;
    seen.set(parsed.id, true);
    out.push({ key: Buffer.from(parsed.customer), value });
  }
  const result = taken();
  if (out.length !== count) throw new Error(`${out.length} of ${count}`);
  return result;
}

const { took, cpu } = mode === "pipeline" ? await pipeline() : await loop();
console.log(
  JSON.stringify({
    throughput: count / (took / 1_000),
    cpu: cpu / count,
    peakMiB: process.resourceUsage().maxRSS / 1_024,
  }),
);
