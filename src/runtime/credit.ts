import type { Clock } from "../component/context.ts";
import type { CreditOptions } from "../component/source.ts";
import type { Lane, Ledger } from "../message/lane.ts";
import { Outcome, type OutcomeName } from "../message/outcome.ts";
import type { Records } from "../message/records.ts";

/** Messages by outcome: accepted = the sum of all the others, at any time. */
export type Conservation = { accepted: number; inFlight: number } & Record<OutcomeName, number>;

/** A lane whose checkpoint has stood still for so long (ms) is cut to its reserve. */
const stalledAfter = 5_000;

interface Progress {
  passed: number;
  since: number;
  /** Parts in flight beyond one for each message. */
  extra: number;
}

interface Room {
  readonly messages: number;
  readonly bytes: number;
}

const nothing: Room = { messages: 0, bytes: 0 };

/**
 * The books of one source flow: how much may be in flight, and how everything ended.
 *
 * Half of the credit is reserved, in equal parts, for the lanes; the other half goes to whoever asks first. So
 * a busy lane can use most of it, and a stuck one cannot take what the others need. A lane also stops at its
 * span limit, whatever is free, which bounds what a crash would replay. What is in flight never exceeds the
 * credit, by no more than one message where its bytes do: a lane that comes while others hold everything waits
 * for the first of it to settle.
 *
 * A message that fans out is one message in flight and several *parts*: starvation compares parts, since one
 * branch may hold what another is writing.
 */
export class Credit implements Ledger {
  readonly options: CreditOptions;
  readonly #clock: Clock;
  readonly #onFreed: () => void;
  readonly #onQuiet: () => void;
  readonly #lanes = new Map<Lane, Progress>();
  readonly #outcomes = new Float64Array(7);
  #accepted = 0;
  #inFlight = 0;
  #bytes = 0;
  #parts = 0;
  #held = 0;
  #waiting = 0;
  #refused = false;
  /** Of {@link #shared}, until something changes. */
  #spared: Room | undefined;

  /**
   * @param onFreed called at every settlement after a refusal; must defer its work.
   * @param onQuiet called when the flow may have come to a stand: credit was refused or is used up, and
   *   something is held or waits; must defer its work and then look at {@link starved}.
   */
  constructor(options: CreditOptions, clock: Clock, onFreed: () => void, onQuiet: () => void) {
    this.options = options;
    this.#clock = clock;
    this.#onFreed = onFreed;
    this.#onQuiet = onQuiet;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get bytesInFlight(): number {
    return this.#bytes;
  }

