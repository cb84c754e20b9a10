/** dedup with a store: what it waits for, what it knows after a restart, and for how long. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MillraceError } from "../errors.ts";
import { Outcome } from "../message/outcome.ts";
import { settlePromises } from "../testing/clock.ts";
import { type TestContext, testContext } from "../testing/context.ts";
import { idsInLog, SimulatedLogDisk, simulatedIdStore } from "../testing/log-disk.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { type DedupOptions, dedup } from "./dedup.ts";

type Options = Partial<Omit<DedupOptions<never>, "store">>;

/** A process that runs dedup with a store on the disk, until it stops. */
class Process {
  readonly bed: OperatorBed;
  readonly #close: () => Promise<void>;

  private constructor(bed: OperatorBed, close: () => Promise<void>) {
    this.bed = bed;
    this.#close = close;
  }

  static async start(
    disk: SimulatedLogDisk,
    options: Options = {},
    context = testContext(),
  ): Promise<Process> {
    const operator = dedup({ id: "/id", ...options, store: simulatedIdStore(disk) });
    assert.deepEqual(operator.problems, []);
    const { build, close } = await operator.open!(context);
    return new Process(new OperatorBed({ ...operator, build }, { context }), () => close(0));
  }

  send(ids: string, lane?: string): void {
    this.bed.sendValues(
      [...ids].map((id) => ({ id })),
      lane,
    );
  }

  /** Ids that came out and have no outcome. */
  get out(): string {
    return this.bed
      .emitted()
      .map(({ value }) => (value as { id: string }).id)
      .join("");
  }

  /** Everything that came out is delivered, and the store has written it. */
  async deliver(outcome: Outcome = Outcome.delivered): Promise<void> {
    this.bed.deliver(outcome);
    await this.pass();
  }

  async pass(ms = 0): Promise<void> {
    await this.bed.context.clock.run(ms);
    for (let turn = 0; turn < 5; turn++) await settlePromises();
  }

  stop(): Promise<void> {
    return this.#close();
  }
}

/** Another process at a later time: its monotonic clock begins anew. */
function later(before: TestContext, ms: number): TestContext {
  const context = testContext(2);
  context.clock.jumpWall(before.clock.wall() + ms - context.clock.wall());
  return context;
}

test("a message settles when its id is in the store, and so do its twins", async () => {
  const { clock } = testContext();
  const disk = new SimulatedLogDisk({ clock, latency: 10 });
  const opening = Process.start(disk);
  for (let turn = 0; turn < 10; turn++) await clock.run(10);
  const process = await opening;
  process.send("aab");
  assert.equal(process.bed.deliver(), 2);
  await process.pass();
  assert.equal(process.bed.busy, 1, "a write is under way");
  process.send("a");
  assert.deepEqual(process.bed.outcomes.size, 0, "not before");
  assert.equal(process.out, "", "and the id is under way still");
  const synced = disk.syncs;
  for (let turn = 0; turn < 5; turn++) await clock.run(10);
  await process.pass();
  assert.deepEqual([...process.bed.outcomes.values()], ["delivered", "duplicate", "duplicate", "delivered"]);
  assert.deepEqual(await idsInLog(disk.safe, { scope: "lane", from: "/id" }), ["a", "b"]);
  assert.equal(disk.syncs - synced, 1, "one sync for both");
  assert.equal(process.bed.busy, 0);
  assert.equal(process.bed.waiting, 0);
});

test("what was not delivered is not in the store", async () => {
  const disk = new SimulatedLogDisk();
  const process = await Process.start(disk);
  process.send("ab");
  await process.deliver(Outcome.deadLettered);
  process.send("c");
  await process.deliver(Outcome.filtered);
  assert.deepEqual(await idsInLog(disk.safe, { scope: "lane", from: "/id" }), ["c"]);
});

for (const scope of ["lane", "topology"] as const) {
  test(`scope ${scope}: the next process knows what was delivered, each scope its own`, async () => {
    const disk = new SimulatedLogDisk();
    const first = await Process.start(disk, { scope });
    first.send("ab", "p");
    first.send("c", "q");
    await first.deliver();
    await first.stop();
    const second = await Process.start(disk, { scope });
    second.send("abcd", "p");
    second.send("abcd", "q");
    assert.equal(second.out, scope === "lane" ? "cdabd" : "d");
  });
}

