import type { Observable } from "rxjs";
import type { Time } from "../component/context.ts";
import type { Intake, LaneSettings } from "../component/source.ts";
import type { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import type { Lane } from "../message/lane.ts";
import type { Records } from "../message/records.ts";
import type { LaneIntake } from "./intake.ts";

/**
 * The intake as one session of a source sees it. A source that is opened anew gets another one, and the session
 * before it is fenced: whatever that one still does, no message of it goes into the pipeline.
 */
export class SessionIntake implements Intake {
  readonly #intake: LaneIntake;
  /** What is added to the epochs of the session, so that they go on where those of the one before ended. */
  readonly #firstEpoch: number;
  readonly #own = new Set<Lane>();
  #lastEpoch: number;
  #stopped = false;
  #fenced = false;

  constructor(intake: LaneIntake, firstEpoch: number) {
    this.#intake = intake;
    this.#firstEpoch = firstEpoch;
    this.#lastEpoch = firstEpoch;
  }

  get stream(): Observable<Chunk | Control> {
    return this.#intake.stream;
  }

  get lanes(): readonly Lane[] {
    return this.#intake.lanes.filter((lane) => this.#own.has(lane));
  }

  /** The highest epoch of any lane it has opened. */
  get lastEpoch(): number {
    return this.#lastEpoch;
  }

  open(settings: LaneSettings): Lane {
    const epoch = this.#firstEpoch + settings.epoch;
    this.#lastEpoch = Math.max(this.#lastEpoch, epoch);
    const lane = this.#intake.open({ ...settings, epoch });
    if (this.#fenced) this.#intake.end(lane);
    else this.#own.add(lane);
    if (this.#stopped) this.#intake.shut([lane]);
    return lane;
  }

  offer(lane: Lane, records: Records): void {
    this.#intake.offer(lane, records);
  }

  waiting(lane: Lane): number {
    return this.#intake.waiting(lane);
  }

  drain(lanes: readonly Lane[], deadline: Time): Promise<boolean> {
    return this.#intake.drain(lanes, deadline);
  }

  end(lane: Lane): void {
    this.#own.delete(lane);
    this.#intake.end(lane);
  }

  /** Of this session only: another may follow. */
  stop(): void {
    this.#stopped = true;
    this.#intake.shut(this.lanes);
  }

  complete(): void {
    if (!this.#fenced) this.#intake.complete();
  }

  fail(error: Error): void {
    if (!this.#fenced) this.#intake.fail(error);
  }

  /** Ends all its lanes; from now on it lets nothing in, and ends nothing. */
  fence(): void {
    this.stop();
    this.#fenced = true;
    for (const lane of this.lanes) this.end(lane);
  }
}
