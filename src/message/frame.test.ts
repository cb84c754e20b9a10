import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type ErrorCode, MillraceError } from "../errors.ts";
import { decodeFrame, encodeFrame, type FrameSource, messageSize, mostMessages } from "./frame.ts";
import type { Headers, HeaderValue, PlainRecord, Records } from "./records.ts";

type FramedMessage = Omit<PlainRecord, "position">;

function frameOf(messages: readonly FramedMessage[]): FrameSource {
  return {
    length: messages.length,
    key: (entry) => messages[entry]!.key,
    payload: (entry) => messages[entry]!.value,
    headers: (entry) => messages[entry]!.headers,
    timestamp: (entry) => messages[entry]!.timestamp,
  };
}

function messagesOf(records: Records): FramedMessage[] {
  return Array.from({ length: records.length }, (_, i) => ({
    key: records.key(i),
    value: records.value(i),
    headers: records.headers(i),
    timestamp: records.timestamp(i),
  }));
}

function refused(buffer: Buffer, code: ErrorCode, limits = {}): void {
  assert.throws(
    () => decodeFrame(buffer, 0, limits),
    (error) => error instanceof MillraceError && error.code === code,
    buffer.subarray(0, 60).toString("hex"),
  );
}

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const headerValue: fc.Arbitrary<HeaderValue> = fc.oneof(
  bytes(20),
  // A lone surrogate has no UTF-8.
  fc.string({ unit: "grapheme" }),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
);
const message: fc.Arbitrary<FramedMessage> = fc.record(
  {
    key: fc.option(bytes(40)),
    value: fc.option(fc.oneof(bytes(40), bytes(300))),
    headers: fc.array(fc.tuple(fc.string({ unit: "grapheme" }), headerValue), {
      maxLength: 4,
    }) as fc.Arbitrary<Headers>,
    timestamp: fc.oneof(
      fc.constantFrom(0, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER),
      fc.maxSafeInteger(),
    ),
  },
  { noNullPrototype: true },
);
const messages = fc.array(message, { minLength: 1, maxLength: 8 });

const plain: FramedMessage = { key: null, value: null, headers: [], timestamp: 0 };

