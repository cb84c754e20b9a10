/** The program as a person or a supervisor starts it: a process of its own, its output, its exit code. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const bin = join(root, "bin/millrace.js");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };

/** Compiled code, kept from one start of the program to the next: half of the time of these tests. */
const compiled = mkdtempSync(join(tmpdir(), "millrace-compiled-"));
after(() => rmSync(compiled, { recursive: true, force: true }));

/** A run of the program still going after so long is ended, and its test fails. */
const deadline = 60_000;

class Program {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  readonly #watchers = new Set<() => void>();

  constructor(args: readonly string[], cwd: string, env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [bin, ...args], {
      cwd,
      env: { ...process.env, NODE_TEST_CONTEXT: undefined, NODE_COMPILE_CACHE: compiled, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      this.#look();
    });
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      this.#look();
    });
    const timer = setTimeout(() => this.child.kill("SIGKILL"), deadline);
    this.ended = new Promise((resolve) => {
      this.child.once("close", (code, signal) => {
        clearTimeout(timer);
        resolve({ code, signal });
        this.#look();
      });
    });
  }

  #look(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Resolves with the match as soon as standard error has it; rejects when the program ends without it. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(this.stderr);
        if (match === null) return;
        this.#watchers.delete(look);
        resolve(match);
      };
      this.#watchers.add(look);
      this.ended.then(({ code }) =>
        reject(new Error(`ended with ${code} and never said ${pattern}:\n${this.stderr}`)),
      );
      look();
    });
  }

  /** Log lines; standard error of a pipe holds nothing else while it runs. */
  logs(): Record<string, unknown>[] {
    return this.stderr
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line));
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

/** A folder for the files of one test, and programs started in it. */
function desk(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "millrace-cli-"));
  const started: Program[] = [];
  t.after(() => {
    for (const { child } of started) if (child.exitCode === null) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  });
  const start = (args: readonly string[], env?: Record<string, string>) => {
    const program = new Program(args, folder, env);
    started.push(program);
    return program;
  };
  return {
    folder,
    write(name: string, text: string) {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    },
    read: (name: string) => readFileSync(join(folder, name), "utf8"),
    start,
    async run(args: readonly string[], env?: Record<string, string>) {
      const program = start(args, env);
      const { code, signal } = await program.ended;
      assert.equal(signal, null, `ended by ${signal}:\n${program.stderr}`);
      return { code, stdout: program.stdout, stderr: program.stderr, logs: () => program.logs() };
    },
  };
}

const topology = (name = "pass", body = "", prefix = "") => `
import { topology, kafka, decode } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:9092" });
${body}
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${prefix}in"], group: "${name}" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "${prefix}out" }));
  t.deadLetters(cluster.sink({ topic: "${prefix}dead" }));
});
`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  assert.ok(typeof address === "object" && address !== null);
  return address.port;
}

/** What the HTTP endpoint of a program says. */
function ask(url: string, path: string, host?: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const headers = host === undefined ? {} : { host };
    const sent = request(new URL(path, url), { headers, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      response.on("end", () => resolve({ status: response.statusCode!, body }));
    });
    sent.on("error", reject);
    sent.end();
  });
}

