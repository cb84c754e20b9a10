import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OperatorBed } from "../testing/operator-bed.ts";
import { map, mapAsync } from "./map.ts";

const values = (bed: OperatorBed) => bed.emitted().map(({ value }) => value);

test("map makes new values; one that throws or answers later is rejected alone", () => {
  const bed = new OperatorBed(
    map<number, unknown>((n) => {
      if (n === 2) throw new Error("two");
      return n === 3 ? Promise.resolve(3) : n * 10;
    }),
  );
  const chunk = bed.sendValues([1, 2, 3, 4]);
  assert.deepEqual(values(bed), [10, 40]);
  assert.equal(chunk.changed, true);
  assert.deepEqual(
    bed.rejected.map(({ failure }) => failure.code),
    ["author-error", "author-error"],
  );
});

/** An asynchronous function whose answers the test gives. */
function desk() {
  const asked: {
    value: number;
    answer: (value: unknown) => void;
    fail: (error: Error) => void;
    signal: AbortSignal;
  }[] = [];
  const ask = (value: number, { signal }: { signal: AbortSignal }) =>
    new Promise<unknown>((answer, fail) => {
      asked.push({ value, answer, fail, signal });
    });
  return { asked, ask };
}

test("mapAsync keeps order, whatever answers first, and the number of calls under way", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask, { concurrency: 3 }));
  bed.sendValues([0, 1]);
  bed.sendValues([2, 3]);
  await bed.context.clock.run(0);
  assert.deepEqual(
    asked.map(({ value }) => value),
    [0, 1, 2],
  );
  assert.equal(bed.busy, 3);
  asked[2]!.answer("c");
  asked[1]!.answer("b");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), [], "the first chunk waits for its first message");
  asked[0]!.answer("a");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), ["a", "b"]);
  asked[3]!.answer("d");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), ["a", "b", "c", "d"]);
  assert.equal(bed.busy, 0);
});

test("a flush does not overtake the messages before it; a revoke does, and aborts its calls", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask));
  bed.sendValues([1], "a");
  bed.flush();
  bed.sendValues([2], "b");
  await bed.context.clock.run(0);
  assert.equal(bed.output.length, 0);
  bed.revoke("a");
  await bed.context.clock.run(0);
  assert.equal(asked[0]!.signal.aborted, true);
  assert.equal(asked[1]!.signal.aborted, false);
  assert.deepEqual(
    bed.output.map((item) => ("kind" in item ? item.kind : "chunk")),
    ["revoke", "flush"],
  );
  asked[1]!.answer("two");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), ["two"]);
  assert.deepEqual(bed.rejected, []);
});

test("one that takes too long, or fails after all attempts, is rejected; what succeeds in time is not", async () => {
  let calls = 0;
  const bed = new OperatorBed(
    mapAsync<string, string>(
      (value) => {
        calls++;
        if (value === "slow") return new Promise(() => {});
        if (value === "bad" || (value === "shaky" && calls < 6)) return Promise.reject(new Error("no"));
        return Promise.resolve(value);
      },
      { timeout: "2s", retry: { attempts: 3, initial: "10ms" } },
    ),
  );
  bed.sendValues(["good", "slow", "bad", "shaky"]);
  await bed.context.clock.run(20_000);
  assert.deepEqual(values(bed), ["good", "shaky"]);
  assert.deepEqual(bed.rejected.map(({ position, failure }) => [position, failure.code]).sort(), [
    [1, "author-timeout"],
    [2, "author-error"],
  ]);
});

test("completion waits for the calls under way", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask));
  bed.sendValues([1]);
  bed.complete();
  await bed.context.clock.run(0);
  assert.equal(bed.completed, false);
  asked[0]!.answer(10);
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), [10]);
  assert.equal(bed.completed, true);
});

test("property: with random delays, failures and revokes, order holds and every message has one fate", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          lane: fc.constantFrom("a", "b"),
          values: fc.array(fc.record({ delay: fc.nat(50), fails: fc.boolean() }), {
            minLength: 1,
            maxLength: 6,
          }),
          wait: fc.nat(30),
          revoke: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
        }),
        { maxLength: 12 },
      ),
      fc.integer({ min: 1, max: 5 }),
      async (sends, concurrency) => {
        const bed: OperatorBed = new OperatorBed(
          mapAsync<{ id: number; delay: number; fails: boolean }, number>(
            ({ id, delay, fails }) =>
              new Promise((resolve, reject) => {
                bed.context.clock.after(delay, () => (fails ? reject(new Error("no")) : resolve(id)));
              }),
            { concurrency },
          ),
        );
        let id = 0;
        let running = 0;
        for (const { lane, values: given, wait, revoke } of sends) {
          bed.sendValues(
            given.map((value) => ({ id: id++, ...value })),
            lane,
          );
          running = Math.max(running, bed.busy);
          if (revoke) bed.revoke(lane);
          await bed.context.clock.run(wait);
        }
        await bed.context.clock.run(10_000);
        assert.ok(running <= concurrency);
        assert.equal(bed.busy, 0);
        const out = bed.emitted();
        for (const lane of ["a", "b"]) {
          const own = out.filter((message) => message.lane === lane).map(({ value }) => value as number);
          assert.deepEqual(
            own,
            [...own].sort((x, y) => x - y),
          );
        }
        bed.deliver();
        for (const [, outcome] of bed.outcomes) assert.ok(["delivered", "deadLettered"].includes(outcome));
        for (const lane of ["a", "b"]) assert.equal(bed.lane(lane).inFlight, 0, "nothing is left in flight");
      },
    ),
    { numRuns: 100 },
  );
});
