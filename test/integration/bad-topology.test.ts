/**
 * `millrace check` against files that are wrong. A file says itself where its mistakes are: a line that ends in
 * `// ! code` has that error and one that ends in `// ? code` that warning, and there are no others.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { freePort } from "../brokers/port.ts";
import { dumped, freshFolder, millrace, runMillrace } from "../millrace.ts";
import { canary, topologyFile } from "./embedded-run.ts";

interface Found {
  readonly file: string;
  readonly line: number;
  readonly severity: string;
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** The problems that `check` printed, a line each. */
function problemsIn(stdout: string): Found[] {
  return stdout
    .split("\n")
    .map((line) => /^(.+?):(\d+):\d+ {2}(error|warning) {2}(\S+) {2}(.+?) {2}→ (.+)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, file, line, severity, code, message, remedy]) => ({
      file: file!,
      line: Number(line),
      severity: severity!,
      code: code!,
      message: message!,
      remedy: remedy!,
    }));
}

/** What the marks in a text say: "4 error option-unknown". */
function marksIn(text: string): string[] {
  return text.split("\n").flatMap((line, i) => {
    const marks = [...line.matchAll(/\/\/ ([!?]) ([\w-]+)/g)];
    return marks.map(([, mark, code]) => `${i + 1} ${mark === "!" ? "error" : "warning"} ${code}`);
  });
}

/** Checks many files in one process; what is found in each must be what it says of itself. */
async function assertMarked(
  t: TestContext,
  files: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv = {},
): Promise<Readonly<Record<string, readonly Found[]>>> {
  const folder = freshFolder(t);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const paths = Object.keys(files).map((name) => join(folder, name));
  const { code, stdout, stderr } = await runMillrace(t, ["check", ...paths], env);
  const found = problemsIn(stdout);
  const byFile: Record<string, Found[]> = {};
  for (const [name, text] of Object.entries(files)) {
    const own = found.filter(({ file }) => file === join(folder, name));
    byFile[name] = own;
    await t.test(name, () => {
      assert.deepEqual(
        own.map(({ line, severity, code }) => `${line} ${severity} ${code}`).sort(),
        marksIn(text).sort(),
        `found in ${name}:\n${own.map((one) => `${one.line} ${one.code}: ${one.message}`).join("\n")}\n${stderr}`,
      );
    });
  }
  const wrong = Object.values(files).some((text) => / error /.test(marksIn(text).join("\n")));
  assert.equal(code, wrong ? 78 : 0, stderr);
  assert.ok(!stdout.includes("unset environment variable"), stdout);
  assert.doesNotMatch(stdout.replaceAll(/→.*/g, ""), /"undefined"|\[object Object\]/);
  return byFile;
}

test("check looks at stores: who else has one, and whether it could be written", async (t) => {
  const folder = freshFolder(t);
  writeFileSync(join(folder, "file"), "");
  const flow = (topic: string, path: string) =>
    `t.from(cluster.source({ topics: ["${topic}"], group: "g" })).pipe(decode("json"), dedup({ id: "/id", store: disk.idStore({ path: "${path}" }) })).to(cluster.sink({ topic: "${topic}.out" }));`;
  const text = (flows: string) => `import { decode, dedup, file, kafka, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
const disk = file({ root: ${JSON.stringify(folder)} });
export default topology("stores", (t) => { t.deadLetters(cluster.sink({ topic: "dead" }));
${flows}
});
`;
  const check = async (flows: string) => {
    const path = join(folder, "stores.ts");
    writeFileSync(path, text(flows));
    const { code, stdout } = await runMillrace(t, ["check", path]);
    return { code, found: problemsIn(stdout) };
  };
  assert.deepEqual(await check(flow("a", "ids")), { code: 0, found: [] });
  const unwritable = await check(flow("a", "file/ids"));
  assert.equal(unwritable.code, 78);
  assert.deepEqual(
    unwritable.found.map(({ line, code, severity }) => [line, code, severity]),
    [[5, "disk-failed", "error"]],
  );
  assert.match(unwritable.found[0]!.message, /the id store "file\/ids" cannot be written/);
  const shared = await check(`${flow("a", "ids")}\n${flow("b", "ids")}`);
  assert.equal(shared.code, 78);
  assert.deepEqual(
    shared.found.map(({ line, code }) => [line, code]),
    [[6, "topology-conflict"]],
  );
  assert.match(shared.found[0]!.message, /is used by two steps, the other one in line 5/);
});

