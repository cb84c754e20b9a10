/**
 * npm run test:faults -- --profile ci|release [--seed N] [--broker kafka|rabbitmq] [--driver wire|kafkajs] [--rounds N]
 *   [--fresh]
 *
 * A topology as a process between real brokers, and what may befall them, as a seed has it. Ends in a table, and
 * with exit code 1 when anything but duplicates within their bound was found. `release` goes on where it was left:
 * its finished rounds are kept in .faults/, `--rounds` is how many to do in this sitting, `--fresh` forgets them.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seededRandom } from "../../src/testing/context.ts";
import { kafkaAbsence } from "../brokers/jars.ts";
import { findProgram } from "../brokers/program.ts";
import { rabbitmqAbsence } from "../brokers/rabbitmq.ts";
import type { Bed } from "./bed.ts";
import { KafkaBed } from "./kafka-bed.ts";
import { Ordeal } from "./ordeal.ts";
import { RabbitmqBed } from "./rabbitmq-bed.ts";
import { add, isClean, type Result, table } from "./result.ts";
import { type Profile, profiles, schedule } from "./schedule.ts";

const folder = fileURLToPath(new URL("../../.faults/", import.meta.url));

/** Kafka's by driver. */
const beds: Readonly<Record<string, (seed: number) => Promise<Bed>>> = {
  wire: (seed) => KafkaBed.start(seededRandom(seed), "wire"),
  kafkajs: (seed) => KafkaBed.start(seededRandom(seed), "kafkajs"),
  rabbitmq: (seed) => RabbitmqBed.start(seededRandom(seed)),
};

/** What was done so far of a campaign. */
interface State {
  readonly seed: number;
  /** Results of finished rounds, by bed. */
  readonly rounds: Record<string, Result[]>;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      profile: { type: "string", default: "ci" },
      seed: { type: "string" },
      broker: { type: "string" },
      driver: { type: "string" },
      rounds: { type: "string" },
      fresh: { type: "boolean", default: false },
    },
  });
  const profile = profiles[values.profile as Profile["name"]];
  const drivers = values.driver === undefined ? (profile?.drivers ?? []) : [values.driver];
  const names = [
    ...(values.broker === "rabbitmq" ? [] : drivers),
    ...(values.broker === "kafka" ? [] : ["rabbitmq"]),
  ];
  const seed = values.seed === undefined ? undefined : Number(values.seed);
  if (
    profile === undefined ||
    ![undefined, "kafka", "rabbitmq"].includes(values.broker) ||
    ![undefined, "wire", "kafkajs"].includes(values.driver) ||
    (seed !== undefined && !Number.isSafeInteger(seed))
  ) {
    return complain(
      "usage: npm run test:faults -- --profile ci|release [--seed N] [--broker kafka|rabbitmq] [--driver wire|kafkajs] [--rounds N] [--fresh]",
    );
  }
  const missing = [
    kafkaAbsence(),
    rabbitmqAbsence(),
    findProgram("kcat") === undefined ? "kcat is not installed" : undefined,
  ].filter((reason) => reason !== undefined);
  if (missing.length > 0) return complain(missing.join("\n"));

  const state = new Campaign(profile, seed, values.fresh);
  const limit = values.rounds === undefined ? profile.rounds : Number(values.rounds);
  console.log(`profile ${profile.name}, seed ${state.seed}`);
  for (let round = 0; round < limit; round++) {
    for (const name of names) await state.next(name);
  }
  return state.report(names);
}

class Campaign {
  readonly #profile: Profile;
  readonly #file: string;
  readonly #state: State;

  constructor(profile: Profile, seed: number | undefined, fresh: boolean) {
    this.#profile = profile;
    this.#file = `${folder}${profile.name}.json`;
    const resumes = profile.rounds > 1 && !fresh;
    if (!resumes) rmSync(this.#file, { force: true });
    const kept = resumes ? this.#read() : undefined;
    const isSame = kept !== undefined && (seed === undefined || kept.seed === seed);
    this.#state = isSame ? kept : { seed: seed ?? Math.floor(Math.random() * 2 ** 31), rounds: {} };
  }

  get seed(): number {
    return this.#state.seed;
  }

  /** Runs the next round with this bed, if one is left. */
  async next(name: string): Promise<void> {
    const done = this.#state.rounds[name] ?? [];
    if (done.length >= this.#profile.rounds) return;
    // Each round has faults and messages of its own, and the same ones when it is run again.
    const seed = (this.seed + 1_000 * done.length) >>> 0;
    const log = (text: string) => console.log(`${name} ${text}`);
    log(`round ${done.length + 1} of ${this.#profile.rounds}`);
    const bed = await beds[name]!(seed);
    try {
      const random = seededRandom(seed + 1);
      const { messages, longestFreeze } = this.#profile;
      const steps = schedule(this.#profile, bed, random);
      const result = await new Ordeal(bed, random, { steps, messages, longestFreeze, log }).run();
      this.#state.rounds[name] = [...done, result];
      mkdirSync(folder, { recursive: true });
      writeFileSync(this.#file, JSON.stringify(this.#state, null, 1));
    } finally {
      await bed.stop();
    }
  }

  report(names: readonly string[]): number {
    const results = names.flatMap((name) => {
      const [first, ...more] = this.#state.rounds[name] ?? [];
      return first === undefined ? [] : [more.reduce(add, first)];
    });
    for (const { name, examples } of results) for (const one of examples) console.log(`${name}: ${one}`);
    console.log(`\n${table(results)}`);
    const left = names.map((name) => this.#profile.rounds - (this.#state.rounds[name]?.length ?? 0));
    if (left.some((rounds) => rounds > 0)) console.log(`rounds left: ${left.join(" and ")}`);
    const good = results.length > 0 && results.every(isClean);
    if (!good) {
      console.log(
        `to see it again: npm run test:faults -- --profile ${this.#profile.name} --seed ${this.seed} --fresh`,
      );
    }
    return good ? 0 : 1;
  }

  #read(): State | undefined {
    try {
      return JSON.parse(readFileSync(this.#file, "utf8")) as State;
    } catch {
      return undefined;
    }
  }
}

function complain(what: string): number {
  console.error(what);
  return 1;
}

// Whatever runs then ends with this process: brokers, runners, readers.
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.once(signal, () => process.exit(code));
}
process.exitCode = await main();
