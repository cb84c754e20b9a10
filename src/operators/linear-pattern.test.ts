import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LinearPattern, PatternRefusal } from "./linear-pattern.ts";

const fhirBase64 = "^(\\s*([0-9a-zA-Z\\+/=]){4}\\s*)+$";

test("matches exactly what V8 matches, for patterns and texts made at random", () => {
  const letter = fc.constantFrom("a", "b", "-", "_", " ", "\n", "é", "😀", "\u2028", "1", ".");
  const atom = fc.constantFrom(
    ...["a", "b", "1", ".", "\\d", "\\S", "\\s", "\\W", "[ab]", "[^a\\]]", "[\\d-]", "\\u00e9", "\\u{1F600}"],
    ...["\\uD83D\\uDE00", "\\p{L}", "\\x61", "\\.", "😀", "é", "-", "[😀é]", "/", "\\/", "\\$", "[]", "[^]"],
  );
  const quantifier = fc.constantFrom("", "*", "+", "?", "{2}", "{1,2}", "{2,}", "*?", "{0}");
  const { pattern } = fc.letrec<{ pattern: string }>((tie) => ({
    pattern: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      atom,
      fc.constantFrom("^", "$", "\\b", "\\B", ""),
      fc.tuple(tie("pattern"), tie("pattern")).map((parts) => parts.join("")),
      fc.tuple(tie("pattern"), tie("pattern")).map((parts) => `(?:${parts.join("|")})`),
      fc.tuple(tie("pattern"), quantifier).map(([body, times]) => `(${body})${times}`),
      fc.tuple(atom, quantifier).map((parts) => parts.join("")),
      fc.tuple(tie("pattern"), tie("pattern")).map((parts) => parts.join("|")),
    ),
  }));
  fc.assert(
    fc.property(pattern, fc.array(fc.array(letter, { maxLength: 8 }), { minLength: 1 }), (source, texts) => {
      const linear = new LinearPattern(source);
      const backtracking = new RegExp(source, "u");
      for (const letters of texts) {
        const text = letters.join("");
        // V8 alone finds a \B between the two halves of one character.
        if (source.includes("\\B") && text.includes("😀")) continue;
        assert.equal(linear.test(text), backtracking.test(text), `${source} on ${JSON.stringify(text)}`);
      }
    }),
    { numRuns: 3_000 },
  );
});

test("lone surrogates are characters of their own, as for V8", () => {
  for (const source of ["^.$", "^[^a]$", "^\\ud83d$", "^\\S\\S$"]) {
    for (const text of ["\ud83d", "\ude00", "\ud83d\ude00", "\ude00\ud83d", "\ud83da"]) {
      assert.equal(new LinearPattern(source).test(text), new RegExp(source, "u").test(text), source);
    }
  }
});

test("patterns that V8 takes ages for take their time by length only", () => {
  const slow: [string, string][] = [
    [fhirBase64, `${"AAAA  ".repeat(20_000)}!`],
    ["^(a+)+$", `${"a".repeat(100_000)}b`],
    ["^(a|aa)+$", `${"a".repeat(100_000)}b`],
    ["\\s+$", `${" ".repeat(100_000)}b`],
    ["^(.*,)*x$", `${"a,".repeat(50_000)}y`],
  ];
  for (const [source, text] of slow) {
    const start = process.cpuUsage().user;
    assert.equal(new LinearPattern(source).test(text), false);
    const seconds = (process.cpuUsage().user - start) / 1e6;
    assert.ok(seconds < 2, `${source} took ${seconds} s`);
  }
});

test("a text of many megabytes is no trouble: V8 runs out of stack on it", () => {
  const pattern = new LinearPattern(fhirBase64);
  assert.equal(pattern.test("QUJD".repeat(2_000_000)), true);
  assert.equal(pattern.test(`${"QUJD".repeat(2_000_000)}?`), false);
});

test("a pattern that meets very many states keeps few of them", () => {
  const pattern = new LinearPattern("(a|b)*a(a|b){14}c");
  let seed = 1;
  const text = Array.from({ length: 50_000 }, () => {
    seed = (seed * 48271) % 2147483647;
    return seed % 2 === 0 ? "a" : "b";
  }).join("");
  assert.equal(pattern.test(text), false);
  assert.equal(pattern.test(`${text}a${"b".repeat(14)}c`), true);
});

test("what has no linear form is refused with the reason, and what is no pattern with V8's", () => {
  const refusals: [string, RegExp][] = [
    ["^(?=a)", /ahead/],
    ["(?<!a)b", /behind/],
    ["(a)\\1", /refers back/],
    ["(?<x>a)\\k<x>", /refers back/],
    ["((a{1,500}){1,500})", /too often/],
    ["(?i:a)", /flags/],
  ];
  for (const [source, reason] of refusals) {
    assert.throws(
      () => new LinearPattern(source),
      (error) => error instanceof PatternRefusal && reason.test(error.message),
    );
  }
  for (const source of ["(", "a**", "\\-", "[z-a]", "\\a"]) {
    assert.throws(() => new LinearPattern(source), SyntaxError);
  }
  assert.equal(new LinearPattern("(?<year>\\d{4})").test("in 2026"), true);
});
