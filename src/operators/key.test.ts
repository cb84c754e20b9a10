import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import type { Operator } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";
import { decode } from "./decode.ts";
import { type KeyFields, key } from "./key.ts";

/** The key that one value is given, or the rejection's code. */
function keyed(
  operator: Operator<never, unknown>,
  value: unknown,
): string | null | { code: string; message: string } {
  const bed = new OperatorBed(operator);
  const chunk = bed.sendValues([value]);
  const failure = bed.rejected[0]?.failure;
  if (failure !== undefined) return { code: failure.code, message: failure.message };
  return chunk.key(0)?.toString("latin1") ?? null;
}
const codeOf = (result: ReturnType<typeof keyed>) =>
  typeof result === "object" && result !== null ? result.code : result;

/** Decodes JSON text, then makes the key. */
function keyedText(operator: Operator<never, unknown>, text: string) {
  const bed = new OperatorBed([decode("json"), operator]);
  const chunk = bed.send([{ value: text }]);
  return bed.rejected[0]?.failure.code ?? chunk.key(0)?.toString() ?? null;
}

test("text, bytes and whole numbers are keys; an empty text is one", () => {
  const same = key((value: never) => value);
  assert.equal(keyed(same, "c1"), "c1");
  assert.equal(keyed(same, ""), "");
  assert.equal(keyed(same, "é"), Buffer.from("é").toString("latin1"));
  assert.equal(keyed(same, -7), "-7");
  assert.equal(keyed(same, 2n ** 70n), "1180591620717411303424");
  assert.equal(keyed(same, Buffer.from([1, 255])), "\x01\xff");
});

test("what is no key is rejected as the message's fault", () => {
  const same = key((value: never) => value);
  for (const value of [undefined, null]) assert.equal(codeOf(keyed(same, value)), "key-missing");
  for (const value of [1.5, 2 ** 53, Number.NaN, true, {}, [], "\ud800"]) {
    assert.equal(codeOf(keyed(same, value)), "key-invalid");
  }
});

test("null is no key, or makes a message without a key where the author says so", () => {
  const allowing = key((value: { id: string | null }) => value.id, { allowNull: true });
  assert.equal(keyed(allowing, { id: null }), null);
  assert.equal(codeOf(keyed(allowing, {})), "key-missing");
  assert.equal(keyed(key("/id", { allowNull: true }), { id: null }), null);
  assert.equal(codeOf(keyed(key("/id"), { id: null })), "key-missing");
  assert.equal(codeOf(keyed(key("/id", { allowNull: true }), {})), "key-missing");
});

test("a pointer keeps numbers beyond 2^53 apart; a function that returns one is refused", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(2n ** 80n), max: 2n ** 80n }), (id) => {
      assert.equal(keyedText(key("/order/id"), `{"order":{"x":[1],"id": ${id} }}`), String(id));
    }),
    { examples: [[2n ** 53n], [2n ** 53n + 1n], [-(2n ** 53n) - 1n]] },
  );
  const byFunction = key((value: { id: number }) => value.id);
  assert.equal(keyedText(byFunction, '{"id":9007199254740993}'), "key-invalid");
  assert.equal(keyedText(byFunction, '{"id":9007199254740991}'), "9007199254740991");
  assert.equal(keyedText(key("/id"), '{"id":1e20}'), "key-invalid");
});

test("lists of fields never share a key, whatever the fields contain", () => {
  const part = fc.oneof(
    fc.string({ unit: fc.constantFrom("_", ",", ":", "-", "1", "3", "a", "é") }),
    fc.maxSafeInteger(),
    fc.constant(null),
  );
  const list = fc.array(part, { maxLength: 4 });
  const operator = key({ fields: (value: string[]) => value });
  const written = (parts: unknown[]) => JSON.stringify(parts.map((p) => (p === null ? null : String(p))));
  fc.assert(
    fc.property(list, list, (a, b) => {
      assert.equal(keyed(operator, a) === keyed(operator, b), written(a) === written(b));
    }),
    {
      numRuns: 500,
      examples: [
        [
          ["a_b", "c"],
          ["a", "b_c"],
        ],
        [[""], [null]],
        [["1:a,"], ["a", ""]],
      ],
    },
  );
});

