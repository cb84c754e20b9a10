import type { Logger } from "../component/context.ts";

/** Node's warnings as log lines, without the one that is known and harmless. */
export function logWarnings(logger: Logger): void {
  process.removeAllListeners("warning");
  process.on("warning", (warning) => {
    if (!isKnown(warning)) logger.warn({ warning: warning.name }, warning.message);
  });
}

/** kafkajs 2.2.4 sets its request timer again about every millisecond, often to a moment that has just passed. */
export function isKnown(warning: Error): boolean {
  return warning.name === "TimeoutNegativeWarning" && /[\\/]kafkajs[\\/]/.test(warning.stack ?? "");
}
