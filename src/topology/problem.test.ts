import assert from "node:assert/strict";
import { test } from "node:test";
import { formatProblems, type Problem, ProblemList } from "./problem.ts";

const at = (line: number, column = 1, file = "/work/orders.ts") => ({ file, line, column });
const problem = (overrides: Partial<Problem>): Problem => ({
  severity: "error",
  code: "option-unknown",
  message: 'batch has no option "cuont"',
  remedy: 'did you mean "count"?',
  location: at(12, 5),
  ...overrides,
});

test("a problem is one line: place, severity, code, what is wrong, what to do", () => {
  assert.equal(
    formatProblems([problem({})], "/work"),
    'orders.ts:12:5  error  option-unknown  batch has no option "cuont"  → did you mean "count"?',
  );
});

test("files outside of the folder are named in full; what has no place has none", () => {
  const problems = [problem({}), problem({ location: undefined, message: "all of it", severity: "warning" })];
  assert.equal(
    formatProblems(problems, "/work/sub"),
    'warning  option-unknown  all of it  → did you mean "count"?\n' +
      '/work/orders.ts:12:5  error  option-unknown  batch has no option "cuont"  → did you mean "count"?',
  );
});

test("problems come by file, line and column, each once", () => {
  const places = [at(9, 1), at(10, 2), at(10, 1), at(2, 1, "/work/a.ts"), at(9, 1)];
  const list = new ProblemList(places.map((location) => problem({ location })));
  const sorted = formatProblems(list.sorted, "/work").split("\n");
  assert.deepEqual(
    sorted.map((line) => line.split("  ")[0]),
    ["a.ts:2:1", "orders.ts:9:1", "orders.ts:10:1", "orders.ts:10:2"],
  );
  assert.deepEqual(formatProblems([...list.sorted].reverse(), "/work").split("\n"), sorted);
});

test("text of others cannot break a line, move a cursor or show credentials", () => {
  const message = "a\nb\r\u001b[2J amqp://user:canary@host/";
  assert.match(
    formatProblems([problem({ message, remedy: message })], "/"),
    /^\S+ {2}error {2}option-unknown {2}a b \[2J amqp:\/\/\*\*\*@host\/ {2}→ a b \[2J amqp:\/\/\*\*\*@host\/$/,
  );
});

test("only an error is a failure", () => {
  assert.equal(new ProblemList([problem({ severity: "warning" })]).failed, false);
  assert.equal(
    new ProblemList([problem({ severity: "warning" }), problem({ location: at(1) })]).failed,
    true,
  );
});
