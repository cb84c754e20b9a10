/** The program as its users meet it: exit codes, dumps, the report, signals, HTTP. All on embedded brokers. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { freePort } from "../brokers/port.ts";
import { until } from "../brokers/until.ts";
import { dumped, freshFolder, type Millrace, millrace, runMillrace } from "../millrace.ts";
import { type Fed, feedLine, type JsonReport, topologyFile } from "./embedded-run.ts";

const head = `import { decode, encode, filter, kafka, map, mapAsync, rabbitmq, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
`;

/** in → out with these steps. */
const flow = (name: string, steps = "", source = "") => `${head}
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}.in"], group: "${name}", ${source} }))
    .pipe(${steps})
    .to(cluster.sink({ topic: "${name}.out" }));
  t.deadLetters(cluster.sink({ topic: "${name}.dead" }));
});
`;

/** Messages that have come in, by the server's own account. */
async function accepted(runner: Millrace): Promise<number> {
  const response = await fetch(`${await runner.http()}/status`);
  return ((await response.json()) as JsonReport).conservation.accepted;
}

test("wrong usage exits 2, says what is wrong on standard error, and nothing on standard output", async (t) => {
  const file = topologyFile(t, flow("usage"));
  const folder = freshFolder(t);
  const feed = join(folder, "in.ndjson");
  writeFileSync(feed, "1\n");
  const plain = join(folder, "plain");
  writeFileSync(plain, "");
  writeFileSync(join(folder, "far.ndjson"), feedLine({ value: "1", partition: 99 }));
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /run|Usage/],
    [["run", file, "--embeded"], /--embedded/],
    [["run", file, "--embedded", "--http", "127.0.0.1:65536"], /--http/],
    [["run", file, "--embedded", "--drain", "-1s"], /drain/],
    [["run", file, "--embedded", "--feed", `usage.inn=${feed}`], /"usage\.in"/],
    [["run", file, "--embedded", "--feed", `usage.in=${folder}/none`], /none/],
    [["run", file, "--embedded", "--feed", `usage.in=${folder}/far.ndjson`], /99/],
    [["run", file, "--embedded", "--until-idle", "--dump", plain], /--dump/],
    [["run", file, "--feed", `usage.in=${feed}`], /--embedded/],
    [["run", file, "--dump", join(folder, "out")], /--embedded/],
  ];
  for (const [args, words] of wrong) {
    const { code, stdout, stderr } = await runMillrace(t, args);
    await t.test(args.map((arg) => arg.replaceAll(folder, "…")).join(" ") || "no arguments", () => {
      assert.equal(code, 2, stderr);
      assert.match(stderr, words);
      assert.equal(stdout, "");
      assert.doesNotMatch(stderr, /^\s+at .*\.ts:\d+/m, "a stack is no answer");
    });
  }
  assert.ok(!existsSync(join(folder, "out")), "what is refused makes nothing");
});

test("dumps: a file for each topic and queue even when empty, input too, whatever they are called", async (t) => {
  const folder = freshFolder(t);
  const queues = [
    "../../evil",
    "/etc/millrace",
    "..",
    ".",
    "a/b",
    "a b",
    "A",
    "a",
    "ü",
    "a:b",
    "q".repeat(255),
    "con",
    "x\u0007y",
  ];
  const text = `${head}
const hare = rabbitmq({
  url: "amqp://127.0.0.1:1/%2f",
  queues: ${JSON.stringify(Object.fromEntries(queues.map((queue) => [queue, {}])))},
});
export default topology("dumps", (t) => {
  ${queues.map((queue) => `t.from(hare.source({ queue: ${JSON.stringify(queue)} })).to(cluster.sink({ topic: "all" }));`).join("\n  ")}
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`;
  const out = join(folder, "deep", "er", "out");
  const file = topologyFile(t, text);
  const args = ["run", file, "--embedded", "--until-idle", "--dump", out];
  const { code, stdout, stderr } = await runMillrace(t, args);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /accepted 0 = 0\n$/);
  const names = readdirSync(out);
  assert.equal(names.length, queues.length + 2, names.join(" "));
  assert.equal(
    new Set(names.map((name) => name.toLowerCase())).size,
    names.length,
    "apart on any file system",
  );
  for (const name of names) {
    assert.match(name, /^[\w.%~=+@ -]+\.ndjson$/);
    assert.equal(readFileSync(join(out, name), "utf8"), "");
  }
  assert.deepEqual(readdirSync(folder), ["deep"]);
  assert.deepEqual(readdirSync(join(folder, "deep", "er")), ["out"]);
});

