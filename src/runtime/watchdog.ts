import type { Context, Time, Timer } from "../component/context.ts";
import type { LaneLag, SourceSession, WatchOptions } from "../component/source.ts";
import { messageOf } from "../errors.ts";
import type { Lane } from "../message/lane.ts";
import type { LaneIntake } from "./intake.ts";

/** The longest wait between two restarts, as a multiple of `after`. */
const rarest = 16;

/** A flow that stands still, though there is something to do. */
export interface Stall {
  /** Who does not do its part: the source, which gives nothing; or what comes after it, which settles nothing. */
  readonly awaiting: "source" | "sink";
  /** The lanes, by name, with what the broker holds for each; undefined when it could not be asked. */
  readonly lanes: readonly { readonly name: string; readonly lag: number | undefined }[];
  /** Nothing has moved since then, milliseconds since 1970. */
  readonly since: number;
  /** Restarts of the source because of it. */
  readonly restarts: number;
  /** What is the matter, in a sentence. */
  readonly reason: string;
  readonly remedy: string;
}

export interface WatchdogParts {
  readonly context: Context;
  readonly options: WatchOptions;
  readonly intake: LaneIntake;
  /** Undefined while there is none, or while it is being restarted. */
  session(): SourceSession | undefined;
  restart(): Promise<void>;
  /** Who keeps what is in flight, in words: a sink, or code of the topology. */
  downstream(): string;
}

/** A lane by its name, from one epoch to the next. */
interface Watched {
  lane: Lane;
  position: number;
  passed: number;
  inFlight: number;
  waiting: number;
  /** Since when it has had something to do and has done nothing; undefined when it has moved, or has nothing to do. */
  since: Time | undefined;
  lag: number | undefined;
  awaiting: "source" | "sink";
  /** It was so for too long. Another epoch does not end that. */
  stalled: boolean;
}

/**
 * Sees to it that a dead consumer is never silent. A lane that is assigned and has lag, and of which nothing is
 * fetched or settled for as long as its source's options say, is a *stall*: it is shown and logged once, and once
 * again when it is over. Whoever should have moved is named:
 *
 * - the *source*, when it waits for messages that the broker holds and gets none. It may be restarted, and again
 *   after twice the time, and so on, until something comes.
 * - the *sink*, or what else comes after the source, when credit is used up, or something is under way there, and
 *   nothing is settled. Messages that a window holds are none of these: a window has a time of its own.
 *
 * A source that is not ready says so itself; its time begins when it is ready again.
 */
