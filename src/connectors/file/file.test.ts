import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable, Writable } from "node:stream";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { until } from "../../../test/brokers/until.ts";
import { PooledWork, systemClock, systemRandom } from "../../component/system.ts";
import { MillraceError } from "../../errors.ts";
import { type Run, start } from "../../runtime/run.ts";
import { testContext } from "../../testing/context.ts";
import { SinkBed, SourceBed } from "../../testing/session-bed.ts";
import type { Plan } from "../../topology/plan.ts";
import { type FileSinkOptions, type FileSourceOptions, file, stdin, stdout } from "./index.ts";
import { LineSinkSession, openLineSink } from "./sink.ts";
import { openLineSource } from "./source.ts";

const silent = { debug() {}, info() {}, warn() {}, error() {} };

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "millrace-file-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function planOf(
  source: Plan["nodes"][number] & { kind: "source" },
  sink: (Plan["nodes"][number] & { kind: "sink" })["sink"],
): Plan {
  return {
    name: "copy",
    nodes: [
      source,
      { kind: "sink", name: "out", location: undefined, inputs: [{ node: "in" }], sink, audit: undefined },
    ],
    deadLetters: undefined,
    connections: [],
    warnings: [],
  };
}

function running(plan: Plan): Run {
  return start(plan, { clock: systemClock, random: systemRandom, work: new PooledWork(), logger: silent });
}

function copy(root: string, from: FileSourceOptions, to: FileSinkOptions = { path: "out" }): Run {
  const disk = file({ root });
  return running(
    planOf(
      { kind: "source", name: "in", location: undefined, inputs: [], source: disk.source(from) },
      disk.sink(to),
    ),
  );
}

async function finish(run: Run): Promise<void> {
  await run.untilIdle();
  assert.deepEqual(await run.drain(), { how: "done" });
}

const code = (wanted: string) => (error: unknown) => error instanceof MillraceError && error.code === wanted;

/** A source on the bench, under virtual time, reading a real file. */
async function reading(t: TestContext, root: string, options: FileSourceOptions, credit = 1_000) {
  const context = testContext();
  const bed = new SourceBed(context, { messages: credit, bytes: 2 ** 20, span: 4 * credit, chunk: 100 });
  const session = await file({ root }).source(options).open(bed.context);
  t.after(() => session.close(0));
  const seen = (what: string, condition: () => boolean | Promise<boolean>) =>
    until(what, async () => {
      await context.clock.run(100);
      return condition();
    });
  return { bed, session, seen, clock: context.clock };
}

/** A file's sink on the bench. */
async function writing(t: TestContext, root: string, options: FileSinkOptions) {
  const context = testContext();
  const session = await file({ root }).sink(options).open(context);
  t.after(() => session.close(0));
  return { bed: new SinkBed(context, session), session, context };
}

test("lines are copied byte for byte, CRLF and a last line without an end included", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "one\r\n\ntwo Ö\nlast");
  await finish(copy(root, { path: "in" }));
  assert.equal(readFileSync(join(root, "out"), "utf8"), "one\n\ntwo Ö\nlast\n");
});

test("with a checkpoint the next run goes on after the last settled line", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n2\n3\n");
  const again = () => finish(copy(root, { path: "in", checkpoint: "in.at" }));
  await again();
  await again();
  appendFileSync(join(root, "in"), "4\n5");
  await again();
  await again();
  assert.equal(readFileSync(join(root, "out"), "utf8"), "1\n2\n3\n4\n5\n");
  assert.ok(!existsSync(join(root, "in.at.draft")));
  // The last line was not at its end; what it became is read whole.
  appendFileSync(join(root, "in"), "5\n");
  await again();
  assert.equal(readFileSync(join(root, "out"), "utf8"), "1\n2\n3\n4\n5\n55\n");
});

test("without a checkpoint every run reads from the start", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n");
  await finish(copy(root, { path: "in" }));
  await finish(copy(root, { path: "in" }));
  assert.equal(readFileSync(join(root, "out"), "utf8"), "1\n1\n");
});

