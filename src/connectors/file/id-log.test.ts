import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { DoneId, IdMeaning } from "../../component/id-store.ts";
import { MillraceError } from "../../errors.ts";
import { seededRandom } from "../../testing/context.ts";
import { SimulatedLogDisk } from "../../testing/log-disk.ts";
import { propertyRuns } from "../../testing/property-runs.ts";
import { IdLog } from "./id-log.ts";

const meaning: IdMeaning = { scope: "lane", from: "/id" };
const salt = Buffer.from("saltsalt");

async function opened(disk: SimulatedLogDisk, of = meaning) {
  const found: DoneId[] = [];
  const told = { torn: 0, skipped: 0 };
  const log = await IdLog.open(
    disk.mount(),
    "the log",
    of,
    () => Buffer.from(salt),
    (done) => found.push(done),
    {
      torn: (bytes) => {
        told.torn += bytes;
      },
      skipped: (bytes) => {
        told.skipped += bytes;
      },
    },
  );
  return { log, found, told };
}

function done(id: string, at = 1, scope = ""): DoneId {
  return { scope, id, at };
}

const ids = (found: readonly DoneId[]) => found.map(({ id }) => id);

test("what was added is read again as it was, in order", async () => {
  const disk = new SimulatedLogDisk();
  const { log, found } = await opened(disk);
  assert.deepEqual(found, []);
  const all = [
    done("a", 1_700_000_000_000.5, '["s","t",3]'),
    done("", 0),
    done("\0n12", -5, "é"),
    done("日本".repeat(200_000), 9),
    done("a", 7),
  ];
  await log.add(all.slice(0, 2));
  await log.add(all.slice(2));
  assert.equal(log.count, 5);
  await log.close();
  const again = await opened(disk);
  assert.deepEqual(again.found, all);
  assert.deepEqual(again.told, { torn: 0, skipped: 0 });
  assert.equal(again.log.count, 5);
});

test("ids added together cost one sync", async () => {
  const disk = new SimulatedLogDisk();
  const { log } = await opened(disk);
  const before = disk.syncs;
  await log.add(Array.from({ length: 10_000 }, (_, i) => done(`order-${i}-${"x".repeat(60)}`)));
  assert.equal(disk.syncs - before, 1);
});

test("replaced, it has what it was given and no more, and goes on", async () => {
  const disk = new SimulatedLogDisk();
  const { log } = await opened(disk);
  await log.add(Array.from({ length: 1_000 }, (_, i) => done(`${i}`)));
  const large = disk.size;
  await log.replace([done("5", 50), done("6", 60)]);
  assert.equal(log.count, 2);
  assert.ok(disk.size < large / 10);
  await log.add([done("7", 70)]);
  const { found } = await opened(disk);
  assert.deepEqual(found, [done("5", 50), done("6", 60), done("7", 70)]);
});

test("a replacement that fails leaves it as it was, and usable", async () => {
  const disk = new SimulatedLogDisk();
  const { log } = await opened(disk);
  await log.add([done("a"), done("b")]);
  disk.fail("ENOSPC");
  await assert.rejects(log.replace([done("a")]), { code: "ENOSPC" });
  disk.fail(undefined);
  await log.add([done("c")]);
  assert.deepEqual(ids((await opened(disk)).found), ["a", "b", "c"]);
});

test("ids of another meaning are refused, and so is what is no log", async () => {
  const disk = new SimulatedLogDisk();
  await opened(disk);
  for (const other of [
    { scope: "topology", from: "/id" },
    { scope: "lane", from: "a function" },
  ] as const) {
    await assert.rejects(opened(disk, other), (error: MillraceError) => {
      assert.equal(error.code, "target-mismatch");
      assert.match(error.message, /the log holds ids of another dedup: with scope "lane" made from \/id/);
      return error instanceof MillraceError;
    });
  }
  for (const bytes of ["", "{}\n", "lines\nof text\n", "\n", '{"millrace":"ids","version":2}\n']) {
    disk.damage(() => Buffer.from(bytes));
    await assert.rejects(opened(disk), /the log is damaged, or is none/);
  }
});

