/** The connector on the embedded database in virtual time, under any order of what happens. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { RunEmbeddedBrokers } from "../../runner/embedded-brokers.ts";
import { testContext } from "../../testing/context.ts";
import { propertyRuns } from "../../testing/property-runs.ts";
import { SinkBed, SourceBed } from "../../testing/session-bed.ts";
import { sql } from "./index.ts";

const url = "postgres://app@nowhere:5432/app";

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("add" as const), count: fc.integer({ min: 1, max: 5 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("settle" as const),
      from: fc.nat(9),
      count: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.nat(600) }) },
  { weight: 1, arbitrary: fc.constant({ do: "commit" as const }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), clean: fc.boolean() }) },
);

test("property: every row of an outbox arrives until it is settled, in order, and never again once its settlement was committed", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
      const { clock } = context;
      const connection = sql({ url });
      const source = connection.source({ table: "outbox", credit: 8, chunk: 3 });
      const database = connection.embedded(context) as {
        feed(table: string, rows: { value: Buffer }[]): void;
      };
      database.feed("outbox", []);
      let added = 0;
      const settled = new Set<string>();
      const committed = new Set<string>();
      const open = async () => {
        const bed = new SourceBed(context, source.credit);
        const opening = source.open(bed.context);
        await clock.run(0);
        return { bed, session: await opening };
      };
      let { bed, session } = await open();
      const look = () => {
        for (const payload of bed.payloads) {
          assert.ok(!committed.has(payload!), `${payload} came again`);
        }
        // Within an epoch the ids only grow: on this database commits come in the order of ids.
        const numbers = bed.payloads.map(Number);
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
        );
        assert.ok(bed.open.length <= 8, "credit");
      };
      for (const each of steps) {
        switch (each.do) {
          case "add":
            database.feed(
              "outbox",
              Array.from({ length: each.count }, () => ({ value: Buffer.from(String(added++)) })),
            );
            break;
          case "settle":
            for (const payload of bed.settle(each.from, each.count)) settled.add(payload!);
            break;
          case "pass":
            await clock.run(each.ms);
            break;
          case "commit": {
            const now = [...settled];
            const committing = session.commit();
            await clock.run(1);
            await committing;
            look();
            for (const payload of now) committed.add(payload);
            bed.payloads.length = 0;
            break;
          }
          case "leave": {
            if (each.clean) {
              const now = [...settled];
              session.stopIntake();
              const committing = session.commit();
              await clock.run(1);
              await committing;
              look();
              for (const payload of now) committed.add(payload);
            }
            const closing = session.close(clock.now() + 1_000);
            await clock.run(1_000);
            await closing;
            ({ bed, session } = await open());
          }
        }
        look();
      }
      for (let i = 0; i < 200 && settled.size < added; i++) {
        for (const payload of bed.settle()) settled.add(payload!);
        await clock.run(600);
        look();
      }
      assert.equal(settled.size, added);
      const closing = session.close(clock.now() + 1_000);
      await clock.run(1_000);
      await closing;
    }),
    propertyRuns(100),
  );
});

test("property: a table holds the last row of each key, and each message is delivered or refused", async () => {
  const row = fc.record({ key: fc.constantFrom("a", "b", "c", "d"), size: fc.integer({ min: -1, max: 3 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(row, { minLength: 1, maxLength: 12 }), { maxLength: 6 }),
      async (batches) => {
        const context = testContext(1, { embedded: new RunEmbeddedBrokers() });
        const connection = sql({
          url,
          tables: { pond: "CREATE TABLE pond (id text PRIMARY KEY, size integer CHECK (size >= 0))" },
        });
        const sink = connection.sink({
          table: "pond",
          key: ["id"],
          columns: { id: "key", size: ({ value }) => Number(value) },
        });
        await connection.create(context, [{ kind: "table", name: "pond", role: "sink", at: "test" }]);
        const bed = new SinkBed(context, await sink.open(context));
        const expected = new Map<string, number>();
        const written = batches.map((batch) => {
          for (const { key, size } of batch) if (size >= 0) expected.set(key, size);
          return bed.write(
            batch.map(({ key, size }) => ({ key: Buffer.from(key), value: String(size) })),
          )[0]!;
        });
        await Promise.all(written.map(({ done }) => done));
        written.forEach(({ outcomes, refusals }, index) => {
          const bad = batches[index]!.flatMap(({ size }, entry) => (size < 0 ? [entry] : []));
          assert.deepEqual(
            refusals!.map(({ entry }) => entry),
            bad,
          );
          assert.ok(outcomes.every((outcome, entry) => (outcome === "delivered") !== bad.includes(entry)));
        });
        const held = [...connection.embedded(context)!.contents("pond")].map(({ value }) =>
          JSON.parse(String(value)),
        );
        assert.deepEqual(new Map(held.map(({ id, size }) => [id, size])), expected);
      },
    ),
    propertyRuns(100),
  );
});
