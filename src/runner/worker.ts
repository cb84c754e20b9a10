import type { Clock } from "../component/context.ts";
import { type ErrorCode, MillraceError, messageOf } from "../errors.ts";
import type { RunResult, RunStatus } from "../runtime/status.ts";
import type { Ending } from "./runs.ts";

/** How often a worker says how it is doing, ms. */
const interval = 250;

/** How a run ended, as it crosses to another process. */
type SentResult =
  | { readonly how: "done" }
  | {
      readonly how: "drain-timeout" | "failed";
      readonly error: { readonly message: string; readonly code?: ErrorCode; readonly remedy?: string };
    };

/** What a worker needs and has, and how its runs are doing. */
export interface WorkerReport {
  readonly statuses: readonly RunStatus[];
  /** Resident memory, bytes. */
  readonly memory: number;
  /** CPU time, user and system, in seconds. */
  readonly cpu: number;
}

/** What a worker tells its parent: at times, and with its endings as the last thing it does. */
export interface FromWorker {
  readonly report: WorkerReport;
  readonly results?: readonly SentResult[];
}

/** What a parent tells its worker. */
export type ToWorker = "drain";

/** One of several processes of a plan: its parent watches it, drains it and speaks for it. */
export class Worker {
  readonly #clock: Clock;
  readonly #statuses: () => readonly RunStatus[];

  /**
   * Begins to report.
   *
   * @param drain called when the parent says so, and when it is gone: a worker does not outlive it.
   */
  constructor(clock: Clock, statuses: () => readonly RunStatus[], drain: () => void) {
    this.#clock = clock;
    this.#statuses = statuses;
    process.on("message", (message: ToWorker) => {
      if (message === "drain") drain();
    });
    process.once("disconnect", drain);
    this.#report();
  }

  /** The last report. Resolves when it is on its way. */
  end(endings: readonly Ending[]): Promise<void> {
    const results = endings.map(({ result }): SentResult => {
      if (result.how === "done") return { how: "done" };
      const { error } = result;
      const known = error instanceof MillraceError ? error : undefined;
      return {
        how: result.how,
        error: {
          message: messageOf(error),
          ...(known === undefined ? {} : { code: known.code }),
          ...(known?.remedy === undefined ? {} : { remedy: known.remedy }),
        },
      };
    });
    return this.#send({ report: this.#now(), results });
  }

  #report(): void {
    void this.#send({ report: this.#now() });
    this.#clock.after(interval, () => this.#report());
  }

  #now(): WorkerReport {
    const { user, system } = process.cpuUsage();
    return {
      statuses: this.#statuses(),
      memory: process.memoryUsage().rss,
      cpu: (user + system) / 1e6,
    };
  }

  /** A parent that is gone hears nothing. */
  #send(message: FromWorker): Promise<void> {
    return new Promise((resolve) => {
      if (!process.connected) return resolve();
      process.send!(message, () => resolve());
    });
  }
}

export function resultOf(sent: SentResult): RunResult {
  if (sent.how === "done") return { how: "done" };
  const { message, code, remedy } = sent.error;
  const error =
    code === undefined
      ? new Error(message)
      : new MillraceError(code, message, remedy === undefined ? {} : { remedy });
  return { how: sent.how, error };
}
