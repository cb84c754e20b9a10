import { AsyncLocalStorage } from "node:async_hooks";
import { MillraceError } from "../errors.ts";
import { callerLocation, type Location } from "./location.ts";

/** An environment variable that a topology file needs and the process lacks. */
export interface UnsetVariable {
  readonly name: string;
  /** Line of the topology file that asks for it. */
  readonly location: Location | undefined;
}

/** Who collects for the code that now runs: the loading of one file, or the declaring of one topology. */
const collecting = new AsyncLocalStorage<UnsetVariable[]>();

const marker = "unset environment variable ";

/**
 * The environment variable `name`, or `fallback` when it is unset or empty.
 *
 * Without a fallback an unset or empty variable is a mistake of the topology (`env-missing`), which the
 * compiler reports together with all others, by name and line; what is returned meanwhile never reaches a
 * broker, since such a topology does not compile. Called where no topology is being loaded or declared it
 * throws {@link MillraceError} `env-missing` at once.
 *
 * @example kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") })
 */
export function env(name: string, fallback?: string): string {
  const value = process.env[name];
  if (value !== undefined && value !== "") return value;
  if (fallback !== undefined) return fallback;
  const collector = collecting.getStore();
  if (collector === undefined) {
    throw new MillraceError("env-missing", unsetMessage(name), { remedy: unsetRemedy(name) });
  }
  collector.push({ name, location: callerLocation() });
  return `${marker}${name}`;
}

/** Runs `declare` and adds to `unset` every variable that it, or what it awaits or imports, asks for in vain. */
export function collectUnset<T>(unset: UnsetVariable[], declare: () => T): T {
  return collecting.run(unset, declare);
}

/** Whether a value is, or holds, what {@link env} returned for an unset variable. */
export function isUnset(value: unknown): boolean {
  return typeof value === "string" && value.includes(marker);
}

export function unsetMessage(name: string): string {
  const state = process.env[name] === "" ? "empty" : "not set";
  return `the environment variable ${name} is ${state}`;
}

export function unsetRemedy(name: string): string {
  return `set ${name}, or give a default: env("${name}", "…")`;
}
