import { styleText } from "node:util";
import { type DestinationStream, destination, pino } from "pino";
import type { LogFields, Logger } from "../component/context.ts";
import { printable, type Terminal } from "./terminal.ts";

export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

/**
 * Log lines on standard error: JSON where something reads them, words where a person does.
 *
 * Written synchronously: there are few, one for each event that matters, and none may be missing when the
 * process ends.
 *
 * @param terminal a terminal to write words on; undefined writes JSON.
 * @param fields to be in every line.
 */
export function createLogger(
  level: LogLevel,
  terminal: Terminal | undefined,
  fields: LogFields = {},
): Logger {
  const target: DestinationStream =
    terminal === undefined
      ? destination({ fd: 2, sync: true })
      : { write: (line) => terminal.print(inWords(line)) };
  const log = pino(
    {
      level,
      base: { pid: process.pid, ...fields },
      messageKey: "msg",
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    target,
  );
  return {
    debug: (fields, text) => log.debug(fields, text),
    info: (fields, text) => log.info(fields, text),
    warn: (fields, text) => log.warn(fields, text),
    error: (fields, text) => log.error(fields, text),
  };
}

const colours = { debug: "gray", info: "green", warn: "yellow", error: "red" } as const;

/** "12:30:01.250 WARN  orders.accepted: connection lost  attempt=3" */
export function inWords(line: string): string {
  const { level, time, pid: _, msg, node, ...rest } = JSON.parse(line) as LogFields;
  const name = String(level) as keyof typeof colours;
  const fields = Object.entries(rest).map(([key, value]) => `  ${key}=${String(value)}`);
  const label = styleText(colours[name] ?? "reset", name.toUpperCase().padEnd(5), { stream: process.stderr });
  const about = node === undefined ? "" : `${node}: `;
  return `${String(time).slice(11, 23)} ${label} ${printable(`${about}${msg}${fields.join("")}`)}`;
}
