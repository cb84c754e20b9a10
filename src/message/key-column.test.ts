import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type KeyColumn, KeyWriter } from "./key-column.ts";

const bytesOf = (key: string | Uint8Array | null) => (key === null ? null : Buffer.from(key as string));

function columnOf(keys: readonly (string | Uint8Array | null)[]): KeyColumn {
  const writer = new KeyWriter(keys.length);
  keys.forEach((key, index) => {
    if (key !== null) writer.write(index, key);
  });
  return writer.finish();
}

const read = (column: KeyColumn, length: number) =>
  Array.from({ length }, (_, index) => ({ key: column.key(index), length: column.length(index) }));

/** What {@link KeyColumn.copy} writes and {@link KeyColumn.hashed} asks of, for a key that is there. */
function placed(column: KeyColumn, index: number) {
  const length = column.length(index);
  if (length < 0) return undefined;
  const into = Buffer.alloc(length + 2);
  column.copy(index, into, 1);
  let asked: Buffer | undefined;
  const hash = (bytes: Buffer, argument: number, from: number, to: number) => {
    asked = bytes.subarray(from, to);
    return argument;
  };
  assert.equal(column.hashed(index, hash, 7), 7);
  return { into, asked };
}

const key = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.string({ unit: "grapheme", maxLength: 60 }),
  fc.uint8Array({ maxLength: 2_000 }),
  fc.constant(null),
);

test("property: a column has the keys that were written, none where none was, and so do its parts", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(key, fc.boolean()), { minLength: 1, maxLength: 20 }),
      fc.nat(),
      (all, nat) => {
        const told = all.map(([one]) => ({ key: bytesOf(one), length: bytesOf(one)?.length ?? -1 }));
        const column = columnOf(all.map(([one]) => one));
        // Made meanwhile, in the same room.
        columnOf(["another", Buffer.alloc(3_000, 1)]);
        assert.deepEqual(read(column, all.length), told);
        const from = nat % all.length;
        const rest = column.after(from);
        assert.deepEqual(read(rest, all.length - from), told.slice(from));
        for (let i = 0; i < all.length; i++) {
          const one = told[i]!.key;
          const into = one === null ? undefined : Buffer.concat([Buffer.alloc(1), one, Buffer.alloc(1)]);
          assert.deepEqual(placed(column, i), into === undefined ? undefined : { into, asked: one });
        }
        const state = Uint8Array.from(all.slice(from), ([, travels]) => Number(travels));
        assert.deepEqual(
          read(rest.travelling(state), state.length),
          told.slice(from).map((one, index) => (state[index] === 1 ? one : { key: null, length: -1 })),
        );
      },
    ),
    { numRuns: 200 },
  );
});

test("bytes are copied, and two columns that are made at once keep apart", () => {
  const bytes = Buffer.from([1]);
  const [one, other] = [new KeyWriter(1), new KeyWriter(1)];
  one.write(0, bytes);
  other.write(0, Buffer.from([2]));
  bytes[0] = 3;
  assert.deepEqual(one.finish().key(0), Buffer.from([1]));
  assert.deepEqual(other.finish().key(0), Buffer.from([2]));
});

test("the keys of a few that travel on do not hold on to the others", () => {
  const keys = new Array<string>(1_000).fill("k".repeat(100));
  const state = new Uint8Array(keys.length);
  state[500] = 1;
  const few = columnOf(keys).travelling(state).key(500)!;
  assert.equal(few.toString(), keys[500]);
  assert.ok(few.buffer.byteLength <= Buffer.poolSize);
});