export class Watchdog {
  readonly #parts: WatchdogParts;
  readonly #lanes = new Map<string, Watched>();
  #timer: Timer | undefined;
  #stopped = false;
  #stall: Stall | undefined;
  #restarts = 0;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
  }

  get stall(): Stall | undefined {
    return this.#stall;
  }

  start(): void {
    const { context, options } = this.#parts;
    if (this.#stopped) return;
    this.#timer = context.clock.after(options.after / 4, () => {
      this.#look().finally(() => this.start());
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#stall = undefined;
  }

  async #look(): Promise<void> {
    const session = this.#parts.session();
    if (session?.status().ready !== true) {
      for (const watched of this.#lanes.values()) watched.since = undefined;
      return;
    }
    if (this.#notice()) this.#judge(await this.#ask(session));
    if (this.#stopped) return;
    await this.#report();
  }

  /** Compares every lane with how it was; true when one has not moved. */
  #notice(): boolean {
    const { intake } = this.#parts;
    const gone = new Set(this.#lanes.keys());
    let still = false;
    for (const lane of intake.lanes) {
      gone.delete(lane.name);
      const { position, passed, inFlight } = lane;
      const now = { lane, position, passed, inFlight, waiting: intake.waiting(lane) };
      const before = this.#lanes.get(lane.name);
      const sameLane = before?.lane === lane;
      const moved =
        before === undefined ||
        before.position !== position ||
        before.passed !== passed ||
        before.inFlight !== inFlight ||
        before.waiting !== now.waiting;
      if (before === undefined || (sameLane && moved)) {
        this.#lanes.set(lane.name, {
          ...now,
          since: undefined,
          lag: undefined,
          awaiting: "source",
          stalled: false,
        });
      } else if (sameLane) still = true;
      // Another epoch of it is no movement, and has its whole time.
      else Object.assign(before, now, { since: undefined });
    }
    for (const name of gone) this.#lanes.delete(name);
    return still;
  }

  /** Undefined when the broker does not say. */
  async #ask(session: SourceSession): Promise<readonly LaneLag[] | undefined> {
    const { context, options } = this.#parts;
    const { clock, logger, node } = context;
    return new Promise((resolve) => {
      const timer = clock.after(options.after / 4, () => resolve(undefined));
      const tell = (lags: readonly LaneLag[] | undefined) => {
        timer.cancel();
        resolve(lags);
      };
      (session.lag?.() ?? Promise.resolve([])).then(tell, (error) => {
        logger.debug({ node, error: messageOf(error) }, "cannot tell the lag of the source");
        tell(undefined);
      });
    });
  }

  #judge(lags: readonly LaneLag[] | undefined): void {
    const { context, intake } = this.#parts;
    const underWay = intake.credit.underWay > 0;
    for (const watched of this.#lanes.values()) {
      const { lane, inFlight, waiting } = watched;
      // It has moved while the broker was asked, or its epoch is over.
      if (lane.ended || lane.position !== watched.position || lane.passed !== watched.passed) continue;
      const told = lags?.find((one) => one.lane === lane);
      const blocked = waiting > 0 || (told !== undefined && !told.asking);
      const busy = inFlight > 0 && underWay;
      // A broker that does not even answer is no good sign, but for as long as something is under way it says nothing.
      const hasLag = lags === undefined ? !busy || (watched.lag ?? 0) > 0 : (told?.lag ?? 0) > 0;
      const awaitsSource = hasLag && !blocked;
      const awaitsSink = busy && !awaitsSource;
      // What the broker told last stands until something moves; that there was nothing does not.
      if (lags !== undefined) watched.lag = told?.lag ?? 0;
      else if (watched.lag === 0) watched.lag = undefined;
      if (!awaitsSource && !awaitsSink) {
        watched.since = undefined;
        watched.stalled = false;
        continue;
      }
      watched.awaiting = awaitsSource ? "source" : "sink";
      watched.since ??= context.clock.now();
    }
  }

  async #report(): Promise<void> {
    const { context, options } = this.#parts;
    const now = context.clock.now();
    for (const watched of this.#lanes.values()) {
      if (watched.since !== undefined && now - watched.since >= options.after) watched.stalled = true;
    }
    const standing = [...this.#lanes.values()].filter(({ stalled }) => stalled);
    const dead = standing.filter(({ awaiting }) => awaiting === "source");
    this.#show(dead.length > 0 ? dead : standing);
    const patience = options.after * Math.min(rarest, 2 ** this.#restarts);
    const due = dead.some(({ since }) => since !== undefined && now - since >= patience);
    if (!due || options.policy !== "restart") return;
    this.#restarts++;
    context.meter.count("source_restarts_total");
    context.logger.warn({ node: context.node, restarts: this.#restarts }, "the source is restarted");
    await this.#parts.restart();
  }

  /** One line when it begins, whatever lanes join it, and one when it is over. */
  #show(standing: readonly Watched[]): void {
    const { clock, logger, meter, node } = this.#parts.context;
    const before = this.#stall;
    const [first] = standing;
    if (first === undefined) {
      this.#restarts = 0;
      this.#stall = undefined;
      if (before === undefined) return;
      const seconds = Math.round((clock.wall() - before.since) / 1_000);
      logger.info({ node, awaiting: before.awaiting, seconds, restarts: before.restarts }, "it moves again");
      return;
    }
    const { awaiting } = first;
    const goesOn = before?.awaiting === awaiting;
    const began = Math.min(...standing.map(({ since }) => since ?? clock.now()));
    const since = goesOn ? before.since : clock.wall() - Math.round(clock.now() - began);
    const lanes = standing.map(({ lane, lag }) => ({ name: lane.name, lag }));
    const stall: Stall = {
      awaiting,
      lanes,
      since,
      restarts: this.#restarts,
      ...this.#words(awaiting, lanes),
    };
    this.#stall = stall;
    if (goesOn) return;
    meter.count("stalls_total");
    const named = lanes.map(({ name }) => name).join(" ");
    logger.error({ node, awaiting, lanes: named, since, remedy: stall.remedy }, stall.reason);
  }

  #words(awaiting: Stall["awaiting"], lanes: Stall["lanes"]): Pick<Stall, "reason" | "remedy"> {
    const { context, options, downstream } = this.#parts;
    const named = lanes.map(({ name }) => name).join(", ");
    if (awaiting === "sink") {
      return {
        reason: `progress awaited from ${downstream()}: nothing of ${named} is settled`,
        remedy: "look there; the source is not restarted, since its messages would only come again",
      };
    }
    const unknown = lanes.some(({ lag }) => lag === undefined);
    const lag = lanes.reduce((sum, one) => sum + (one.lag ?? 0), 0);
    const held = unknown
      ? "and the broker does not tell what it holds"
      : `and the broker holds ${lag} messages`;
    const restarted =
      options.policy === "restart"
        ? "it is restarted, again and again; if that does not help, "
        : 'restart the process, or set onStall: "restart"; ';
    return {
      reason: `${context.node} gives nothing of ${named}, ${held}`,
      remedy: `${restarted}look at the broker's log and at the network in between`,
    };
  }
}