  /** Messages held by windows, and twins that wait for another message's outcome. */
  get held(): number {
    return this.#held;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Parts of messages in flight that neither a window holds nor a twin keeps: something is being done with them. */
  get underWay(): number {
    return this.#parts - this.#held - this.#waiting;
  }

  /**
   * No message may come in, and all that is in flight is held by a window or waits for something that is:
   * nothing will move until a window opens.
   */
  get starved(): boolean {
    return (
      this.#parts > 0 &&
      (this.#refused || this.#inFlight >= this.options.messages) &&
      this.#held + this.#waiting === this.#parts
    );
  }

  conservation(): Conservation {
    const count = (outcome: Outcome) => this.#outcomes[outcome]!;
    return {
      accepted: this.#accepted,
      delivered: count(Outcome.delivered),
      filtered: count(Outcome.filtered),
      duplicate: count(Outcome.duplicate),
      deadLettered: count(Outcome.deadLettered),
      returned: count(Outcome.returned),
      lost: count(Outcome.lost),
      inFlight: this.#inFlight,
    };
  }

  open(lane: Lane): void {
    this.#spared = undefined;
    this.#lanes.set(lane, { passed: 0, since: this.#clock.now(), extra: 0 });
  }

  close(lane: Lane): void {
    this.#spared = undefined;
    this.#parts -= this.#lanes.get(lane)?.extra ?? 0;
    this.#lanes.delete(lane);
    this.#freed();
  }

  /** Every lane with something waiting is about to ask again: forgets earlier refusals. */
  askAgain(): void {
    this.#refused = false;
  }

  /**
   * How many of the records from `from` on the lane may take in now. 0 unless a decent chunk fits: taking
   * messages one by one as they free up would make every later batch small.
   */
  grant(lane: Lane, records: Records, from: number): number {
    const { messages, bytes, span, chunk } = this.options;
    const lanes = Math.max(1, this.#lanes.size);
    const wanted = Math.min(records.length - from, chunk);
    const reserve = Math.max(1, Math.floor(messages / 2 / lanes));
    const decent = Math.min(wanted, Math.ceil(messages / 4), reserve);
    const reservedBytes = Math.floor(bytes / 2 / lanes);
    const spared = this.#isStalled(lane) ? nothing : this.#shared(reserve, reservedBytes);
    let count = Math.min(
      wanted,
      Math.max(0, reserve - lane.inFlight) + spared.messages,
      Math.max(0, span - lane.span),
      Math.max(0, messages - this.#inFlight),
    );
    const free = bytes - this.#bytes;
    const room = Math.min(free, Math.max(0, reservedBytes - lane.bytesInFlight) + spared.bytes);
    let size = 0;
    let fitting = 0;
    while (fitting < count) {
      size += records.size(from + fitting);
      if (size > room) break;
      fitting++;
    }
    // One message larger than all the room there is must still get through, one at a time beyond the limit.
    if (fitting === 0 && count > 0 && lane.inFlight === 0 && free > 0) fitting = 1;
    else if (fitting < Math.min(count, decent) && lane.inFlight > 0) fitting = 0;
    count = count < decent && lane.inFlight > 0 ? 0 : fitting;
    if (count === 0) {
      this.#refused = true;
      this.#quiet();
    }
    return count;
  }

  taken(_lane: Lane, count: number, bytes: number): void {
    this.#spared = undefined;
    this.#accepted += count;
    this.#inFlight += count;
    this.#parts += count;
    this.#bytes += bytes;
  }

  settled(_lane: Lane, outcome: Outcome, bytes: number): void {
    this.#spared = undefined;
    this.#outcomes[outcome]!++;
    this.#inFlight--;
    this.#parts--;
    this.#bytes -= bytes;
    this.#freed();
  }

  branched(lane: Lane, more: number): void {
    const progress = this.#lanes.get(lane);
    if (progress === undefined) return;
    progress.extra += more;
    this.#parts += more;
    if (more < 0) this.#quiet();
  }

  addHeld(count: number): void {
    this.#held += count;
    if (count > 0) this.#quiet();
  }

  addWaiting(count: number): void {
    this.#waiting += count;
    if (count > 0) this.#quiet();
  }

  /** What lanes may take beyond their reserves. Counted once for all who ask in vain, one after the other. */
  #shared(reserve: number, reservedBytes: number): Room {
    if (this.#spared !== undefined) return this.#spared;
    let messages = Math.max(0, this.options.messages - reserve * this.#lanes.size);
    let bytes = Math.max(0, this.options.bytes - reservedBytes * this.#lanes.size);
    for (const lane of this.#lanes.keys()) {
      messages -= Math.max(0, lane.inFlight - reserve);
      bytes -= Math.max(0, lane.bytesInFlight - reservedBytes);
    }
    this.#spared = { messages: Math.max(0, messages), bytes: Math.max(0, bytes) };
    return this.#spared;
  }

  #isStalled(lane: Lane): boolean {
    const progress = this.#lanes.get(lane);
    if (progress === undefined) return false;
    const now = this.#clock.now();
    if (progress.passed !== lane.passed || lane.inFlight === 0) {
      progress.passed = lane.passed;
      progress.since = now;
    }
    return now - progress.since > stalledAfter;
  }

  #freed(): void {
    if (this.#refused) this.#onFreed();
    this.#quiet();
  }

  #quiet(): void {
    if (
      this.#held + this.#waiting > 0 &&
      this.#held + this.#waiting >= this.#parts &&
      (this.#refused || this.#inFlight >= this.options.messages)
    ) {
      this.#onQuiet();
    }
  }
}
