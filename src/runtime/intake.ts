import { type Observable, Subject } from "rxjs";
import type { Clock, Time } from "../component/context.ts";
import type { CreditOptions, Intake, LaneSettings } from "../component/source.ts";
import { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import { Lane } from "../message/lane.ts";
import type { Records } from "../message/records.ts";
import { Credit } from "./credit.ts";

/** Fetched records of one lane that credit has not let in yet; bounded by what its driver fetches at once. */
interface Backlog {
  readonly settings: LaneSettings;
  readonly queue: Records[];
  /** Index in `queue[0]` of the next record. */
  from: number;
  count: number;
  /** Nothing more is taken in. */
  closed: boolean;
}

/** Between two looks at what is in flight while lanes are drained, ms. */
const drainTick = 5;

/**
 * Lets fetched records into the pipeline as credit permits: one chunk of each lane in turn, so that no lane
 * waits behind another. Credit that frees up is used on a later turn of the event loop, never inside the
 * settlement that freed it.
 */
export class LaneIntake implements Intake {
  readonly credit: Credit;
  readonly #source: string;
  readonly #clock: Clock;
  readonly #stream = new Subject<Chunk | Control>();
  readonly #backlogs = new Map<Lane, Backlog>();
  readonly #onDrain: () => void;
  #turn: Lane[] = [];
  #scheduled = false;
  #pumping = false;
  #stopped = false;
  #finished = false;

  /**
   * @param onQuiet see {@link Credit}.
   * @param onDrain called again and again while lanes are drained: what windows hold is to be let go.
   */
  constructor(
    source: string,
    options: CreditOptions,
    clock: Clock,
    onQuiet: () => void,
    onDrain: () => void = () => {},
  ) {
    this.#source = source;
    this.#clock = clock;
    this.#onDrain = onDrain;
    this.credit = new Credit(options, clock, () => this.#schedule(), onQuiet);
  }

  get stream(): Observable<Chunk | Control> {
    return this.#stream;
  }

  get lanes(): readonly Lane[] {
    return [...this.#backlogs.keys()];
  }

  open(settings: LaneSettings): Lane {
    const lane = new Lane({
      origin: { source: this.#source, ...settings.origin },
      epoch: settings.epoch,
      ack: settings.ack,
      ledger: this.credit,
      ...(settings.start === undefined ? {} : { start: settings.start }),
      ...(settings.onProgress === undefined ? {} : { onProgress: settings.onProgress }),
    });
    this.#backlogs.set(lane, { settings, queue: [], from: 0, count: 0, closed: false });
    this.credit.open(lane);
    this.#turn = [...this.#backlogs.keys()];
    return lane;
  }

  offer(lane: Lane, records: Records): void {
    const backlog = this.#backlogs.get(lane);
    if (backlog === undefined || backlog.closed || this.#stopped || records.length === 0) return;
    backlog.queue.push(records);
    backlog.count += records.length;
    this.#pump();
  }

  waiting(lane: Lane): number {
    return this.#backlogs.get(lane)?.count ?? 0;
  }

  /** Records of all lanes that wait for credit. */
  get waitingCount(): number {
    let count = 0;
    for (const backlog of this.#backlogs.values()) count += backlog.count;
    return count;
  }

  async drain(lanes: readonly Lane[], deadline: Time): Promise<boolean> {
    this.shut(lanes);
    while (!this.#finished && lanes.some((lane) => lane.inFlight > 0)) {
      if (this.#clock.now() >= deadline) return false;
      this.#onDrain();
      await new Promise<void>((resolve) => this.#clock.after(drainTick, resolve));
    }
    return true;
  }

  /** Takes in nothing more of these lanes; what waits is dropped unseen, and stays with the broker. */
  shut(lanes: readonly Lane[]): void {
    for (const lane of lanes) {
      const backlog = this.#backlogs.get(lane);
      if (backlog === undefined) continue;
      backlog.closed = true;
      forget(backlog);
    }
  }

  end(lane: Lane): void {
    if (!this.#backlogs.delete(lane)) return;
    this.#turn = this.#turn.filter((other) => other !== lane);
    lane.end();
    this.credit.close(lane);
    this.send({ kind: "revoke", lane });
  }

  /** Sends a control down the stream. */
  send(control: Control): void {
    if (!this.#finished) this.#stream.next(control);
  }

  stop(): void {
    this.#stopped = true;
    for (const backlog of this.#backlogs.values()) forget(backlog);
  }

  complete(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#stopped = true;
    this.#stream.complete();
  }

  fail(error: Error): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#stopped = true;
    this.#stream.error(error);
  }

  #schedule(): void {
    if (this.#scheduled || this.#stopped) return;
    this.#scheduled = true;
    this.#clock.defer(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  /** One chunk of each lane that has something and credit for it; goes on in a later turn while there is more. */
  #pump(): void {
    if (this.#pumping || this.#stopped) return;
    this.#pumping = true;
    this.credit.askAgain();
    let again = false;
    const lanes = this.#turn;
    try {
      for (const lane of lanes) {
        const backlog = this.#backlogs.get(lane);
        if (backlog === undefined || backlog.count === 0) continue;
        const took = this.#takeChunk(lane, backlog);
        if (this.#stopped) break;
        if (backlog.count === 0) backlog.settings.onDrained?.(lane);
        else if (took) again = true;
      }
    } finally {
      this.#pumping = false;
    }
    if (lanes.length > 1) this.#turn = [...this.#turn.slice(1), ...this.#turn.slice(0, 1)];
    if (again) this.#schedule();
  }

  #takeChunk(lane: Lane, backlog: Backlog): boolean {
    const records = backlog.queue[0]!;
    const from = backlog.from;
    const count = this.credit.grant(lane, records, from);
    if (count === 0) return false;
    backlog.from += count;
    backlog.count -= count;
    if (backlog.from === records.length) {
      backlog.queue.shift();
      backlog.from = 0;
    }
    const first = lane.take(records, from, count);
    this.#stream.next(new Chunk(lane, lane, first, count, records, from));
    return true;
  }
}

function forget(backlog: Backlog): void {
  backlog.queue.length = 0;
  backlog.from = 0;
  backlog.count = 0;
}
