import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Forgotten, hashOf, RecentIds } from "./recent-ids.ts";

const forever = Number.POSITIVE_INFINITY;

function memory(capacity: number, ttl = forever, seed = 7): { ids: RecentIds; forgotten: Forgotten } {
  const forgotten = { evicted: 0, expired: 0 };
  return { ids: new RecentIds(capacity, ttl, seed, forgotten), forgotten };
}

/** The same by the book: a Map from the least to the most recent. */
class Model {
  readonly entries = new Map<string, number>();
  readonly forgotten = { evicted: 0, expired: 0 };
  capacity: number;
  readonly ttl: number;

  constructor(capacity: number, ttl: number) {
    this.capacity = capacity;
    this.ttl = ttl;
  }

  has(id: string, now: number): boolean {
    const added = this.entries.get(id);
    if (added === undefined) return false;
    this.entries.delete(id);
    if (now - added < this.ttl) this.entries.set(id, added);
    else this.forgotten.expired++;
    return this.entries.has(id);
  }

  add(id: string, now: number): void {
    this.trim(this.capacity - 1, now);
    this.entries.set(id, now);
  }

  resize(capacity: number, now: number): void {
    this.capacity = capacity;
    this.trim(capacity, now);
  }

  trim(size: number, now: number): void {
    for (const [id, added] of this.entries) {
      if (this.entries.size <= size) return;
      this.entries.delete(id);
      if (now - added < this.ttl) this.forgotten.evicted++;
      else this.forgotten.expired++;
    }
  }
}

test("agrees with a plain least-recently-used list, step by step", () => {
  const step = fc.oneof(
    { weight: 20, arbitrary: fc.record({ op: fc.constant("see" as const), n: fc.nat(1_500) }) },
    { weight: 3, arbitrary: fc.record({ op: fc.constant("wait" as const), n: fc.nat(30) }) },
    {
      weight: 1,
      arbitrary: fc.record({ op: fc.constant("resize" as const), n: fc.integer({ min: 1, max: 900 }) }),
    },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 900 }),
      fc.constantFrom(forever, 40, 1),
      fc.integer(),
      fc.integer({ min: 1, max: 1_500 }),
      fc.array(step, { maxLength: 1_500, size: "max" }),
      (capacity, ttl, seed, distinct, steps) => {
        const { ids, forgotten } = memory(capacity, ttl, seed);
        const model = new Model(capacity, ttl);
        let now = 0;
        for (const { op, n } of steps) {
          if (op === "wait") now += n;
          else if (op === "resize") {
            ids.resize(n, now);
            model.resize(n, now);
          } else {
            const id = `id-${n % distinct}`;
            const known = ids.has(id, now);
            assert.equal(known, model.has(id, now), id);
            if (!known) {
              ids.add(id, now);
              model.add(id, now);
            }
          }
          assert.equal(ids.size, model.entries.size);
          assert.deepEqual(forgotten, model.forgotten);
        }
        for (const id of [...model.entries.keys()]) assert.equal(ids.has(id, now), model.has(id, now));
      },
    ),
    { numRuns: 150 },
  );
});

test("ids with one hash are still two ids", () => {
  const seen = new Map<number, string>();
  let pair: readonly [string, string] | undefined;
  for (let i = 0; pair === undefined; i++) {
    const id = `order-${i}`;
    const other = seen.get(hashOf(id, 7));
    if (other !== undefined) pair = [other, id];
    seen.set(hashOf(id, 7), id);
  }
  const { ids } = memory(10);
  ids.add(pair[0], 0);
  assert.equal(ids.has(pair[1], 0), false);
  ids.add(pair[1], 0);
  assert.deepEqual(
    pair.map((id) => ids.has(id, 0)),
    [true, true],
  );
});

test("ids that all fall on one place cannot make it slow: it gives some up", () => {
  // A table for up to 512 entries has 1024 places. These ids share one, as those of someone who knew the seed could.
  const { ids, forgotten } = memory(100_000);
  let added = 0;
  for (let i = 0; added < 300; i++) {
    if ((hashOf(`${i}`, 7) & 1023) !== 0) continue;
    ids.add(`${i}`, 0);
    added++;
  }
  assert.ok(forgotten.evicted >= 300 - 256, `${forgotten.evicted} given up`);
  assert.equal(ids.size, 300 - forgotten.evicted);
});

test("asking makes an id recent, not young", () => {
  const { ids } = memory(2, 100);
  ids.add("a", 0);
  ids.add("b", 10);
  assert.equal(ids.has("a", 50), true);
  ids.add("c", 60);
  assert.equal(ids.has("b", 60), false, "b was the least recent");
  assert.equal(ids.has("a", 99), true);
  assert.equal(ids.has("a", 100), false, "its time counts from when it was added");
});

test("put anew, an id is young again, and there once", () => {
  const { ids, forgotten } = memory(2, 100);
  ids.put("a", 0);
  ids.put("b", 10);
  ids.put("a", 50);
  assert.deepEqual(
    [...ids.entries()],
    [
      { id: "b", added: 10 },
      { id: "a", added: 50 },
    ],
  );
  assert.equal(ids.has("a", 149), true);
  assert.deepEqual(forgotten, { evicted: 0, expired: 0 });
});

test("frozen, the list can be read while ids are asked for; what would change it is done afterwards", () => {
  const { ids, forgotten } = memory(5, 100);
  for (const [n, id] of [..."abcde"].entries()) ids.add(id, n * 30);
  ids.freeze();
  const read: string[] = [];
  for (const { id } of ids.entries()) {
    read.push(id);
    assert.equal(ids.has("a", 120), false, "it is over");
    assert.equal(ids.has("b", 120), true);
    ids.resize(3, 120);
  }
  assert.equal(read.join(""), "abcde");
  assert.equal(ids.size, 5);
  ids.thaw(120);
  assert.deepEqual([ids.size, ids.capacity, forgotten], [3, 3, { evicted: 1, expired: 1 }]);
  assert.equal(ids.has("b", 120), false);
});
