import { Backoff } from "../component/backoff.ts";
import type { Context, Time } from "../component/context.ts";
import type { Source, SourceSession, SourceStatus } from "../component/source.ts";
import { MillraceError, messageOf } from "../errors.ts";
import type { LaneIntake } from "./intake.ts";
import { SessionIntake } from "./session-intake.ts";

/**
 * How long what is in flight may take at most to be settled and acknowledged before a restart, ms: it comes again if
 * it is not. Less where the source is given less time to stand still.
 */
const finishWithin = 10_000;
/** How long closing may take at most, ms; likewise. */
const closeWithin = 5_000;

export interface SourceRunParts {
  readonly source: Source;
  readonly intake: LaneIntake;
  readonly context: Context;
  downstream(): string | undefined;
}

/**
 * A source as it runs: one session, and another after it when it was restarted.
 *
 * ```
 *   closed ─ open ─► open ─ restart ─► finishing ─► closed ─► opening, until it succeeds ─► open
 * ```
 * Two sessions never have lanes at the same time: those of the old one are finished or given back, and it is
 * fenced, before the new one is opened.
 */
export class SourceRun {
  readonly #parts: SourceRunParts;
  #stopped = false;
  /** Gives up the opening that is under way. A session that is open has no use for it: it must go on acknowledging. */
  #opening: AbortController | undefined;
  #intake: SessionIntake;
  #session: SourceSession | undefined;
  #closing: Promise<void> | undefined;
  #restarting: Promise<void> | undefined;

  constructor(parts: SourceRunParts) {
    this.#parts = parts;
    this.#intake = new SessionIntake(parts.intake, 0);
  }

  /** Undefined before it is open, and while another one is opened. */
  get session(): SourceSession | undefined {
    return this.#session;
  }

  get isRestarting(): boolean {
    return this.#restarting !== undefined;
  }

  status(): SourceStatus | undefined {
    const status = this.#session?.status();
    if (!this.isRestarting) return status;
    return {
      ready: false,
      reason: "being restarted, since it stood still",
      lastErrors: status?.lastErrors ?? [],
    };
  }

  async open(): Promise<SourceSession> {
    const session = await this.#openWith(this.#parts.context);
    this.#session = session;
    return session;
  }

  /** Never rejects. Resolves when the next session is open, or when it is to stop. */
  restart(): Promise<void> {
    this.#restarting ??= this.#restart().finally(() => {
      this.#restarting = undefined;
    });
    return this.#restarting;
  }

  /** No restart from now on; one under way is given up. Resolves when that is done. */
  async stopRestarts(): Promise<void> {
    this.#stopped = true;
    this.#opening?.abort(new MillraceError("gave-up", "the source is stopped"));
    await this.#restarting;
  }

  close(deadline: Time): Promise<void> {
    this.#closing ??= this.#session?.close(deadline) ?? Promise.resolve();
    return this.#closing;
  }

  #openWith(context: Context): Promise<SourceSession> {
    const { source, downstream } = this.#parts;
    return source.open({ ...context, intake: this.#intake, downstream });
  }

  async #restart(): Promise<void> {
    if (this.#stopped || this.#session === undefined) return;
    await this.#finish(this.#session);
    this.#intake.fence();
    this.#session = undefined;
    this.#closing = undefined;
    await this.#openAgain();
  }

  /** What is in flight is settled and acknowledged if that can be done soon; what cannot comes again. */
  async #finish(session: SourceSession): Promise<void> {
    const { context, source } = this.#parts;
    const { clock } = context;
    const patience = source.watch?.after ?? finishWithin;
    const deadline = clock.now() + Math.min(finishWithin, patience);
    session.stopIntake();
    await this.#intake.drain(this.#intake.lanes, deadline);
    await this.#by(deadline, session.commit());
    const closed = clock.now() + Math.min(closeWithin, patience);
    await this.#by(closed, this.close(closed));
  }

  async #openAgain(): Promise<void> {
    const { context, source, intake } = this.#parts;
    if (this.#stopped) return;
    const opening = new AbortController();
    this.#opening = opening;
    // A signal of its own, so that it shares no connection with what stood still and can be given up by itself.
    const own: Context = { ...context, signal: AbortSignal.any([context.signal, opening.signal]) };
    const backoff = new Backoff(own, { initial: 500, max: 30_000 });
    while (!own.signal.aborted) {
      this.#intake = new SessionIntake(intake, this.#intake.lastEpoch);
      try {
        const session = await this.#openWith(own);
        if (own.signal.aborted) {
          this.#intake.fence();
          await session.close(context.clock.now() + closeWithin);
        } else this.#session = session;
        break;
      } catch (error) {
        this.#intake.fence();
        if (own.signal.aborted) break;
        context.logger.warn(
          { node: context.node, type: source.type, error: messageOf(error) },
          "the source cannot be opened again yet",
        );
        await backoff.wait().catch(() => {});
      }
    }
    this.#opening = undefined;
  }

  /** Waits for it until then, whatever becomes of it. */
  #by(deadline: Time, promise: Promise<unknown>): Promise<void> {
    const { clock } = this.#parts.context;
    return new Promise((resolve) => {
      const timer = clock.after(Math.max(0, deadline - clock.now()), resolve);
      const done = () => {
        timer.cancel();
        resolve();
      };
      promise.then(done, done);
    });
  }
}
