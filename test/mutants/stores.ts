import type { Mutant } from "./mutants.ts";

const simulated = {
  file: "test/properties/dedup-store.test.ts",
  test: "scope lane: a store that loses what it may loses no message, and repeats what it must",
};
const log = {
  file: "src/connectors/file/id-log.test.ts",
  test: "crashes and damage lose ids at most, never all that follows, and never make one up",
};
const stored = (test: string) => ({ file: "src/operators/done-ids.test.ts", test });

/** Ids that outlive the process: when they are safe, what a crash leaves, how long they count. */
export const stores: readonly Mutant[] = [
  {
    name: "a message settles before its id is in the store",
    breaks: "C3",
    file: "src/operators/dedup.ts",
    text: "      this.ids[index] = keeping;\n",
    becomes: "      this.pass(index, outcome);\n      this.ids[index] = keeping;\n",
    killer: simulated,
  },
  {
    name: "ids of rejected messages go into the store",
    breaks: "C2",
    file: "src/operators/dedup.ts",
    text: "this.#ids.stored && outcome <= Outcome.delivered",
    becomes: "this.#ids.stored && outcome <= Outcome.deadLettered",
    killer: stored("what was not delivered is not in the store"),
  },
  {
    name: "an id on its way to the store is free when its lane ends",
    breaks: "C3",
    file: "src/operators/dedup.ts",
    text: "    const known: Known = this.#known.get(done) ?? { pending: new Pending(), done };",
    becomes: "    const known: Known = { pending: new Pending(), done };",
    killer: stored(
      "a lane that comes back in a new epoch finds its ids, and those on their way to the store",
    ),
  },
  {
    name: "a store that fails is told to nobody",
    breaks: "C3",
    file: "src/operators/done-ids.ts",
    text: "      keeper.fail(error as Error);\n",
    becomes: "",
    killer: stored("a write that fails stops the run, and what was to be written is not settled"),
  },
  {
    name: "the time that passed between two runs does not count",
    breaks: "C5",
    file: "src/operators/done-ids.ts",
    text: "Math.max(0, wall - at)",
    becomes: "Math.max(0, at - wall)",
    killer: stored("the ttl goes on over a restart, by the wall clock"),
  },
  {
    name: "a jump of the wall clock is not made good in the store",
    breaks: "C5",
    file: "src/operators/done-ids.ts",
    text: "Math.abs(offset - this.#offset) > jump || ",
    becomes: "",
    killer: stored("a jump of the wall clock while it runs changes nothing that follows, nor the next run"),
  },
  {
    name: "an id from the future is new at every start",
    breaks: "C5",
    file: "src/operators/done-ids.ts",
    text: "if (ahead || store.damaged)",
    becomes: "if (store.damaged)",
    killer: stored(
      "ids from the future count as new, once: a clock set back keeps them for one ttl more at most",
    ),
  },
  {
    name: "a store only grows",
    breaks: "E1",
    file: "src/operators/done-ids.ts",
    text: " || store.count > 2 * this.#size + worthwhile",
    becomes: "",
    killer: stored(
      "a store is written anew when most of it counts no more, while its ids go on being asked for",
    ),
  },
  {
    name: "the lanes of a store have their ids in common",
    breaks: "C7",
    file: "src/operators/done-ids.ts",
    text: "this.#store === undefined ? lane : nameOf(lane)",
    becomes: 'this.#store === undefined ? lane : ""',
    killer: stored("scope lane: the next process knows what was delivered, each scope its own"),
  },
  {
    name: "ids of lanes that are away are never given up",
    breaks: "E1",
    file: "src/operators/done-ids.ts",
    text: "    if (excess <= 0) return;\n",
    becomes: "    return;\n",
    killer: stored("ids of lanes that are away give way to those of lanes that are here"),
  },
  {
    name: "what an earlier process could not sync is taken to be safe",
    breaks: "C3",
    file: "src/connectors/file/id-log.ts",
    text: "      await handle.datasync();\n",
    becomes: "",
    killer: simulated,
  },
  {
    name: "a frame is taken without its checksum",
    breaks: "C7",
    file: "src/connectors/file/id-log.ts",
    text: "  if (checksumOf(head, content) !== head.readUInt32LE(saltLength + 4)) return undefined;\n",
    becomes: "",
    killer: log,
  },
  {
    name: "a log is read up to its first damage",
    breaks: "C3",
    file: "src/connectors/file/id-log.ts",
    text: "      at = await window.find(salt, at + 1);\n      continue;",
    becomes: "      break;",
    killer: {
      file: "src/connectors/file/id-log.test.ts",
      test: "an id that looks like a frame is none, even behind damage",
    },
  },
  {
    name: "a log of other ids is taken for one's own",
    breaks: "C7",
    file: "src/connectors/file/id-log.ts",
    text: "  if (title.scope !== scope || title.from !== from) {",
    becomes: "  if (title.scope !== scope && title.from !== from) {",
    killer: {
      file: "src/connectors/file/id-log.test.ts",
      test: "ids of another meaning are refused, and so is what is no log",
    },
  },
  {
    name: "two processes use one store",
    breaks: "C3",
    file: "src/connectors/file/owner.ts",
    text: "  return started === null || start === undefined || start === started;",
    becomes: "  return false;",
    killer: {
      file: "src/connectors/file/id-store.test.ts",
      test: "a store whose process is gone is taken over; whoever lost it to another writes no more",
    },
  },
  {
    name: "whoever lost a store to another goes on writing",
    breaks: "C3",
    file: "src/connectors/file/id-store.ts",
    text: "      if (await this.#owner.check()) return run();",
    becomes: "      if (this.#log !== undefined) return run();",
    killer: {
      file: "src/connectors/file/id-store.test.ts",
      test: "a store whose process is gone is taken over; whoever lost it to another writes no more",
    },
  },
  {
    name: "the order of ids changes while they are written anew",
    breaks: "C3",
    file: "src/operators/recent-ids.ts",
    text: "    if (this.#frozen === undefined && entry !== this.#newest) {",
    becomes: "    if (entry !== this.#newest) {",
    killer: {
      file: "src/operators/recent-ids.test.ts",
      test: "frozen, the list can be read while ids are asked for; what would change it is done afterwards",
    },
  },
];
