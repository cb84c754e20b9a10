import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MillraceError } from "../errors.ts";
import { Chunk } from "../message/chunk.ts";
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

test("a slow call holds up its own lane, and no other", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask, { concurrency: 2 }));
  bed.sendValues([1, 2, 3], "a");
  bed.sendValues([4, 5], "b");
  await bed.context.clock.run(0);
  for (const [call, text] of ["", "two", "three", "four", "five"].entries()) {
    if (call > 0) asked[call]!.answer(text);
    await bed.context.clock.run(0);
  }
  assert.deepEqual(values(bed), ["four", "five"]);
  asked[0]!.answer("one");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), ["four", "five", "one", "two", "three"]);
});

test("what is ready behind a flush does not come out once its lane is revoked", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask));
  bed.sendValues([1], "a");
  bed.flush();
  bed.sendValues([2], "b");
  await bed.context.clock.run(0);
  asked[1]!.answer("two");
  await bed.context.clock.run(0);
  bed.revoke("b");
  asked[0]!.answer("one");
  await bed.context.clock.run(0);
  assert.deepEqual(values(bed), ["one"]);
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

test("a lane's end gives up its calls, also those that wait for another attempt, and frees their places", async () => {
  let calls = 0;
  const bed = new OperatorBed(
    mapAsync<string, string>(
      (value) => {
        calls++;
        return value === "bad" ? Promise.reject(new Error("no")) : Promise.resolve(value);
      },
      { concurrency: 1, retry: { attempts: 100, initial: "1h", max: "1h" } },
    ),
  );
  bed.sendValues(["bad"], "a");
  bed.sendValues(["good"], "b");
  await bed.context.clock.run(0);
  assert.equal(bed.busy, 1);
  bed.revoke("a");
  await bed.context.clock.run(0);
  assert.deepEqual([values(bed), bed.busy, calls, bed.rejected.length], [["good"], 0, 2, 0]);
  assert.equal(bed.context.clock.pending, 0);
});

test("for trouble of class network no message is blamed, however long; for one of class business at once", async () => {
  let down = true;
  let calls = 0;
  const bed = new OperatorBed(
    mapAsync<string, string>(
      async (value) => {
        calls++;
        if (value === "bad") throw new MillraceError("record-refused", "the other side refuses it");
        if (down) throw new MillraceError("connection-lost", "the other side is away");
        return value;
      },
      { retry: { attempts: 2, max: "1s" } },
    ),
  );
  bed.sendValues(["bad"]);
  await bed.context.clock.run(0);
  assert.deepEqual(
    [calls, bed.rejected[0]?.failure.code, bed.rejected[0]?.failure.class],
    [1, "record-refused", "business"],
  );
  bed.sendValues(["a", "b"]);
  await bed.context.clock.run(3_600_000);
  assert.equal(bed.rejected.length, 1);
  assert.ok((bed.context.counted.get("author_retries_total") ?? 0) > 1_000);
  down = false;
  await bed.context.clock.run(1_000);
  assert.deepEqual(values(bed), ["a", "b"]);
  assert.deepEqual(
    bed.context.logged.map((line) => line.replace(/ \{.*/, "")),
    ["warn mapAsync waits for another system", "info mapAsync waits no longer"],
  );
});

test("when the run is aborted, calls are given up and nothing is settled", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask, { concurrency: 1 }));
  bed.sendValues([1, 2]);
  bed.context.abort();
  await bed.context.clock.run(0);
  assert.equal(asked[0]!.signal.aborted, true);
  assert.deepEqual([asked.length, bed.busy, bed.output.length, bed.outcomes.size], [1, 0, 0, 0]);
  bed.revoke();
  assert.deepEqual(
    bed.output.map((item) => ("kind" in item ? item.kind : "messages")),
    ["revoke"],
    "whoever comes after must let go of the lane too",
  );
});

test("a time-out of nothing is a mistake", () => {
  assert.match(mapAsync(async (n) => n, { timeout: 0 }).problems[0]!.message, /time-out/);
  assert.deepEqual(mapAsync(async (n) => n, { timeout: "1ms", retry: { attempts: 2 } }).problems, []);
});

const fate = fc.record({
  /** Each attempt takes so long; "never" until the time is up. */
  attempts: fc.array(fc.oneof(fc.nat(60), fc.constant("never" as const)), { minLength: 3, maxLength: 3 }),
  /** Attempts that fail before one succeeds: 3 is more than are made. */
  failures: fc.constantFrom(0, 0, 0, 1, 2, 3),
});
type Fate = { id: number; attempts: (number | "never")[]; failures: number };

