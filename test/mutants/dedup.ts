import type { Mutant } from "./mutants.ts";

/** Ids: what is one, what is remembered, who waits for whom. */
export const dedup: readonly Mutant[] = [
  {
    name: "an id is remembered on sight",
    breaks: "C2",
    file: "src/operators/dedup.ts",
    text: "        carriers.ids[i] = id;\n        continue;",
    becomes: "        done.add(id, now);\n        carriers.ids[i] = id;\n        continue;",
    killer: {
      file: "src/operators/dedup.property.test.ts",
      test: "scope lane: one of an id at a time, none lost, none called a duplicate too early",
    },
  },
  {
    name: "a twin is settled while its owner is under way",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "      chunk.takeOut(i);\n      waiting++;",
    becomes: "      chunk.settle(i, Outcome.duplicate);\n      waiting++;",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "behind dedup: a drain ends every message, and nothing is held or waits",
    },
  },
  {
    name: "twins of a dead-lettered owner are duplicates",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "    if (outcome > Outcome.delivered) {",
    becomes: "    if (outcome > Outcome.deadLettered) {",
    killer: {
      file: "src/operators/dedup.property.test.ts",
      test: "scope lane: one of an id at a time, none lost, none called a duplicate too early",
    },
  },
  {
    name: "a filtered owner's twins come out",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "    if (outcome > Outcome.delivered) {",
    becomes: "    if (outcome !== Outcome.delivered) {",
    killer: {
      file: "src/operators/dedup.property.test.ts",
      test: "scope lane: one of an id at a time, none lost, none called a duplicate too early",
    },
  },
  {
    name: "a delivered id is not remembered",
    breaks: "C2",
    file: "src/operators/dedup.ts",
    text: "    done.ids.add(id, this.#ids.now());\n",
    becomes: "",
    killer: {
      file: "src/operators/dedup.property.test.ts",
      test: "scope lane: one of an id at a time, none lost, none called a duplicate too early",
    },
  },
  {
    name: "the youngest twin becomes the owner",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "    for (let twin = twins.shift(); twin !== undefined; twin = twins.shift()) {",
    becomes: "    for (let twin = twins.pop(); twin !== undefined; twin = twins.pop()) {",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "an id under way",
    },
  },
  {
    name: "a promoted twin travels inside the settlement",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "      this.#promoted.push(twin);\n      this.#schedule();",
    becomes: "      this.#promoted.push(twin);\n      this.#emitPromoted();",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "an id under way",
    },
  },
  {
    name: "an ended lane keeps its ids pending",
    breaks: "C4",
    file: "src/operators/dedup.ts",
    text: "        if (twins === undefined) pending.delete(id);\n        else this.#promote(id, twins, pending);\n      }",
    becomes: "        if (twins !== undefined) this.#promote(id, twins, pending);\n      }",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "behind dedup: a drain ends every message, and nothing is held or waits",
    },
  },
  {
    name: "an ended lane's ids pass to no twin",
    breaks: "C1",
    file: "src/operators/dedup.ts",
    text: "        if (twins === undefined) pending.delete(id);\n        else this.#promote(id, twins, pending);\n      }",
    becomes: "        if (twins === undefined) pending.delete(id);\n      }",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "behind dedup: a drain ends every message, and nothing is held or waits",
    },
  },
  {
    name: "an ended lane's twins stay in the list",
    breaks: "C4",
    file: "src/operators/dedup.ts",
    text: "      if (twin.carriers.home.lane === lane) this.#leaves(twin);\n      else staying.push(twin);",
    becomes: "      if (twin.carriers.home.lane === lane) this.#leaves(twin);\n      staying.push(twin);",
    killer: {
      file: "src/operators/batch.property.test.ts",
      test: "behind dedup: a drain ends every message, and nothing is held or waits",
    },
  },
  {
    name: "ids expire by the wall clock",
    breaks: "C5",
    file: "src/operators/done-ids.ts",
    text: "    return timeless ? 0 : this.#clock.now();",
    becomes: "    return timeless ? 0 : this.#clock.wall();",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "an id that was delivered",
    },
  },
  {
    name: "messages without an id have one in common",
    breaks: "C7",
    file: "src/operators/identity.ts",
    text: '    case "undefined":\n      return isUndefined;',
    becomes: '    case "undefined":\n      return "undefined";',
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "an id under way",
    },
  },
  {
    name: "the number 1 and the text 1 are one id",
    breaks: "C7",
    file: "src/operators/identity.ts",
    text: "? `\\0n",
    becomes: "? `",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "the id",
    },
  },
  {
    name: "numbers beyond 2^53 are taken as they are",
    breaks: "C7",
    file: "src/operators/identity.ts",
    text: "      if (Number.isSafeInteger(value)) return String(value);",
    becomes: "      if (Number.isInteger(value)) return String(value);",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "the id",
    },
  },
  {
    name: "composite keys are joined without lengths",
    breaks: "B8",
    file: "src/operators/identity.ts",
    text: "    if (join === undefined) all += ",
    becomes: "    if (join === undefined) all += text.concat(',');\n    else if (all === null) all += ",
    killer: {
      file: "src/operators/examples.test.ts",
      test: "key: says what it does, and its examples do what they say",
    },
  },
  {
    name: "waiting twins are not counted",
    breaks: "D5",
    file: "src/operators/dedup.ts",
    text: "    this.#context.waiting(lane, count);\n",
    becomes: "",
    killer: {
      file: "src/operators/dedup.property.test.ts",
      test: "scope lane: one of an id at a time, none lost, none called a duplicate too early",
    },
  },
  {
    name: "more ids are remembered than the capacity",
    breaks: "E1",
    file: "src/operators/recent-ids.ts",
    text: "    if (this.#size === this.#capacity) this.#forgetOldest(now);\n    else if",
    becomes: "    if (this.#size === this.#capacity) this.#rebuild((this.#capacity *= 2));\n    else if",
    killer: {
      file: "src/operators/dedup.test.ts",
      test: "an id that was delivered",
    },
  },
  {
    name: "ids with one hash are one",
    breaks: "C7",
    file: "src/operators/recent-ids.ts",
    text: "      if (this.#ids[entry] === id) return entry;",
    becomes: "      return entry;",
    killer: {
      file: "src/operators/recent-ids.test.ts",
      test: "ids with one hash are still two ids",
    },
  },
];