test("a lane that comes back in a new epoch finds its ids, and those on their way to the store", async () => {
  const disk = new SimulatedLogDisk();
  const process = await Process.start(disk);
  process.send("a");
  await process.deliver();
  process.send("b");
  process.bed.deliver();
  process.bed.revoke();
  process.send("abc");
  assert.equal(process.out, "c");
  await process.deliver();
  assert.deepEqual(
    [...process.bed.outcomes],
    [
      ["t:0", "delivered"],
      ["t:2", "duplicate"],
      ["t:3", "duplicate"],
      ["t:4", "delivered"],
    ],
  );
  assert.equal(process.bed.waiting, 0);
});

test("ids that were under way when their lane ended, and not delivered, are free", async () => {
  const process = await Process.start(new SimulatedLogDisk());
  process.send("aa");
  process.bed.revoke();
  process.bed.output.length = 0;
  process.send("a");
  assert.equal(process.out, "a");
  assert.equal(process.bed.waiting, 0);
});

test("capacity holds over a restart, also when it is less than before: the oldest are forgotten", async () => {
  const disk = new SimulatedLogDisk();
  const first = await Process.start(disk, { capacity: 5 });
  for (const id of "abcdefg") {
    first.send(id);
    await first.deliver();
  }
  await first.stop();
  const second = await Process.start(disk, { capacity: 3 });
  second.send("efg");
  assert.equal(second.out, "");
  second.send("abcd");
  assert.equal(second.out, "abcd");
});

test("ids of lanes that are away give way to those of lanes that are here", async () => {
  const disk = new SimulatedLogDisk();
  const first = await Process.start(disk, { capacity: 4 });
  first.send("ab", "p");
  first.send("cd", "q");
  await first.deliver();
  first.bed.revoke("p");
  await first.pass();
  first.send("ef", "q");
  await first.deliver();
  first.send("cdef", "q");
  assert.equal(first.out, "", "q has it all");
  first.send("ab", "p");
  assert.equal(first.out, "ab");
});

test("the ttl goes on over a restart, by the wall clock", async () => {
  const disk = new SimulatedLogDisk();
  const first = await Process.start(disk, { ttl: "10s" });
  first.send("a");
  await first.deliver();
  await first.pass(4_000);
  first.send("b");
  await first.deliver();
  await first.stop();
  const second = await Process.start(disk, { ttl: "10s" }, later(first.bed.context, 3_000));
  await second.pass(2_999);
  second.send("ab");
  assert.equal(second.out, "", "a is 9,999 ms old");
  await second.pass(1);
  second.send("ab");
  assert.equal(second.out, "a");
  await second.stop();
  const third = await Process.start(disk, { ttl: "10s" }, later(second.bed.context, 4_000));
  third.send("b");
  assert.equal(third.out, "b");
});

test("a jump of the wall clock while it runs changes nothing that follows, nor the next run", async () => {
  for (const ms of [-3_600_000, 3_600_000]) {
    const disk = new SimulatedLogDisk();
    const first = await Process.start(disk, { ttl: "10m" });
    first.send("a");
    await first.deliver();
    first.bed.context.clock.jumpWall(ms);
    first.send("b");
    await first.deliver();
    await first.stop();
    const second = await Process.start(disk, { ttl: "10m" }, later(first.bed.context, 540_000));
    second.send("ab");
    assert.equal(second.out, "", `jumped by ${ms}`);
    await second.pass(60_000);
    second.send("ab");
    assert.equal(second.out, "ab");
  }
});

test("ids from the future count as new, once: a clock set back keeps them for one ttl more at most", async () => {
  const disk = new SimulatedLogDisk();
  let context = testContext();
  const first = await Process.start(disk, { ttl: "10s" }, context);
  first.send("a");
  await first.deliver();
  await first.stop();
  context = later(context, -3_600_000);
  for (const [after, out] of [
    [0, ""],
    [6_000, ""],
    [6_000, "a"],
  ] as const) {
    context = later(context, after);
    const next = await Process.start(disk, { ttl: "10s" }, context);
    next.send("a");
    assert.equal(next.out, out);
    await next.stop();
  }
});

