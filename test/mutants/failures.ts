import type { Mutant } from "./mutants.ts";

/** Classes of errors and dead letters. */
export const failures: readonly Mutant[] = [
  {
    name: "poison is tried again for ever",
    breaks: "I1",
    file: "src/errors.ts",
    text: '  return origin === "author" ? "application" : "network";',
    becomes: '  return "network";',
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "a message is blamed for its sink's trouble",
    breaks: "I1",
    file: "src/errors.ts",
    text: '  return origin === "author" ? "application" : "network";',
    becomes: '  return "application";',
    killer: {
      file: "src/errors.test.ts",
      test: "an unknown error of an author's function is the author's; one of a component blames no message",
    },
  },
  {
    name: "a dead letter keeps its message's own time",
    breaks: "A7",
    file: "src/runtime/dead-letter.ts",
    text: "    timestamp: now,",
    becomes: "    timestamp: chunk.records.timestamp(record),",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a dead letter is of the time it was made, and names its message's own, whatever that is",
    },
  },
  {
    name: "a rejected message settles before its dead letter is written",
    breaks: "A1",
    file: "src/runtime/dead-letter.ts",
    text: "    this.#tell(rejected);\n    this.#enqueue(rejected, false);",
    becomes:
      "    this.#tell(rejected);\n    chunk.settle(index, Outcome.deadLettered);\n    this.#enqueue(rejected, false);",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a rejected message settles once its dead letter is acknowledged, with its bytes and where it came from",
    },
  },
  {
    name: "a dead letter that is refused counts as written",
    breaks: "I2",
    file: "src/runtime/dead-letter.ts",
    text: "        if (failure === undefined) {\n          this.#open--;",
    becomes: "        if (failure === undefined || stub || !one.kept) {\n          this.#open--;",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "dead letters that cannot be written stop the run, and nothing is acknowledged",
    },
  },
  {
    name: "a dead letter that cannot be written counts as written",
    breaks: "I2",
    file: "src/runtime/dead-letter.ts",
    text: "    } catch (error) {\n      this.#fail(error instanceof Error ? error : new Error(String(error)));",
    becomes:
      "    } catch {\n      for (const one of rejected) one.chunk.settle(one.index, Outcome.deadLettered);",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "dead letters that cannot be written stop the run, and nothing is acknowledged",
    },
  },
  {
    name: "a dead letter has the changed bytes",
    breaks: "I3",
    file: "src/runtime/dead-letter.ts",
    text: "  const value = chunk.records.value(record);",
    becomes: "  const value = chunk.payload(index);",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a queue's message is never a stub, since nobody keeps the original; and dead letters have the fetched bytes",
    },
  },
  {
    name: "a queue's message becomes a stub",
    breaks: "I3",
    file: "src/runtime/dead-letter.ts",
    text: " && !stub && one.kept) {",
    becomes: " && !stub) {",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a queue's message is never a stub, since nobody keeps the original; and dead letters have the fetched bytes",
    },
  },
  {
    name: "without dead letters a rejection passes unsaid",
    breaks: "I1",
    file: "src/runtime/dead-letter.ts",
    text: "    if (this.#session === undefined) {\n",
    becomes:
      "    if (this.#session === undefined) {\n      chunk.settle(index, Outcome.deadLettered);\n      return;\n",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a rejection with no dead letters stops the run, and nothing is acknowledged",
    },
  },
  {
    name: "rejections of an ended lane are written",
    breaks: "F4",
    file: "src/runtime/dead-letter.ts",
    text: "    if (chunk.lane.ended) {\n      chunk.takeOut(index);\n      return;\n    }\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a message whose lane has ended is not dead-lettered: it comes again",
    },
  },
];
