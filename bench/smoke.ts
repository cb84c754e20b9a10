import { compare } from "./compare.ts";
import { jobs } from "./jobs.ts";
import { microJobs } from "./micro.ts";
import { type Figure, save, saved } from "./report.ts";

/** Ratios by what they compare; larger is better. */
type Ratios = Readonly<Record<string, number>>;

interface Comparison {
  readonly job: string;
  readonly peer: string;
  readonly messages: number;
  readonly rounds: number;
  readonly figure: Figure;
}

/**
 * Small enough for every run of the checks, and so no measure of anything but a collapse. Brokers take most of the
 * time.
 */
const comparisons: readonly Comparison[] = [
  { job: "orders", peer: "kafkajs", messages: 200_000, rounds: 1, figure: "steady" },
  { job: "rabbitmq-rabbitmq", peer: "amqplib", messages: 30_000, rounds: 1, figure: "steady" },
  { job: "embedded", peer: "plain loop", messages: 100_000, rounds: 1, figure: "steady" },
  { job: "record-batch-encode", peer: "kafkajs", messages: 20_000, rounds: 1, figure: "steady" },
  { job: "record-batch-decode", peer: "kafkajs", messages: 20_000, rounds: 1, figure: "steady" },
];

/** Machines drift by half: below that part of what was saved it is not the machine. */
const tolerated = 0.6;

/** Prints ratios of short runs beside those that were saved; false when one has collapsed. */
export async function smoke(keep: boolean): Promise<boolean> {
  const ratios: Record<string, number> = {};
  for (const { job: name, peer, messages, rounds, figure } of comparisons) {
    const job = jobs.find((one) => one.name === name)!;
    const result = await compare(job, { pairs: rounds, peers: [peer], messages, during: 0, save: false });
    const ratio = result.ratios[peer]?.[figure];
    if (ratio !== undefined) ratios[`${name} against ${peer}`] = ratio.median;
  }
  const chain = await microJobs.find(({ name }) => name === "operator-chain")!.run(1, false);
  const dearest = Math.max(...Object.values(chain).map(({ median }) => median));
  // The machine's own speed would count here, were it not against what is allowed: 150 ns an operator.
  ratios["idle operators against what is allowed"] = Number((150 / Math.max(1, dearest)).toPrecision(3));

  const stored = (await saved<Ratios>("smoke")) ?? {};
  const lines = Object.entries(ratios).map(([what, ratio]) => {
    const before = stored[what];
    const part = before === undefined ? undefined : ratio / before;
    return { what, ratio, before, fell: part !== undefined && part < tolerated };
  });
  const table = [
    "| ours to the other's | now | saved |",
    "| --- | --- | --- |",
    ...lines.map(({ what, ratio, before }) => `| ${what} | ${ratio} | ${before ?? "none"} |`),
  ].join("\n");
  console.log(table);
  for (const { what, ratio, before, fell } of lines) {
    if (fell) console.error(`${what}: ${ratio} is less than ${tolerated} of the saved ${before}`);
  }
  if (keep) await save("smoke", ratios, table);
  return keep || !lines.some(({ fell }) => fell);
}