test("a store is written anew when most of it counts no more, while its ids go on being asked for", async () => {
  const disk = new SimulatedLogDisk();
  const process = await Process.start(disk, { capacity: 10, ttl: "1h" });
  process.send("xyz", "keeping");
  await process.deliver();
  let n = 0;
  for (let round = 0; round < 30; round++) {
    process.bed.sendValues(
      Array.from({ length: 500 }, () => ({ id: `n${n++}` })),
      "busy",
    );
    process.bed.deliver();
    for (let turn = 0; turn < 4; turn++) {
      await process.pass();
      process.send("xyz", "keeping");
    }
    assert.equal(process.out, "", "remembered all the time");
  }
  const left = await idsInLog(disk.safe, { scope: "lane", from: "/id" });
  assert.ok(left.length < 10_500, `${left.length} ids of ${n} are in it`);
  await process.stop();
  const next = await Process.start(disk, { capacity: 10, ttl: "1h" });
  next.send("xyz", "keeping");
  next.bed.sendValues(
    Array.from({ length: 5 }, (_, i) => ({ id: `n${n - 5 + i}` })),
    "busy",
  );
  assert.equal(next.out, "");
});

for (const on of ["write", "sync"] as const) {
  test(`a ${on} that fails stops the run, and what was to be written is not settled`, async () => {
    const disk = new SimulatedLogDisk();
    const process = await Process.start(disk);
    process.send("a");
    await process.deliver();
    disk.fail("ENOSPC", on);
    process.send("b");
    await process.deliver();
    assert.equal(process.bed.outcomes.size, 1);
    const [error] = process.bed.failures as MillraceError[];
    assert.equal(error?.code, "disk-failed");
    assert.equal(error.class, "system");
    assert.match(error.message, /^the id store "simulated" cannot be written: ENOSPC/);
    assert.match(error.remedy!, /make room/);
    assert.equal(process.bed.busy, 0);
    process.send("c");
    await process.deliver();
    assert.equal(process.bed.outcomes.size, 1, "and nothing after it");
    assert.equal(process.bed.failures.length, 1);
  });
}

test("a store of another dedup is refused", async () => {
  const disk = new SimulatedLogDisk();
  await (await Process.start(disk)).stop();
  for (const options of [{ scope: "topology" }, { id: "/key" }, { id: () => 1 }] as const) {
    await assert.rejects(Process.start(disk, options), (error) => {
      assert.ok(error instanceof MillraceError);
      return error.code === "target-mismatch";
    });
  }
});

test("what a crash tore or damaged is told", async () => {
  const disk = new SimulatedLogDisk();
  const first = await Process.start(disk);
  for (const id of "abc") {
    first.send(id);
    await first.deliver();
  }
  disk.damage((bytes) => bytes.subarray(0, -3));
  const second = await Process.start(disk);
  assert.match(second.bed.context.logged.join("\n"), /warn the id store "simulated" ended within a write/);
  second.send("abc");
  assert.equal(second.out, "c");
  disk.damage((bytes) => Buffer.from(bytes).fill(7, bytes.length - 20, bytes.length - 19));
  disk.damage((bytes) => {
    const changed = Buffer.from(bytes);
    const at = changed.indexOf("\n") + 20;
    changed[at]! ^= 1;
    return changed;
  });
  const third = await Process.start(disk);
  assert.match(third.bed.context.logged.join("\n"), /the id store "simulated"/);
  const fourth = await Process.start(disk);
  assert.deepEqual(fourth.bed.context.logged, [], "it is mended");
});

test("something else than a store is a mistake", () => {
  for (const store of [null, "ids", {}, () => {}] as never[]) {
    const [problem] = dedup({ id: "/id", store }).problems;
    assert.match(problem!.message, /"store" is no id store/);
  }
});
