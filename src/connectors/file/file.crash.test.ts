/** What a file's source and sink keep when their process is killed, or the disk is full: real files, real signals. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { until } from "../../../test/brokers/until.ts";
import { seededRandom } from "../../testing/context.ts";

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "millrace-crash-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Copies `in` to `out` in the folder given, with a checkpoint that is written fifty times a second; prints how it ended. */
const copying = `
  import { file } from ${JSON.stringify(import.meta.resolve("./index.ts"))};
  import { start } from ${JSON.stringify(import.meta.resolve("../../runtime/run.ts"))};
  import { PooledWork, systemClock, systemRandom } from ${JSON.stringify(import.meta.resolve("../../component/system.ts"))};
  const disk = file({ root: process.argv[1] });
  const path = process.argv[2];
  const none = () => {};
  const run = start(
    {
      name: "copy",
      nodes: [
        { kind: "source", name: "in", inputs: [], source: disk.source({ path: "in", checkpoint: "in.at", credit: 500 }) },
        { kind: "sink", name: "out", inputs: [{ node: "in" }], sink: disk.sink({ path }) },
      ],
      connections: [],
      warnings: [],
    },
    {
      clock: { ...systemClock, after: (delay, then) => systemClock.after(delay / 50, then) },
      random: systemRandom,
      work: new PooledWork(),
      logger: { debug: none, info: none, warn: none, error: none },
    },
  );
  await run.untilIdle().catch(none);
  const { how, error } = await run.drain();
  process.stdout.write(JSON.stringify({ how, code: error?.code, class: error?.class, message: error?.message }));
`;

test("killed at any moment and started again: no line is lost, torn or out of order, and few come twice", async (t) => {
  const root = folder(t);
  const random = seededRandom(7);
  const count = 60_000;
  const line = (i: number) => `${i} ${"x".repeat(i % 50)}`;
  writeFileSync(join(root, "in"), Array.from({ length: count }, (_, i) => `${line(i)}\n`).join(""));
  const size = statSync(join(root, "in")).size;
  const out = join(root, "out");
  const length = () => (existsSync(out) ? statSync(out).size : 0);
  let kills = 0;
  for (let goal = 0; ; ) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", copying, root, "out"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
    let ended = false;
    exited.then(() => {
      ended = true;
    });
    goal = length() + random.next() * (size / 4);
    await until("enough is written", () => ended || length() >= goal);
    if (!ended) child.kill("SIGKILL");
    const [code, signal] = await exited;
    if (signal === null) {
      assert.equal(code, 0);
      break;
    }
    kills++;
    assert.ok(kills < 100, "it never comes to an end");
  }
  assert.ok(kills >= 5, `${kills} kills`);
  const lines = readFileSync(out, "utf8").split("\n");
  assert.equal(lines.pop(), "");
  let next = 0;
  let repeated = 0;
  let jumps = 0;
  for (const [at, text] of lines.entries()) {
    const i = Number.parseInt(text, 10);
    assert.equal(text, line(i), `line ${at} is whole`);
    assert.ok(i <= next, `line ${i} comes where ${next} was to come: some are lost`);
    if (i < next && Number.parseInt(lines[at - 1]!, 10) !== i - 1) jumps++;
    if (i < next) repeated++;
    next = Math.max(next, i + 1);
  }
  assert.equal(next, count);
  assert.ok(jumps <= kills, "it goes back only where it was killed");
  t.diagnostic(`${kills} kills, ${repeated} of ${count} lines twice`);
  // Without a checkpoint it would be half of all for each kill.
  assert.ok(repeated < count, `${repeated} lines came twice`);
});

/** In a mount namespace of its own: a small disk for the copy, which then grows; says how both runs ended. */
const onSmallDisk = `
  mount -t tmpfs -o size=256k none "$1/disk" || exit 9
  "$2" --input-type=module -e "$3" "$1" disk/out || exit 8
  echo
  mount -o remount,size=64m none "$1/disk" || exit 7
  "$2" --input-type=module -e "$3" "$1" disk/out || exit 6
  cp "$1/disk/"out* "$1"
`;
const mountable = spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).status === 0;

test("a full disk ends the run with class system; once there is room nothing is missing", {
  skip: mountable ? false : "no disk of our own can be mounted here",
}, (t) => {
  const root = folder(t);
  mkdirSync(join(root, "disk"));
  const lines = Array.from({ length: 20_000 }, (_, i) => `${i} ${"x".repeat(40)}`);
  writeFileSync(join(root, "in"), lines.map((text) => `${text}\n`).join(""));
  const child = spawnSync(
    "unshare",
    ["-rm", "sh", "-c", onSmallDisk, "sh", root, process.execPath, copying],
    {
      encoding: "utf8",
    },
  );
  assert.equal(child.status, 0, child.stderr);
  const [full, again] = child.stdout.split("\n").map((text) => JSON.parse(text) as Record<string, string>);
  assert.deepEqual([full!.how, full!.code, full!.class], ["failed", "disk-failed", "system"]);
  assert.match(full!.message!, /^disk\/out cannot be written: ENOSPC/);
  assert.deepEqual(again, { how: "done" });
  const copied = readFileSync(join(root, "out"), "utf8").split("\n");
  assert.equal(copied.pop(), "");
  assert.deepEqual([...new Set(copied)], lines);
});
