/** Ranges of identifiers from `pond-seq`: to one pond each, whatever is killed when, and back. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import type { EmbeddedRabbitmq } from "../../src/connectors/rabbitmq/drivers/embedded/broker.ts";
import { RunEmbeddedBrokers } from "../../src/runner/embedded-brokers.ts";
import { testContext } from "../../src/testing/context.ts";
import { freshFolder } from "../../test/millrace.ts";
import { messaging } from "./brokers.ts";
import { Identifiers, returnUnused } from "./identifiers.ts";
import { Lake } from "./lake.ts";
import { Pond } from "./pond.ts";
import { parseRange, type Range } from "./range.ts";
import { insertDocument, type Load } from "./statements.ts";

const size = 5;
const ranges = 8;

/** Where a crash strikes: while a range is taken, or while what is unused of one is returned. */
type Crash =
  | "none"
  | "before the claim"
  | "acknowledgement lost"
  | "before the pond knows"
  | "released"
  | "published";

class Killed extends Error {}

/** Ponds and a lake in files, and the queue on an embedded broker. */
async function world(t: TestContext) {
  const folder = freshFolder(t);
  const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
  const broker = messaging.embedded(context) as EmbeddedRabbitmq;
  const put = (range: Range) => broker.feed("pond-seq", [{ value: Buffer.from(JSON.stringify(range)) }]);
  const openLake = () => Lake.open(`sqlite:${join(folder, "lake.sqlite")}`);
  let documents = 0;
  for (let i = 0; i < ranges; i++) put({ first: i * size + 1, last: (i + 1) * size });

  /** Runs `use` on an opened pond; killed or not, both databases are closed then, as by the end of a process. */
  async function on<T>(name: number, use: (pond: Pond, lake: Lake) => Promise<T>): Promise<T | undefined> {
    const pond = await Pond.open(`sqlite:${join(folder, `pond-${name}.sqlite`)}`);
    const lake = await openLake();
    try {
      const using = use(pond, lake);
      using.catch(() => {});
      await context.clock.run(3_000);
      return await using;
    } catch (error) {
      if (error instanceof Killed || /connection-lost/.test((error as { code?: string }).code ?? "")) return;
      throw error;
    } finally {
      await pond.close();
      await lake.close();
    }
  }

  return {
    context,
    broker,
    put,
    on,
    load: (name: number, count: number, crash: Crash) =>
      on(name, async (pond, lake) => {
        if (!pond.isOpen) return;
        const identifiers = new Identifiers(context, dying(pond, crash), dyingLake(lake, crash, broker));
        await identifiers.recover();
        await identifiers.ensure(count);
        const loads: Load[] = Array.from({ length: count }, () => {
          const digest = String(documents++).padStart(64, "0");
          return { digest, statements: [{ sql: insertDocument, rows: [[digest, ...Array(11).fill("")]] }] };
        });
        await pond.store(loads);
        await pond.flush((stored) => lake.upload(stored));
      }),
    decommission: (name: number, crash: Crash) =>
      on(name, (pond, lake) =>
        returnUnused(pond, lake, async (range) => {
          if (crash === "released") throw new Killed();
          put(range);
          if (crash === "published") throw new Killed();
        }),
      ),
    read: (name: number, sql: string): Record<string, unknown>[] => {
      const path = join(folder, `pond-${name}.sqlite`);
      if (!existsSync(path)) return [];
      const database = new DatabaseSync(path, { readOnly: true });
      const rows = database.prepare(sql).all();
      database.close();
      return rows;
    },
    queued: () => [...broker.remaining("pond-seq")].map(parseRange),
  };
}

/** Is killed when it is to note a range. */
function dying(pond: Pond, crash: Crash): Pond {
  if (crash !== "before the pond knows") return pond;
  return Object.create(pond, {
    id: { value: pond.id },
    identifiersLeft: { value: () => pond.identifiersLeft() },
    add: { value: () => Promise.reject(new Killed()) },
  }) as Pond;
}

