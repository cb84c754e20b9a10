import type { Mutant } from "./mutants.ts";

/** Lanes, their checkpoints and acknowledgements; branches and the parts of a message; what a sink writes together. */
export const lanes: readonly Mutant[] = [
  {
    name: "the checkpoint is the highest settled, not the contiguous one",
    breaks: "A2",
    file: "src/message/lane.ts",
    text: "    if (sequence === this.#head) this.#advance();",
    becomes:
      "    if (!this.#individual) {\n      this.#head = sequence + 1;\n      this.#released = this.#head;\n      this.#progress();\n    } else if (sequence === this.#head) this.#advance();",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "property: a fan-out settles a message once all branches have, with the worst outcome",
    },
  },
  {
    name: "the checkpoint moves one message at a time",
    breaks: "A2",
    file: "src/message/lane.ts",
    text: "    for (; head < this.#tail && this.#marks[head & this.#mask] !== 0; head++) {",
    becomes: "    for (; head < this.#head + 1 && this.#marks[head & this.#mask] !== 0; head++) {",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "a gap in the offsets holds the checkpoint back",
    breaks: "A2",
    file: "src/message/lane.ts",
    text: "    if (this.#head === this.#tail) this.#progress();\n  }",
    becomes: "  }",
    killer: {
      file: "src/message/lane.test.ts",
      test: "offsets that the broker never shows move the checkpoint, and that is told, once nothing is in flight",
    },
  },
  {
    name: "an acknowledgement of several reaches past an unsettled one",
    breaks: "A1",
    file: "src/message/lane.ts",
    text: "    if (last >= 0) ack(this.#positions[last & this.#mask]!, true);",
    becomes: "    if (last >= 0) ack(this.#positions[(this.#tail - 1) & this.#mask]!, true);",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "an acknowledgement of several names a tag that went out by itself",
    breaks: "A6",
    file: "src/message/lane.ts",
    text: "      if ((this.#marks[sequence & this.#mask]! & ACKED) === 0) last = sequence;",
    becomes: "      last = sequence;",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "a message above a hole is acknowledged twice",
    breaks: "A6",
    file: "src/message/lane.ts",
    text: "      this.#marks[slot] = mark | ACKED;",
    becomes: "      this.#marks[slot] = mark;",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "a message settles twice",
    breaks: "A4",
    file: "src/message/lane.ts",
    text: "    if (this.#marks[slot] !== 0) return;\n",
    becomes: "",
    killer: {
      file: "src/message/lane.test.ts",
      test: "property: no checkpoint passes an unsettled message, and none stays behind when all below are settled",
    },
  },
  {
    name: "a lane of an ended epoch still settles",
    breaks: "F1",
    file: "src/message/lane.ts",
    text: "    if (this.#ended || sequence < this.#head) return;",
    becomes: "    if (sequence < this.#head) return;",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "property: accepted = sum of outcomes + in flight, within the limits, whatever happens",
    },
  },
  {
    name: "what an ended lane leaves has no outcome",
    breaks: "A4",
    file: "src/message/lane.ts",
    text: "      if (this.#marks[slot] === 0) this.ledger.settled(this, Outcome.returned, this.#sizes[slot]!);",
    becomes: "      if (this.#marks[slot] === 0) this.#sizes[slot] = 0;",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "a growing lane forgets what is settled",
    breaks: "A2",
    file: "src/message/lane.ts",
    text: "      marks[sequence & mask] = this.#marks[sequence & this.#mask]!;\n",
    becomes: "",
    killer: {
      file: "src/message/lane.test.ts",
      test: "a lane that grows past its room keeps what is settled above the first open message",
    },
  },
  {
    name: "a fan-out settles with its first branch",
    breaks: "A3",
    file: "src/message/chunk.ts",
    text: "    if (--this.#open[index]! > 0) this.#chunk.lane.ledger.branched(this.#chunk.lane, -1);\n    else this.#chunk.settle(index, this.#worst[index] as Outcome);",
    becomes: "    this.#open[index] = 0;\n    this.#chunk.settle(index, this.#worst[index] as Outcome);",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "property: a fan-out settles a message once all branches have, with the worst outcome",
    },
  },
  {
    name: "a fan-out takes the last outcome, not the worst",
    breaks: "A3",
    file: "src/message/chunk.ts",
    text: "    if (outcome > this.#worst[index]!) this.#worst[index] = outcome;",
    becomes: "    this.#worst[index] = outcome;",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "property: a fan-out settles a message once all branches have, with the worst outcome",
    },
  },
  {
    name: "one branch that settles twice stands for another",
    breaks: "A3",
    file: "src/message/chunk.ts",
    text: "    if (this.#settled[child] !== 0) return;\n",
    becomes: "",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "a parent settles once all children have, with the worst outcome, and a repeated child counts once",
    },
  },
  {
    name: "a 1→N step settles its parent with the first child",
    breaks: "A3",
    file: "src/message/chunk.ts",
    text: "    if (--this.#open > 0) this.#chunk.lane.ledger.branched(this.#chunk.lane, -1);\n    else this.#chunk.settle(this.#parent, this.#worst);",
    becomes: "    this.#open = 0;\n    this.#chunk.settle(this.#parent, this.#worst);",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "a parent settles once all children have, with the worst outcome, and a repeated child counts once",
    },
  },
  {
    name: "the parts of a fan-out are not counted",
    breaks: "D5",
    file: "src/message/chunk.ts",
    text: "    chunk.lane.ledger.branched(chunk.lane, chunk.live * (branches - 1));",
    becomes: "",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "property: a fan-out settles a message once all branches have, with the worst outcome",
    },
  },
  {
    name: "branches share their column of values",
    breaks: "A3",
    file: "src/message/chunk.ts",
    text: "    copy.values = this.values?.slice();",
    becomes: "    copy.values = this.values;",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "a branch has columns of its own",
    },
  },
  {
    name: "a message taken out twice is counted twice",
    breaks: "A4",
    file: "src/message/chunk.ts",
    text: "    if (this.state[index] === 0) return;\n    this.state[index] = 0;",
    becomes: "    this.state[index] = 0;",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "a message that is taken out and then settled is one that travels no longer, not two",
    },
  },
  {
    name: "one message for each key in a batch",
    breaks: "D7",
    file: "src/message/batch.ts",
    text: "    chunk.takeOut(index);\n    this.#chunks.push(chunk);",
    becomes:
      "    chunk.takeOut(index);\n    const key = chunk.key(index);\n    const same = key === null ? -1 : this.#chunks.findIndex((other, entry) => other.key(this.#indexes[entry]!)?.equals(key));\n    if (same >= 0) {\n      this.#chunks[same] = chunk;\n      this.#indexes[same] = index;\n      return;\n    }\n    this.#chunks.push(chunk);",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a message without a key has one of no bytes",
    breaks: "B8",
    file: "src/message/key-column.ts",
    text: "this.#ends[i] = ~this.#used;",
    becomes: "this.#ends[i] = this.#used;",
    killer: {
      file: "src/message/key-column.test.ts",
      test: "property: a column has the keys that were written, none where none was, and so do its parts",
    },
  },
  {
    name: "a message alone has the key of its chunk's first",
    breaks: "B8",
    file: "src/message/chunk.ts",
    text: "    alone.keys = this.keys?.after(index);",
    becomes: "    alone.keys = this.keys;",
    killer: {
      file: "src/message/chunk.test.ts",
      test: "columns that were never written are read from the records",
    },
  },
  {
    name: "a decoded value goes though its sink looks at it",
    breaks: "A1",
    file: "src/runtime/sink-stage.ts",
    text: "      if (session.bytesOnly === true) chunk.forgetValue(i);",
    becomes: "      chunk.forgetValue(i);",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "decoded values reach a sink, and are gone before one that looks at bytes only: without a batch step",
    },
  },
  {
    name: "what a batch holds has lost its decoded values",
    breaks: "A1",
    file: "src/operators/batch.ts",
    text: "      if (this.#context.bytesOnly) chunk.forgetValue(i);",
    becomes: "      chunk.forgetValue(i);",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "decoded values reach a sink, and are gone before one that looks at bytes only: with one",
    },
  },
  {
    name: "a function of the value is asked again without it",
    breaks: "A1",
    file: "src/connectors/rabbitmq/sink.ts",
    text: '    this.bytesOnly = typeof options.key !== "function";',
    becomes: "    this.bytesOnly = true;",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "a key function that fails condemns its message alone",
    },
  },
];
