import assert from "node:assert/strict";
import { test } from "node:test";
import { OperatorBed } from "../testing/operator-bed.ts";
import { headers } from "./headers.ts";

const headersOf = (bed: OperatorBed) => bed.emitted().map((message) => message.headers);

test("a name that is set stands once, behind the others, which stay in their order", () => {
  const bed = new OperatorBed(headers({ twice: "new", gone: undefined, empty: null }));
  bed.send([
    {
      value: "a",
      headers: [
        ["twice", "old"],
        ["b", Buffer.from([1])],
        ["gone", "x"],
        ["twice", "older"],
        ["a", 2],
      ],
    },
    { value: "b" },
  ]);
  const set = [
    ["twice", "new"],
    ["empty", null],
  ];
  assert.deepEqual(headersOf(bed), [[["b", Buffer.from([1])], ["a", 2], ...set], set]);
});

test("a second step sees what the first has set, and a function the whole message", () => {
  const bed = new OperatorBed([
    headers<Buffer>({ length: (value) => value.length }),
    headers<Buffer>({ copy: (_, message) => message.headers[0]![1] }),
  ]);
  bed.send([{ value: "four" }]);
  assert.deepEqual(headersOf(bed), [
    [
      ["length", 4],
      ["copy", 4],
    ],
  ]);
});

test("a function that throws, answers later or returns no header rejects its message alone", () => {
  const answers: unknown[] = [1, Number.NaN, Promise.resolve("x"), {}, "fine"];
  const bed = new OperatorBed(
    headers<number>({
      h: (index) => {
        if (index === 5) throw new RangeError("too much");
        return answers[index] as string;
      },
      after: true,
    }),
  );
  bed.sendValues([0, 1, 2, 3, 4, 5]);
  assert.deepEqual(
    bed.emitted().map(({ value }) => value),
    [0, 4],
  );
  assert.deepEqual(
    bed.rejected.map(({ position, failure }) => [position, failure.class, failure.code]),
    [1, 2, 3, 5].map((position) => [position, "application", "author-error"]),
  );
  assert.match(bed.rejected[3]!.failure.message, /function of header "h" threw RangeError: too much/);
});

test("what no header can be is a problem before anything runs", () => {
  assert.equal(headers({ a: Number.NaN }).problems[0]?.code, "option-invalid");
  assert.match(headers({ a: {} as never }).problems[0]!.message, /"a" is given a value/);
  assert.equal(headers({}).problems[0]?.code, "option-invalid");
  assert.equal(headers("x" as never).problems[0]?.code, "option-invalid");
});