test("an id that looks like a frame is none, even behind damage", async () => {
  const disk = new SimulatedLogDisk();
  const forger = new SimulatedLogDisk();
  const forged = await IdLog.open(
    forger.mount(),
    "forged",
    meaning,
    () => Buffer.from("********"),
    () => {},
    {
      torn() {},
      skipped() {},
    },
  );
  await forged.add([done("never delivered")]);
  const frame = forger.safe.subarray(forger.safe.indexOf("\n") + 1).toString("latin1");
  const { log } = await opened(disk);
  await log.add([done(frame)]);
  await log.add([done("b")]);
  const at = disk.safe.indexOf("\n") + 1 + 10;
  disk.damage((bytes) => Buffer.from(bytes).fill(0xff, at, at + 1));
  const { found, told } = await opened(disk);
  assert.deepEqual(ids(found), ["b"]);
  assert.ok(told.skipped > frame.length);
});

/*
 * A log is given groups of ids, is replaced, crashes with a part of what was not synced, is damaged anywhere. Then:
 *
 *  1 it gives back no id that it was not given, ever;
 *  2 without damage, it gives back every id whose `add` had resolved, and of the last group all or none;
 *  3 it goes on: what is added afterwards is there, whatever had happened.
 */
type Step =
  | { readonly op: "add"; readonly count: number }
  | { readonly op: "replace"; readonly keep: number }
  | { readonly op: "crash"; readonly during: "add" | "replace"; readonly turns: number }
  | { readonly op: "damage"; readonly at: number; readonly length: number; readonly cut: boolean };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant("add" as const), count: fc.integer({ min: 1, max: 6 }) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("replace" as const), keep: fc.nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant("crash" as const),
      during: fc.constantFrom("add" as const, "replace" as const),
      turns: fc.nat(12),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("damage" as const),
      at: fc.nat(),
      length: fc.integer({ min: 1, max: 40 }),
      cut: fc.boolean(),
    }),
  },
);

test("crashes and damage lose ids at most, never all that follows, and never make one up", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25, size: "max" }), fc.nat(), async (steps, seed) => {
      const random = seededRandom(seed);
      const disk = new SimulatedLogDisk();
      const given = new Set<string>();
      let sure: string[] = [];
      let next = 0;
      const group = (count: number) => Array.from({ length: count }, () => done(`id-${next++}`));
      let { log } = await opened(disk);
      for (const it of steps) {
        if (it.op === "add") {
          const added = group(it.count);
          for (const { id } of added) given.add(id);
          await log.add(added);
          sure.push(...ids(added));
        } else if (it.op === "replace") {
          sure = sure.slice(-it.keep - 1);
          await log.replace(sure.map((id) => done(id)));
        } else if (it.op === "crash") {
          const added = group(3);
          const kept = sure.slice(1);
          if (it.during === "add") {
            for (const { id } of added) given.add(id);
            log.add(added).then(() => sure.push(...ids(added)));
          } else {
            log.replace(kept.map((id) => done(id))).then(() => {
              sure = kept;
            });
          }
          for (let turn = 0; turn < it.turns; turn++) await Promise.resolve();
          disk.crash(random);
          const before = it.during === "add" ? sure : kept;
          const { log: reopened, found } = await opened(disk);
          log = reopened;
          const back = ids(found);
          for (const id of before) assert.ok(back.includes(id), `${id} is there`);
          const some = ids(added).filter((id) => back.includes(id)).length;
          assert.ok(some === 0 || some === added.length, "all of a group or none");
          sure = back;
        } else if (disk.size > 200) {
          const at = 120 + (it.at % (disk.size - 120));
          disk.damage((bytes) =>
            it.cut
              ? Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + it.length)])
              : Buffer.from(bytes).fill(
                  Math.floor(random.next() * 256),
                  at,
                  Math.min(at + it.length, bytes.length),
                ),
          );
          const { log: reopened, found } = await opened(disk);
          log = reopened;
          sure = ids(found);
        }
        const { found } = await opened(disk);
        assert.deepEqual(ids(found), sure);
        for (const id of sure) assert.ok(given.has(id), `${id} was never given`);
      }
    }),
    propertyRuns(300),
  );
});
