import type { Contestant } from "./contestants.ts";
import { type Job, latencyRate } from "./jobs.ts";
import { type Result, resultOf, save, tableOf } from "./report.ts";
import type { Sample } from "./sample.ts";

export interface CompareOptions {
  /** Rounds: in each, every contestant runs once. */
  readonly pairs: number;
  /** Names of peers that take part; undefined: all. */
  readonly peers: readonly string[] | undefined;
  readonly messages: number;
  /** How long latencies are taken for, ms; 0: not at all. */
  readonly during: number;
  readonly save: boolean;
  /** Prints a line for each run and no table. Default false. */
  readonly brief?: boolean;
}

/** Before latencies are taken, ms: a virtual machine has compiled its hot code by then. */
const warmUp = 5_000;

/**
 * Runs ours and its peers in turn, in processes of their own, and reports ratios round by round: absolute figures
 * drift with the machine, ratios of one round hold.
 */
export async function compare(job: Job, options: CompareOptions): Promise<Result> {
  const { pairs, peers, messages, during } = options;
  const [ours, ...others] = job.contestants;
  const absent: Record<string, string> = {};
  const taking: Contestant[] = [ours!];
  for (const peer of others) {
    if (peers !== undefined && !peers.includes(peer.name)) continue;
    const reason = peer.absence?.();
    if (reason === undefined) taking.push(peer);
    else absent[peer.name] = reason;
  }
  const log = (text: string) => console.log(`  ${text}`);
  console.log(
    `${job.name}: ${taking.map(({ name }) => name).join(", ")}; ${messages} messages, ${pairs} rounds`,
  );
  for (const [name, reason] of Object.entries(absent)) log(`${name} does not run: ${reason}`);
  const samples = new Map<string, Sample[]>(taking.map(({ name }) => [name, []]));
  const open = await job.open(messages);
  let withLatency = false;
  try {
    if (open.latency !== undefined) await Promise.all(taking.map((contestant) => contestant.command()));
    for (let round = 0; round < pairs; round++) {
      // Who goes first changes, so that no one always meets the warmer machine.
      const shift = round % taking.length;
      for (const contestant of [...taking.slice(shift), ...taking.slice(0, shift)]) {
        const sample = await open.throughput(contestant);
        const latency =
          open.latency === undefined || during === 0 || contestant.promisesLess
            ? undefined
            : await open.latency(contestant, { rate: latencyRate, warmUp, during });
        withLatency ||= latency !== undefined;
        samples.get(contestant.name)!.push(latency === undefined ? sample : { ...sample, latency });
        log(
          `round ${round + 1}, ${contestant.name}: ${Math.round(sample.whole / 1_000)} k/s, steady ${Math.round(sample.steady / 1_000)}, ${sample.steadyCpu.toFixed(2)} µs/message, ${Math.round(sample.peakMiB)} MiB${latency === undefined ? "" : `, p99 ${latency.p99.toFixed(1)} ms`}`,
        );
      }
    }
  } finally {
    await open.close();
  }
  const result = resultOf(job, messages, samples, absent, withLatency ? latencyRate : undefined);
  const table = tableOf(result, job.goals);
  if (options.brief !== true) console.log(`\n${table}\n`);
  if (options.save) await save(job.name, result, table);
  return result;
}
