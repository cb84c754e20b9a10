import type { Mutant } from "./mutants.ts";

/** Windows and asynchronous steps. */
export const windows: readonly Mutant[] = [
  {
    name: "one message too many in a batch",
    breaks: "D1",
    file: "src/operators/batch.ts",
    text: "      if (last || batch.length >= this.#count || batch.bytes >= this.#bytes) {",
    becomes: "      if (last || batch.length > this.#count || batch.bytes >= this.#bytes) {",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a batch may have any number of bytes",
    breaks: "D1",
    file: "src/operators/batch.ts",
    text: "      batch.bytes + size <= this.#bytes && batch.codec",
    becomes: "      size >= 0 && batch.codec",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a window's time begins with its timer, not its first message",
    breaks: "D2",
    file: "src/operators/batch.ts",
    text: "    this.#timer = clock.after(Math.max(0, first.openedAt + this.#within - clock.now()), () => {\n      this.#timer = undefined;\n      this.#emitDue();",
    becomes:
      "    this.#timer = clock.after(this.#within, () => {\n      this.#timer = undefined;\n      this.#emitDue();",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "every message begins the window's time anew",
    breaks: "D2",
    file: "src/operators/batch.ts",
    text: "      batch.add(chunk, i, size);",
    becomes:
      "      batch.add(chunk, i, size);\n      Object.assign(batch, { openedAt: this.#context.clock.now() });",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "an empty batch goes out",
    breaks: "D3",
    file: "src/operators/batch.ts",
    text: "    if (batch.length === 0) return;\n    if (this.#destinationOf === undefined) this.#subscriber.next(batch);",
    becomes: "    if (this.#destinationOf === undefined) this.#subscriber.next(batch);",
    killer: {
      file: "src/operators/batch.test.ts",
      test: "a lane whose epoch ends",
    },
  },
  {
    name: "the last window is discarded when the input ends",
    breaks: "D4",
    file: "src/operators/batch.ts",
    text: "  complete(): void {\n    this.#emitAll();",
    becomes: "  complete(): void {",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a flush leaves windows open",
    breaks: "D4",
    file: "src/operators/batch.ts",
    text: '      if (item.kind === "flush") this.#emitAll();\n      else if (item.kind',
    becomes: "      if (item.kind",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a revoke empties the windows of all lanes",
    breaks: "D4",
    file: "src/operators/batch.ts",
    text: "      const dropped = window.batch.drop((chunk) => chunk.lane === lane);",
    becomes: "      const dropped = window.batch.drop((chunk) => chunk.lane !== undefined);",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a revoked lane's messages stay in the windows",
    breaks: "F3",
    file: "src/operators/batch.ts",
    text: '      else if (item.kind === "revoke") this.#drop(item.lane);\n',
    becomes: "",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "held messages are not counted",
    breaks: "D5",
    file: "src/operators/batch.ts",
    text: "    this.#context.held(lane, this.#taken);\n",
    becomes: "",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per destination: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "a window of several destinations goes to the first",
    breaks: "B1",
    file: "src/operators/batch.ts",
    text: "    else for (const part of batch.byDestination(this.#destinationOf)) this.#subscriber.next(part);",
    becomes:
      "    else this.#subscriber.next(batch.byDestination(() => this.#destinationOf!(batch.chunk(0), batch.index(0)))[0]!);",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "per key: bounds, order, deadlines, and nothing lost",
    },
  },
  {
    name: "any number of calls are under way",
    breaks: "B3",
    file: "src/operators/ordered-calls.ts",
    text: "      if (this.#running >= this.#concurrency) return;\n",
    becomes: "",
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "results go on in the order in which calls end",
    breaks: "B4",
    file: "src/operators/ordered-calls.ts",
    text: "    for (let first = queue.entries[0]; first !== undefined && first.open === 0; first = queue.entries[0]) {\n      queue.entries.shift();",
    becomes:
      "    for (let first = queue.entries.find(({ open }) => open === 0); first !== undefined; first = queue.entries.find(({ open }) => open === 0)) {\n      queue.entries.splice(queue.entries.indexOf(first), 1);",
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "chunks go on before their calls are over",
    breaks: "B4",
    file: "src/operators/ordered-calls.ts",
    text: " && first.open === 0;",
    becomes: ";",
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "a flush overtakes calls under way",
    breaks: "B4",
    file: "src/operators/ordered-calls.ts",
    text: "    } else if (!this.#stopped) this.#sections.control(item);",
    becomes: "    } else if (!this.#stopped) this.#subscriber.next(item);",
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "the calls of a revoked lane go on",
    breaks: "F3",
    file: "src/operators/ordered-calls.ts",
    text: "    this.#calls.giveUp(lane);\n",
    becomes: "",
    killer: {
      file: "src/operators/map.test.ts",
      test: "a flush does not overtake the messages before it; a revoke does, and aborts its calls",
    },
  },
  {
    name: "a revoked lane's chunk comes out all the same",
    breaks: "F4",
    file: "src/operators/sections.ts",
    text: "    if (chunk.live > 0 && !chunk.lane.ended) this.#emit(chunk);",
    becomes: "    if (chunk.live > 0) this.#emit(chunk);",
    killer: {
      file: "src/operators/map.test.ts",
      test: "what is ready behind a flush does not come out once its lane is revoked",
    },
  },
  {
    name: "a call may last for ever",
    breaks: "I5",
    file: "src/operators/author-call.ts",
    text: "      const timer = this.#context.clock.after(timeout, () => end(timedOut));",
    becomes: "      const timer = this.#context.clock.after(timeout, () => {});",
    killer: {
      file: "src/operators/map.test.ts",
      test: "property: whatever calls do, order holds, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "calls under way are not counted as such",
    breaks: "D5",
    file: "src/operators/author-call.ts",
    text: "    const over = this.#context.busy();",
    becomes: "    const over = () => {};",
    killer: {
      file: "src/operators/map.test.ts",
      test: "mapAsync keeps order, whatever answers first, and the number of calls under way",
    },
  },
  {
    name: "network trouble uses up a message's attempts",
    breaks: "I1",
    file: "src/operators/author-call.ts",
    text: "          attempt--;\n",
    becomes: "",
    killer: {
      file: "src/operators/map.test.ts",
      test: "trouble of class network leaves a message all its attempts",
    },
  },
  {
    name: "after an abort nobody behind mapAsync hears that a lane has ended",
    breaks: "F3",
    file: "src/operators/ordered-calls.ts",
    text: "      if (!this.#stopped) this.#drop(item.lane);\n      // Also after a stop: whoever comes after still has to let go of the lane.\n      this.#subscriber.next(item);",
    becomes:
      "      if (this.#stopped) return;\n      this.#drop(item.lane);\n      this.#subscriber.next(item);",
    killer: {
      file: "src/operators/map.test.ts",
      test: "when the run is aborted, calls are given up and nothing is settled",
    },
  },
  {
    name: "a slot has several calls under way",
    breaks: "B3",
    file: "src/operators/keyed-calls.ts",
    text: "      if (slot.running) slot.waiting.push(entry);\n      else this.#start(slot, entry);",
    becomes: "      this.#start(slot, entry);",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "property: in slots by key, order holds within each key, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "slots are given out by turns, whatever the key",
    breaks: "B1",
    file: "src/operators/keyed-calls.ts",
    text: "    return key === null ? this.#shortest()",
    becomes: "    return key !== undefined ? this.#shortest()",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "property: in slots by key, order holds within each key, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "keyed results overtake the flush before them",
    breaks: "B4",
    file: "src/operators/sections.ts",
    text: "    if (section === this.#sections[0]) this.#pass(result);\n    else section.ready.push(result);",
    becomes: "    this.#pass(result);",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "property: in slots by key, order holds within each key, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "a flush overtakes the keyed calls before it",
    breaks: "B4",
    file: "src/operators/sections.ts",
    text: "    while (this.#sections[0]!.open === 0 && this.#sections.length > 1) {",
    becomes: "    while (this.#sections.length > 1) {",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "property: in slots by key, order holds within each key, controls keep their place, and every message has one fate",
    },
  },
  {
    name: "a revoked lane's messages keep their places in the slots",
    breaks: "F3",
    file: "src/operators/keyed-calls.ts",
    text: "        if (chunk.lane !== lane) return true;\n        this.#sections.drop(section);\n        return false;",
    becomes: "        return chunk.lane !== lane || section.open > 0;",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "a revoke overtakes: the lane's calls are given up, what waited is never called, and others go on",
    },
  },
  {
    name: "one slow keyed message holds on to its whole fetch",
    breaks: "E1",
    file: "src/operators/keyed-calls.ts",
    text: "      const alone = chunk.single(i).detached();",
    becomes: "      const alone = chunk.single(i);",
    killer: {
      file: "src/operators/keyed-calls.test.ts",
      test: "messages travel on alone, over bytes of their own",
    },
  },
];
