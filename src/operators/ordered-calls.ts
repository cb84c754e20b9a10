import type { Subscriber } from "rxjs";
import type { Flowing } from "../component/operator.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import type { AuthorCalls } from "./author-call.ts";
import { type Section, Sections } from "./sections.ts";
import { valuesOf } from "./value-column.ts";

/** A chunk whose calls are not all over. */
interface Entry {
  readonly chunk: Chunk;
  readonly section: Section;
  /** Calls that are not over. */
  open: number;
  /** Index of the message that is called for next. */
  next: number;
}

/** The chunks of one lane, in their order. */
interface Queue {
  readonly entries: Entry[];
  /** How many entries at the front have all their calls started: looking from the front each time would be quadratic. */
  started: number;
}

/**
 * Keeps the chunks of each lane in the order they came, and lets go of a lane's front when its calls are over. So a
 * slow call holds up its own lane and no other. Lanes that have calls to start take turns at it, one call each. A
 * control stays in its place; a revoke overtakes: its lane's messages are returned already, and their calls are
 * given up.
 */
export class OrderedCalls {
  readonly #calls: AuthorCalls;
  readonly #concurrency: number;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #sections: Sections;
  readonly #lanes = new Map<Lane, Queue>();
  /** Those with calls to start; whose turn it is comes first. */
  readonly #waiting = new Set<Queue>();
  #running = 0;
  #completing = false;
  #stopped = false;

  constructor(calls: AuthorCalls, concurrency: number, subscriber: Subscriber<Flowing>) {
    this.#calls = calls;
    this.#concurrency = concurrency;
    this.#subscriber = subscriber;
    this.#sections = new Sections((item) => {
      if (!this.#stopped) subscriber.next(item);
    });
  }

  next(item: Flowing): void {
    if (item instanceof Chunk) this.#take(item);
    else if ("kind" in item && item.kind === "revoke") {
      if (!this.#stopped) this.#drop(item.lane);
      // Also after a stop: whoever comes after still has to let go of the lane.
      this.#subscriber.next(item);
      this.#release();
      this.#start();
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
    this.#lanes.clear();
    this.#waiting.clear();
    this.#sections.clear();
  }

  #take(chunk: Chunk): void {
    if (this.#stopped || chunk.live === 0) return;
    valuesOf(chunk);
    chunk.changed = true;
    let queue = this.#lanes.get(chunk.lane);
    if (queue === undefined) {
      queue = { entries: [], started: 0 };
      this.#lanes.set(chunk.lane, queue);
    }
    queue.entries.push({ chunk, section: this.#sections.enter(), open: chunk.live, next: 0 });
    this.#waiting.add(queue);
    this.#start();
  }

  #start(): void {
    for (const queue of this.#waiting) {
      if (this.#running >= this.#concurrency) return;
      this.#waiting.delete(queue);
      // Behind the others, for its next turn; a set that grows while it is gone through shows what is added.
      if (this.#startOne(queue)) this.#waiting.add(queue);
    }
  }

  /** Starts the next call of a lane; false when there is none. */
  #startOne(queue: Queue): boolean {
    for (; queue.started < queue.entries.length; queue.started++) {
      const entry = queue.entries[queue.started]!;
      while (entry.next < entry.chunk.length) {
        const index = entry.next++;
        if (entry.chunk.state[index] === 0) continue;
        this.#running++;
        this.#calls.make(entry.chunk, index).finally(() => {
          this.#running--;
          entry.open--;
          if (this.#stopped) return;
          this.#letGo(queue);
          this.#release();
          this.#start();
        });
        return true;
      }
    }
    return false;
  }

  /** Lets go of everything at a lane's front that is over. */
  #letGo(queue: Queue): void {
    for (let first = queue.entries[0]; first !== undefined && first.open === 0; first = queue.entries[0]) {
      queue.entries.shift();
      if (queue.started > 0) queue.started--;
      if (queue.entries.length === 0) this.#lanes.delete(first.chunk.lane);
      this.#sections.leave(first.section, first.chunk);
    }
  }

  /** Lets go of a lane whose epoch is over, and gives up its calls. */
  #drop(lane: Lane): void {
    const queue = this.#lanes.get(lane);
    this.#lanes.delete(lane);
    if (queue !== undefined) {
      this.#waiting.delete(queue);
      for (const { section } of queue.entries.splice(0)) this.#sections.drop(section);
      queue.started = 0;
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