const head = `import { batch, compress, decode, dedup, encode, env, filter, kafka, key, map, merge, rabbitmq, topology, validate } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
`;

const dead = `t.deadLetters(cluster.sink({ topic: "dead" }));`;

test("five mistakes in one file: five, with their lines", async (t) => {
  const text = `${head}
const other = kafka({ brokers: env("MILLRACE_ADV_UNSET") }); // ! env-missing

export default topology("five", (t) => {
  const orders = t
    .from(cluster.source({ topics: ["in"], gruop: "five", group: "five" })) // ! option-unknown
    .pipe(
      decode("json"),
      dedup({ id: (o) => o.id, capacity: "many" }), // ! option-invalid
      batch({ count: 20_000 }), // ! batch-exceeds-credit
    );
  orders.to(other.sink({ topic: "out" }));
  t.from(cluster.source({ topics: ["in2"], group: "five2" })).pipe(decode("json")); // ! topology-dangling
  ${dead}
});
`;
  const { "five.ts": found } = await assertMarked(t, { "five.ts": text });
  assert.equal(found!.length, 5);
  const unknown = found!.find(({ code }) => code === "option-unknown")!;
  assert.match(unknown.message, /"gruop"/);
  assert.match(unknown.remedy, /"group"/);
  assert.match(found!.find(({ code }) => code === "env-missing")!.message, /MILLRACE_ADV_UNSET/);
});

test("options: unknown ones with what is near, wrong ones, and none at all", async (t) => {
  const found = await assertMarked(t, {
    "near.ts": `${head}
const c2 = kafka({ brokers: "127.0.0.1:1", client_id: "x" }); // ! option-unknown
const hare = rabbitmq({
  url: "amqp://127.0.0.1:1/%2f",
  queues: { q: { durabel: true } },
}); // # the mistake is in what begins three lines above
export default topology("near", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g", credits: 5 })) // ! option-unknown
    .pipe(
      decode("json", { maxdepth: 4 }), // ! option-unknown
      dedup({ id: "/id", tll: "1s" }), // ! option-unknown
      batch({ cuont: 5 }), // ! option-unknown
    )
    .to(cluster.sink({ topic: "b", partitons: 4 }), { nmae: "x" }); // ! option-unknown // ! option-unknown
  t.from(c2.source({ topics: ["a2"], group: "g" })).to(hare.sink({ queue: "b2" }));
  ${dead}
});
`.replace("const hare = rabbitmq({", "const hare = rabbitmq({ // ! option-unknown"),
    "wrong.ts": `${head}
export default topology("wrong", (t) => {
  t.from(cluster.source({ topics: "a", group: "g" })) // ! option-invalid
    .pipe(decode("json"), batch({ count: 0 })) // ! option-invalid
    .to(cluster.sink({ topic: "" })); // ! option-invalid
  t.from(cluster.source({ topics: [], group: "g" })) // ! option-invalid
    .pipe(batch({ count: 1.5 })) // ! option-invalid
    .to(cluster.sink({ topic: "b", partitioner: "md5" })); // ! option-invalid
  t.from(cluster.source({ topics: ["c"], group: "g", commitInterval: Number.NaN })) // ! option-invalid
    .pipe(batch({ within: "5 minuts" })) // ! option-invalid
    .to(cluster.sink({ topic: "d", maxBackoff: -1 })); // ! option-invalid
  t.from(cluster.source({ topics: ["e"], group: "g", creditBytes: "1 elephant" })) // ! option-invalid
    .pipe(batch({ bytes: Number.POSITIVE_INFINITY })) // ! option-invalid
    .to(cluster.sink({ topic: "f" }));
  ${dead}
});
`,
    "missing.ts": `${head}
export default topology("missing", (t) => {
  t.from(cluster.source({ topics: ["a"] })) // ! option-missing
    .pipe(decode("json"), dedup({})) // ! option-missing
    .to(cluster.sink({})); // ! option-missing
  ${dead}
});
`,
    "prototype.ts": `${head}
const trap = JSON.parse('{"__proto__":{"maxDepth":1},"nullValue":"pass"}');
const worse = JSON.parse('{"constructor":{"prototype":{"admin":true}},"topic":"b"}');
export default topology("prototype", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .pipe(decode("json", trap)) // ! option-unknown
    .to(cluster.sink(worse)); // ! option-unknown
  ${dead}
});
`,
  });
  const remedies = found["near.ts"]!.map(({ remedy }) => remedy).join("\n");
  for (const near of ["clientId", "durable", "credit", "maxDepth", "ttl", "count", "partitions", "name"])
    assert.ok(remedies.includes(`"${near}"`), `${near} is near, and is not named:\n${remedies}`);
});

