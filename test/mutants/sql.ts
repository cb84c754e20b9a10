import type { Mutant } from "./mutants.ts";

const property = {
  file: "src/connectors/sql/sql.property.test.ts",
  test: "property: every row of an outbox arrives until it is settled, in order, and never again once its settlement was committed",
} as const;
const rows = {
  file: "src/connectors/sql/sql.property.test.ts",
  test: "property: a table holds the last row of each key, and each message is delivered or refused",
} as const;

/** Databases: outboxes and rows. */
export const sql: readonly Mutant[] = [
  {
    name: "sql: rows leave the outbox when they are read",
    breaks: "A1",
    file: "src/connectors/sql/source.ts",
    text: "      this.#rows.set(position, id);\n",
    becomes: "      this.#rows.set(position, id);\n      this.#settled.push(id);\n",
    killer: property,
  },
  {
    name: "sql: an acknowledgement of several covers what is still open",
    breaks: "A2",
    file: "src/connectors/sql/source.ts",
    text: "        if (id === undefined) continue;",
    becomes:
      "        if (id === undefined) continue;\n        for (const one of this.#rows.values()) this.#settled.push(one);",
    killer: property,
  },
  {
    name: "sql: the newest rows are read first",
    breaks: "B1",
    file: "src/connectors/sql/outbox.ts",
    text: "LIMIT $2` +",
    becomes: "DESC LIMIT $2` +",
    killer: property,
  },
  {
    name: "sql: two processes read one outbox",
    breaks: "B1",
    file: "src/connectors/sql/source.ts",
    text: "    while (!this.#over && !(await client.tryLock(name))) {",
    becomes: "    while (!this.#over && name === undefined) {",
    killer: {
      file: "src/connectors/sql/sql.integration.test.ts",
      test: "embedded: of two readers one stands by, and takes over when the other leaves",
    },
  },
  {
    name: "sql: one refused row takes its batch along",
    breaks: "D6",
    file: "src/connectors/sql/sink.ts",
    text: "      if (rows.length === 1) {\n        verdicts.set(rows[0]!, error);",
    becomes: "      if (rows.length >= 1) {\n        for (const row of rows) verdicts.set(row, error);",
    killer: rows,
  },
  {
    name: "sql: a batch counts as stored before its COMMIT",
    breaks: "A5",
    file: "src/connectors/sql/sink.ts",
    text: "      committing = true;\n      await client.commit();",
    becomes: "      committing = true;\n      await client.rollback();",
    killer: rows,
  },
  {
    name: "sql: a COMMIT without an answer is taken for none",
    breaks: "I4",
    file: "src/connectors/sql/sink.ts",
    text: '        if (fate !== "underWay") return fate === "committed";',
    becomes: '        if (fate !== "underWay") return false;',
    killer: {
      file: "src/connectors/sql/faults.integration.test.ts",
      test: "when the answer to a COMMIT is lost, the batch is there once, and no message is refused for it",
    },
  },
  {
    name: "kafka: a message is given up that nobody said may be lost",
    breaks: "A4",
    file: "src/connectors/kafka/sink.ts",
    text: "milliseconds(options.giveUpAfter, Number.POSITIVE_INFINITY)",
    becomes: "milliseconds(options.giveUpAfter, 3_600_000)",
    killer: { file: "src/connectors/kafka/sink.test.ts", test: "without giveUpAfter nothing is given up" },
  },
];