async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + deadline;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    assert.ok(performance.now() < end, "the condition never came");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("the program is executable by itself", () => {
  assert.equal(statSync(bin).mode & 0o111, 0o111);
  assert.match(readFileSync(bin, "utf8"), /^#!\/usr\/bin\/env node\n/);
});

test("a Node that is too old is told so and exits 78", async () => {
  const startedBy = (version: string) => {
    const pretend = `Object.defineProperty(process, "versions", { value: { node: "${version}" } })`;
    const args = ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`, bin, "--version"];
    return spawnSync(process.execPath, args, { encoding: "utf8" });
  };
  for (const old of ["12.22.12", "20.20.2", "22.21.0", "23.11.0", "24.5.0"]) {
    const { status, stdout, stderr } = startedBy(old);
    assert.deepEqual([status, stdout], [78, ""], old);
    assert.match(stderr, /^millrace needs Node 22 from 22\.22 on, or 24\.6 and newer; this is /);
  }
  for (const supported of ["22.22.0", "24.6.0", "25.0.0"]) {
    assert.equal(startedBy(supported).stdout, `${version}\n`, supported);
  }
});

test("version, help, and an exit code 2 with what is near for what is unknown", async (t) => {
  const { run } = desk(t);
  assert.deepEqual((await run(["--version"])).stdout, `${version}\n`);
  const help = await run(["--help"]);
  assert.equal(help.code, 0);
  assert.match(help.stdout, /Examples:\n {2}\$ millrace check/);
  assert.match((await run(["run", "--help"])).stdout, /SIGUSR2/);
  const wrong: readonly (readonly [args: readonly string[], near: RegExp])[] = [
    [["chek", "x.ts"], /unknown command 'chek'\n\(Did you mean check\?\)/],
    [["run", "x.ts", "--embeded"], /unknown option '--embeded'\n\(Did you mean --embedded\?\)/],
    [["run"], /missing required argument/],
    [["run", "x.ts", "--drain", "30"], /give a duration such as/],
    [["run", "x.ts", "--http", "nowhere"], /give a port or host:port/],
    [["run", "x.ts", "--feed", "in"], /give <topic or queue>=<file>/],
    [["run", "x.ts", "--log-level", "loud"], /Allowed choices are debug/],
    [["graph", "x.ts", "--format", "svg"], /Allowed choices are mermaid/],
    [[], /Usage: millrace/],
  ];
  await Promise.all(
    wrong.map(async ([args, near]) => {
      const { code, stdout, stderr } = await run(args);
      assert.equal(code, 2, args.join(" "));
      assert.equal(stdout, "");
      assert.match(stderr, near);
    }),
  );
});

test("a run on embedded brokers feeds, ends when idle, dumps, and prints the table last", async (t) => {
  const { run, write, read, folder } = desk(t);
  write("pass.ts", topology());
  write("in.ndjson", '{"a":1}\nnot json\n{"key":"k","value":"{}","headers":[["h","1"]]}\n');
  write("dump-before", "");
  const { code, stdout, stderr, logs } = await run([
    ...["run", "pass.ts", "--embedded", "--feed", "in=in.ndjson"],
    ...["--until-idle", "--dump", "made/here"],
  ]);
  assert.equal(code, 0, stderr);
  assert.equal(
    stdout,
    `${[
      "pass: done",
      "outcome       messages",
      "accepted             3",
      "delivered            2",
      "duplicate            0",
      "filtered             0",
      "deadLettered         1",
      "returned             0",
      "lost                 0",
      "in flight            0",
      "sink  written  batches",
      "out         2        2",
      "accepted 3 = delivered 2 + deadLettered 1",
    ].join("\n")}\n`.replace(/(\nout {9}2 {8})\d/, `$1${/out {9}2 {8}(\d)/.exec(stdout)?.[1]}`),
  );
  assert.ok(
    stderr.split("\n").every((line) => line === "" || line.startsWith("{")),
    `a pipe gets JSON lines only:\n${stderr}`,
  );
  for (const { level, time, pid, msg } of logs()) {
    assert.ok(typeof level === "string" && typeof pid === "number" && typeof msg === "string");
    assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 2 * deadline);
  }
  assert.deepEqual(readdirSync(join(folder, "made/here")).sort(), ["dead.ndjson", "in.ndjson", "out.ndjson"]);
  const values = (name: string) =>
    read(`made/here/${name}.ndjson`)
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line).value)
      .sort();
  assert.deepEqual(values("in"), ["not json", '{"a":1}', "{}"]);
  assert.deepEqual(values("out"), ['{"a":1}', "{}"]);
  assert.deepEqual(values("dead"), ["not json"]);
});

test("with --json standard output is one object, whatever the end", async (t) => {
  const { run, write } = desk(t);
  write("pass.ts", topology());
  write("in.ndjson", "{}\n{}\n");
  const args = ["run", "pass.ts", "--embedded", "--until-idle", "--json"];
  const done = await run([...args, "--feed", "in=in.ndjson"]);
  const report = JSON.parse(done.stdout);
  assert.equal(done.code, 0);
  assert.equal(report.exitCode, 0);
  assert.equal(report.conservation.accepted, 2);
  assert.equal(report.topologies.length, 1);
  assert.equal(report.topologies[0].topology, "pass");
  assert.deepEqual(report.topologies[0].result, { how: "done" });
  assert.equal(report.topologies[0].sources[0].conservation.delivered, 2);
  const wrong = await run([...args, "--feed", "inn=in.ndjson"]);
  assert.equal(wrong.code, 2);
  assert.equal(JSON.parse(wrong.stdout).exitCode, 2);
  assert.equal(JSON.parse(wrong.stdout).problems[0].code, "usage");
  assert.match(JSON.parse(wrong.stdout).problems[0].message, /did you mean "in"\?/);
  write("broken.ts", "export default 1;");
  const broken = await run(["run", "broken.ts", "--json"]);
  assert.equal(broken.code, 78);
  assert.equal(JSON.parse(broken.stdout).problems[0].code, "file-no-topology");
});

test("feeding and dumping are for embedded brokers and for what the topology knows", async (t) => {
  const { run, write, folder } = desk(t);
  write("pass.ts", topology());
  write("in.ndjson", "{}\n");
  const refused: readonly (readonly [args: readonly string[], reason: RegExp])[] = [
    [["--embedded", "--feed", "ni=in.ndjson"], /--feed ni: .*did you mean "in"\?/],
    [["--embedded", "--feed", "in=absent.ndjson"], /--feed in=absent\.ndjson: ENOENT/],
    [["--feed", "in=in.ndjson"], /--feed publishes into embedded brokers only, .*add --embedded/],
    [["--dump", "out"], /--dump shows embedded brokers only, .*add --embedded/],
    [["--embedded", "--dump", "in.ndjson"], /--dump in\.ndjson: .*is no folder; give a folder/],
    [["--embedded", "--dump", ""], /--dump.*give a folder, as in --dump out/],
    // Linux lets nobody make a folder there, and tells so in a way that has sent programs round in circles.
    ...(existsSync("/proc/self") ? [[["--embedded", "--dump", "/proc/x"], /give a folder/] as const] : []),
  ];
  await Promise.all(
    refused.map(async ([args, reason]) => {
      const { code, stdout, stderr } = await run(["run", "pass.ts", "--until-idle", ...args]);
      assert.equal(code, 2, args.join(" "));
      assert.match(stderr, reason);
      assert.equal(stdout, "");
    }),
  );
  assert.ok(!existsSync(join(folder, "out")), "a refused dump leaves no folder behind");
});

test("a dump that cannot be written fails the run, also one that was told to stop", async (t) => {
  const { start, write, folder } = desk(t);
  write("pass.ts", topology());
  const program = start(["run", "pass.ts", "--embedded", "--dump", "out"]);
  await program.says(/partitions assigned/);
  rmSync(join(folder, "out"), { recursive: true });
  write("out", "a file where the folder was");
  program.kill("SIGTERM");
  assert.deepEqual(await program.ended, { code: 1, signal: null });
  assert.match(program.stderr, /is no folder/);
  assert.ok(program.stdout.endsWith("\naccepted 0 = 0\n"), program.stdout);
});

test("check says ok, or every mistake with its line, and exits 78", async (t) => {
  const { run, write } = desk(t);
  write("pass.ts", topology());
  const ok = await run(["check", "pass.ts"]);
  assert.deepEqual([ok.code, ok.stdout], [0, "ok  pass\n"]);
  write(
    "five.ts",
    `import { topology, kafka, decode, env } from "millrace";
const cluster = kafka({ brokers: env("MILLRACE_TEST_ABSENT_BROKERS"), clientID: "x" });
export default topology("five mistakes", (t) => {
  const stream = t.from(cluster.source({ topics: ["in"] }));
  stream.pipe(decode("jsn")).to(cluster.sink({ topic: "out" }));
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`,
  );
  const five = await run(["check", "five.ts", "pass.ts"]);
  assert.equal(five.code, 78);
  const lines = five.stdout.trimEnd().split("\n");
  assert.equal(lines.length, 5, five.stdout);
  for (const line of lines) assert.match(line, /^five\.ts:\d+:\d+ {2}error {2}[a-z-]+ {2}.+ {2}→ .+$/);
  for (const [line, about] of [
    [2, /MILLRACE_TEST_ABSENT_BROKERS is not set/],
    [2, /"clientID".*did you mean "clientId"/],
    [3, /five mistakes/],
    [4, /"group"/],
    [5, /decode/],
  ] as const) {
    assert.ok(
      lines.some((text) => text.startsWith(`five.ts:${line}:`) && about.test(text)),
      `line ${line}, ${about}:\n${five.stdout}`,
    );
  }
  const run5 = await run(["run", "five.ts", "--embedded", "--until-idle"]);
  assert.equal(run5.code, 78);
  assert.equal(run5.stdout, "");
  assert.equal(run5.stderr.trimEnd().split("\n").length, lines.length);
});

test("check opens no socket; with --connect it says what cannot be reached", async (t) => {
  const { run, write } = desk(t);
  const connections: string[] = [];
  const server = createServer((socket) => {
    connections.push("one");
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  write("pass.ts", topology().replace("127.0.0.1:9092", `127.0.0.1:${address.port}`));
  const offline = await run(["check", "pass.ts"]);
  assert.equal(offline.code, 0);
  assert.deepEqual(connections, []);
  const online = await run(["check", "pass.ts", "--connect"]);
  assert.equal(online.code, 78, online.stdout);
  assert.match(online.stdout, new RegExp(`kafka at 127\\.0\\.0\\.1:${address.port} cannot be asked: `));
  assert.doesNotMatch(online.stdout, /^ok/m);
  assert.notDeepEqual(connections, []);
});

test("graph draws in every format", async (t) => {
  const { run, write } = desk(t);
  write("pass.ts", topology());
  const drawings: readonly (readonly [format: string, expected: RegExp])[] = [
    ["mermaid", /^flowchart/m],
    ["dot", /^digraph/m],
    ["text", /decode \(json\)/],
  ];
  await Promise.all(
    drawings.map(async ([format, expected]) => {
      const { code, stdout, stderr } = await run(["graph", "pass.ts", "--format", format]);
      assert.deepEqual([code, stderr], [0, ""]);
      assert.match(stdout, expected);
    }),
  );
  assert.match((await run(["graph", "pass.ts"])).stdout, /^flowchart/m);
  const absent = await run(["graph", "pas.ts"]);
  assert.equal(absent.code, 78);
  assert.match(absent.stderr, /did you mean "pass\.ts"/);
});

test("SIGTERM drains: exit 0, the table last; readiness, status and metrics tell the state meanwhile", async (t) => {
  const { start, write } = desk(t);
  write("pass.ts", topology());
  write("in.ndjson", "{}\n".repeat(100));
  const program = start(["run", "pass.ts", "--embedded", "--feed", "in=in.ndjson", "--http", "0"]);
  const [, url] = await program.says(/"url":"(http:\/\/127\.0\.0\.1:\d+)"/);
  await until(async () => ((await ask(url!, "/readyz")).status === 200 ? true : undefined));
  const status = await until(async () => {
    const body = JSON.parse((await ask(url!, "/status")).body);
    return body.conservation.delivered === 100 ? body : undefined;
  });
  assert.equal(status.version, version);
  assert.equal(status.pid, program.child.pid);
  assert.equal(status.topologies[0].mode, "running");
  assert.match(
    (await ask(url!, "/metrics")).body,
    /^millrace_messages_total\{topology="pass",source="in",outcome="delivered"\} 100$/m,
  );
  assert.equal((await ask(url!, "/livez")).status, 200);
  assert.equal((await ask(url!, "/status", "evil.example")).status, 403);
  program.kill("SIGUSR2");
  await program.says(/^accepted 100 = delivered 100$/m);
  program.kill("SIGTERM");
  assert.deepEqual(await program.ended, { code: 0, signal: null });
  assert.ok(program.stdout.endsWith("\naccepted 100 = delivered 100\n"), program.stdout);
  await assert.rejects(ask(url!, "/livez"), { code: "ECONNREFUSED" });
});

test("a signal that comes while the program is loaded stops the run before it began", async (t) => {
  const { start, write } = desk(t);
  write("pass.ts", topology());
  write(
    "early.mjs",
    `import { registerHooks } from "node:module";
registerHooks({
  load(url, context, next) {
    if (/runner[/]cli[.][jt]s$/.test(url)) process.kill(process.pid, "SIGTERM");
    return next(url, context);
  },
});
`,
  );
  for (const [args, expected] of [
    [["run", "pass.ts", "--embedded"], { code: 0, signal: null }],
    [["check", "pass.ts"], { code: null, signal: "SIGTERM" }],
  ] as const) {
    const program = start(args, { NODE_OPTIONS: "--import=./early.mjs" });
    assert.deepEqual(await program.ended, expected, program.stderr);
  }
});

test("SIGINT stops a run that waits for its broker", async (t) => {
  const { start, write } = desk(t);
  write("pass.ts", topology().replace("127.0.0.1:9092", `127.0.0.1:${await freePort()}`));
  const program = start(["run", "pass.ts", "--http", "127.0.0.1:0"]);
  const [, url] = await program.says(/"url":"([^"]+)"/);
  await program.says(/"level":"warn".*cannot be asked/);
  const { status, body } = await ask(url!, "/readyz");
  assert.equal(status, 503);
  assert.match(body, /^not ready\npreparing\nkafka at 127\.0\.0\.1:\d+ cannot be asked: /);
  program.kill("SIGINT");
  assert.deepEqual(await program.ended, { code: 0, signal: null });
});

test("an error that nobody catches ends the run with 1 and acknowledges nothing more", async (t) => {
  const { start, write } = desk(t);
  for (const failure of ['throw new Error("boom")', 'Promise.reject(new Error("boom"))']) {
    write("crash.ts", topology("crash", `process.once("SIGHUP", () => { ${failure}; });`));
    const program = start(["run", "crash.ts", "--embedded"]);
    await program.says(/partitions assigned/);
    program.kill("SIGHUP");
    const { code } = await program.ended;
    assert.equal(code, 1);
    assert.ok(program.logs().some(({ level, msg }) => level === "error" && msg === "uncaught error: boom"));
    assert.match(program.stdout, /^crash: failed\n/);
    assert.ok(program.stdout.endsWith("\naccepted 0 = 0\n"), program.stdout);
  }
});

const stuck = `
import { topology, kafka, encode, mapAsync } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:9092" });
const never = () => new Promise(() => {});
export default topology("stuck", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "stuck" }))
    .pipe(mapAsync(never, { timeout: "1h" }), encode("json"))
    .to(cluster.sink({ topic: "out" }));
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`;

/** A run whose 3 messages are in flight and stay there. */
async function startStuck(t: TestContext, args: readonly string[]) {
  const { start, write } = desk(t);
  write("stuck.ts", stuck);
  write("in.ndjson", "1\n2\n3\n");
  const program = start(["run", "stuck.ts", "--embedded", "--feed", "in=in.ndjson", "--http", "0", ...args]);
  const [, url] = await program.says(/"url":"([^"]+)"/);
  await until(async () => {
    const { conservation } = JSON.parse((await ask(url!, "/status")).body);
    return conservation.inFlight === 3 ? true : undefined;
  });
  return program;
}

test("a drain that does not finish in time exits 1 and acknowledges nothing of it", async (t) => {
  const program = await startStuck(t, ["--drain", "300ms"]);
  const asked = performance.now();
  program.kill("SIGTERM");
  assert.deepEqual(await program.ended, { code: 1, signal: null });
  assert.ok(performance.now() - asked < 25_000, "the default of 30 s was waited for");
  const error = program.logs().find(({ level }) => level === "error");
  assert.equal(error?.code, "drain-timeout");
  assert.match(String(error?.msg), /3 messages still in flight/);
  assert.match(program.stdout, /^stuck: drain timed out\n/);
  assert.ok(program.stdout.endsWith("\naccepted 3 = returned 3\n"), program.stdout);
});

test("a second signal exits at once with 1, the table still last", async (t) => {
  const program = await startStuck(t, ["--drain", "1h"]);
  program.kill("SIGTERM");
  await program.says(/stopping: draining/);
  program.kill("SIGINT");
  assert.deepEqual(await program.ended, { code: 1, signal: null });
  assert.match(program.stdout, /^stuck: draining\n/);
  assert.ok(program.stdout.endsWith("\naccepted 3 = in flight 3\n"), program.stdout);
});

test("a run that fails exits 1, drains the others, and still has its table", async (t) => {
  const { start, write } = desk(t);
  write("strict.ts", topology("strict", "", "a.").replace(/ {2}t\.deadLetters.*\n/, ""));
  write("other.ts", topology("other", "", "b."));
  write("bad.ndjson", "{}\nnot json\n");
  write("good.ndjson", "{}\n");
  const program = start([
    ...["run", "other.ts", "strict.ts", "--embedded"],
    ...["--feed", "a.in=bad.ndjson", "--feed", "b.in=good.ndjson"],
  ]);
  assert.deepEqual(await program.ended, { code: 1, signal: null });
  const error = program.logs().find(({ level }) => level === "error");
  assert.deepEqual(
    [error?.topology, error?.how, error?.code],
    ["strict", "failed", "dead-letter-impossible"],
  );
  const [other, strict] = program.stdout.split("\n\n");
  assert.match(other!, /^other: done\n.*\naccepted (0 = 0|1 = delivered 1)$/s);
  assert.match(strict!, /^strict: failed\n.*\naccepted \d = [^\n]*\n$/s);
});

test("several topologies run together: one may feed another, each has its table", async (t) => {
  const { run, write } = desk(t);
  write("first.ts", topology("first", "", "a.").replace('"a.out"', '"b.in"'));
  write("second.ts", topology("second", "", "b."));
  write("in.ndjson", '{"a":1}\n'.repeat(50));
  const { code, stdout, stderr } = await run([
    ...["run", "second.ts", "first.ts", "--embedded", "--feed", "a.in=in.ndjson", "--until-idle"],
  ]);
  assert.equal(code, 0, stderr);
  const tables = stdout.split("\n\n");
  assert.deepEqual(
    tables.map((table) => table.trimEnd().split("\n").at(0)),
    ["second: done", "first: done"],
  );
  for (const table of tables) assert.match(table, /\naccepted 50 = delivered 50\n?$/);
  const twice = await run(["run", "first.ts", "first.ts", "--embedded", "--until-idle"]);
  assert.equal(twice.code, 78);
});

test("an address for HTTP that is taken is said before anything runs", async (t) => {
  const { run, write } = desk(t);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  write("pass.ts", topology());
  const { code, stderr } = await run(["run", "pass.ts", "--embedded", "--http", String(address.port)]);
  assert.equal(code, 78);
  assert.match(stderr, /--http 127\.0\.0\.1:\d+ cannot be opened: .*EADDRINUSE.*; choose a free port/);
});

test("--log-level silences, and nothing of the environment is printed", async (t) => {
  const { run, write } = desk(t);
  write("pass.ts", topology());
  const { code, stderr } = await run(
    ["run", "pass.ts", "--embedded", "--until-idle", "--log-level", "silent"],
    {
      MILLRACE_TEST_SECRET: "canary-7c1",
    },
  );
  assert.deepEqual([code, stderr], [0, ""]);
  write("throws.ts", 'throw new Error("amqp://user:canary-7c1@host/ is wrong");');
  const thrown = await run(["run", "throws.ts"]);
  assert.equal(thrown.code, 78);
  assert.match(thrown.stderr, /amqp:\/\/\*\*\*@host/);
  assert.doesNotMatch(thrown.stderr + thrown.stdout, /canary/);
});

test("from standard input to standard output: ends with the input, and the table is on standard error", async (t) => {
  const { folder, write } = desk(t);
  write(
    "pipe.ts",
    `import { topology, stdin, stdout, decode } from "millrace";
export default topology("pipe", (t) => {
  t.from(stdin()).pipe(decode("json")).to(stdout());
});
`,
  );
  const piped = (...args: string[]) =>
    spawnSync(process.execPath, [bin, "run", "pipe.ts", ...args], {
      cwd: folder,
      input: '{"a":1}\n2',
      encoding: "utf8",
      timeout: deadline,
    });
  const { status, stdout, stderr } = piped();
  assert.equal(status, 0, stderr);
  assert.equal(stdout, '{"a":1}\n2\n');
  assert.ok(stderr.endsWith("\naccepted 2 = delivered 2\n"), stderr);
  const json = piped("--json");
  assert.deepEqual([json.status, json.stdout], [2, ""]);
  assert.match(json.stderr, /--json: the topology writes to standard output itself/);
});

test("code that ends the process, or waits for ever, does not pass for done", async (t) => {
  const { run, start, write } = desk(t);
  write("exits.ts", "process.exit(0);");
  write("waits.ts", "await new Promise(() => {});");
  const loading = ["check", "graph", "run"].flatMap((command) =>
    ["exits.ts", "waits.ts"].map(async (file) => {
      const { code, stdout, stderr } = await run([command, file]);
      assert.deepEqual([code, stdout], [78, ""], `${command} ${file}`);
      assert.equal(
        stderr,
        `${file}: the code ended the process, or waits for something that never comes, while it was loaded\n`,
      );
    }),
  );
  await Promise.all(loading);
  write("quits.ts", topology("quits", 'process.once("SIGHUP", () => process.exit(0));'));
  const quits = start(["run", "quits.ts", "--embedded"]);
  await quits.says(/partitions assigned/);
  quits.kill("SIGHUP");
  assert.deepEqual(await quits.ended, { code: 1, signal: null });
  assert.match(quits.stderr, /ended before its work was done: something called process\.exit/);
});

test("a reader that goes away early is no error", async (t) => {
  const { start, write } = desk(t);
  write("pass.ts", topology());
  const program = start(["run", "pass.ts", "--embedded", "--until-idle"]);
  program.child.stdout!.destroy();
  program.child.stderr!.destroy();
  assert.deepEqual(await program.ended, { code: 0, signal: null });
});