test("a time that no timer can hold is refused, not fired at once", async (t) => {
  await assertMarked(t, {
    "timer.ts": `${head}
export default topology("timer", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g", commitInterval: 1e12 })) // ! option-invalid
    .pipe(batch({ within: "60d" })) // ! option-invalid
    .to(cluster.sink({ topic: "b", maxBackoff: "100000h" })); // ! option-invalid
});
`,
  });
});

test("graphs: circles, loose ends, equal names, streams of others", async (t) => {
  const found = await assertMarked(t, {
    "circle.ts": `${head}
export default topology("circle", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "a" })); // ! topology-cycle
  ${dead}
});
`,
    "long-circle.ts": `${head}
export default topology("long-circle", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" })).to(cluster.sink({ topic: "b" }));
  t.from(cluster.source({ topics: ["b", "x"], group: "g" })).to(cluster.sink({ topic: "c" }));
  t.from(cluster.source({ topics: ["c"], group: "g" })).to(cluster.sink({ topic: "a" })); // ! topology-cycle
});
`,
    "dead-circle.ts": `${head}
export default topology("dead-circle", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "b" }));
  t.deadLetters(cluster.sink({ topic: "a" })); // ! topology-cycle
});
`,
    "audit-circle.ts": `${head}
export default topology("audit-circle", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .to(cluster.sink({ topic: "b" }), { audit: cluster.sink({ topic: "a" }) }); // ! topology-cycle
});
`,
    "loose.ts": `${head}
export default topology("loose", (t) => {
  const source = t.from(cluster.source({ topics: ["a"], group: "g" }));
  source.to(cluster.sink({ topic: "b" }));
  const { big, small } = source.pipe(decode("json")).route({
    big: (o) => o.n > 10,
    small: (o) => o.n < 5, // the branch is made by the route
  });
  big.to(cluster.sink({ topic: "c" }));
  small.pipe(filter((o) => o.n > 1)); // ! topology-dangling
  merge(small, big); // ! topology-dangling
  ${dead}
});
`,
    "empty.ts": `${head}
export default topology("empty", () => {}); // ! topology-empty
`,
    "twice.ts": `${head}
export default topology("twice", (t) => {
  const a = t.from(cluster.source({ topics: ["a"], group: "g" }));
  a.to(cluster.sink({ topic: "b" }), { name: "same" });
  a.to(cluster.sink({ topic: "c" }), { name: "same" }); // ! topology-duplicate-name
});
`,
    "foreign.ts": `${head}
let stream;
topology("first", (t) => {
  stream = t.from(cluster.source({ topics: ["a"], group: "g" }));
  stream.to(cluster.sink({ topic: "b" }));
});
export default topology("foreign", (t) => {
  t.from(cluster.source({ topics: ["c"], group: "g" })).to(cluster.sink({ topic: "d" }));
  stream.to(cluster.sink({ topic: "e" })); // ! topology-foreign-stream
});
`,
    "forms.ts": `${head}
export default topology("forms", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .pipe(dedup({ id: (o) => o.id })) // what a function reads nobody knows
    .to(cluster.sink({ topic: "b" }));
  t.from(cluster.source({ topics: ["c"], group: "g" }))
    .pipe(validate({ type: "object" })) // ! decode-missing
    .to(cluster.sink({ topic: "d" }));
  t.from(cluster.source({ topics: ["e"], group: "g" }))
    .pipe(decode("json"), map((o) => ({ ...o, seen: true })))
    .to(cluster.sink({ topic: "f" })); // ! encode-missing
  t.from(cluster.source({ topics: ["g"], group: "g" }))
    .pipe(decode("json"), decode("json")) // ! decode-repeated
    .to(cluster.sink({ topic: "h" }));
  t.from(cluster.source({ topics: ["i"], group: "g" }))
    .pipe(batch({ count: 10 }), decode("json")) // ! step-after-batch
    .to(cluster.sink({ topic: "j" }));
  t.from(cluster.source({ topics: ["k"], group: "g" }))
    .pipe(compress("gzip"), batch({ count: 10 }), compress("zstd")) // ! step-repeated
    .to(cluster.sink({ topic: "l" }));
  t.from(cluster.source({ topics: ["m"], group: "g" }))
    .pipe(batch({ count: 10 }), compress("gzip"), batch({ count: 20 })) // ! step-after-batch
    .to(cluster.sink({ topic: "n" }));
  ${dead}
});
`,
  });
  const circle = found["long-circle.ts"]![0]?.message ?? "";
  for (const name of ["a", "b", "c"]) assert.match(circle, new RegExp(`\\b${name}\\b`), circle);
});