test("property: whatever calls do, order holds, controls keep their place, and every message has one fate", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          lane: fc.constantFrom("a", "b"),
          values: fc.array(fate, { minLength: 1, maxLength: 6 }),
          wait: fc.nat(60),
          after: fc.constantFrom("nothing", "nothing", "nothing", "flush", "revoke"),
        }),
        { maxLength: 14 },
      ),
      fc.integer({ min: 1, max: 5 }),
      async (sends, concurrency) => {
        let running = 0;
        let most = 0;
        const made = new Map<number, number>();
        const bed: OperatorBed = new OperatorBed(
          mapAsync<Fate, number>(
            ({ id, attempts, failures }, { signal }) => {
              const attempt = made.get(id) ?? 0;
              made.set(id, attempt + 1);
              most = Math.max(most, ++running);
              const takes = attempts[attempt]!;
              const call = new Promise<number>((resolve, reject) => {
                signal.addEventListener("abort", () => reject(signal.reason));
                if (takes === "never") return;
                bed.context.clock.after(takes, () =>
                  attempt < failures ? reject(new Error("no")) : resolve(id),
                );
              });
              const over = () => {
                running--;
              };
              call.then(over, over);
              return call;
            },
            { concurrency, timeout: "50ms", retry: { attempts: 3, initial: "5ms", max: "20ms" } },
          ),
        );
        /** What must come out, if its lane lives: ids and flushes in the order they went in. */
        const sent: { lane: string; epoch: number; ids: number[] }[] = [];
        const order: (number | "flush")[] = [];
        const epochs: Record<string, number> = { a: 0, b: 0 };
        let id = 0;
        for (const { lane, values: fates, wait, after } of sends) {
          const given = fates.map((one) => ({ id: id++, ...one }));
          bed.sendValues(given, lane);
          sent.push({ lane, epoch: epochs[lane]!, ids: given.map((one) => one.id) });
          order.push(...given.map((one) => one.id));
          if (after === "flush") {
            bed.flush();
            order.push("flush");
          }
          if (after === "revoke") {
            bed.revoke(lane);
            epochs[lane]!++;
          }
          await bed.context.clock.run(wait);
        }
        await bed.context.clock.run(100_000);
        assert.ok(most <= concurrency, "calls under way");
        assert.deepEqual([bed.busy, bed.context.clock.pending], [0, 0]);
        const out = bed.output.flatMap((item): (number | "flush")[] => {
          if (item instanceof Chunk) {
            return Array.from({ length: item.length }, (_, i) => i)
              .filter((i) => item.state[i] === 1)
              .map((i) => item.value(i) as number);
          }
          return "kind" in item && item.kind === "flush" ? ["flush"] : [];
        });
        const came = new Set(out);
        const laneOf = new Map(sent.flatMap(({ lane, ids }) => ids.map((one) => [one, lane] as const)));
        /** By lane what lies between flushes. */
        const byLane = (items: readonly (number | "flush")[]) => {
          const sections: Record<string, number[]>[] = [{ a: [], b: [] }];
          for (const one of items) {
            if (one === "flush") sections.push({ a: [], b: [] });
            else sections.at(-1)![laneOf.get(one)!]!.push(one);
          }
          return sections;
        };
        assert.deepEqual(
          byLane(out),
          byLane(order.filter((one) => one === "flush" || came.has(one))),
          "order in each lane, each once, and flushes in their place",
        );
        bed.deliver();
        const rejected = new Set(bed.rejected.map(({ lane, position }) => `${lane.name}:${position}`));
        const positions: Record<string, number> = { a: 0, b: 0 };
        for (const { lane, epoch, ids } of sent) {
          for (const one of ids) {
            const position = `${lane}:${positions[lane]!++}`;
            // Of an ended lane a message may have gone either way before, or was returned.
            if (epoch === epochs[lane]) {
              assert.notEqual(came.has(one), rejected.has(position), `message ${one}: one fate`);
              assert.equal(bed.outcomes.get(position), came.has(one) ? "delivered" : "deadLettered");
            } else assert.ok(!(came.has(one) && rejected.has(position)));
          }
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("trouble of class network leaves a message all its attempts", async () => {
  const answers = ["away", "away", "wrong", "away", "well"];
  const bed = new OperatorBed(
    mapAsync<string, string>(
      async () => {
        const answer = answers.shift()!;
        if (answer === "away") throw new MillraceError("connection-lost", "gone");
        if (answer === "wrong") throw new Error("wrong");
        return answer;
      },
      { retry: { attempts: 2 } },
    ),
  );
  bed.sendValues(["x"]);
  await bed.context.clock.run(60_000);
  assert.deepEqual([values(bed), bed.rejected.length], [["well"], 0]);
});
