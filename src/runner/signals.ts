import { messageOf } from "../errors.ts";
import { releaseStopSignals, stopSignals } from "./early-signals.ts";
import { ExitCode } from "./exit-code.ts";

/** What the process does when it is told something from outside, or when something escapes it. */
export interface SignalActions {
  /** First SIGTERM or SIGINT: finish and stop. */
  stop(signal: string): void;
  /** A second one: stop now. */
  stopNow(signal: string): void;
  /** SIGUSR2: say how it is going. */
  report(): void;
  /** An error that nobody caught: the state of the process is unknown. */
  crash(error: unknown): void;
}

/** Listens to the process for the rest of its life. */
export function listenToProcess(actions: SignalActions): void {
  let stopping = false;
  const stop = (signal: string) => {
    if (stopping) return actions.stopNow(signal);
    stopping = true;
    actions.stop(signal);
  };
  for (const signal of stopSignals) process.on(signal, stop);
  process.on("SIGUSR2", () => actions.report());
  process.on("uncaughtException", (error) => actions.crash(error));
  process.on("unhandledRejection", (reason) => actions.crash(reason));
  // What came while the program was loaded is obeyed now.
  for (const signal of releaseStopSignals()) stop(signal);
}

/** For a process that runs nothing: an error that nobody caught is told, without credentials, and ends it. */
export function endOnUncaught(): void {
  const end = (error: unknown) => {
    process.stderr.write(`uncaught error: ${messageOf(error)}\n`);
    process.exit(ExitCode.failed);
  };
  process.on("uncaughtException", end);
  process.on("unhandledRejection", end);
}