test("a batch that the credit cannot fill", async (t) => {
  await assertMarked(t, {
    "kafka.ts": `${head}
export default topology("kafka", (t) => {
  const narrow = t.from(cluster.source({ topics: ["a"], group: "g", credit: 10 }));
  const wide = t.from(cluster.source({ topics: ["b"], group: "g" }));
  narrow.pipe(batch({ count: 10 })).to(cluster.sink({ topic: "c" }));
  narrow.pipe(batch({ count: 11 })).to(cluster.sink({ topic: "d" })); // ! batch-exceeds-credit
  merge(narrow, wide).pipe(batch({ count: 1_000 })).to(cluster.sink({ topic: "e" })); // ! batch-exceeds-credit
  wide.pipe(batch({ count: 1_000 })).to(cluster.sink({ topic: "f" }));
});
`,
    "rabbitmq.ts": `${head}
const hare = rabbitmq({ url: "amqp://127.0.0.1:1/%2f", queues: { q: {}, r: {}, s: {} } });
export default topology("rabbitmq", (t) => {
  t.from(hare.source({ queue: "q", prefetch: 100 }))
    .pipe(batch()) // ! batch-exceeds-credit
    .to(cluster.sink({ topic: "c" }));
  t.from(hare.source({ queue: "r", prefetch: 100 }))
    .pipe(batch({ count: 50, within: "20m" })) // ! batch-outlasts-ack
    .to(cluster.sink({ topic: "d" }));
  t.from(hare.source({ queue: "s", prefetch: 100, consumerTimeout: "0s" }))
    .pipe(batch({ count: 50, within: "20m" }))
    .to(cluster.sink({ topic: "e" }));
});
`,
  });
});

test("what can reject without dead letters is warned of, and exits 0", async (t) => {
  await assertMarked(t, {
    "warned.ts": `${head}
export default topology("warned", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" }))
    .pipe(decode("json")) // ? dead-letters-missing
    .to(cluster.sink({ topic: "b" }));
});
`,
  });
});

