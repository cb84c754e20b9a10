/** What a round, or several of them, came to. */
export interface Result {
  readonly name: string;
  readonly messages: number;
  /** By kind. */
  readonly faults: Readonly<Record<string, number>>;
  readonly samples: number;
  /** What must not be: the count of each anomaly. */
  readonly anomalies: Readonly<Record<Anomaly, number>>;
  /** Some of them, in words. */
  readonly examples: readonly string[];
  readonly duplicates: number;
  /** Most duplicates that these faults may cause. */
  readonly bound: number;
  /** Highest resident memory of a runner, and what it may be, bytes. */
  readonly memory: number;
  readonly memoryLimit: number;
  /** Longest time from a fault's end until all that was fed by then was delivered, ms. */
  readonly recovery: number;
}

/**
 * `died`: the runner ended by itself, or with another code than 0 when it was asked to end. `stuck`: a
 * minute after a fault something was not delivered.
 */
export type Anomaly = "lost" | "inversions" | "early acks" | "misplaced" | "commits back" | "died" | "stuck";

const shownExamples = 20;

export function add(one: Result, other: Result): Result {
  const sum = <K extends string>(a: Readonly<Record<K, number>>, b: Readonly<Record<K, number>>) => {
    const total: Record<string, number> = { ...a };
    for (const [name, count] of Object.entries<number>(b)) total[name] = (total[name] ?? 0) + count;
    return total as Record<K, number>;
  };
  const worse = one.memory / one.memoryLimit > other.memory / other.memoryLimit ? one : other;
  return {
    name: one.name,
    messages: one.messages + other.messages,
    faults: sum(one.faults, other.faults),
    samples: one.samples + other.samples,
    anomalies: sum(one.anomalies, other.anomalies),
    examples: [...one.examples, ...other.examples].slice(0, shownExamples),
    duplicates: one.duplicates + other.duplicates,
    bound: one.bound + other.bound,
    memory: worse.memory,
    memoryLimit: worse.memoryLimit,
    recovery: Math.max(one.recovery, other.recovery),
  };
}

/** Whether anything but duplicates within their bound was found. */
export function isClean(result: Result): boolean {
  return (
    Object.values(result.anomalies).every((count) => count === 0) &&
    result.duplicates <= result.bound &&
    result.memory <= result.memoryLimit &&
    result.samples > 0
  );
}

/** One column for each kind of broker. */
export function table(results: readonly Result[]): string {
  const number = (value: number) => value.toLocaleString("en-US");
  const MiB = (bytes: number) => Math.round(bytes / 2 ** 20);
  const faults = [...new Set(results.flatMap((result) => Object.keys(result.faults)))];
  const anomalies = [...new Set(results.flatMap((result) => Object.keys(result.anomalies)))] as Anomaly[];
  const rows: [string, ...string[]][] = [
    ["", ...results.map(({ name }) => name)],
    ["messages", ...results.map(({ messages }) => number(messages))],
    ...faults.map((name): [string, ...string[]] => [
      name,
      ...results.map((result) => (result.faults[name] === undefined ? "-" : number(result.faults[name]))),
    ]),
    ["samples of acknowledgements", ...results.map(({ samples }) => number(samples))],
    ...anomalies.map((name): [string, ...string[]] => [
      name,
      ...results.map((result) => number(result.anomalies[name] ?? 0)),
    ]),
    [
      "duplicates of at most",
      ...results.map(({ duplicates, bound }) => `${number(duplicates)} of ${number(bound)}`),
    ],
    [
      "highest memory of at most, MiB",
      ...results.map(({ memory, memoryLimit }) => `${MiB(memory)} of ${MiB(memoryLimit)}`),
    ],
    ["longest recovery, s", ...results.map(({ recovery }) => (recovery / 1_000).toFixed(1))],
    ["verdict", ...results.map((result) => (isClean(result) ? "good" : "BAD"))],
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
        .join("  "),
    )
    .join("\n");
}
