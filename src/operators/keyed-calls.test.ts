import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Chunk } from "../message/chunk.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { type Call, map, mapAsync } from "./map.ts";

/** An asynchronous function whose answers the test gives, by value. */
function desk() {
  const asked = new Map<string, { answer: (value: unknown) => void; signal: AbortSignal }>();
  const ask = (value: string, { signal }: { signal: AbortSignal }) =>
    new Promise<unknown>((answer) => {
      asked.set(value, { answer, signal });
    });
  return { asked, ask, names: () => [...asked.keys()] };
}

const values = (bed: OperatorBed) => bed.emitted().map(({ value }) => value);
const kinds = (bed: OperatorBed) => bed.output.map((item) => ("kind" in item ? item.kind : "messages"));

test("a slow message holds back its key; others go on as they are ready", async () => {
  const { asked, ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 64 }));
  bed.sendValues(["a1", "b1", "a2", "b2"], "t", ["a", "b", "a", "b"]);
  await bed.context.clock.run(0);
  assert.deepEqual([names(), bed.busy], [["a1", "b1"], 2]);
  asked.get("b1")!.answer("B1");
  await bed.context.clock.run(0);
  asked.get("b2")!.answer("B2");
  await bed.context.clock.run(0);
  assert.deepEqual(
    [values(bed), names()],
    [
      ["B1", "B2"],
      ["a1", "b1", "b2"],
    ],
  );
  asked.get("a1")!.answer("A1");
  await bed.context.clock.run(0);
  asked.get("a2")!.answer("A2");
  await bed.context.clock.run(0);
  assert.deepEqual(
    bed.emitted().map(({ key, position, value }) => [key, position, value]),
    [
      ["b", 1, "B1"],
      ["b", 3, "B2"],
      ["a", 0, "A1"],
      ["a", 2, "A2"],
    ],
  );
  assert.equal(bed.busy, 0);
  assert.equal(bed.deliver(), 4);
  assert.deepEqual([...new Set(bed.outcomes.values())], ["delivered"]);
});

test("a message that is tried again holds back its key, one that is rejected no longer, and order holds", async () => {
  const calls: string[] = [];
  const bed = new OperatorBed(
    mapAsync<string, string>(
      async (value) => {
        calls.push(value);
        if (value === "bad") throw new Error("no");
        return value;
      },
      { order: "key", concurrency: 64, retry: { attempts: 2, initial: "1h", max: "1h" } },
    ),
  );
  bed.sendValues(["bad", "next", "other"], "t", ["a", "a", "b"]);
  await bed.context.clock.run(0);
  assert.deepEqual([calls, values(bed)], [["bad", "other"], ["other"]]);
  await bed.context.clock.run(3_600_000);
  assert.deepEqual(calls, ["bad", "other", "bad", "next"]);
  assert.deepEqual(
    [values(bed), kinds(bed)],
    [
      ["other", "next"],
      ["messages", "messages"],
    ],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.code]),
    [[0, "author-error"]],
  );
});

test("a key of no bytes is a key; messages without one take the slots with the fewest", async () => {
  const { ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 2 }));
  bed.sendValues(["e1", "e2", "e3"], "t", ["", "", ""]);
  bed.sendValues(["n1", "n2"], "t", [null, null]);
  await bed.context.clock.run(0);
  assert.deepEqual(names(), ["e1", "n1"]);
  assert.equal(bed.busy, 2);
});

test("a message without a key waits in the slot with the shortest queue", async () => {
  const { asked, ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 2 }));
  bed.sendValues(["e1", "n1", "e2", "n2"], "t", ["", null, "", null]);
  await bed.context.clock.run(0);
  asked.get("n1")!.answer(1);
  await bed.context.clock.run(0);
  assert.deepEqual(names(), ["e1", "n1", "n2"]);
});

test("keys are spread over the slots, also those that one Kafka partition has", async () => {
  const { ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 16 }));
  const keys = Array.from({ length: 200 }, (_, i) => `customer-${i * 16}`);
  bed.sendValues(keys, "t", keys);
  await bed.context.clock.run(0);
  assert.equal(names().length, 16, "every slot has work");
});

test("a flush stays behind what came before it and ahead of what came after, which is called meanwhile", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 64 }));
  bed.sendValues(["a1"], "t", ["a"]);
  bed.flush();
  bed.sendValues(["b1"], "t", ["b"]);
  await bed.context.clock.run(0);
  asked.get("b1")!.answer("B1");
  await bed.context.clock.run(0);
  assert.deepEqual(kinds(bed), []);
  asked.get("a1")!.answer("A1");
  await bed.context.clock.run(0);
  assert.deepEqual(kinds(bed), ["messages", "flush", "messages"]);
  assert.deepEqual(values(bed), ["A1", "B1"]);
  bed.flush();
  assert.equal(kinds(bed).at(-1), "flush", "with nothing open it goes on at once");
});

