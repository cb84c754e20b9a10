/** Id stores on a real disk: who has one, what is wrong with one, and what a process that is killed leaves of one. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { until } from "../../../test/brokers/until.ts";
import type { DoneId, IdMeaning } from "../../component/id-store.ts";
import { MillraceError } from "../../errors.ts";
import { dedup } from "../../operators/dedup.ts";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { seededRandom, testContext } from "../../testing/context.ts";
import { compileAll } from "../../topology/compile.ts";
import { topologyWith } from "../../topology/topology.ts";
import { file } from "./index.ts";

const meaning: IdMeaning = { scope: "topology", from: "/id" };

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "millrace-ids-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function refused(opening: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof MillraceError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code);
    return true;
  });
}

test("a store goes from one run to the next, and belongs to one at a time", async (t) => {
  const root = folder(t);
  const store = file({ root }).idStore({ path: "state/orders" });
  assert.deepEqual(store.problems, []);
  assert.deepEqual(await store.verify(), []);
  assert.deepEqual(readdirSync(root), [], "looking changes nothing");
  const context = testContext();
  const first = await store.open(context, meaning);
  await first.load(() => assert.fail("it is empty"));
  await first.add([{ scope: "", id: "a", at: 1 }]);
  await refused(store.open(context, meaning), "topology-conflict", /is used by this process/);
  const [problem] = await store.verify();
  assert.equal(problem?.severity, "warning");
  assert.match(problem.message, /the id store "state\/orders" is used by this process/);
  await first.close(0);
  assert.deepEqual(await store.verify(), []);
  const second = await store.open(context, meaning);
  const found: DoneId[] = [];
  await second.load((done) => found.push(done));
  assert.deepEqual(found, [{ scope: "", id: "a", at: 1 }]);
  await second.replace([{ scope: "", id: "b", at: 2 }]);
  assert.deepEqual(readdirSync(join(root, "state/orders")).sort(), ["done.ids", "owner"]);
  await second.close(0);
  assert.deepEqual(context.logged, []);
});

test("a store whose process is gone is taken over; whoever lost it to another writes no more", async (t) => {
  const root = folder(t);
  const store = file({ root }).idStore({ path: "ids" });
  const owner = join(root, "ids/owner");
  mkdirSync(join(root, "ids"));
  const alive = { host: hostname(), pid: process.ppid, token: "t" };
  for (const left of [
    "",
    "{}",
    JSON.stringify({ ...alive, host: "elsewhere", started: null }),
    // The number was given to another process since.
    JSON.stringify({ ...alive, started: "another boot 1" }),
    JSON.stringify({ ...alive, pid: process.pid, started: "another boot 1" }),
  ]) {
    writeFileSync(owner, left);
    assert.deepEqual(await store.verify(), [], left);
    const context = testContext();
    const session = await store.open(context, meaning);
    assert.match(context.logged.join("\n"), /warn .* did not stop cleanly, and is taken over/);
    await session.load(() => {});
    writeFileSync(owner, JSON.stringify({ ...alive, token: "of another" }));
    await refused(
      session.add([{ scope: "", id: "a", at: 1 }]),
      "gave-up",
      /was taken over by another process/,
    );
    await session.close(0);
    assert.ok(existsSync(owner), "the other one's claim stays");
  }
  writeFileSync(owner, JSON.stringify({ ...alive, started: null }));
  await refused(
    store.open(testContext(), meaning),
    "topology-conflict",
    new RegExp(`the id store "ids" is used by process ${process.ppid} on `),
  );
});

test("with embedded brokers nothing of it is read or written", async (t) => {
  const root = folder(t);
  const session = await file({ root })
    .idStore({ path: "ids" })
    .open({ ...testContext(), embedded: new RunEmbeddedBrokers() }, meaning);
  await session.load(() => assert.fail("there is nothing"));
  await session.add([{ scope: "", id: "a", at: 1 }]);
  await session.close(0);
  assert.deepEqual(readdirSync(root), []);
});

test("what is wrong with a store is found before a run", async (t) => {
  const root = folder(t);
  for (const path of ["", "/ids", "../ids", 7 as never]) {
    assert.equal(file({ root }).idStore({ path }).problems.length, 1, String(path));
  }
  writeFileSync(join(root, "taken"), "a file");
  for (const path of ["taken", "taken/ids"]) {
    const store = file({ root }).idStore({ path });
    const [problem] = await store.verify();
    assert.equal(problem?.severity, "error", path);
    assert.match(problem.message, /^the id store "taken.*" cannot be written: .*(is no folder|ENOTDIR)/);
    await refused(store.open(testContext(), meaning), "disk-failed", /cannot be (written|taken)/);
  }
});

test("two steps with one store are refused, also where two paths lead to it", (t) => {
  const root = folder(t);
  const step = (path: string) => dedup({ id: "/id", store: file({ root }).idStore({ path }) });
  const disk = file({ root });
  const topology = topologyWith({ route: (() => assert.fail()) as never });
  const flow = (name: string, ...paths: string[]) =>
    topology(name, (t) => {
      for (const [i, path] of paths.entries()) {
        t.from(disk.source({ path: `${name}${i}` }))
          .pipe(step(path) as never)
          .to(disk.sink({ path: `${name}${i}.out` }));
      }
    });
  const conflicts = (...topologies: ReturnType<typeof flow>[]) =>
    compileAll(topologies).problems.filter(({ code }) => code === "topology-conflict");
  assert.equal(conflicts(flow("one", "a", "b"), flow("two", "c")).length, 0);
  const [within, ...rest] = conflicts(flow("one", "a", "./a"), flow("two", "c"));
  assert.match(within!.message, /the id store "\.\/a" is used by two steps/);
  assert.deepEqual(rest, []);
  assert.equal(conflicts(flow("one", "a"), flow("two", "a")).length, 1);
});

/** Copies each id once from `in` to `out`, with a checkpoint that is written fifty times a second, until `in` is read. */
const copying = `
  import { file } from ${JSON.stringify(import.meta.resolve("./index.ts"))};
  import { start } from ${JSON.stringify(import.meta.resolve("../../runtime/run.ts"))};
  import { decode } from ${JSON.stringify(import.meta.resolve("../../operators/decode.ts"))};
  import { dedup } from ${JSON.stringify(import.meta.resolve("../../operators/dedup.ts"))};
  import { PooledWork, systemClock, systemRandom } from ${JSON.stringify(import.meta.resolve("../../component/system.ts"))};
  const disk = file({ root: process.argv[1] });
  const none = () => {};
  const run = start(
    {
      name: "copy",
      nodes: [
        { kind: "source", name: "in", inputs: [], source: disk.source({ path: "in", checkpoint: "in.at", credit: 500 }) },
        { kind: "operator", name: "decode", inputs: [{ node: "in" }], operator: decode("json") },
        { kind: "operator", name: "dedup", inputs: [{ node: "decode" }], operator: dedup({ id: "/id", ttl: "1h", store: disk.idStore({ path: "ids" }) }) },
        { kind: "sink", name: "out", inputs: [{ node: "dedup" }], sink: disk.sink({ path: "out" }) },
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
  process.stdout.write(how + (error?.message ?? ""));
`;

