/** Every operator has examples, and they do what the reference says they do. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import type { ExampleMessage, OperatorDefinition, OperatorExample } from "../component/operator.ts";
import { OperatorBed } from "../testing/operator-bed.ts";

type Definition = OperatorDefinition<Record<string, unknown>>;

const definitions = (
  await Promise.all(
    readdirSync(import.meta.dirname)
      .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
      .map(async (file) => Object.values((await import(`./${file}`)) as Record<string, unknown>)),
  )
)
  .flat()
  .filter(
    (value): value is Definition =>
      typeof value === "object" && value !== null && "guarantee" in value && "place" in value,
  );

/** Sends text as the fetched bytes where the operator takes bytes, else decoded values. */
function send(bed: OperatorBed, takes: string, given: readonly ExampleMessage[]): void {
  if (takes !== "bytes") {
    bed.sendValues(
      given.map(({ value }) => value),
      "t",
      given.map(({ key }) => key),
    );
    return;
  }
  bed.send(
    given.map(({ key, value }) => ({
      key: key == null ? null : Buffer.from(key),
      value: value as Buffer | string | null,
    })),
  );
}

/** What came out, in order; and of what did not, in the order it was given, how it ended. */
async function run(example: OperatorExample) {
  const operator = example.operator();
  assert.deepEqual(operator.problems, []);
  const { takes, leaves } = operator.effect;
  const bed = new OperatorBed(operator);
  send(bed, takes, example.given);
  await bed.context.clock.run(60_000);
  bed.flush();
  await bed.context.clock.run(0);
  const emitted = bed.emitted();
  bed.deliver();
  await bed.context.clock.run(0);
  assert.deepEqual(bed.failures, []);
  const positions = new Set(emitted.map(({ position }) => position));
  return {
    out: emitted.map(({ key, value, payload, headers }) => ({
      key,
      value: leaves === "bytes" ? payload : value,
      headers,
    })),
    ended: example.given.flatMap(({ value }, position) =>
      positions.has(position) ? [] : [{ value, outcome: bed.outcomes.get(`t:${position}`) }],
    ),
  };
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
    "headers",
    "key",
    "map",
    "mapAsync",
    "reject",
    "stage",
    "validate",
  ]);
});

for (const { type, summary, guarantee, examples } of definitions) {
  test(`${type}: says what it does, and its examples do what they say`, async (t) => {
    assert.match(summary, /^[A-Z].*\.$/);
    assert.match(guarantee, /\.$/);
    assert.ok(examples.length > 0, "an operator needs an example");
    for (const example of examples) {
      await t.test(example.title, async () => {
        assert.ok(example.code.startsWith(`${type}(`), example.code);
        const { out, ended } = await run(example);
        const goesOn = example.expect.filter(({ outcome }) => outcome === undefined);
        assert.deepEqual(
          out.map(({ value, ...rest }, i) => {
            const said = Object.keys(goesOn[i] ?? {});
            return {
              ...Object.fromEntries(Object.entries(rest).filter(([name]) => said.includes(name))),
              value,
            };
          }),
          goesOn,
        );
        assert.deepEqual(
          ended,
          example.expect.filter(({ outcome }) => outcome !== undefined),
        );
      });
    }
  });
}
