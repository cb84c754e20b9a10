import type { Subscriber } from "rxjs";
import type { Flowing } from "../component/operator.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import type { AuthorCalls } from "./author-call.ts";
import { type Section, Sections } from "./sections.ts";
import { valuesOf } from "./value-column.ts";

/** One message by itself. */
interface Entry {
  readonly chunk: Chunk;
  readonly section: Section;
}

/** Makes the calls for its keys one after the other. */
interface Slot {
  running: boolean;
  waiting: Entry[];
}

/**
 * Parts messages by their keys among slots. Each slot makes one call at a time, and its results go on as they are
 * ready, so that a slow message holds back its own slot and no other. A control stays behind the messages that
 * came before it and ahead of those that came after. A revoke overtakes: its lane's messages are returned
 * already, so their calls are given up and those that wait are dropped.
 */
export class KeyedCalls {
  readonly #calls: AuthorCalls;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #slots: readonly Slot[];
  readonly #sections: Sections;
  #completing = false;
  #stopped = false;

  constructor(calls: AuthorCalls, concurrency: number, subscriber: Subscriber<Flowing>) {
    this.#calls = calls;
    this.#subscriber = subscriber;
    this.#sections = new Sections((item) => {
      if (!this.#stopped) subscriber.next(item);
    });
    this.#slots = Array.from({ length: concurrency }, () => ({ running: false, waiting: [] }));
  }

  next(item: Flowing): void {
    if (item instanceof Chunk) this.#take(item);
    else if ("kind" in item && item.kind === "revoke") {
      if (!this.#stopped) this.#drop(item.lane);
      // Also after a stop: whoever comes after still has to let go of the lane.
      this.#subscriber.next(item);
      this.#release();
    } else if (!this.#stopped) this.#sections.control(item);
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completing = true;
    this.#release();
  }

  /** Gives up everything; what is not over stays unacknowledged. */
  stop(): void {
    this.#stopped = true;
    this.#calls.giveUpAll();
    for (const slot of this.#slots) slot.waiting = [];
    this.#sections.clear();
  }

  /** Gives each message to its slot. */
  #take(chunk: Chunk): void {
    for (let i = 0; i < chunk.length && !this.#stopped; i++) {
      if (chunk.state[i] === 0) continue;
      // Bytes of its own: one slow message must not hold on to the fetch of others that have long been settled.
      const alone = chunk.single(i).detached();
      chunk.takeOut(i);
      valuesOf(alone);
      alone.changed = true;
      const slot = this.#slotOf(alone.key(0));
      const entry = { chunk: alone, section: this.#sections.enter() };
      if (slot.running) slot.waiting.push(entry);
      else this.#start(slot, entry);
    }
  }

  #slotOf(key: Buffer | null): Slot {
    return key === null ? this.#shortest() : this.#slots[hashOf(key) % this.#slots.length]!;
  }

  #shortest(): Slot {
    let shortest = this.#slots[0]!;
    for (const slot of this.#slots) {
      if (!slot.running) return slot;
      if (slot.waiting.length < shortest.waiting.length) shortest = slot;
    }
    return shortest;
  }

  #start(slot: Slot, entry: Entry): void {
    slot.running = true;
    this.#calls.make(entry.chunk, 0).finally(() => {
      this.#sections.leave(entry.section, entry.chunk);
      this.#release();
      const next = slot.waiting.shift();
      if (next === undefined) slot.running = false;
      else this.#start(slot, next);
    });
  }

  /** Lets go of what waits of a lane whose epoch is over, and gives up its calls. */
  #drop(lane: Lane): void {
    for (const slot of this.#slots) {
      slot.waiting = slot.waiting.filter(({ chunk, section }) => {
        if (chunk.lane !== lane) return true;
        this.#sections.drop(section);
        return false;
      });
    }
    this.#calls.giveUp(lane);
  }

  #release(): void {
    if (this.#stopped) return;
    this.#sections.release();
    if (this.#completing && this.#sections.empty) {
      this.stop();
      this.#subscriber.complete();
    }
  }
}

/**
 * FNV-1a, mixed once more so that its remainder is even too. Not the hash by which Kafka's clients choose
 * partitions: the keys of one partition agree in that one's remainder, and would crowd into few slots.
 */
function hashOf(key: Buffer): number {
  let hash = 0x811c9dc5;
  for (const byte of key) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  return (hash ^ (hash >>> 15)) >>> 0;
}