test("RabbitMQ: what would lose messages or cannot be", async (t) => {
  await assertMarked(t, {
    "rabbitmq.ts": `${head}
const hare = rabbitmq({ // ! option-invalid
  url: "http://127.0.0.1:1",
});
const ok = rabbitmq({ url: "amqp://127.0.0.1:1/%2f", queues: { quorum: { type: "quorum" }, plain: {} } });
export default topology("rabbitmq", (t) => {
  t.from(ok.source({ queue: "quorum" })).to(ok.sink({ queue: "plain-out" })); // ! topology-unsafe
  t.from(ok.source({ queue: "plain" })).to(ok.sink({})); // ! option-missing
  t.from(ok.source({ queue: "plain2", prefetch: 0 })).to(ok.sink({ queue: "x", exchange: "y" })); // ! option-invalid // ! option-invalid
  t.from(hare.source({ queue: "q" })).to(ok.sink({ queue: "plain-out2" }));
});
`,
  });
});

test("files: a loop by another name, and what two cannot share", async (t) => {
  await assertMarked(t, {
    "files.ts": `import { file, stdin, stdout, topology } from "millrace";
const all = file({ root: "data" });
const some = file({ root: "data/some" });
export default topology("files", (t) => {
  t.from(all.source({ path: "./a" })).to(all.sink({ path: "a" })); // ! topology-cycle
  t.from(some.source({ path: "b" })).to(all.sink({ path: "some/b" })); // ! topology-cycle
  t.from(all.source({ path: "c", checkpoint: "mark" })).to(all.sink({ path: "d" }));
  t.from(all.source({ path: "e", checkpoint: "x/../mark" })) // ! option-invalid
    .to(all.sink({ path: "f" }));
  t.from(all.source({ path: "g", checkpoint: "./mark" })) // ! topology-conflict
    .to(all.sink({ path: "h" }));
  t.from(all.source({ path: "i", checkpoint: "marks" })).to(all.sink({ path: "marks" })); // ! topology-conflict
  t.from(stdin()).to(all.sink({ path: "j" }));
  t.from(stdin()).to(stdout()); // ! topology-conflict
});
`,
  });
});

test("Kafka: two sources that would share a topic of one group between them", async (t) => {
  await assertMarked(t, {
    "shared.ts": `${head}
export default topology("shared", (t) => {
  t.from(cluster.source({ topics: ["a", "b"], group: "g" })).to(cluster.sink({ topic: "c" }));
  t.from(cluster.source({ topics: ["a"], group: "h" })).to(cluster.sink({ topic: "d" }));
  t.from(cluster.source({ topics: ["b"], group: "g" })) // ! topology-conflict
    .to(cluster.sink({ topic: "e" }));
});
`,
  });
});

test("what is no component where one belongs is named, and nothing is thrown", async (t) => {
  await assertMarked(t, {
    "confused.ts": `${head}
export default topology("confused", (t) => {
  t.from(cluster.sink({ topic: "a" })).to(cluster.sink({ topic: "b" })); // ! option-invalid
  t.from(cluster.source({ topics: ["a"], group: "g" })).to(cluster.source({ topics: ["b"], group: "g" })); // ! option-invalid
  t.from(cluster.source({ topics: ["c"], group: "g" }))
    .pipe(decode) // ! option-invalid
    .to(cluster.sink({ topic: "d" }));
  t.from(cluster.source({ topics: ["e"], group: "g" }))
    .pipe(undefined) // ! option-invalid
    .to(cluster.sink({ topic: "f" }));
  t.from(undefined).to(null); // ! option-invalid // ! option-invalid
});
`,
    "nothing.ts": `${head}
const none = kafka(); // ! option-missing
const nil = rabbitmq(); // ! option-missing
export default topology("nothing", (t) => {
  t.from(none.source({ topics: ["a"] })).to(none.sink()); // ! option-missing // ! option-missing
  t.from(nil.source()).to(nil.sink()); // ! option-missing // ! option-missing
  t.from(cluster.source({ topics: ["a"], group: "n" }))
    .pipe(decode(), batch(null)) // ! option-missing // ! option-invalid
    .to(cluster.sink({ topic: "d" }));
  ${dead}
});
`,
  });
});

