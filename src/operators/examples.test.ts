/** Every operator has examples, and they do what the reference says they do. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import type { ExampleMessage, OperatorDefinition } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";

const definitions: OperatorDefinition<never>[] = [];
for (const file of readdirSync(import.meta.dirname)) {
  if (!file.endsWith(".ts") || file.endsWith(".test.ts")) continue;
  const exported = (await import(`./${file}`)) as Record<string, unknown>;
  for (const [name, value] of Object.entries(exported)) {
    if (name.endsWith("Definition")) definitions.push(value as OperatorDefinition<never>);
  }
}

test("every operator is here", () => {
  assert.deepEqual(definitions.map(({ type }) => type).sort(), [
    "batch",
    "compress",
    "decode",
    "decompress",
    "dedup",
    "encode",
    "filter",
    "key",
    "map",
    "mapAsync",
    "reject",
    "stage",
    "validate",
  ]);
});

for (const { type, summary, guarantee, examples, build } of definitions) {
  test(`${type}: words and examples`, () => {
    assert.match(summary, /^[A-Z].*\.$/s);
    assert.ok(guarantee.length > 40, "it says what it promises and what it costs");
    assert.ok(examples.length > 0);
    assert.equal(typeof build, "function");
  });
  for (const { title, code, operator, given, expect } of examples) {
    test(`${type}: ${title}`, async () => {
      assert.ok(code.startsWith(`${type}(`), code);
      const placed = operator();
      assert.deepEqual(placed.problems, []);
      const bed = new OperatorBed(placed);
      const bytes = given.some(({ value }) => typeof value !== "object") && placed.effect.takes === "bytes";
      if (bytes) bed.send(given.map(({ value }) => ({ value: value as string })));
      else bed.sendValues(given.map(({ value }) => value));
      await bed.context.clock.run(1);
      bed.flush();
      await bed.context.clock.run(1);
      const out = bed.emitted();
      assert.deepEqual(
        out.map(({ value }) => (Buffer.isBuffer(value) ? value.toString() : value)),
        expect.filter(({ outcome }) => outcome === undefined).map(({ value }) => value),
      );
      expect
        .filter((message): message is ExampleMessage & { key: string } => typeof message.key === "string")
        .forEach(({ key }, i) => {
          assert.equal(out[i]!.key, key);
        });
      bed.deliver();
      await bed.context.clock.run(1);
      given.forEach((_, i) => {
        const outcome = expect[i]?.outcome;
        if (given.length === expect.length && outcome !== undefined)
          assert.equal(bed.outcomes.get(`t:${i}`), outcome);
      });
    });
  }
}
