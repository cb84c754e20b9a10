import { machine, type Spread, save, spreadOf } from "./report.ts";
import { outputOfScript } from "./script.ts";

/** One that reports nanoseconds a message by name, of ours alone. */
export interface MicroJob {
  readonly name: string;
  run(rounds: number, keep: boolean): Promise<Readonly<Record<string, Spread>>>;
}

/** @param atMost what none of the medians should exceed, ns */
function microJob(name: string, mode: "each" | "chain" | "keys", atMost?: number): MicroJob {
  return {
    name,
    async run(rounds, keep) {
      const all: Record<string, number>[] = [];
      for (let round = 0; round < rounds; round++) all.push(await outputOfScript(["operators.ts", mode]));
      const found = Object.fromEntries(
        Object.keys(all[0]!).map((what) => [what, spreadOf(all.map((one) => one[what]!))]),
      );
      const table = [
        `${name}: nanoseconds a message, ${rounds} rounds`,
        "",
        "| | min – median – max |",
        "| --- | --- |",
        ...Object.entries(found).map(
          ([what, { min, median, max }]) => `| ${what} | ${min} – ${median} – ${max} |`,
        ),
        ...(atMost === undefined ? [] : ["", verdict(found, atMost)]),
      ].join("\n");
      console.log(`${table}\n`);
      if (keep) await save(name, { job: name, rounds, machine, nanoseconds: found }, table);
      return found;
    },
  };
}

function verdict(found: Readonly<Record<string, Spread>>, atMost: number): string {
  const worst = Math.max(...Object.values(found).map(({ median }) => median));
  return `- ${worst <= atMost ? "reached" : "MISSED"}: at most ${atMost} ns, highest median ${worst}`;
}

export const microJobs: readonly MicroJob[] = [
  microJob("operators", "each"),
  microJob("operator-chain", "chain", 150),
  microJob("distinct-keys", "keys"),
];