test("a missing or empty environment variable is named, wherever it is used", async (t) => {
  const text = `${head}
const hare = rabbitmq({ url: env("MILLRACE_ADV_EMPTY") }); // ! env-missing
const lan = kafka({ brokers: [env("MILLRACE_ADV_A"), "127.0.0.1:1"] }); // ! env-missing
export default topology("env", (t) => {
  t.from(lan.source({ topics: ["a" + env("MILLRACE_ADV_B")], group: \`g-\${env("MILLRACE_ADV_C")}\` })) // ! env-missing // ! env-missing
    .to(hare.sink({ queue: env("MILLRACE_ADV_SET") }));
});
`;
  const env = { MILLRACE_ADV_EMPTY: "", MILLRACE_ADV_SET: "q" };
  const { "env.ts": found } = await assertMarked(t, { "env.ts": text }, env);
  const text2 = found!.map(({ message }) => message).join("\n");
  for (const name of ["EMPTY", "A", "B", "C"]) assert.match(text2, new RegExp(`MILLRACE_ADV_${name}\\b`));
});

test("a file that is no topology is refused with exit 78, its name and what to do", async (t) => {
  const folder = freshFolder(t);
  const write = (name: string, text: string | Buffer) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  mkdirSync(join(folder, "folder.ts"));
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [
      write(
        "syntax.ts",
        'import { topology } from "millrace";\nexport default topology("x", (t) => {\n  t.from(;\n});\n',
      ),
      "file-unreadable",
      /syntax\.ts:3/,
    ],
    [write("enum.ts", "enum Kind { A }\nexport default Kind;\n"), "file-unreadable", /enum/],
    [write("none.ts", "export const named = 1;\n"), "file-no-topology", /default/],
    [
      write(
        "function.ts",
        'import { topology } from "millrace";\nexport default () => topology("x", () => {});\n',
      ),
      "file-no-topology",
      /function/,
    ],
    [
      write(
        "promise.ts",
        'import { topology } from "millrace";\nexport default Promise.resolve(topology("x", () => {}));\n',
      ),
      "file-no-topology",
      /[Pp]romise/,
    ],
    [write("object.ts", 'export default { name: "x", nodes: [] };\n'), "file-no-topology", /object/],
    [write("null.ts", "export default null;\n"), "file-no-topology", /null/],
    [
      write("import.ts", 'import { order } from "./ordr.schema.ts";\nexport default order;\n'),
      "file-unreadable",
      /ordr\.schema\.ts/,
    ],
    [
      write("name.ts", 'import { dedupe } from "millrace";\nexport default dedupe;\n'),
      "file-unreadable",
      /"?dedup"?/,
    ],
    [
      write("throws.ts", 'throw new Error("the file itself throws");\n'),
      "author-error",
      /throws\.ts:1.*the file itself throws/,
    ],
    [write("throws-null.ts", "throw null;\n"), "author-error", /throws-null\.ts/],
    [write("binary.ts", Buffer.from([0, 1, 2, 0xff, 0xfe])), "file-unreadable", /binary\.ts/],
    [write("empty-file.ts", ""), "file-no-topology", /empty-file\.ts/],
    [write("table.yaml", "name: orders\n"), "file-unreadable", /table\.yaml/],
    [join(folder, "folder.ts"), "file-unreadable", /folder\.ts/],
    [join(folder, "syntx.ts"), "file-unreadable", /syntax\.ts/],
  ];
  for (const command of ["check", "run"]) {
    const { code, stdout, stderr } = await runMillrace(t, [command, ...cases.map(([file]) => file)]);
    assert.equal(code, 78, stderr);
    const lines = `${stdout}${stderr}`.split("\n");
    for (const [file, problem, words] of cases) {
      await t.test(`${command} ${file.slice(folder.length + 1)}`, () => {
        const own = lines.filter((line) => line.startsWith(file) || line.includes(` ${file}`));
        assert.ok(
          own.some((line) => line.includes(problem) && words.test(line)),
          `${problem} ${words} in:\n${own.join("\n") || `${stdout}${stderr}`}`,
        );
      });
    }
  }
});

