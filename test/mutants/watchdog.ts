import type { Mutant } from "./mutants.ts";

/** Sources that stand still, and their restarts. */
export const watchdog: readonly Mutant[] = [
  {
    name: "a dead consumer is silent",
    breaks: "A7",
    file: "src/runtime/watchdog.ts",
    text: "now - watched.since >= options.after) watched.stalled = true;",
    becomes: "now - watched.since >= options.after) watched.stalled = false;",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: 'kafka: with onStall "report" it is said for as long as it lasts, and nothing is done',
    },
  },
  {
    name: "a source is restarted for its sink's sake",
    breaks: "J3",
    file: "src/runtime/watchdog.ts",
    text: "const awaitsSource = hasLag && !blocked;",
    becomes: "const awaitsSource = hasLag;",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: a sink that takes nothing is named in place of its source, and nothing is restarted",
    },
  },
  {
    name: "what a window holds is taken for a sink that stands still",
    breaks: "J3",
    file: "src/runtime/watchdog.ts",
    text: "const busy = inFlight > 0 && underWay;",
    becomes: "const busy = inFlight > 0;",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: nothing is said where a window holds what there is",
    },
  },
  {
    name: "an idle source is taken for a dead one",
    breaks: "J3",
    file: "src/runtime/watchdog.ts",
    text: ": (told?.lag ?? 0) > 0;",
    becomes: ": true;",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: nothing is said where there is nothing to read, for hours",
    },
  },
  {
    name: "a source that stays dead is restarted at every turn",
    breaks: "J1",
    file: "src/runtime/watchdog.ts",
    text: "options.after * Math.min(rarest, 2 ** this.#restarts)",
    becomes: "options.after",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "rabbitmq: one that stays dumb is restarted less and less often, and recovers by itself",
    },
  },
  {
    name: "a restart alone ends a stall",
    breaks: "A7",
    file: "src/runtime/watchdog.ts",
    text: "else Object.assign(before, now, { since: undefined });",
    becomes: "else Object.assign(before, now, { since: undefined, stalled: false });",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: one that stays dumb is restarted less and less often, and recovers by itself",
    },
  },
  {
    name: "what is in flight is not finished before a restart",
    breaks: "A7",
    file: "src/runtime/source-run.ts",
    text: "    await this.#intake.drain(this.#intake.lanes, deadline);\n",
    becomes: "",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "rabbitmq: what a window holds is settled before a restart, and not repeated",
    },
  },
  {
    name: "a session that was replaced puts messages in",
    breaks: "F4",
    file: "src/runtime/session-intake.ts",
    text: "    if (this.#fenced) this.#intake.end(lane);\n    else this.#own.add(lane);\n    if (this.#stopped) this.#intake.shut([lane]);\n",
    becomes: "    this.#own.add(lane);\n",
    killer: {
      file: "src/runtime/session-intake.test.ts",
      test: "a session that is fenced puts nothing in, ends its lanes, and ends the stream for nobody",
    },
  },
  {
    name: "lanes of a session that was replaced go on",
    breaks: "F4",
    file: "src/runtime/session-intake.ts",
    text: "    for (const lane of this.lanes) this.end(lane);\n",
    becomes: "",
    killer: {
      file: "src/runtime/session-intake.test.ts",
      test: "a session that is fenced puts nothing in, ends its lanes, and ends the stream for nobody",
    },
  },
  {
    name: "a drain aborts the session that a restart opened",
    breaks: "A7",
    file: "src/runtime/source-run.ts",
    text: "    this.#opening = undefined;\n",
    becomes: "",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: a consumer that goes dumb is named, and restarted; nothing is lost or repeated",
    },
  },
  {
    name: "a drain waits for a restart that cannot end",
    breaks: "A7",
    file: "src/runtime/source-run.ts",
    text: "    this.#opening?.abort(",
    becomes: "    this.#opening?.signal.addEventListener(",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: so does one while the broker is away, and the source cannot be opened again",
    },
  },
  {
    name: "the session before a restart stops the one after it",
    breaks: "A7",
    file: "src/runtime/session-intake.ts",
    text: "this.#intake.shut(this.lanes);",
    becomes: "this.#intake.stop();",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "rabbitmq: a consumer that goes dumb is named, and restarted; nothing is lost or repeated",
    },
  },
  {
    name: "epochs begin again after a restart",
    breaks: "F1",
    file: "src/runtime/session-intake.ts",
    text: "const epoch = this.#firstEpoch + settings.epoch;",
    becomes: "const epoch = settings.epoch;",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "kafka: a consumer that goes dumb is named, and restarted; nothing is lost or repeated",
    },
  },
  {
    name: "a consumer that stands by is taken for a dead one",
    breaks: "J2",
    file: "src/connectors/rabbitmq/source.ts",
    text: "asking: consumption.hasRoom && !mayStandBy",
    becomes: "asking: consumption.hasRoom",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "rabbitmq: a consumer that stands by for another one is not taken for dead",
    },
  },
  {
    name: "a full prefetch is taken for a dead consumer",
    breaks: "J3",
    file: "src/connectors/rabbitmq/source.ts",
    text: "asking: consumption.hasRoom && !mayStandBy",
    becomes: "asking: !mayStandBy",
    killer: {
      file: "test/properties/watchdog.test.ts",
      test: "rabbitmq: a sink that takes nothing is named in place of its source, and nothing is restarted",
    },
  },
];