test("property: stopped and started anywhere, nothing is left out, and a clean stop repeats nothing", async (t) => {
  const root = folder(t);
  let round = 0;
  const line = fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, ""));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(line, { maxLength: 6 }), { minLength: 1, maxLength: 4 }),
      async (parts) => {
        const name = `p${round++}`;
        for (const lines of parts) {
          appendFileSync(join(root, name), lines.map((text) => `${text}\n`).join(""));
          await finish(copy(root, { path: name, checkpoint: `${name}.at` }, { path: `${name}.out` }));
        }
        assert.equal(readFileSync(join(root, `${name}.out`), "utf8"), readFileSync(join(root, name), "utf8"));
      },
    ),
    { numRuns: 15 },
  );
});

test("a message that is not settled holds the checkpoint, whatever is settled after it", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n2\n3\n4\n");
  const first = await reading(t, root, { path: "in", checkpoint: "in.at" });
  await first.seen("all is read", () => first.bed.open.length === 4);
  first.bed.settle(0, 1);
  first.bed.settle(1, 2);
  await first.session.commit();
  const second = await reading(t, root, { path: "in", checkpoint: "in.at" });
  await second.seen("the rest is read", () => second.bed.open.length === 3);
  assert.deepEqual(second.bed.payloads, ["2", "3", "4"]);
});

test("a moved checkpoint is written within a second, without being asked for", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n2\n");
  const { bed, seen, clock } = await reading(t, root, { path: "in", checkpoint: "in.at" });
  await seen("all is read", () => bed.open.length === 2);
  bed.settle(0, 1);
  const settled = clock.now();
  await seen("it is written", () => existsSync(join(root, "in.at")));
  assert.ok(clock.now() - settled >= 1_000);
  assert.equal((JSON.parse(readFileSync(join(root, "in.at"), "utf8")) as { position: number }).position, 3);
});

test("reading waits for credit, and goes on as messages settle", async (t) => {
  const root = folder(t);
  const lines = Array.from({ length: 3_000 }, (_, i) => `line ${i} ${"x".repeat(300)}`);
  writeFileSync(join(root, "in"), lines.join("\n"));
  const { bed, session, seen } = await reading(t, root, { path: "in" }, 100);
  await seen("credit is used up", () => bed.open.length === 100);
  // One block is the most that waits, however much time there was to read more.
  for (let i = 0; i < 100; i++) await stat(join(root, "in"));
  const waiting = bed.intake.waiting(bed.intake.lanes[0]!);
  assert.ok(waiting > 0 && waiting < 900);
  assert.equal(await session.atEnd(), false);
  await seen("everything is read", async () => {
    bed.settle();
    return session.atEnd();
  });
  bed.settle();
  assert.deepEqual(bed.payloads, lines);
});

test("the end is not reached while something read waits for credit", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), `${"x\n".repeat(100)}last`);
  const { bed, session, seen } = await reading(t, root, { path: "in" }, 100);
  await seen("credit is used up", () => bed.open.length === 100);
  for (let i = 0; i < 100; i++) await stat(join(root, "in"));
  assert.equal(await session.atEnd(), false);
  bed.settle();
  await seen("the end is reached", () => session.atEnd());
  assert.equal(bed.payloads.at(-1), "last");
});

test("followed from a checkpoint in a line that was not whole, that line is read when it is", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n2");
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  const { bed, session, seen } = await reading(t, root, { path: "in", checkpoint: "in.at", follow: true });
  await seen("it knows the end", () => session.atEnd());
  appendFileSync(join(root, "in"), "2\n");
  await seen("the line is read", () => bed.payloads.length === 1);
  assert.deepEqual(bed.payloads, ["22"]);
});