function dyingLake(lake: Lake, crash: Crash, broker: EmbeddedRabbitmq): Lake {
  if (crash !== "before the claim" && crash !== "acknowledgement lost") return lake;
  return Object.create(lake, {
    rangesOf: { value: (pond: string) => lake.rangesOf(pond) },
    claim: {
      value: async (range: Range, pond: string) => {
        if (crash === "before the claim") throw new Killed();
        const isOurs = await lake.claim(range, pond);
        broker.cut("lost");
        return isOurs;
      },
    },
  }) as Lake;
}

const identifiersOf = ({ first, last }: Range) =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

test("seed 004.5: no identifier is given out twice and none is lost, whatever is killed when", async (t) => {
  const step = fc.record({
    pond: fc.nat({ max: 2 }),
    count: fc.integer({ min: 1, max: 7 }),
    decommission: fc.boolean(),
    crash: fc.constantFrom<Crash>(
      "none",
      "before the claim",
      "acknowledgement lost",
      "before the pond knows",
      "released",
      "published",
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
      const { load, decommission, on, read } = await world(t);
      for (const { pond, count, decommission: leaves, crash } of steps) {
        if (leaves) await decommission(pond, crash);
        else await load(pond, count, crash);
      }
      for (const pond of [0, 1, 2]) {
        if (read(pond, "SELECT state FROM pond")[0]?.state === "closed") await decommission(pond, "none");
      }
      // One more loader wants more than there is, so it takes all that nobody has.
      await load(3, ranges * size + 1, "none");
      const owned: number[] = [];
      for (const pond of [0, 1, 2, 3]) {
        await on(pond, (opened, lake) => new Identifiers(testContext(), opened, lake).recover());
        owned.push(...read(pond, "SELECT id FROM document").map(({ id }) => Number(id)));
        const left = read(pond, 'SELECT next, "last" FROM pond_sequence');
        owned.push(
          ...left.flatMap(({ next, last }) => identifiersOf({ first: Number(next), last: Number(last) })),
        );
      }
      assert.deepEqual(
        owned.sort((a, b) => a - b),
        identifiersOf({ first: 1, last: ranges * size }),
        "given out or kept by one pond each",
      );
    }),
    { numRuns: 25 },
  );
});

test("a decommissioned pond is closed: its rest goes to the next loader, and it gives out nothing more", async (t) => {
  const { load, decommission, read, queued } = await world(t);
  await load(0, 3, "none");
  await decommission(0, "none");
  assert.deepEqual(queued().at(-1), { first: 4, last: 5 });
  await load(0, 1, "none");
  assert.equal(read(0, "SELECT id FROM document").length, 3);
  for (let i = 1; i < ranges; i++) await load(1, size, "none");
  await load(1, 2, "none");
  assert.deepEqual(
    read(1, "SELECT id FROM document ORDER BY id").map(({ id }) => Number(id)),
    identifiersOf({ first: 4, last: ranges * size }),
  );
});

test("an empty pond-seq is waited for, and a message that is no range is named", async (t) => {
  const { on, context, broker, put } = await world(t);
  broker.purge("pond-seq");
  await on(0, async (pond, lake) => {
    await assert.rejects(new Identifiers(context, pond, lake).ensure(1), /pond-seq is empty: install/);
  });
  for (const wrong of [
    "{}",
    '{"first":2,"last":1}',
    '{"first":0,"last":1}',
    "[",
    '{"first":1,"last":1e99}',
  ]) {
    assert.throws(() => parseRange(Buffer.from(wrong)), /no range/);
  }
  put({ first: 7, last: 9 });
  await on(0, (pond, lake) => new Identifiers(context, pond, lake).ensure(3));
});

test("two ranges that overlap are never two ponds' own", async (t) => {
  const { on } = await world(t);
  await on(0, async (_, lake) => {
    assert.equal(await lake.claim({ first: 10, last: 20 }, "a"), true);
    assert.equal(await lake.claim({ first: 10, last: 20 }, "a"), true, "a message that comes again");
    for (const [first, last] of [
      [10, 20],
      [1, 10],
      [20, 30],
      [12, 13],
      [1, 100],
    ] as const) {
      assert.equal(await lake.claim({ first, last }, "b"), false, `${first} to ${last}`);
    }
    assert.equal(await lake.claim({ first: 12, last: 13 }, "a"), false, "nor one pond's twice");
    assert.equal(await lake.claim({ first: 21, last: 30 }, "b"), true);
  });
});
