import { compare } from "./compare.ts";
import { jobs } from "./jobs.ts";
import { microJobs } from "./micro.ts";
import { save, saved } from "./report.ts";

/** By what is compared: how many times more processor time a message costs the other than ours. */
type Ratios = Readonly<Record<string, number>>;

interface Comparison {
  readonly job: string;
  readonly peer: string;
  readonly messages: number;
}

/** Small enough for every run of the checks, of which brokers' starts take the most. */
const comparisons: readonly Comparison[] = [
  { job: "orders", peer: "kafkajs", messages: 200_000 },
  { job: "rabbitmq-rabbitmq", peer: "amqplib", messages: 30_000 },
  { job: "embedded", peer: "plain loop", messages: 100_000 },
  { job: "record-batch-encode", peer: "kafkajs", messages: 20_000 },
  { job: "record-batch-decode", peer: "kafkajs", messages: 20_000 },
];

/** Machines drift by half: below that part of what was saved it is not the machine. */
const tolerated = 0.6;
/** ns that an operator which does nothing may add to a message. */
const allowedNanos = 150;

interface Check {
  readonly what: string;
  measure(): Promise<number>;
}

const checks: readonly Check[] = [
  ...comparisons.map(({ job, peer, messages }) => ({
    what: `${job} against ${peer}`,
    async measure() {
      const result = await compare(jobs.find(({ name }) => name === job)!, {
        pairs: 1,
        peers: [peer],
        messages,
        during: 0,
        save: false,
        brief: true,
      });
      // Processor time, as other work on the machine lengthens everything else.
      return 1 / (result.ratios[peer]?.steadyCpu?.median ?? Number.NaN);
    },
  })),
  {
    what: "operators that do nothing against what they may cost",
    async measure() {
      const found = await microJobs.find(({ name }) => name === "operator-chain")!.run(1, false);
      // Not against anything that is measured beside it, so what is better than allowed counts for no more than that.
      return Math.min(1, allowedNanos / Math.max(...Object.values(found).map(({ median }) => median)));
    },
  },
];

/** Prints ratios of short runs beside those that were saved; false when one has collapsed, twice. */
export async function smoke(keep: boolean): Promise<boolean> {
  const stored = (await saved<Ratios>("smoke")) ?? {};
  const hasFallen = (what: string, ratio: number) => !(ratio >= tolerated * (stored[what] ?? 0));
  const ratios: Record<string, number> = {};
  for (const { what, measure } of checks) {
    let ratio = await measure();
    if (!keep && hasFallen(what, ratio)) {
      console.log(`${what}: ${ratio.toFixed(2)} is little, and so it is measured once more`);
      ratio = Math.max(ratio, await measure());
    }
    ratios[what] = Number(ratio.toPrecision(3));
  }
  const table = [
    "| processor time of the other, in ours | now | saved |",
    "| --- | --- | --- |",
    ...Object.entries(ratios).map(([what, ratio]) => `| ${what} | ${ratio} | ${stored[what] ?? "none"} |`),
  ].join("\n");
  console.log(table);
  if (keep) {
    await save("smoke", ratios);
    return true;
  }
  const fallen = Object.entries(ratios).filter(([what, ratio]) => hasFallen(what, ratio));
  for (const [what, ratio] of fallen) {
    console.error(`${what}: ${ratio} is less than ${tolerated} of the saved ${stored[what]}`);
  }
  return fallen.length === 0;
}