test("a followed file: what is appended is read, a line once it is whole", async (t) => {
  const root = folder(t);
  const path = join(root, "in");
  writeFileSync(path, "1\n2");
  const { bed, session, seen } = await reading(t, root, { path: "in", follow: true });
  await seen("the whole line is read", () => bed.payloads.length === 1);
  await seen("it knows the end", () => session.atEnd());
  appendFileSync(path, "2\r");
  appendFileSync(path, "\n3\n");
  await seen("the others are read", () => bed.payloads.length === 3);
  assert.deepEqual(bed.payloads, ["1", "22", "3"]);
  assert.equal(bed.failure, undefined);
});

test("a followed file that is cut or replaced ends the run with an error, and does not read on in silence", async (t) => {
  for (const [fault, what] of [
    [(path: string) => truncateSync(path, 1), /cut to 1 bytes after 4/],
    [
      (path: string) => {
        writeFileSync(`${path}.new`, "other\n");
        renameSync(`${path}.new`, path);
      },
      /taken its place/,
    ],
  ] as const) {
    const root = folder(t);
    writeFileSync(join(root, "in"), "1\n2\n");
    const { bed, session, seen } = await reading(t, root, { path: "in", follow: true });
    await seen("all is read", () => bed.payloads.length === 2);
    fault(join(root, "in"));
    await seen("it is noticed", () => bed.failure !== undefined);
    assert.ok(code("disk-failed")(bed.failure));
    assert.match(String(bed.failure), what);
    assert.equal(session.status().ready, false);
  }
});

test("stopped while it waits for credit or for more, it closes at once", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "x\n".repeat(2_000));
  for (const [credit, follow] of [
    [10, false],
    [10_000, true],
  ] as const) {
    const { bed, session, seen } = await reading(t, root, { path: "in", follow }, credit);
    await seen("it waits", async () => bed.open.length === Math.min(credit, 2_000));
    session.stopIntake();
    await session.close(0);
    assert.equal(bed.failure, undefined);
  }
});

test("a file that another took the place of is not read on from the old checkpoint", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "1\n2\n");
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  writeFileSync(join(root, "in"), "a\nb\nc\n");
  await assert.rejects(copy(root, { path: "in", checkpoint: "in.at" }).started, code("target-mismatch"));
});

test("a line that a crash left torn is moved aside: nobody reads it, and it never runs into the next one", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "next\n");
  writeFileSync(join(root, "out"), "whole\nto");
  await finish(copy(root, { path: "in" }));
  assert.equal(readFileSync(join(root, "out"), "utf8"), "whole\nnext\n");
  assert.equal(readFileSync(join(root, "out.torn"), "utf8"), "to\n");
});

test("the options are checked before anything is opened", () => {
  const disk = file({ root: "none" });
  for (const path of ["../x", "/etc/passwd", "a/../../x", "nul\0", "x".repeat(300), ""]) {
    assert.equal(disk.sink({ path }).problems[0]?.code, "option-invalid", path);
    assert.equal(disk.source({ path }).problems[0]?.code, "option-invalid", path);
    assert.equal(disk.source({ path: "ok", checkpoint: path }).problems[0]?.code, "option-invalid", path);
  }
  assert.match(disk.source({ path: "a", checkpoint: "./a" }).problems[0]!.message, /over the file/);
  assert.equal(
    disk.source({ path: "a", folow: true } as FileSourceOptions).problems[0]?.code,
    "option-unknown",
  );
  assert.equal(disk.sink({ path: "a", format: "csv" } as unknown as FileSinkOptions).problems.length, 1);
  assert.equal(disk.source({} as FileSourceOptions).problems[0]?.code, "option-missing");
  assert.deepEqual(
    disk.source({ path: "a", checkpoint: "a.at", follow: true, maxLineBytes: "1MiB" }).problems,
    [],
  );
  assert.deepEqual(disk.sink({ path: "a", format: "record" }).problems, []);
  assert.equal(file({ rot: "x" } as object).problems?.[0]?.code, "option-unknown");
  assert.equal(existsSync("none"), false);
});