test("a dumped record: partition, offset, key, value, headers as pairs, whole milliseconds; fed again it is the same", async (t) => {
  const folder = freshFolder(t);
  const fed: Fed[] = [
    {
      value: "text ✓",
      key: "k",
      headers: [
        ["a", "1"],
        ["a", "2"],
        ["", ""],
      ],
      partition: 1,
    },
    {
      value: Buffer.from([0xff, 0x00, 0x0a]),
      key: Buffer.from([0x80]),
      headers: [
        ["b", Buffer.from([0xfe])],
        ["n", null],
      ],
      partition: 2,
    },
    { value: null, key: null, partition: 3 },
    { value: "", key: "", partition: 0 },
    { value: '{"value":"looks like","key":"a record"}', key: null, partition: 0 },
    { value: "line\r\nends\u2028\u0000", key: null, partition: 0 },
  ];
  writeFileSync(join(folder, "in.ndjson"), fed.map(feedLine).join("\r\n"));
  const file = topologyFile(t, flow("copy"));
  const run = async (input: string, out: string) => {
    const args = ["run", file, "--embedded", "--feed", `copy.in=${input}`, "--until-idle", "--dump", out];
    const { code, stderr } = await runMillrace(t, args);
    assert.equal(code, 0, stderr);
  };
  await run(join(folder, "in.ndjson"), join(folder, "first"));
  const records = await dumped(join(folder, "first"), "copy.in");
  assert.equal(records.length, fed.length);
  for (const record of records) {
    assert.deepEqual(Object.keys(record), ["partition", "offset", "key", "value", "headers", "timestamp"]);
    assert.ok(Number.isSafeInteger(record.timestamp) && record.timestamp > 1.7e12);
    assert.ok(Array.isArray(record.headers) && record.headers.every((pair) => pair.length === 2));
  }
  const binary = records.find(({ partition }) => partition === 2)!;
  assert.deepEqual(binary.value, { base64: "/wAK" });
  assert.deepEqual(binary.key, { base64: "gA==" });
  assert.deepEqual(binary.headers, [
    ["b", { base64: "/g==" }],
    ["n", null],
  ]);
  assert.deepEqual(
    records.filter(({ partition }) => partition === 0).map(({ offset, value }) => [offset, value]),
    fed.slice(3).map(({ value }, i) => [i, value]),
  );
  await run(join(folder, "first", "copy.in.ndjson"), join(folder, "second"));
  assert.deepEqual(await dumped(join(folder, "second"), "copy.in"), records);
});

