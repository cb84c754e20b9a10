import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32c } from "@node-rs/crc32";
import fc from "fast-check";
import { patchedCrc } from "./crc-patch.ts";

test("a checksum is patched to that of the changed bytes", () => {
  const bytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array));
  const part = fc.tuple(bytes, fc.infiniteStream(fc.nat(255))).map(([before, stream]) => {
    const numbers = stream[Symbol.iterator]();
    return { before, after: Buffer.from(before.map(() => numbers.next().value)) };
  });
  fc.assert(
    fc.property(
      bytes,
      part,
      fc.oneof(fc.nat(100), fc.nat(3_000_000)),
      (head, { before, after }, following) => {
        const tail = Buffer.alloc(following, "what follows");
        const old = crc32c(Buffer.concat([head, before, tail]));
        const patched = patchedCrc(old, crc32c(before), crc32c(after), following);
        assert.equal(patched, crc32c(Buffer.concat([head, after, tail])));
      },
    ),
  );
});
