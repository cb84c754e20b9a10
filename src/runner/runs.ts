import type { Run } from "../runtime/run.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";

/** How one topology ended. */
export interface Ending {
  readonly status: RunStatus;
  readonly result: RunResult;
}

/** The runs of one process: started, watched, drained and ended together. */
export class Runs {
  readonly #runs: readonly Run[];
  readonly #results = new Map<Run, RunResult>();
  /** How each ended, in the order given. */
  readonly finished: Promise<readonly Ending[]>;

  /** @param ended told of each as soon as it has ended, whatever the others do. */
  constructor(runs: readonly Run[], ended: (ending: Ending) => void = () => {}) {
    this.#runs = runs;
    for (const run of this.#runs) {
      // What kept it from starting is its result as well.
      run.started.catch(() => {});
    }
    this.finished = Promise.all(
      this.#runs.map(async (run) => {
        const result = await run.finished;
        this.#results.set(run, result);
        const ending = { status: run.status(), result };
        ended(ending);
        return ending;
      }),
    );
  }

  statuses(): RunStatus[] {
    return this.#runs.map((run) => run.status());
  }

  /** How each stands now; those that go on have no result. */
  endings(): { readonly status: RunStatus; readonly result: RunResult | undefined }[] {
    return this.#runs.map((run) => ({ status: run.status(), result: this.#results.get(run) }));
  }

  drain(): void {
    for (const run of this.#runs) run.drain();
  }

  abort(reason: Error): void {
    for (const run of this.#runs) run.abort(reason);
  }

  /** Drains the others when one fails: half of a process is a state that nobody notices. */
  async failTogether(): Promise<void> {
    await Promise.race(
      this.#runs.map(async (run) => {
        const { how } = await run.finished;
        if (how === "done") await this.finished;
      }),
    );
    this.drain();
  }

  /**
   * Resolves when all are idle at once: one may feed another, so a round in which any of them took something in
   * is followed by another round. A run that has ended counts as idle.
   */
  async untilIdle(): Promise<void> {
    let before: number;
    do {
      before = this.#accepted();
      await Promise.all(
        this.#runs.map((run) => Promise.race([run.untilIdle().catch(() => {}), run.finished])),
      );
    } while (this.#accepted() !== before);
  }

  #accepted(): number {
    return this.#runs.reduce((sum, run) => sum + run.status().conservation.accepted, 0);
  }
}