test("a link that leads out of the root ends the start", async (t) => {
  const root = folder(t);
  const outside = folder(t);
  writeFileSync(join(outside, "secret"), "x\n");
  symlinkSync(join(outside, "secret"), join(root, "link"));
  symlinkSync(join(outside, "not yet"), join(root, "dangling"));
  writeFileSync(join(root, "in"), "x\n");
  await assert.rejects(copy(root, { path: "in" }, { path: "link" }).started, code("access-refused"));
  await assert.rejects(copy(root, { path: "in", checkpoint: "link" }).started, code("access-refused"));
  await assert.rejects(copy(root, { path: "link" }).started, code("access-refused"));
  await assert.rejects(copy(root, { path: "in" }, { path: "dangling" }).started, code("disk-failed"));
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "x\n");
  assert.equal(existsSync(join(outside, "not yet")), false);
});

test("what is missing, or is no file, is told by check and at the start", async (t) => {
  const root = folder(t);
  const connection = file({ root });
  const requirement = { kind: "file", name: "none", role: "source", at: "t.ts:1" } as const;
  const [unmet] = await connection.verify(testContext(), [
    requirement,
    { ...requirement, name: "to be made", role: "sink" },
  ]);
  assert.equal(unmet?.requirement, requirement);
  assert.match(unmet.problem, /"none" cannot be read/);
  await assert.rejects(copy(root, { path: "none" }).started, code("target-missing"));
  assert.equal(spawnSync("sh", ["-c", 'mkfifo "$0"', join(root, "pipe")]).status, 0);
  await assert.rejects(copy(root, { path: "pipe" }).started, /no regular file/);
  writeFileSync(join(root, "in"), "x\n");
  await assert.rejects(copy(root, { path: "in" }, { path: "pipe" }).started, /no regular file/);
  assert.deepEqual(await connection.verify(testContext(), [{ ...requirement, name: "in" }]), []);
});

test("a line too long ends the run with its place, and what came before is written", async (t) => {
  const root = folder(t);
  for (const rest of ["x".repeat(200_000), `${"x".repeat(1_001)}\nmore\n`]) {
    writeFileSync(join(root, "in"), `ok\n${rest}`);
    const result = await copy(root, { path: "in", maxLineBytes: 1_000 }).finished;
    assert.equal(result.how, "failed");
    assert.ok(code("option-invalid")((result as { error: Error }).error));
    assert.match((result as { error: Error }).error.message, /line at byte 3 is longer than 1000 bytes/);
  }
});

test("what is no line is refused alone; the record form takes everything", async (t) => {
  const root = folder(t);
  const messages = [
    { value: "one" },
    { value: "two\nlines" },
    { value: null, key: Buffer.from("k") },
    {
      value: "",
      headers: [
        ["h", Buffer.from("é")],
        ["h", 1],
        ["x", Buffer.from([255])],
      ] as const,
    },
    { value: Buffer.from([0, 255]), timestamp: 5 },
  ];
  const lines = await writing(t, root, { path: "lines" });
  const [written] = lines.bed.write(messages);
  await written!.done;
  assert.deepEqual(written!.outcomes, ["delivered", "inFlight", "inFlight", "delivered", "delivered"]);
  assert.deepEqual(
    written!.refusals?.map(({ entry, failure }) => [entry, failure.class, failure.code]),
    [
      [1, "business", "record-refused"],
      [2, "business", "record-refused"],
    ],
  );
  assert.deepEqual(
    readFileSync(join(root, "lines")),
    Buffer.concat([Buffer.from("one\n\n\0"), Buffer.from([255, 10])]),
  );

  const records = await writing(t, root, { path: "records", format: "record" });
  const [all] = records.bed.write(messages);
  await all!.done;
  assert.deepEqual(new Set(all!.outcomes), new Set(["delivered"]));
  const now = records.context.clock.wall();
  assert.deepEqual(
    readFileSync(join(root, "records"), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown),
    [
      { key: null, value: "one", headers: [], timestamp: now },
      { key: null, value: "two\nlines", headers: [], timestamp: now },
      { key: "k", value: null, headers: [], timestamp: now },
      {
        key: null,
        value: "",
        headers: [
          ["h", "é"],
          ["h", 1],
          ["x", { base64: "/w==" }],
        ],
        timestamp: now,
      },
      { key: null, value: { base64: "AP8=" }, headers: [], timestamp: 5 },
    ],
  );
});