test("--json is one object and the table is the last thing, however the run ends", async (t) => {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "in.ndjson"), '1\n{"n":\n2\n');
  const good = topologyFile(t, flow("good", 'decode("json")'));
  // No dead letters: the second message stops the run, and nothing from it on is acknowledged.
  const stops = topologyFile(t, flow("stops", 'decode("json")').replace(/ {2}t\.deadLetters.*\n/, ""));
  const broken = topologyFile(t, flow("broken", 'decode("jsn")'));
  const feed = (name: string) => ["--feed", `${name}.in=${join(folder, "in.ndjson")}`];
  const cases = [
    {
      args: [good, ...feed("good")],
      code: 0,
      how: "done",
      line: /^accepted 3 = delivered 2 \+ deadLettered 1$/,
    },
    { args: [stops, ...feed("stops")], code: 1, how: "failed", line: /^accepted \d = / },
    { args: [broken, ...feed("broken")], code: 78, how: undefined, line: undefined },
  ];
  for (const { args, code, how, line } of cases) {
    const json = await runMillrace(t, ["run", ...args, "--embedded", "--until-idle", "--json"]);
    assert.equal(json.code, code, json.stderr);
    assert.match(json.stdout, /^\{.*\}\n$/);
    const report = JSON.parse(json.stdout) as JsonReport;
    assert.equal(report.exitCode, code);
    assert.equal(report.topologies[0]?.result.how, how);
    if (how === undefined) assert.equal(report.problems[0]!.code, "option-invalid");
    const plain = await runMillrace(t, ["run", ...args, "--embedded", "--until-idle"]);
    assert.equal(plain.code, code);
    if (line === undefined) assert.equal(plain.stdout, "");
    else assert.match(plain.stdout.trimEnd().split("\n").at(-1)!, line);
    for (const text of plain.stderr
      .trimEnd()
      .split("\n")
      .filter((one) => one.startsWith("{")))
      assert.equal(typeof JSON.parse(text).msg, "string");
  }
});

/** Local addresses on which a process listens, as the kernel has them: "0100007F:1F90" is 127.0.0.1:8080. */
function listening(pid: number): string[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    }),
  );
  return ["tcp", "tcp6"].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, "utf8")
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === "0A" && inodes.has(fields[9]!))
      .map((fields) => fields[1]!),
  );
}

function ask(
  url: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<{ status: number; body: string; headers: NodeJS.Dict<string | string[]> }> {
  const { method = "GET", headers = {}, body } = options;
  return new Promise((resolve, reject) => {
    const sent = request(url, { path, method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode!, body: text, headers: response.headers }),
      );
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

test("HTTP: off unless asked for; loopback unless told; only our own Host, only reading", {
  skip: existsSync("/proc/net/tcp") ? false : "needs /proc",
}, async (t) => {
  const file = topologyFile(t, flow("quiet"));
  const silent = millrace(t, ["run", file, "--embedded"]);
  await silent.logged("topology running");
  assert.deepEqual(listening(silent.pid), []);
  assert.equal((await silent.stop()).code, 0);

  const port = await freePort();
  const runner = millrace(t, ["run", file, "--embedded", "--http", String(port)]);
  const url = await runner.http();
  await runner.logged("partitions assigned");
  assert.deepEqual(listening(runner.pid), [`0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`]);
  await until("it is ready", async () => (await ask(url, "/readyz")).status === 200);
  assert.equal((await ask(url, "/livez")).status, 200);
  const metrics = await ask(url, "/metrics");
  assert.equal(metrics.status, 200);
  assert.match(metrics.body, /# EOF\n$/);
  assert.match(metrics.body, /quiet/);
  const status = JSON.parse((await ask(url, "/status")).body) as JsonReport;
  assert.equal(status.conservation.accepted, 0);
  for (const host of [
    "evil.example",
    `evil.example:${port}`,
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::1].evil",
  ]) {
    for (const path of ["/status", "/metrics", "/livez", "/readyz"])
      assert.ok((await ask(url, path, { headers: { host } })).status >= 400, `Host ${host} gets ${path}`);
  }
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
    assert.ok((await ask(url, "/status", { method })).status >= 400, method);
  const cross = await ask(url, "/status", { headers: { origin: "http://evil.example" } });
  assert.equal(cross.headers["access-control-allow-origin"], undefined);
  for (const path of [
    "/../package.json",
    "/%2e%2e/package.json",
    "/status/..%2f..",
    "//evil.example/status",
    "/status%00",
    "/".repeat(4_000),
  ])
    assert.ok((await ask(url, path)).status >= 400, path);
  const taken = await runMillrace(t, ["run", file, "--embedded", "--http", String(port)]);
  assert.ok(taken.code === 78 || taken.code === 2, `exit ${taken.code}`);
  assert.match(taken.stderr, new RegExp(String(port)));
  assert.equal((await runner.stop()).code, 0);
});

const slow = `decode("json"), mapAsync((v) => new Promise((done) => setTimeout(done, 300, v)), { concurrency: 4 }), encode("json")`;
const never = `decode("json"), mapAsync(() => new Promise(() => {}), { timeout: "10m" }), encode("json")`;

async function started(
  t: Parameters<typeof millrace>[0],
  steps: string,
  ...args: string[]
): Promise<{ runner: Millrace; out: string }> {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "in.ndjson"), Array.from({ length: 1_000 }, (_, i) => `${i}\n`).join(""));
  const file = topologyFile(t, flow("busy", steps, "credit: 8, chunk: 4"));
  const out = join(folder, "out");
  const runner = millrace(t, [
    ...["run", file, "--embedded", "--feed", `busy.in=${join(folder, "in.ndjson")}`],
    ...["--http", "0", "--json", "--dump", out, ...args],
  ]);
  await until("messages are in flight", async () => (await accepted(runner)) >= 8);
  return { runner, out };
}

test("SIGTERM finishes what is in flight, takes nothing more in, and exits 0", async (t) => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { runner, out } = await started(t, slow);
    runner.signal(signal);
    const { code, stdout, stderr } = await runner.ended;
    assert.equal(code, 0, stderr);
    const { conservation } = JSON.parse(stdout) as JsonReport;
    assert.ok(conservation.accepted < 1_000, "it stopped before its end");
    assert.equal(conservation.inFlight, 0);
    assert.equal(conservation.delivered, conservation.accepted);
    assert.equal((await dumped(out, "busy.out")).length, conservation.delivered);
  }
});

