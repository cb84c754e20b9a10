// npm test: starts one Kafka, one RabbitMQ and one PostgreSQL for the whole run, runs the tests on them, stops them.
// npm test -- <file…>: only these files; they start what they need by themselves.
// Arguments that begin with "--" go to node --test, as in --test-name-pattern=drain.
// MILLRACE_REQUIRE_BROKERS=1: a broker that is missing or a test that is skipped is a failure.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const globs = ["src/**/*.test.ts", "topologies/**/*.test.ts", "test/**/*.test.ts", "bench/**/*.test.ts"];
const testLimit = 10 * 60_000;
const runLimit = 25 * 60_000;

async function main(args) {
  if (!process.features.typescript) {
    return complain(
      `the tests need Node 24, and this is ${process.version}: use npm test, which brings its own`,
    );
  }
  const flags = args.filter((arg) => arg.startsWith("--"));
  const named = args.filter((arg) => !arg.startsWith("--"));
  const files = named.length > 0 ? named : globs.flatMap((glob) => fs.globSync(glob)).toSorted();
  if (files.length === 0) return complain(`no test file matches ${globs.join(" ")}`);

  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => interrupted.abort(signal));

  const brokers = named.length > 0 ? nothing : await startBrokers();
  try {
    if (brokers.missing.length > 0 && requiresBrokers()) return complain(brokers.missing.join("\n"));
    for (const reason of brokers.missing) process.stderr.write(`${reason}: tests that need it are skipped\n`);
    if (interrupted.signal.aborted) return signalCode(interrupted.signal.reason);
    return await runTests(files, flags, brokers.env, interrupted.signal);
  } finally {
    await brokers.stop();
  }
}

function requiresBrokers() {
  return process.env.MILLRACE_REQUIRE_BROKERS === "1";
}

/** Brokers named by KAFKA_BROKERS, AMQP_URL and POSTGRES_URL are used as they are, not started. */
async function startBrokers() {
  const { kafkaAbsence, kafkaJars } = await import("../test/brokers/jars.ts");
  const { startKafka } = await import("../test/brokers/kafka.ts");
  const { rabbitmqAbsence, startRabbitmq } = await import("../test/brokers/rabbitmq.ts");
  const { postgresAbsence, startPostgres } = await import("../test/brokers/postgres.ts");
  const { KAFKA_BROKERS, AMQP_URL, POSTGRES_URL } = process.env;

  let noKafka = KAFKA_BROKERS ? undefined : kafkaAbsence();
  if (!KAFKA_BROKERS && noKafka === undefined) {
    await kafkaJars().catch((error) => {
      noKafka = [error, error.cause].map((reason) => reason?.message).join(": ");
    });
  }
  const noRabbitmq = AMQP_URL ? undefined : rabbitmqAbsence();
  const noPostgres = POSTGRES_URL ? undefined : postgresAbsence();

  const env = {};
  const missing = [];
  const starting = [];
  if (noKafka !== undefined) {
    env.MILLRACE_TEST_KAFKA_ABSENT = noKafka;
    missing.push(`no Kafka (${noKafka})`);
  } else if (!KAFKA_BROKERS) {
    starting.push(startKafka().then((kafka) => [kafka, { MILLRACE_TEST_KAFKA: kafka.bootstrap }]));
  }
  if (noRabbitmq !== undefined) {
    env.MILLRACE_TEST_AMQP_ABSENT = noRabbitmq;
    missing.push(`no RabbitMQ (${noRabbitmq})`);
  } else if (!AMQP_URL) {
    starting.push(startRabbitmq().then((rabbitmq) => [rabbitmq, { MILLRACE_TEST_AMQP: rabbitmq.url }]));
  }
  if (noPostgres !== undefined) {
    env.MILLRACE_TEST_POSTGRES_ABSENT = noPostgres;
    missing.push(`no PostgreSQL (${noPostgres})`);
  } else if (!POSTGRES_URL) {
    starting.push(startPostgres().then((server) => [server, { MILLRACE_TEST_POSTGRES: server.url }]));
  }

  const started = await Promise.allSettled(starting);
  const running = started.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  const stop = () => Promise.all(running.map(([broker]) => broker.stop()));
  const failure = started.find(({ status }) => status === "rejected");
  if (failure !== undefined) {
    await stop();
    throw failure.reason;
  }
  return { env: Object.assign(env, ...running.map(([, address]) => address)), missing, stop };
}

const nothing = { env: {}, missing: [], stop: async () => {} };

/** Prints Node's own report, whose counts come last, and returns the exit code. */
async function runTests(files, flags, env, interrupted) {
  const folder = fs.mkdtempSync(join(tmpdir(), "millrace-tally-"));
  const tally = join(folder, "tally");
  try {
    const child = spawn(
      process.execPath,
      [
        "--conditions=millrace:source",
        "--test",
        "--test-concurrency=2",
        `--test-timeout=${testLimit}`,
        "--test-reporter=spec",
        "--test-reporter-destination=stdout",
        `--test-reporter=${join(import.meta.dirname, "tally.mjs")}`,
        `--test-reporter-destination=${tally}`,
        ...flags,
        ...files,
      ],
      { env: { ...process.env, ...env }, stdio: ["ignore", "inherit", "inherit"] },
    );
    interrupted.addEventListener("abort", () => child.kill(interrupted.reason));
    const limit = setTimeout(() => child.kill("SIGTERM"), runLimit);
    const [code] = await once(child, "exit");
    clearTimeout(limit);
    if (interrupted.aborted) return signalCode(interrupted.reason);
    if (code === null) return complain(`the tests were not done after ${runLimit / 60_000} minutes`);
    return judge(code, fs.existsSync(tally) ? fs.readFileSync(tally, "utf8") : "");
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function judge(code, tally) {
  const lines = tally
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  const total = lines.find(({ kind }) => kind === "total");
  const complaints = lines.filter(({ kind }) => kind === "empty").map(({ file }) => `${file} holds no test`);
  if (total === undefined || total.tests === 0) complaints.push("no test was run");
  if (requiresBrokers()) {
    const skipped = lines.filter(({ kind }) => kind === "skipped");
    complaints.push(...skipped.map(({ file, name, reason }) => `skipped: ${file}: ${name} (${reason})`));
  }
  if (complaints.length > 0) return complain(complaints.join("\n"));
  return code;
}

function complain(what) {
  process.stderr.write(`${what}\n`);
  return 1;
}

function signalCode(signal) {
  return signal === "SIGINT" ? 130 : 143;
}

process.chdir(root);
process.exitCode = await main(process.argv.slice(2));