test("compress has no place before a file: the run ends and nothing is blamed on the messages", async (t) => {
  const { bed } = await writing(t, folder(t), { path: "out" });
  for (const change of [{ codec: "gzip" as const }, { framing: "batch" as const }]) {
    const [written] = bed.write([{ value: "x" }], (batch) => Object.assign(batch, change));
    await written!.done;
    assert.ok(code("option-invalid")(written!.failure));
    assert.deepEqual(written!.outcomes, ["inFlight"]);
  }
});

test("two sinks of one file and one after the other: every line whole, each batch in its order", async (t) => {
  const root = folder(t);
  const one = await writing(t, root, { path: "out" });
  const two = await writing(t, root, { path: "./out" });
  const written = [0, 1, 2, 3].flatMap((round) =>
    [one, two].flatMap(({ bed }, sink) =>
      bed.write([{ value: `${sink} ${round} a` }, { value: `${sink} ${round} b` }]),
    ),
  );
  await Promise.all(written.map(({ done }) => done));
  const lines = readFileSync(join(root, "out"), "utf8").trimEnd().split("\n");
  assert.equal(lines.length, 16);
  for (const sink of ["0", "1"]) {
    assert.deepEqual(
      lines.filter((line) => line.startsWith(sink)),
      [0, 1, 2, 3].flatMap((round) => [`${sink} ${round} a`, `${sink} ${round} b`]),
    );
  }
});

test("a failure that may pass is waited out with the same bytes, and shows in the status; a lasting one ends the run", async () => {
  const context = testContext();
  const attempts: string[] = [];
  const faults = [new Error("busy"), new Error("busy"), undefined, new Error("full")];
  const session = new LineSinkSession(context, "out", "lines", {
    write: async (bytes) => {
      attempts.push(bytes.toString());
      const fault = faults.shift();
      if (fault !== undefined) throw fault;
    },
    close: async () => {},
    explain: (error) => ((error as Error).message === "full" ? "make room" : undefined),
  });
  const bed = new SinkBed(context, session);
  const [first] = bed.write([{ value: "1" }, { value: "2" }]);
  const [second] = bed.write([{ value: "3" }]);
  await context.clock.run(0);
  assert.deepEqual(attempts, ["1\n2\n"]);
  assert.equal(session.status().ready, false);
  assert.match(session.status().reason!, /busy/);
  assert.deepEqual(first!.outcomes, ["inFlight", "inFlight"]);
  await context.clock.run(10_000);
  assert.deepEqual(attempts, ["1\n2\n", "1\n2\n", "1\n2\n", "3\n"]);
  assert.deepEqual(first!.outcomes, ["delivered", "delivered"]);
  assert.ok(code("disk-failed")(second!.failure));
  assert.deepEqual(second!.outcomes, ["inFlight"]);
  assert.equal(context.counted.get("write_retries_total"), 2);
});

test("an aborted run does not wait for its sink", async () => {
  const context = testContext();
  const session = new LineSinkSession(context, "out", "lines", {
    write: () => Promise.reject(new Error("busy")),
    close: async () => {},
    explain: () => undefined,
  });
  const [written] = new SinkBed(context, session).write([{ value: "1" }]);
  await context.clock.run(1_000);
  context.abort(new Error("enough"));
  await written!.done;
  assert.match(String(written!.failure), /enough/);
});