describe("frame", () => {
  test("what goes in comes out: null is not empty, headers keep their types and order", () => {
    fc.assert(
      fc.property(messages, (given) => {
        const frame = encodeFrame(frameOf(given));
        const records = decodeFrame(frame, 7);
        assert.deepEqual(messagesOf(records), given);
        for (let i = 0; i < records.length; i++) assert.equal(records.position(i), 7);
      }),
    );
  });

  test("its bytes are these", () => {
    const frame = encodeFrame(
      frameOf([
        {
          key: Buffer.from("k"),
          value: Buffer.alloc(0),
          headers: [
            ["a", null],
            ["b", Buffer.from([1, 2])],
            ["c", "é"],
            ["d", 1.5],
            ["e", true],
            ["f", false],
          ],
          timestamp: 1,
        },
        { ...plain, value: Buffer.alloc(200, "v") },
      ]),
    );
    const expected = [
      "4d524601 02",
      "3ff0000000000000 026b 01 06 0161 00 0162 01020102 0163 0202c3a9 0164 033ff8000000000000 0165 05 0166 04",
      `0000000000000000 00 c901${"76".repeat(200)} 00`,
    ];
    assert.equal(frame.toString("hex"), expected.join("").replaceAll(" ", ""));
  });

  test("the size of a message is known before it is written", () => {
    fc.assert(
      fc.property(messages, (given) => {
        const source = frameOf(given);
        const sum = given.reduce((size, _, entry) => size + messageSize(source, entry), 0);
        assert.equal(encodeFrame(source).length, 4 + 1 + sum);
      }),
    );
  });

  test("nothing cut short, and nothing with more bytes than its own, is a frame", () => {
    fc.assert(
      fc.property(messages, fc.integer({ min: 0, max: 999 }), bytes(10), (given, part, more) => {
        const frame = encodeFrame(frameOf(given));
        refused(frame.subarray(0, Math.floor((frame.length * part) / 1_000)), "compressed-invalid");
        if (more.length > 0) refused(Buffer.concat([frame, more]), "compressed-invalid");
      }),
    );
  });

  test("a changed byte gives other messages or an explained error, never a crash", () => {
    fc.assert(
      fc.property(messages, fc.nat(), fc.integer({ min: 1, max: 255 }), (given, at, change) => {
        const frame = encodeFrame(frameOf(given));
        frame[at % frame.length]! ^= change;
        try {
          messagesOf(decodeFrame(frame));
        } catch (error) {
          assert.ok(error instanceof MillraceError, String(error));
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("garbage behind a good beginning is explained", () => {
    fc.assert(
      fc.property(bytes(60), (garbage) => {
        try {
          decodeFrame(Buffer.concat([Buffer.from("MRF\x01"), garbage]));
        } catch (error) {
          assert.ok(error instanceof MillraceError, String(error));
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("counts and lengths are checked before anything is made of them", () => {
    const frame = (hex: string) => Buffer.from(`4d524601${hex.replaceAll(" ", "")}`, "hex");
    const before = process.memoryUsage().arrayBuffers;
    // 2^35 - 1 messages; a key, a value, headers and a header's name of as much.
    refused(frame("ffffffff7f"), "compressed-invalid");
    refused(frame("01 0000000000000000 ffffffff7f 00 00"), "compressed-invalid");
    refused(frame("01 0000000000000000 00 ffffffff7f 00"), "compressed-invalid");
    refused(frame("01 0000000000000000 00 00 ffff03"), "compressed-invalid");
    refused(frame("01 0000000000000000 00 00 01 ffffffff7f"), "compressed-invalid");
    // A length of six bytes.
    refused(frame("ffffffffffff01"), "compressed-invalid");
    assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 20);
  });

  test("what is no frame of this version is refused", () => {
    refused(Buffer.alloc(0), "compressed-invalid");
    refused(Buffer.from("MRF"), "compressed-invalid");
    refused(Buffer.from('{"id":1}'), "compressed-invalid");
    const other = encodeFrame(frameOf([plain]));
    other[3] = 2;
    assert.throws(() => decodeFrame(other), /version 2/);
    // No message; a timestamp that is none; an unknown type of header; a name that is not UTF-8.
    refused(Buffer.from("4d52460100", "hex"), "compressed-invalid");
    refused(Buffer.from("4d524601017ff8000000000000000000", "hex"), "compressed-invalid");
    refused(Buffer.from("4d524601013fe0000000000000000000", "hex"), "compressed-invalid");
    refused(
      Buffer.from("4d5246010100000000000000000000 01 0161 06".replaceAll(" ", ""), "hex"),
      "compressed-invalid",
    );
    refused(
      Buffer.from("4d5246010100000000000000000000 01 01ff 00".replaceAll(" ", ""), "hex"),
      "compressed-invalid",
    );
  });

  test("limits on messages, bytes and headers", () => {
    const two = encodeFrame(frameOf([plain, plain]));
    assert.equal(decodeFrame(two, 0, { messages: 2, bytes: two.length }).length, 2);
    refused(two, "decompressed-too-large", { messages: 1 });
    refused(two, "decompressed-too-large", { bytes: two.length - 1 });
    const many = Array.from({ length: mostMessages + 1 }, () => plain);
    refused(encodeFrame(frameOf(many)), "decompressed-too-large");
    assert.equal(decodeFrame(encodeFrame(frameOf(many.slice(1)))).length, mostMessages);
    const header = ["", null] as const;
    const headers = Array.from({ length: 65_537 }, () => header);
    refused(encodeFrame(frameOf([{ ...plain, headers }])), "decompressed-too-large");
  });

  test("a timestamp with fractions is rounded", () => {
    const records = decodeFrame(encodeFrame(frameOf([{ ...plain, timestamp: 1_700_000_000_000.6 }])));
    assert.equal(records.timestamp(0), 1_700_000_000_001);
  });

  test("its size as credit counts it", () => {
    const headers: Headers = [["h", Buffer.from("abc")]];
    const records = decodeFrame(
      encodeFrame(frameOf([{ key: Buffer.from("k"), value: Buffer.from("value"), headers, timestamp: 0 }])),
    );
    assert.equal(records.size(0), 1 + 5 + 1 + 3);
  });
});