test("a digest is of the same bytes that the fields would make", () => {
  const of = (value: [string, string]) => value;
  for (const digest of ["md5", "sha1", "sha256"] as const) {
    const hex = createHash(digest).update("3:té,3:a_b,").digest("hex");
    assert.equal(keyed(key({ digest, of }), ["té", "a_b"]), hex);
    const bytes = createHash(digest).update("té_a_b").digest();
    assert.equal(
      keyed(key({ digest, of, join: "_", encoding: "bytes" }), ["té", "a_b"]),
      bytes.toString("latin1"),
    );
    assert.equal(
      keyed(key({ digest, of, join: "_", encoding: "base64" }), ["té", "a_b"]),
      bytes.toString("base64"),
    );
  }
});

test("the keys of an existing system: lower-hex MD5 of ids joined by _, one of which may be empty", () => {
  const ids = key({
    digest: "md5",
    join: "_",
    of: (m: { tenant_id: string; patient_id: string; study_uid: string }) => [
      m.tenant_id,
      m.patient_id,
      m.study_uid,
    ],
  });
  assert.equal(
    keyed(ids, { tenant_id: "t", patient_id: "", study_uid: "1.2" }),
    createHash("md5").update("t__1.2").digest("hex"),
  );
  assert.equal(codeOf(keyed(ids, { tenant_id: "t", patient_id: null, study_uid: "1.2" })), "key-missing");
  assert.equal(codeOf(keyed(ids, { tenant_id: "t", study_uid: "1.2" })), "key-missing");
});

test("an author's function that throws, or answers with a promise, costs its message and no other", () => {
  const bed = new OperatorBed(key((value: { a: { b: string } }) => value.a.b));
  bed.sendValues([{ a: { b: "1" } }, {}, { a: { b: "3" } }]);
  assert.deepEqual(
    bed.emitted().map(({ key }) => key),
    ["1", "3"],
  );
  const { failure } = bed.rejected[0]!;
  assert.deepEqual([failure.class, failure.code], ["application", "author-error"]);
  assert.match(failure.message, /the function of key threw TypeError/);
  const asking = key((async () => assert.fail("unseen")) as unknown as (value: unknown) => string);
  const result = keyed(asking, {});
  assert.match(typeof result === "object" ? (result?.message ?? "") : "", /promise/);
});

test("a function with a second parameter is given the message", () => {
  const bed = new OperatorBed(
    key((_value: unknown, { headers, origin }) => `${headers[0]?.[1]} ${origin.position}`),
  );
  const chunk = bed.send([{ value: "a", headers: [["trace", "t1"]] }]);
  assert.equal(chunk.key(0)?.toString(), "t1 0");
});

test("mistakes are kept for the compiler, each with what to do", () => {
  const messages = (operator: Operator<never, unknown>) =>
    operator.problems.map(({ message }) => message).join("; ");
  assert.match(key("customer").problems[0]?.remedy ?? "", /did you mean "\/customer"/);
  assert.match(messages(key({} as KeyFields<unknown>)), /nothing says/);
  assert.match(messages(key({ digest: "md5" } as never)), /need each other/);
  assert.match(messages(key({ digest: "md4" as "md5", of: () => [] })), /md5/);
  assert.match(
    messages(key({ fields: () => [], digest: "md5", of: () => [] } as never)),
    /more than one way/,
  );
  assert.match(messages(key("/a", { join: "_" } as never)), /join/);
  assert.match(messages(key({ fields: () => [], encoding: "hex" } as never)), /encoding/);
  assert.match(messages(key({ fields: () => [], allowNull: true } as never)), /allowNull/);
  assert.equal(messages(key({ digest: "md5", of: () => [] })), "");
});

test("types: a wrong field is a compile error, where the type is known and where it flows in", () => {
  type Order = { customer: string; at: Date };
  const pipe = <T, A, B>(a: Operator<T, A>, b: Operator<A, B>) => [a, b];
  const validated = decode("json") as Operator<Buffer | null, Order>;
  pipe(
    validated,
    key((o) => o.customer),
  );
  pipe(
    validated,
    // @ts-expect-error no such field
    key((o) => o.custmer),
  );
  pipe(
    validated,
    // @ts-expect-error a Date is no key
    key((o) => o.at),
  );
  pipe(validated, key({ digest: "md5", of: (o) => [o.customer] }));
  pipe(validated, key({ fields: (o) => [o.customer] }));
  // @ts-expect-error no such field
  pipe(validated, key({ fields: (o) => [o.custmer] }));
  pipe(validated, key("/customer"));
});