test("stdin is told to be at most once, and stdout keeps its reader's pace", async () => {
  assert.equal(stdin().capabilities.replays, false);
  const through = new PassThrough({ highWaterMark: 10 });
  const lines = Array.from({ length: 500 }, (_, i) => `line ${i}\n`);
  const source = {
    ...stdin({ credit: 50 }),
    open: (context: Parameters<ReturnType<typeof stdin>["open"]>[0]) =>
      openLineSource(context, { name: "stdin", bytes: () => Readable.from(lines), maxLineBytes: 1_000 }),
  };
  const sink = {
    ...stdout(),
    open: (context: Parameters<ReturnType<typeof stdout>["open"]>[0]) =>
      openLineSink(context, { stream: through }),
  };
  const run = running(planOf({ kind: "source", name: "in", location: undefined, inputs: [], source }, sink));
  await run.started;
  await until(
    "the reader's buffer is full",
    () => through.readableLength > 0 && run.status().conservation.inFlight > 0,
  );
  assert.ok(run.status().conservation.inFlight <= 50);
  const read: string[] = [];
  through.setEncoding("utf8").on("data", (text: string) => read.push(text));
  await finish(run);
  assert.equal(read.join(""), lines.join(""));
});

test("a reader that goes away ends the run and says so; one that stops reading does not hold up its end", async () => {
  const context = testContext();
  const gone = new Writable({
    write: (_bytes, _encoding, done) => done(Object.assign(new Error("write EPIPE"), { code: "EPIPE" })),
  });
  const session = await openLineSink(context, { stream: gone });
  const [written] = new SinkBed(context, session).write([{ value: "x" }]);
  await written!.done;
  const failure = written!.failure as MillraceError;
  assert.ok(code("disk-failed")(failure));
  assert.match(failure.remedy!, /has gone/);

  const stuck = await openLineSink(context, { stream: new Writable({ write: () => {} }) });
  const [waiting] = new SinkBed(context, stuck).write([{ value: "x" }]);
  await context.clock.run(0);
  assert.equal(waiting!.failure, undefined);
  context.abort(new Error("enough"));
  await waiting!.done;
  assert.match(String(waiting!.failure), /enough/);
});

test("the stdin of a process is read to its end", async () => {
  const program = `
    import { testContext } from ${JSON.stringify(import.meta.resolve("../../testing/context.ts"))};
    import { SourceBed } from ${JSON.stringify(import.meta.resolve("../../testing/session-bed.ts"))};
    import { stdin } from ${JSON.stringify(import.meta.resolve("./index.ts"))};
    const bed = new SourceBed(testContext(), stdin().credit);
    const session = await stdin().open(bed.context);
    while (!(await session.atEnd())) await new Promise((resolve) => setImmediate(resolve));
    process.stdout.write(JSON.stringify(bed.payloads));
    await session.close(0);
  `;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    input: "a\r\nb\nc",
    encoding: "utf8",
  });
  assert.equal(child.stdout, '["a","b","c"]', child.stderr);
});

test("a sink that is closed while stdin is still open lets the process end", async () => {
  const program = `
    import { testContext } from ${JSON.stringify(import.meta.resolve("../../testing/context.ts"))};
    import { SourceBed } from ${JSON.stringify(import.meta.resolve("../../testing/session-bed.ts"))};
    import { stdin } from ${JSON.stringify(import.meta.resolve("./index.ts"))};
    const bed = new SourceBed(testContext(), stdin().credit);
    const session = await stdin().open(bed.context);
    session.stopIntake();
    await session.close(0);
    process.stdout.write("closed");
  `;
  // Its own stdin stays open, and nobody writes: without a time limit it would wait for ever.
  const child = spawnSync(
    "bash",
    ["-c", `exec 3<> <(:); exec "$0" --input-type=module -e "$1" <&3`, process.execPath, program],
    {
      timeout: 120_000,
      encoding: "utf8",
    },
  );
  assert.deepEqual([child.stdout, child.signal], ["closed", null], child.stderr);
});
