// npm run bench -- [job…] [--peers a,b|none] [--pairs 5] [--messages N] [--latency 15] [--minutes 30] [--driver wire|kafkajs] [--save]
// npm run bench -- --smoke [--save]
//
// See README.md beside it.
import { parseArgs } from "node:util";
import { isKnown } from "../src/runner/warnings.ts";
import { compare } from "./compare.ts";
import { endurance } from "./endurance.ts";
import { jobs } from "./jobs.ts";
import { microJobs } from "./micro.ts";
import { smoke } from "./smoke.ts";

const names = [...jobs, ...microJobs, endurance].map(({ name }) => name);

const usage = `usage: npm run bench -- [job…] [--peers a,b|none] [--pairs 5] [--messages N] [--latency SECONDS] [--minutes 30] [--driver wire|kafkajs] [--save]
       npm run bench -- --smoke [--save]
jobs: ${names.join(", ")}`;

function misuse(problem: string): never {
  console.error(`${problem}\n${usage}`);
  process.exit(2);
}

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        peers: { type: "string" },
        pairs: { type: "string", default: "5" },
        messages: { type: "string" },
        latency: { type: "string", default: "15" },
        minutes: { type: "string", default: "30" },
        driver: { type: "string", default: "wire" },
        smoke: { type: "boolean", default: false },
        save: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    return misuse((error as Error).message);
  }
}

function number(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!(Number.isInteger(value) && value >= least))
    misuse(`--${name} ${text}: give a whole number, at least ${least}`);
  return value;
}

process.removeAllListeners("warning");
process.on("warning", (warning) => {
  if (!isKnown(warning)) console.error(warning.message);
});

const { values, positionals } = options();
if (values.driver !== "wire" && values.driver !== "kafkajs")
  misuse(`--driver ${values.driver}: give wire or kafkajs`);
process.env.BENCH_KAFKA_DRIVER = values.driver;
const pairs = number("pairs", values.pairs, 1);
const during = number("latency", values.latency, 0) * 1_000;
const messages = values.messages === undefined ? undefined : number("messages", values.messages, 1_000);
const minutes = number("minutes", values.minutes, 1);
const unknown = positionals.find((name) => !names.includes(name));
if (unknown !== undefined) misuse(`there is no job "${unknown}"`);

if (values.smoke) process.exitCode = (await smoke(values.save)) ? 0 : 1;
else {
  const wanted = (name: string) => positionals.length === 0 || positionals.includes(name);
  const peers = values.peers === "none" ? [] : values.peers?.split(",");
  for (const job of jobs.filter(({ name }) => wanted(name))) {
    const known = job.contestants.slice(1).map(({ name }) => name);
    const strange = positionals.length > 0 ? peers?.find((peer) => !known.includes(peer)) : undefined;
    if (strange !== undefined) misuse(`${job.name} has no peer "${strange}"; there are: ${known.join(", ")}`);
    await compare(job, { pairs, peers, messages: messages ?? job.messages, during, save: values.save });
  }
  for (const job of microJobs.filter(({ name }) => wanted(name))) await job.run(pairs, values.save);
  if (wanted(endurance.name)) await endurance.run(minutes, values.save);
}