test("a second signal exits at once, and not with 0", async (t) => {
  const { runner } = await started(t, never);
  runner.signal("SIGTERM");
  await runner.logged("draining");
  const before = performance.now();
  runner.signal("SIGTERM");
  const { code, stdout } = await runner.ended;
  assert.equal(code, 1);
  assert.ok(performance.now() - before < 20_000, "the drain was waited for, which may take 30 s");
  const { conservation } = JSON.parse(stdout) as JsonReport;
  assert.equal(conservation.delivered, 0);
});

test("a drain that takes too long exits 1 and delivers nothing of the rest", async (t) => {
  const { runner, out } = await started(t, never, "--drain", "700ms");
  const before = performance.now();
  runner.signal("SIGTERM");
  const { code, stdout, stderr } = await runner.ended;
  assert.equal(code, 1, stderr);
  const took = performance.now() - before;
  assert.ok(took > 650 && took < 25_000, `${took} ms`);
  const report = JSON.parse(stdout) as JsonReport;
  assert.equal(report.topologies[0]!.result.how, "drain-timeout");
  assert.equal(report.conservation.delivered, 0);
  assert.equal(report.conservation.deadLettered, 0);
  assert.deepEqual(await dumped(out, "busy.out"), []);
  assert.deepEqual(await dumped(out, "busy.dead"), []);
});

test("several topologies in one process: a chain ends when all of it is idle", async (t) => {
  const folder = freshFolder(t);
  const chain = (n: number) => `${head}
export default topology("link${n}", (t) => {
  t.from(cluster.source({ topics: ["t${n}"], group: "one-group" }))
    .pipe(decode("json"), map((v) => v + 1), encode("json"))
    .to(cluster.sink({ topic: "t${n + 1}" }));
  t.deadLetters(cluster.sink({ topic: "dead" }));
});
`;
  const files = [0, 1, 2].map((n) => topologyFile(t, chain(n)));
  writeFileSync(join(folder, "in.ndjson"), Array.from({ length: 2_000 }, (_, i) => `${i}\n`).join(""));
  const out = join(folder, "out");
  const args = [
    "run",
    ...files,
    "--embedded",
    "--feed",
    `t0=${join(folder, "in.ndjson")}`,
    "--until-idle",
    "--dump",
    out,
  ];
  const { code, stdout, stderr } = await runMillrace(t, args);
  assert.equal(code, 0, stderr);
  for (const n of [0, 1, 2]) assert.match(stdout, new RegExp(`^link${n}: done$`, "m"));
  assert.equal([...stdout.matchAll(/^accepted 2000 = delivered 2000$/gm)].length, 3, stdout);
  const values = (await dumped(out, "t3")).map(({ value }) => Number(value));
  assert.deepEqual(
    values.sort((a, b) => a - b),
    Array.from({ length: 2_000 }, (_, i) => i + 3),
  );
});

