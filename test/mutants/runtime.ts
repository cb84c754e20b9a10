import type { Mutant } from "./mutants.ts";

/** Credit, intake and starvation; the sinks' stage; drains. */
export const runtime: readonly Mutant[] = [
  {
    name: "the span of a lane has no limit",
    breaks: "E1",
    file: "src/runtime/credit.ts",
    text: "      Math.max(0, span - lane.span),",
    becomes: "      span,",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "a lane stops at its span, whatever credit is free",
    },
  },
  {
    name: "a busy lane takes the others' reserve",
    breaks: "E4",
    file: "src/runtime/credit.ts",
    text: "    return { messages: Math.max(0, messages), bytes: Math.max(0, bytes) };",
    becomes: "    return { messages: 1e6, bytes: Math.max(0, bytes) };",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "one lane that takes all it can leaves the others their reserve",
    },
  },
  {
    name: "reserves of many lanes are more than the credit",
    breaks: "E1",
    file: "src/runtime/credit.ts",
    text: "      Math.max(0, messages - this.#inFlight),\n",
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "more lanes than credit share it: no more is in flight than may be",
    },
  },
  {
    name: "the bytes in flight have no limit",
    breaks: "E1",
    file: "src/runtime/credit.ts",
    text: "      if (size > room) break;\n",
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "a message larger than all byte credit comes through alone",
    },
  },
  {
    name: "the bytes of settled messages stay counted",
    breaks: "E3",
    file: "src/runtime/credit.ts",
    text: "    this.#bytes -= bytes;\n",
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "property: accepted = sum of outcomes + in flight, within the limits, whatever happens",
    },
  },
  {
    name: "no lane has a reserve",
    breaks: "E4",
    file: "src/runtime/credit.ts",
    text: "    const reserve = Math.max(1, Math.floor(messages / 2 / lanes));",
    becomes: "    const reserve = 0;",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "intake resumes only when a decent chunk fits",
    },
  },
  {
    name: "a stuck lane keeps the shared credit",
    breaks: "E4",
    file: "src/runtime/credit.ts",
    text: "    const spared = this.#isStalled(lane) ?",
    becomes: "    const spared = lane.ended ?",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "a lane whose checkpoint stands still is cut to its reserve",
    },
  },
  {
    name: "credit is given out message by message",
    breaks: "E3",
    file: "src/runtime/credit.ts",
    text: "    const decent = Math.min(wanted, Math.ceil(messages / 4), reserve);",
    becomes: "    const decent = 1;",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "intake resumes only when a decent chunk fits",
    },
  },
  {
    name: "a message larger than all credit never comes in",
    breaks: "E1",
    file: "src/runtime/credit.ts",
    text: "    if (fitting === 0 && count > 0 && lane.inFlight === 0 && free > 0) fitting = 1;\n    else if",
    becomes: "    if",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "a message larger than all byte credit comes through alone",
    },
  },
  {
    name: "twins that wait do not count for starvation",
    breaks: "D5",
    file: "src/runtime/credit.ts",
    text: "      this.#held + this.#waiting === this.#parts\n    );",
    becomes: "      this.#held === this.#parts\n    );",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "starved is when nothing may come in and everything in flight is held or waits",
    },
  },
  {
    name: "starvation is declared while writes are under way",
    breaks: "D5",
    file: "src/runtime/credit.ts",
    text: "      this.#held + this.#waiting === this.#parts\n    );",
    becomes: "      this.#held + this.#waiting > 0\n    );",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "starved is when nothing may come in and everything in flight is held or waits",
    },
  },
  {
    name: "starvation is declared while there is credit",
    breaks: "D5",
    file: "src/runtime/credit.ts",
    text: "      (this.#refused || this.#inFlight >= this.options.messages) &&\n      this.#held + this.#waiting === this.#parts",
    becomes: "      this.#held + this.#waiting === this.#parts",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "held messages starve nobody while there is credit, nor while something is on its way",
    },
  },
  {
    name: "parts of an ended lane stay counted",
    breaks: "D5",
    file: "src/runtime/credit.ts",
    text: "    this.#parts -= this.#lanes.get(lane)?.extra ?? 0;\n",
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "a message in several parts starves its flow only when all its parts are held, and an ended lane's count no more",
    },
  },
  {
    name: "freed credit wakes nobody",
    breaks: "E3",
    file: "src/runtime/credit.ts",
    text: "    if (this.#refused) this.#onFreed();\n    this.#quiet();",
    becomes: "    this.#quiet();",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "property: accepted = sum of outcomes + in flight, within the limits, whatever happens",
    },
  },
  {
    name: "credit is used inside the settlement that freed it",
    breaks: "B4",
    file: "src/runtime/intake.ts",
    text: "    this.#clock.defer(() => {\n      this.#scheduled = false;\n      this.#pump();\n    });",
    becomes: "    this.#scheduled = false;\n    this.#pump();",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "no more than the credit is in flight, and what waits comes as credit returns",
    },
  },
  {
    name: "one lane is always first",
    breaks: "E4",
    file: "src/runtime/intake.ts",
    text: "    if (lanes.length > 1) this.#turn = [...this.#turn.slice(1), ...this.#turn.slice(0, 1)];\n",
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "lanes that wait for the same credit get it in turn",
    },
  },
  {
    name: "a stopped source goes on with what it fetched",
    breaks: "G",
    file: "src/runtime/intake.ts",
    text: "  stop(): void {\n    this.#stopped = true;",
    becomes: "  stop(): void {",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "after a stop nothing more comes, and the books stay open for what is in flight",
    },
  },
  {
    name: "operators are not told that an epoch ended",
    breaks: "F3",
    file: "src/runtime/intake.ts",
    text: '    this.send({ kind: "revoke", lane });\n',
    becomes: "",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "an ended lane is told downstream; its waiting records go, its messages are returned",
    },
  },
  {
    name: "a stopped source takes in what it is offered",
    breaks: "G",
    file: "src/runtime/intake.ts",
    text: "    if (backlog === undefined || backlog.closed || this.#stopped || records.length === 0) return;",
    becomes: "    if (backlog === undefined || backlog.closed || records.length === 0) return;",
    killer: {
      file: "src/runtime/intake.test.ts",
      test: "after a stop nothing more comes, and the books stay open for what is in flight",
    },
  },
  {
    name: "starvation opens the newest window",
    breaks: "D5",
    file: "src/runtime/pipeline.ts",
    text: "      if (oldest === undefined || window.openedAt < oldest.openedAt) oldest = window;",
    becomes: "      if (oldest === undefined || window.openedAt >= oldest.openedAt) oldest = window;",
    killer: {
      file: "test/properties/starvation.test.ts",
      test: "the oldest window opens, and the others stay",
    },
  },
  {
    name: "starvation opens no window",
    breaks: "D5",
    file: "src/runtime/run.ts",
    text: "        if (this.#pipeline?.flushOldest()) this.#checkStarved();\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "when credit runs out and a window holds everything, the oldest window opens",
    },
  },
  {
    name: "starvation opens one window, whichever flow it is of",
    breaks: "D5",
    file: "src/runtime/run.ts",
    text: "        if (this.#pipeline?.flushOldest()) this.#checkStarved();\n",
    becomes: "        this.#pipeline?.flushOldest();\n",
    killer: {
      file: "test/properties/starvation.test.ts",
      test: "a flow that is starved gets its window open though another flow's is older",
    },
  },
  {
    name: "a run that is told to stop while it starts has failed",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: '      if (this.#mode === "draining") return;\n',
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "told to stop while it starts, a run is done, and what opens only then is closed",
    },
  },
  {
    name: "what opens when the run is over stays open",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: '    if (this.#mode === "starting") return session;',
    becomes: "    if (session !== undefined) return session;",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "told to stop while it starts, a run is done, and what opens only then is closed",
    },
  },
  {
    name: "messages refused by a sink have no outcome",
    breaks: "A4",
    file: "src/runtime/sink-stage.ts",
    text: "      for (const { entry, failure } of refusals)\n        this.#hooks.refuse(batch.chunk(entry), batch.index(entry), failure);\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a message that a sink refuses is dead-lettered; a refused dead letter becomes a stub",
    },
  },
  {
    name: "messages settle before their audit event",
    breaks: "A3",
    file: "src/runtime/sink-stage.ts",
    text: "    if (audit !== undefined) batch.defer();\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "with an audit, messages settle only once the event about their batch is acknowledged",
    },
  },
  {
    name: "one write at a time to a destination is two",
    breaks: "B1",
    file: "src/runtime/sink-stage.ts",
    text: "    if (this.#busy.has(destination)) return;\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "what gathers while a write is out goes together",
    },
  },
  {
    name: "a drain leaves windows as they are",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "      this.#flush();\n      await pause(this.#waiting(), drainTick).catch(() => {});",
    becomes: "      await pause(this.#waiting(), drainTick).catch(() => {});",
    killer: {
      file: "test/properties/starvation.test.ts",
      test: "a drain opens all windows at once",
    },
  },
  {
    name: "a drain stops reading nowhere",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    for (const session of this.#sources.values()) session.stopIntake();\n    if (!(await",
    becomes: "    if (!(await",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a drain waits for what is in flight, and one that cannot finish says what is left",
    },
  },
  {
    name: "a drain waits for nothing",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    if (!(await this.#emptied(deadline))) return this.#drainTimedOut();\n",
    becomes: "",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a drain waits for what is in flight, and one that cannot finish says what is left",
    },
  },
  {
    name: "sources are closed before the commit",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    if (!(await this.#before(deadline, this.#commitAll()))) return this.#drainTimedOut();\n",
    becomes:
      "    await Promise.all([...this.#sources.values()].map((session) => session.close(deadline)));\n    if (!(await this.#before(deadline, this.#commitAll()))) return this.#drainTimedOut();\n",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a drain acknowledges, waits for the broker's word, and only then closes",
    },
  },
  {
    name: "a drain does not wait for the commit",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    if (!(await this.#before(deadline, this.#commitAll()))) return this.#drainTimedOut();\n",
    becomes: "    this.#commitAll();\n",
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a drain acknowledges, waits for the broker's word, and only then closes",
    },
  },
  {
    name: "a drain that ran out of time is called done",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    const kept = this.#kept();\n    const unacknowledged =\n",
    becomes:
      '    const kept = this.#kept();\n    if (left >= 0) return this.#close({ how: "done" });\n    const unacknowledged =\n',
    killer: {
      file: "src/runtime/run.test.ts",
      test: "a drain waits for what is in flight, and one that cannot finish says what is left",
    },
  },
  {
    name: "a stop gives up what is in flight while a source is still connecting",
    breaks: "G",
    file: "src/runtime/run.ts",
    text: "    if (!(await this.#emptied(deadline))) return this.#drainTimedOut();\n    for (const",
    becomes:
      "    if (!early && !(await this.#emptied(deadline))) return this.#drainTimedOut();\n    for (const",
    killer: {
      file: "test/properties/random-topologies.test.ts",
      test: "a stop while one source is still connecting finishes what the others have taken in",
    },
  },
];