test("killed at any moment and started again: no id is lost, and only those not yet in the store come twice", async (t) => {
  const root = folder(t);
  const random = seededRandom(11);
  const count = 30_000;
  // Every id comes twice, the second time some hundreds or thousands of lines later.
  const line = (n: number) => `${JSON.stringify({ id: `id-${n}` })}\n`;
  const lines: string[] = [];
  for (let n = 0; n < count; n++) {
    lines.push(line(n));
    if (n % 3 === 0) lines.push(line(Math.floor(n / (1 + (n % 2)))));
  }
  writeFileSync(join(root, "in"), lines.join(""));
  const out = join(root, "out");
  const length = () => (existsSync(out) ? statSync(out).size : 0);
  const written = () => readFileSync(out, "utf8").trimEnd().split("\n");
  const copy = async (kill: boolean) => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", copying, root], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
    let ended = false;
    exited.then(() => {
      ended = true;
    });
    const goal = length() + random.next() * 150_000;
    if (kill) await until("enough is written", () => ended || length() >= goal);
    if (kill && !ended) child.kill("SIGKILL");
    const [, signal] = await exited;
    if (signal === null) assert.equal(said, "done");
    return signal !== null;
  };
  let kills = 0;
  while (await copy(true)) {
    kills++;
    assert.ok(kills < 60, "it never comes to an end");
  }
  assert.ok(kills >= 3, `${kills} kills`);
  const ids = written();
  assert.equal(new Set(ids).size, count, "no id is lost");
  const repeated = ids.length - count;
  t.diagnostic(`${kills} kills, ${repeated} of ${count} ids twice`);
  assert.ok(repeated <= kills * 500, `${repeated} ids twice: no more than the credit for each kill`);
  // Stopped in good order: nothing of what came before is written again.
  appendFileSync(join(root, "in"), `${lines.slice(-20_000).join("")}${line(count)}`);
  assert.equal(await copy(false), false);
  assert.deepEqual(written().slice(ids.length), [line(count).trimEnd()]);
});
