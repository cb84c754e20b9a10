import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { until } from "../../../test/brokers/until.ts";
import { PooledWork, systemClock, systemRandom } from "../../component/system.ts";
import { type Run, start } from "../../runtime/run.ts";
import type { Plan } from "../../topology/plan.ts";
import { file, stdin, stdout } from "./index.ts";

const silent = { debug() {}, info() {}, warn() {}, error() {} };

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "millrace-file-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function copy(
  root: string,
  from: { path: string; checkpoint?: string; maxLineBytes?: number },
  to = "out",
): Run {
  const disk = file({ root });
  const plan: Plan = {
    name: "copy",
    nodes: [
      { kind: "source", name: "in", location: undefined, inputs: [], source: disk.source(from) },
      {
        kind: "sink",
        name: "out",
        location: undefined,
        inputs: [{ node: "in" }],
        sink: disk.sink({ path: to }),
        audit: undefined,
      },
    ],
    deadLetters: undefined,
    connections: [],
    warnings: [],
  };
  return start(plan, { clock: systemClock, random: systemRandom, work: new PooledWork(), logger: silent });
}

async function finish(run: Run): Promise<void> {
  await run.untilIdle();
  assert.deepEqual(await run.drain(), { how: "done" });
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
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  appendFileSync(join(root, "in"), "4\n5");
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  await finish(copy(root, { path: "in", checkpoint: "in.at" }));
  assert.equal(readFileSync(join(root, "out"), "utf8"), "1\n2\n3\n4\n5\n");
  assert.ok(!existsSync(join(root, "in.at.draft")));
});

test("property: whatever byte of a line the checkpoint names, reading goes on at that line's start", async (t) => {
  const root = folder(t);
  let round = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.string({ unit: "grapheme", maxLength: 12 }).map((s) => s.replaceAll(/[\r\n]/g, "")),
        { minLength: 1, maxLength: 8 },
      ),
      fc.nat(),
      async (lines, pick) => {
        const name = `p${round++}`;
        const content = `${lines.join("\n")}\n`;
        writeFileSync(join(root, name), content);
        const ends: number[] = [];
        for (const line of lines) ends.push((ends.at(-1) ?? -1) + Buffer.byteLength(line) + 1);
        const settled = pick % (lines.length + 1);
        writeFileSync(
          join(root, `${name}.at`),
          `${settled < lines.length ? ends[settled] : ends.at(-1)! + 1}\n`,
        );
        await finish(copy(root, { path: name, checkpoint: `${name}.at` }, `${name}.out`));
        const expected = lines
          .slice(settled)
          .map((line) => `${line}\n`)
          .join("");
        assert.equal(
          existsSync(join(root, `${name}.out`)) ? readFileSync(join(root, `${name}.out`), "utf8") : "",
          expected,
        );
      },
    ),
    { numRuns: 25 },
  );
});

test("a line that a crash left torn is closed, and never runs into the next one", async (t) => {
  const root = folder(t);
  writeFileSync(join(root, "in"), "next\n");
  writeFileSync(join(root, "out"), "whole\nto");
  await finish(copy(root, { path: "in" }));
  assert.equal(readFileSync(join(root, "out"), "utf8"), "whole\nto\nnext\n");
});

test("a path that leads out of the root is a problem of the topology, and a link that does ends the start", async (t) => {
  const root = folder(t);
  const disk = file({ root });
  for (const path of ["../x", "/etc/passwd", "a/../../x", "nul\0", "x".repeat(300)]) {
    assert.equal(disk.sink({ path }).problems[0]?.code, "option-invalid", path);
    assert.equal(disk.source({ path }).problems[0]?.code, "option-invalid", path);
  }
  const outside = folder(t);
  writeFileSync(join(outside, "secret"), "x\n");
  symlinkSync(join(outside, "secret"), join(root, "link"));
  writeFileSync(join(root, "in"), "x\n");
  const run = copy(root, { path: "in" }, "link");
  await assert.rejects(run.started, /leads out of/);
});

test("a missing file is named; a line too long ends the run with its place", async (t) => {
  const root = folder(t);
  await assert.rejects(copy(root, { path: "none" }).started, /file "none" cannot be read/);
  writeFileSync(join(root, "in"), `ok\n${"x".repeat(200_000)}`);
  const run = copy(root, { path: "in", maxLineBytes: 1_000 });
  const result = await run.finished;
  assert.equal(result.how, "failed");
  assert.match((result as { error: Error }).error.message, /line at byte 3 is longer than 1000 bytes/);
});

test("stdin is told to be at most once, and stdout keeps its reader's pace", async () => {
  assert.equal(stdin().capabilities.replays, false);
  const { PassThrough } = await import("node:stream");
  const { openLineSink } = await import("./sink.ts");
  const { openLineSource } = await import("./source.ts");
  const through = new PassThrough({ highWaterMark: 10 });
  const plan: Plan = {
    name: "pipe",
    nodes: [
      {
        kind: "source",
        name: "in",
        location: undefined,
        inputs: [],
        source: {
          ...stdin({ credit: 50 }),
          open: (context) =>
            openLineSource(context, {
              name: "stdin",
              bytes: () => Readable.from(Array.from({ length: 500 }, (_, i) => `line ${i}\n`)),
              maxLineBytes: 1_000,
            }),
        },
      },
      {
        kind: "sink",
        name: "out",
        location: undefined,
        inputs: [{ node: "in" }],
        sink: { ...stdout(), open: (context) => openLineSink(context, { stream: through }) },
        audit: undefined,
      },
    ],
    deadLetters: undefined,
    connections: [],
    warnings: [],
  };
  const run = start(plan, {
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
    logger: silent,
  });
  await run.started;
  await until(
    "the reader's buffer is full",
    () => through.readableLength > 0 && run.status().conservation.inFlight > 0,
  );
  assert.ok(run.status().conservation.inFlight <= 50);
  const read: string[] = [];
  through.setEncoding("utf8").on("data", (text: string) => read.push(text));
  await finish(run);
  assert.equal(read.join(""), Array.from({ length: 500 }, (_, i) => `line ${i}\n`).join(""));
});
