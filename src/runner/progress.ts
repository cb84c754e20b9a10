import type { Clock, Timer } from "../component/context.ts";
import type { RunStatus } from "../runtime/status.ts";
import { totalConservation } from "./table.ts";
import type { Terminal } from "./terminal.ts";

/** Between two rewritings of the line, ms: fast enough to look alive, slow enough to read. */
const interval = 200;
/** Weight of the newest interval in the rate shown: a steadier number than the last interval's own. */
const weight = 0.3;

/** The line on a terminal that says how the runs are doing, rewritten in place. */
export class Progress {
  readonly #terminal: Terminal;
  readonly #clock: Clock;
  readonly #statuses: () => readonly RunStatus[];
  #timer: Timer | undefined;
  #at: number;
  #accepted = 0;
  #rate: number | undefined;

  constructor(terminal: Terminal, clock: Clock, statuses: () => readonly RunStatus[]) {
    this.#terminal = terminal;
    this.#clock = clock;
    this.#statuses = statuses;
    this.#at = clock.now();
    this.#tick();
  }

  /** Shows the end and stays. */
  stop(): void {
    this.#timer?.cancel();
    this.#draw();
    this.#terminal.finish();
  }

  #tick(): void {
    this.#draw();
    this.#timer = this.#clock.after(interval, () => this.#tick());
  }

  #draw(): void {
    const statuses = this.#statuses();
    const { accepted } = totalConservation(statuses.map(({ conservation }) => conservation));
    const now = this.#clock.now();
    if (now > this.#at) {
      const rate = ((accepted - this.#accepted) / (now - this.#at)) * 1000;
      this.#rate = this.#rate === undefined ? rate : this.#rate + weight * (rate - this.#rate);
    }
    this.#at = now;
    this.#accepted = accepted;
    this.#terminal.progress(progressLine(statuses, this.#rate ?? 0));
  }
}

/** "quakes running  12,500 msg/s  accepted 5,473  delivered 564  duplicate 4,909  in flight 0" */
export function progressLine(statuses: readonly RunStatus[], rate: number): string {
  const total = totalConservation(statuses.map(({ conservation }) => conservation));
  const reason = statuses.flatMap(({ sources, sinks }) =>
    [...sources, ...sinks]
      .filter(({ ready }) => !ready)
      .map(({ name, reason: why }) => `${name}: ${why ?? "not ready"}`),
  )[0];
  const modes = [...new Set(statuses.map(({ mode }) => mode))];
  const parts = [
    `${statuses.length === 1 ? statuses[0]!.topology : `${statuses.length} topologies`} ${modes.join("/")}`,
    `${count(Math.round(rate))} msg/s`,
    `accepted ${count(total.accepted)}`,
    `delivered ${count(total.delivered)}`,
    `in flight ${count(total.inFlight)}`,
  ];
  for (const name of ["duplicate", "filtered", "deadLettered", "returned", "lost"] as const) {
    if (total[name] > 0) parts.push(`${name} ${count(total[name])}`);
  }
  if (reason !== undefined && modes.some((mode) => mode === "starting" || mode === "running"))
    parts.push(reason);
  return parts.join("  ");
}

function count(number: number): string {
  return number.toLocaleString("en-US");
}
