import { mkdir, readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import type { Goal, Job } from "./jobs.ts";
import type { Sample } from "./sample.ts";

/** What a table shows of a contestant, and in what. */
export const figures = {
  whole: { title: "k msg/s, whole", of: (sample: Sample) => sample.whole / 1_000 },
  steady: { title: "steady", of: (sample: Sample) => sample.steady / 1_000 },
  cpu: { title: "CPU µs/msg, whole", of: (sample: Sample) => sample.cpu },
  steadyCpu: { title: "steady", of: (sample: Sample) => sample.steadyCpu },
  peakMiB: { title: "peak MiB", of: (sample: Sample) => sample.peakMiB },
  p50: { title: "p50 ms", of: (sample: Sample) => sample.latency?.p50 },
  p99: { title: "p99", of: (sample: Sample) => sample.latency?.p99 },
  p999: { title: "p99.9", of: (sample: Sample) => sample.latency?.p999 },
} as const;

export type Figure = keyof typeof figures;

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

type Spreads = Partial<Record<Figure, Spread>>;

/** What figures were taken on. */
export const machine = {
  cpus: cpus().length,
  model: cpus()[0]?.model ?? "unknown",
  node: process.version,
} as const;

/** What a comparison found. */
export interface Result {
  readonly job: string;
  readonly messages: number;
  readonly pairs: number;
  /** Messages a second at which latencies were taken. */
  readonly latencyRate?: number;
  readonly machine: typeof machine;
  readonly contestants: Readonly<Record<string, Spreads>>;
  /** Ours to the other's, round by round. */
  readonly ratios: Readonly<Record<string, Spreads>>;
  readonly absent: Readonly<Record<string, string>>;
}

const names = Object.keys(figures) as Figure[];

export function spreadOf(numbers: readonly number[]): Spread {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { min: rounded(sorted[0]!), median: rounded(median), max: rounded(sorted.at(-1)!) };
}

/** @param samples of each contestant that took part, ours first, one a round */
export function resultOf(
  job: Job,
  messages: number,
  samples: ReadonlyMap<string, readonly Sample[]>,
  absent: Readonly<Record<string, string>>,
  latencyRate: number | undefined,
): Result {
  const [[, our] = ["", []], ...others] = [...samples];
  return {
    job: job.name,
    messages,
    pairs: our.length,
    ...(latencyRate === undefined ? {} : { latencyRate }),
    machine,
    contestants: Object.fromEntries(
      [...samples].map(([name, all]) => [name, spreads((figure) => all.map(figures[figure].of))]),
    ),
    ratios: Object.fromEntries(
      others.map(([name, all]) => [
        name,
        spreads((figure) => {
          const { of } = figures[figure];
          return our.map((sample, round) => quotient(of(sample), of(all[round]!)));
        }),
      ]),
    ),
    absent,
  };
}

function quotient(ours: number | undefined, other: number | undefined): number | undefined {
  return ours === undefined || other === undefined ? undefined : ours / other;
}

function spreads(valuesOf: (figure: Figure) => readonly (number | undefined)[]): Spreads {
  return Object.fromEntries(
    names.flatMap((figure) => {
      const values = valuesOf(figure).filter((value) => value !== undefined && Number.isFinite(value));
      return values.length === 0 ? [] : [[figure, spreadOf(values as number[])]];
    }),
  );
}

/** Text for a terminal and for a page: figures of all, ratios, goals. */
export function tableOf(result: Result, goals: readonly Goal[]): string {
  const shown = names.filter((figure) =>
    Object.values(result.contestants).some((spreads) => spreads[figure] !== undefined),
  );
  const head = (first: string) => [
    `| ${[first, ...shown.map((figure) => figures[figure].title)].join(" | ")} |`,
    `| ${["---", ...shown.map(() => "---")].join(" | ")} |`,
  ];
  const rows = (all: Readonly<Record<string, Spreads>>) =>
    Object.entries(all).map(
      ([name, spreads]) => `| ${[name, ...shown.map((figure) => shownAs(spreads[figure]))].join(" | ")} |`,
    );
  const rate =
    result.latencyRate === undefined ? "" : `; latencies at ${result.latencyRate.toLocaleString("en")}/s`;
  return [
    `${result.job}: ${result.messages.toLocaleString("en")} messages, ${result.pairs} rounds, each figure min – median – max${rate}`,
    "",
    ...head("contestant"),
    ...rows(result.contestants),
    ...(Object.keys(result.ratios).length > 0
      ? ["", ...head("ours to the other's, round by round"), ...rows(result.ratios)]
      : []),
    ...(Object.keys(result.absent).length > 0
      ? [
          "",
          `Not run: ${Object.entries(result.absent)
            .map((entry) => entry.join(": "))
            .join("; ")}.`,
        ]
      : []),
    ...verdicts(result, goals),
  ].join("\n");
}

function verdicts(result: Result, goals: readonly Goal[]): string[] {
  const [ours] = Object.values(result.contestants);
  const lines = goals.flatMap(({ figure, against, atLeast, atMost }) => {
    const found = (against === undefined ? ours : result.ratios[against])?.[figure];
    if (found === undefined) return [];
    const met = found.median >= (atLeast ?? 0) && found.median <= (atMost ?? Number.POSITIVE_INFINITY);
    const goal = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
    const what = against === undefined ? figure : `${figure} against ${against}`;
    return [`- ${met ? "reached" : "MISSED"}: ${what} ${goal}, median ${found.median}`];
  });
  return lines.length === 0 ? [] : ["", ...lines];
}

function shownAs(spread: Spread | undefined): string {
  return spread === undefined ? "" : `${spread.min} – ${spread.median} – ${spread.max}`;
}

/** Three digits that mean something. */
export function rounded(value: number): number {
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}

const folder = new URL("results/", import.meta.url);

export async function save(name: string, result: unknown, table?: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(new URL(`${name}.json`, folder), `${JSON.stringify(result, null, 2)}\n`);
  if (table !== undefined) await writeFile(new URL(`${name}.md`, folder), `${table}\n`);
}

/** What was saved under the name; undefined if nothing was. */
export async function saved<T>(name: string): Promise<T | undefined> {
  const text = await readFile(new URL(`${name}.json`, folder), "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as T);
}