test("a revoke overtakes: the lane's calls are given up, what waited is never called, and others go on", async () => {
  const { asked, ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key", concurrency: 1 }));
  bed.sendValues(["old1", "old2"], "a", ["k", "k"]);
  bed.sendValues(["new1"], "b", ["k"]);
  bed.flush();
  await bed.context.clock.run(0);
  bed.revoke("a");
  assert.deepEqual(kinds(bed), ["revoke"]);
  await bed.context.clock.run(0);
  assert.equal(asked.get("old1")!.signal.aborted, true);
  assert.deepEqual(names(), ["old1", "new1"]);
  asked.get("new1")!.answer("NEW1");
  await bed.context.clock.run(0);
  assert.deepEqual(kinds(bed), ["revoke", "messages", "flush"]);
  assert.deepEqual([values(bed), bed.rejected.length, bed.busy], [["NEW1"], 0, 0]);
});

test("completion waits for the calls under way and those that wait for them", async () => {
  const { asked, ask } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key" }));
  bed.sendValues(["a1", "a2"], "t", ["a", "a"]);
  bed.complete();
  await bed.context.clock.run(0);
  asked.get("a1")!.answer(1);
  await bed.context.clock.run(0);
  assert.equal(bed.completed, false);
  asked.get("a2")!.answer(2);
  await bed.context.clock.run(0);
  assert.deepEqual([values(bed), bed.completed], [[1, 2], true]);
});

test("after an abort nothing is called, emitted or settled, and a revoke still goes on", async () => {
  const { asked, ask, names } = desk();
  const bed = new OperatorBed(mapAsync(ask, { order: "key" }));
  bed.sendValues(["a1", "a2"], "t", ["a", "a"]);
  bed.flush();
  await bed.context.clock.run(0);
  asked.get("a1")!.answer(1);
  bed.context.abort();
  bed.sendValues(["b1"], "t", ["b"]);
  bed.flush();
  await bed.context.clock.run(0);
  assert.deepEqual([names(), bed.busy, bed.output.length, bed.outcomes.size], [["a1"], 0, 0, 0]);
  bed.revoke();
  assert.deepEqual(kinds(bed), ["revoke"]);
});

for (const last of ["A1", "B1"]) {
  test(`when whoever comes after ends the run at ${last}, nothing follows`, async () => {
    const { asked, ask, names } = desk();
    const bed: OperatorBed = new OperatorBed([
      mapAsync(ask, { order: "key", concurrency: 64 }),
      map((value: unknown) => {
        if (value === last) bed.context.abort();
        return value;
      }),
    ]);
    bed.sendValues(["a1"], "t", ["a"]);
    bed.flush();
    bed.sendValues(["b1", "c1", "a2"], "t", ["b", "c", "a"]);
    await bed.context.clock.run(0);
    for (const name of ["b1", "c1", "a1"]) {
      asked.get(name)!.answer(name.toUpperCase());
      await bed.context.clock.run(0);
    }
    assert.deepEqual(values(bed), last === "A1" ? ["A1"] : ["A1", "B1"]);
    assert.equal(kinds(bed).includes("flush"), last === "B1");
    assert.deepEqual([names().includes("a2"), bed.busy], [false, 0]);
  });
}

test("messages travel on alone, over bytes of their own", async () => {
  const bed = new OperatorBed(mapAsync<Buffer, string>(async (bytes) => `${bytes}!`, { order: "key" }));
  const sent = bed.send([
    { key: Buffer.from("a"), value: "one", headers: [["h", "1"]] },
    { key: Buffer.from("b"), value: "two" },
  ]);
  await bed.context.clock.run(0);
  assert.equal(sent.live, 0);
  const [one] = bed.output as Chunk[];
  assert.deepEqual([one!.length, one!.records.length, one!.changed], [1, 1, true]);
  assert.deepEqual(one!.headers(0), [["h", "1"]]);
  assert.deepEqual(
    bed.emitted().map(({ key, value, payload }) => [key, value, payload]),
    [
      ["a", "one!", "one"],
      ["b", "two!", "two"],
    ],
  );
});

interface Fate {
  readonly id: number;
  readonly key: string | null;
  /** Each attempt takes so long; "never" until the time is up. */
  readonly attempts: readonly (number | "never")[];
  /** Attempts that fail before one succeeds: 3 is more than are made. */
  readonly failures: number;
}

/** Calls that do as their messages say, and what was ever under way at once. */
class Calls {
  readonly #made = new Map<number, number>();
  readonly #keys = new Set<string>();
  #running = 0;
  most = 0;
  /** Keys that had two calls under way at once. */
  readonly doubled: string[] = [];

  make({ id, key, attempts, failures }: Fate, signal: AbortSignal, bed: OperatorBed): Promise<number> {
    const attempt = this.#made.get(id) ?? 0;
    this.#made.set(id, attempt + 1);
    this.most = Math.max(this.most, ++this.#running);
    if (key !== null && this.#keys.has(key)) this.doubled.push(key);
    if (key !== null) this.#keys.add(key);
    const takes = attempts[attempt]!;
    return new Promise((resolve, reject) => {
      let open = true;
      const over = (end: () => void) => () => {
        if (!open) return;
        open = false;
        this.#running--;
        if (key !== null) this.#keys.delete(key);
        end();
      };
      signal.addEventListener(
        "abort",
        over(() => reject(signal.reason)),
      );
      if (takes === "never") return;
      const end = () => (attempt < failures ? reject(new Error("no")) : resolve(id));
      bed.context.clock.after(takes, over(end));
    });
  }
}

const fate = fc.record({
  key: fc.constantFrom("k", "l", "m", "n", "", null),
  attempts: fc.array(fc.oneof(fc.nat(60), fc.constant("never" as const)), { minLength: 3, maxLength: 3 }),
  failures: fc.constantFrom(0, 0, 0, 1, 2, 3),
});

test("property: in slots by key, order holds within each key, controls keep their place, and every message has one fate", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          lane: fc.constantFrom("a", "b"),
          messages: fc.array(fate, { minLength: 1, maxLength: 6 }),
          wait: fc.nat(60),
          after: fc.constantFrom("nothing", "nothing", "nothing", "flush", "revoke"),
        }),
        { maxLength: 14 },
      ),
      fc.integer({ min: 1, max: 5 }),
      async (sends, concurrency) => {
        const calls = new Calls();
        const bed: OperatorBed = new OperatorBed(
          mapAsync((one: Fate, { signal }: Call<Fate>) => calls.make(one, signal, bed), {
            order: "key",
            concurrency,
            timeout: "50ms",
            retry: { attempts: 3, initial: "5ms", max: "20ms" },
          }),
        );
        const sent: (Fate & { lane: string; epoch: number; position: string; flushes: number })[] = [];
        const epochs: Record<string, number> = { a: 0, b: 0 };
        const positions: Record<string, number> = { a: 0, b: 0 };
        let flushes = 0;
        for (const { lane, messages, wait, after } of sends) {
          const first = sent.length;
          for (const one of messages) {
            const position = `${lane}:${positions[lane]!++}`;
            sent.push({ ...one, id: sent.length, lane, epoch: epochs[lane]!, position, flushes });
          }
          const given = sent.slice(first);
          bed.sendValues(
            given,
            lane,
            given.map(({ key }) => key),
          );
          if (after === "flush") {
            bed.flush();
            flushes++;
          }
          if (after === "revoke") {
            bed.revoke(lane);
            epochs[lane]!++;
          }
          await bed.context.clock.run(wait);
        }
        await bed.context.clock.run(100_000);
        assert.ok(calls.most <= concurrency, "calls under way");
        assert.deepEqual(calls.doubled, [], "keys with two calls under way");
        assert.deepEqual([bed.busy, bed.context.clock.pending], [0, 0]);

        const out: number[] = [];
        let passed = 0;
        for (const item of bed.output) {
          if (item instanceof Chunk) {
            for (let i = 0; i < item.length; i++) {
              if (item.state[i] === 0) continue;
              const id = item.value(i) as number;
              out.push(id);
              assert.equal(sent[id]!.flushes, passed, "flushes before the message");
            }
          } else if ("kind" in item && item.kind === "flush") passed++;
        }
        assert.equal(passed, flushes);
        const came = new Set(out);
        assert.equal(came.size, out.length, "each once");
        for (const key of ["k", "l", "m", "n", ""]) {
          const ids = out.filter((id) => sent[id]!.key === key);
          assert.deepEqual(
            ids,
            ids.toSorted((a, b) => a - b),
            `order of key "${key}"`,
          );
        }
        bed.deliver();
        const rejected = new Set(bed.rejected.map(({ lane, position }) => `${lane.name}:${position}`));
        for (const { id, lane, epoch, position } of sent) {
          // Of an ended lane a message may have gone either way before, or was returned.
          if (epoch === epochs[lane]) {
            assert.notEqual(came.has(id), rejected.has(position), `message ${id}: one fate`);
            assert.equal(bed.outcomes.get(position), came.has(id) ? "delivered" : "deadLettered");
          } else assert.ok(!(came.has(id) && rejected.has(position)));
        }
      },
    ),
    { numRuns: 200 },
  );
});
