import assert from "node:assert/strict";
import { test } from "node:test";
import type { Run } from "../runtime/run.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";
import { settlePromises } from "../testing/clock.ts";
import { Runs } from "./runs.ts";
import { totalConservation } from "./table.ts";

/** A run whose every step a test takes by hand. */
class FakeRun implements Run {
  readonly started = Promise.resolve();
  readonly finished: Promise<RunResult>;
  accepted = 0;
  drained = 0;
  aborted: Error | undefined;
  finish!: (result: RunResult) => void;
  readonly #idle: (() => void)[] = [];

  constructor() {
    this.finished = new Promise((resolve) => {
      this.finish = resolve;
    });
  }

  status(): RunStatus {
    return {
      topology: "fake",
      mode: "running",
      startedAt: 0,
      ready: true,
      conservation: { ...totalConservation([]), accepted: this.accepted, delivered: this.accepted },
      sources: [],
      sinks: [],
      lastErrors: [],
      counters: {},
    };
  }

  drain(): Promise<RunResult> {
    this.drained++;
    this.finish({ how: "done" });
    return this.finished;
  }

  abort(reason: Error): void {
    this.aborted = reason;
  }

  untilIdle(): Promise<void> {
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  idle(): void {
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

function fakes() {
  const [one, two] = [new FakeRun(), new FakeRun()];
  return { one, two, runs: new Runs([one, two]) };
}

test("several are idle when a whole round saw none of them take anything in", async () => {
  const { one, two, runs } = fakes();
  let over = false;
  runs.untilIdle().then(() => {
    over = true;
  });
  two.idle();
  one.accepted = 5;
  one.idle();
  await settlePromises();
  assert.equal(over, false, "what the first took in may have become input of the second");
  two.accepted = 5;
  two.idle();
  one.idle();
  await settlePromises();
  assert.equal(over, false);
  two.idle();
  one.idle();
  await settlePromises();
  assert.equal(over, true);
});

test("one that has ended counts as idle", async () => {
  const { one, two, runs } = fakes();
  let over = false;
  runs.untilIdle().then(() => {
    over = true;
  });
  one.finish({ how: "failed", error: new Error("?") });
  two.idle();
  await settlePromises();
  assert.equal(over, true);
});

test("when one fails the others are drained; when one is done they go on", async () => {
  const failing = fakes();
  failing.runs.failTogether();
  failing.one.finish({ how: "failed", error: new Error("?") });
  await settlePromises();
  assert.equal(failing.two.drained, 1);
  const ending = fakes();
  ending.runs.failTogether();
  ending.one.finish({ how: "done" });
  await settlePromises();
  assert.equal(ending.two.drained, 0);
});

test("how one ended is told at once, though others go on", async () => {
  const [one, two] = [new FakeRun(), new FakeRun()];
  const told: string[] = [];
  new Runs([one, two], ({ result }) => told.push(result.how));
  two.finish({ how: "failed", error: new Error("?") });
  await settlePromises();
  assert.deepEqual(told, ["failed"]);
});

test("endings tell which have a result, in the order given", async () => {
  const { one, two, runs } = fakes();
  two.finish({ how: "done" });
  await settlePromises();
  assert.deepEqual(
    runs.endings().map(({ result }) => result?.how),
    [undefined, "done"],
  );
  one.finish({ how: "drain-timeout", error: new Error("?") });
  assert.deepEqual(
    (await runs.finished).map(({ result }) => result.how),
    ["drain-timeout", "done"],
  );
});