test("one topology that fails ends the others in good order, and the exit code tells", async (t) => {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "in.ndjson"), Array.from({ length: 50 }, (_, i) => `${i}\n`).join(""));
  writeFileSync(join(folder, "bad.ndjson"), "nope\n");
  const steady = topologyFile(t, flow("steady", 'decode("json")'));
  const fails = topologyFile(t, flow("fails", 'decode("json")').replace(/ {2}t\.deadLetters.*\n/, ""));
  const feeds = [
    "--feed",
    `steady.in=${join(folder, "in.ndjson")}`,
    "--feed",
    `fails.in=${join(folder, "bad.ndjson")}`,
  ];
  const { code, stdout, stderr } = await runMillrace(t, [
    "run",
    steady,
    fails,
    "--embedded",
    ...feeds,
    "--json",
  ]);
  assert.equal(code, 1, stderr);
  const { topologies } = JSON.parse(stdout) as JsonReport;
  const [first, second] = topologies;
  assert.equal(second!.result.how, "failed");
  assert.equal(second!.conservation.deadLettered, 0);
  assert.equal(first!.conservation.inFlight, 0);
  assert.equal(first!.conservation.delivered, first!.conservation.accepted);
  assert.match(stderr, /dead-letter-impossible|no dead letters/);
});

test("code that ends the process while it runs does not pass for success", async (t) => {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "in.ndjson"), "1\n2\n");
  const file = topologyFile(t, flow("exits", 'decode("json"), filter(() => process.exit(0))'));
  const args = ["run", file, "--embedded", "--feed", `exits.in=${join(folder, "in.ndjson")}`, "--until-idle"];
  const { code, stderr } = await runMillrace(t, args);
  assert.equal(code, 1);
  assert.match(stderr, /process\.exit|ended before/);
});

test("one that fails ends the others under --until-idle too, though one of them never comes to its end", async (t) => {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "one.ndjson"), "1\n");
  writeFileSync(join(folder, "bad.ndjson"), "nope\n");
  const stuck = topologyFile(
    t,
    flow("stuck", 'decode("json"), mapAsync(() => new Promise(() => {})), encode("json")'),
  );
  const fails = topologyFile(t, flow("fails", 'decode("json")').replace(/ {2}t\.deadLetters.*\n/, ""));
  const { code, stderr } = await runMillrace(t, [
    ...["run", stuck, fails, "--embedded", "--until-idle", "--drain", "500ms"],
    ...[
      "--feed",
      `stuck.in=${join(folder, "one.ndjson")}`,
      "--feed",
      `fails.in=${join(folder, "bad.ndjson")}`,
    ],
  ]);
  assert.equal(code, 1, stderr);
  assert.match(
    stderr,
    /"level":"error"[^\n]*"topology":"fails"[^\n]*no dead letters[\s\S]*"mode":"draining"/,
  );
});

test("SIGTERM while a topology file is still being loaded ends the program, without blame", async (t) => {
  const file = topologyFile(
    t,
    'process.stderr.write("loading\\n"); await new Promise(() => setInterval(() => {}, 1_000));',
  );
  const runner = millrace(t, ["run", file, "--embedded"]);
  await runner.logged("loading");
  const { code, stdout, stderr } = await runner.stop();
  assert.deepEqual([code, stdout], [0, ""], stderr);
  assert.doesNotMatch(stderr, /waits for something/);
});