test("a file that waits for ever at its top, or ends the process, does not pass for sound", async (t) => {
  const waits = topologyFile(t, "await new Promise(() => {});\nexport default 1;\n", "waits.ts");
  const exits = topologyFile(t, "process.exit(0);\n", "exits.ts");
  for (const file of [waits, exits]) {
    const { code, stdout, stderr } = await runMillrace(t, ["check", file]);
    assert.notEqual(code, 0, `${file}: ${stdout}${stderr}`);
    assert.equal(code, 78);
    assert.ok(stderr.includes(file), stderr);
  }
});

test("topologies anywhere use this millrace, whatever is installed beside them, in any kind of module", async (t) => {
  const folder = freshFolder(t);
  const other = join(folder, "node_modules", "millrace");
  mkdirSync(other, { recursive: true });
  writeFileSync(join(other, "package.json"), '{"name":"millrace","version":"0.0.1","main":"index.js"}');
  writeFileSync(join(other, "index.js"), 'throw new Error("the other millrace");');
  mkdirSync(join(folder, "deep", "er"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{"type":"commonjs"}');
  writeFileSync(
    join(folder, "deep", "cluster.ts"),
    'import { kafka } from "millrace";\nexport const cluster = kafka({ brokers: "127.0.0.1:1" });\n',
  );
  const text = (name: string, imports: string) => `${imports}
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["${name}-in"], group: "g" })).to(cluster.sink({ topic: "${name}-out" }));
});
`;
  const names = ["one.ts", "two.mts", "three.mjs", "four.js"];
  for (const name of names) {
    writeFileSync(
      join(folder, "deep", "er", name),
      text(name, 'import { topology } from "millrace";\nimport { cluster } from "../cluster.ts";'),
    );
  }
  writeFileSync(join(folder, "in.ndjson"), "a\nb\n");
  const files = names.map((name) => join(folder, "deep", "er", name));
  const out = join(folder, "out");
  const feeds = names.flatMap((name) => ["--feed", `${name}-in=${join(folder, "in.ndjson")}`]);
  const args = ["run", ...files, "--embedded", ...feeds, "--until-idle", "--dump", out];
  const { code, stdout, stderr } = await runMillrace(t, args);
  assert.equal(code, 0, stderr);
  for (const name of names) {
    assert.match(stdout, new RegExp(`^${name.replace(".", "\\.")}: done`, "m"));
    assert.equal((await dumped(out, `${name}-out`)).length, 2);
  }
});

/** A TCP server that counts who comes, and answers nothing. */
async function listener(t: TestContext): Promise<{ readonly port: number; readonly count: () => number }> {
  const port = await freePort();
  let count = 0;
  const server = createServer((socket) => {
    count++;
    socket.on("error", () => {});
    t.after(() => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  t.after(() => server.close());
  return { port, count: () => count };
}

test("check and graph open no socket; check --connect does, and says whom it did not reach", async (t) => {
  const [kafka, rabbitmq] = [await listener(t), await listener(t)];
  const file = topologyFile(
    t,
    `import { kafka, rabbitmq, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:${kafka.port}", connectTimeout: "500ms", requestTimeout: "500ms" });
const hare = rabbitmq({ url: "amqp://127.0.0.1:${rabbitmq.port}/%2f", connectTimeout: "500ms", queues: { q: {} } });
export default topology("quiet", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" })).to(hare.sink({ queue: "q" }));
});
`,
  );
  assert.equal((await runMillrace(t, ["check", file])).code, 0);
  for (const format of ["mermaid", "dot", "text"]) {
    assert.equal((await runMillrace(t, ["graph", file, "--format", format])).code, 0);
  }
  assert.deepEqual([kafka.count(), rabbitmq.count()], [0, 0]);
  const { code, stdout, stderr } = await runMillrace(t, ["check", "--connect", file]);
  assert.equal(code, 78, stderr);
  assert.match(stdout, new RegExp(`127\\.0\\.0\\.1:${kafka.port}`));
  assert.match(stdout, new RegExp(`127\\.0\\.0\\.1:${rabbitmq.port}`));
  assert.ok(kafka.count() > 0 && rabbitmq.count() > 0, "the servers would have seen it");
});

test("no secret is printed by any command, at any address of the HTTP server, in errors or in drawings", async (t) => {
  const port = await freePort();
  const text = `import { env, kafka, rabbitmq, secret, topology } from "millrace";
const cluster = kafka({
  brokers: "127.0.0.1:${port}",
  connectTimeout: "300ms",
  sasl: { mechanism: "plain", username: "etl", password: "${canary}-1" },
});
const other = kafka({
  brokers: "127.0.0.1:${port}",
  clientId: "other",
  sasl: { mechanism: "scram-sha-256", username: "etl", password: secret(env("ADV_PASSWORD")) },
});
const hare = rabbitmq({ url: env("ADV_URL"), connectTimeout: "300ms", queues: { q: {} } });
export default topology("secrets", (t) => {
  t.from(cluster.source({ topics: ["a"], group: "g" })).to(hare.sink({ queue: "q" }));
  t.from(hare.source({ queue: "q2" })).to(other.sink({ topic: "b" }));
});
`;
  const env = {
    ADV_PASSWORD: `${canary}-2`,
    ADV_URL: `amqp://user:${canary}-3@127.0.0.1:${port}/%2f`,
  };
  const file = topologyFile(t, text);
  // Mistakes of every kind in the same options: what is complained of must not show what stands beside it.
  const wrong = topologyFile(
    t,
    text
      .replace('username: "etl", password: "', 'user: 1, password: ["", "')
      .replace(`${canary}-1" }`, `${canary}-1"] }`)
      .replace('"scram-sha-256"', `"${canary}-4"`)
      .replace('env("ADV_URL")', `"ampq://user:${canary}-5@host:99999/a/b?c"`),
    "wrong.ts",
  );
  const throws = topologyFile(
    t,
    `throw new Error("cannot reach amqp://user:${canary}-6@host/%2f", { cause: new Error("${canary}") });\n`,
    "throws.ts",
  );
  let shown = "";
  for (const args of [
    ["check", file],
    ["check", "--connect", file],
    ["check", wrong],
    ["check", throws],
    ["graph", file],
    ["graph", file, "--format", "dot"],
    ["graph", file, "--format", "text"],
    ["graph", wrong],
    ["run", wrong, "--json"],
    ["run", file, "--embedded", "--until-idle", "--json", "--log-level", "debug"],
    ["run", file, "--dump", "x"],
  ]) {
    const { stdout, stderr } = await runMillrace(t, args, env);
    assert.ok(!`${stdout}${stderr}`.includes(canary), `${args.join(" ")}:\n${stdout}${stderr}`);
    shown += stdout + stderr;
  }
  assert.match(shown, /host|127\.0\.0\.1/, "addresses are told");
  const args = ["run", file, "--http", "127.0.0.1:0", "--log-level", "debug"];
  const runner = millrace(t, args, env);
  const url = await runner.http();
  for (const path of ["/livez", "/readyz", "/metrics", "/status", "/", `/${canary.slice(0, 3)}`]) {
    const response = await fetch(`${url}${path}`);
    assert.ok(!(await response.text()).includes(canary), path);
  }
  runner.signal("SIGUSR2");
  const { stdout, stderr } = await runner.stop();
  assert.ok(!`${stdout}${stderr}`.includes(canary), `${stdout}${stderr}`);
});
