import type { Subscriber } from "rxjs";
import type { Flowing } from "../component/operator.ts";
import { Chunk } from "../message/chunk.ts";
import type { AuthorCalls } from "./author-call.ts";
import { valuesOf } from "./value-column.ts";

/** A chunk whose calls are not all over, or a control that must not overtake the chunks before it. */
type Queued = { readonly chunk: Chunk; open: number; next: number } | { readonly control: Flowing };

/**
 * Keeps chunks and controls in the order they came, starts calls from the front, and lets go of the front when
 * its calls are over. A revoke overtakes: its lane's messages are returned already, and their calls are given up.
 */
export class OrderedCalls {
  readonly #calls: AuthorCalls;
  readonly #concurrency: number;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #queue: Queued[] = [];
  /** How many entries at the front have all their calls started: looking from the front each time would be quadratic. */
  #started = 0;
  #running = 0;
  #completing = false;
  #stopped = false;

  constructor(calls: AuthorCalls, concurrency: number, subscriber: Subscriber<Flowing>) {
    this.#calls = calls;
    this.#concurrency = concurrency;
    this.#subscriber = subscriber;
  }

  next(item: Flowing): void {
    if (this.#stopped) {
      // Whoever comes after still has to let go of the lane.
      if ("kind" in item && item.kind === "revoke") this.#subscriber.next(item);
      return;
    }
    if (item instanceof Chunk) {
      if (item.live === 0) return;
      valuesOf(item);
      item.changed = true;
      this.#queue.push({ chunk: item, open: item.live, next: 0 });
      this.#start();
      return;
    }
    if ("kind" in item && item.kind === "revoke") {
      this.#calls.giveUp(item.lane);
      this.#subscriber.next(item);
    } else this.#queue.push({ control: item });
    this.#release();
    this.#start();
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
    this.#queue.length = 0;
  }

  #start(): void {
    for (; this.#started < this.#queue.length; this.#started++) {
      const entry = this.#queue[this.#started]!;
      if (!("chunk" in entry) || entry.chunk.lane.ended) continue;
      while (entry.next < entry.chunk.length) {
        if (this.#running >= this.#concurrency) return;
        const index = entry.next++;
        if (entry.chunk.state[index] === 0) continue;
        this.#running++;
        this.#calls.make(entry.chunk, index).finally(() => {
          this.#running--;
          entry.open--;
          if (this.#stopped) return;
          this.#release();
          this.#start();
        });
      }
    }
  }

  /** Lets go of everything at the front that is over. */
  #release(): void {
    for (;;) {
      const first = this.#queue[0];
      if (first === undefined) break;
      // An ended lane's messages are returned already: nobody waits for their calls.
      if ("chunk" in first && first.open > 0 && !first.chunk.lane.ended) return;
      this.#queue.shift();
      if (this.#started > 0) this.#started--;
      if ("control" in first) this.#subscriber.next(first.control);
      else if (first.chunk.live > 0 && !first.chunk.lane.ended) this.#subscriber.next(first.chunk);
    }
    if (this.#completing && !this.#stopped) {
      this.stop();
      this.#subscriber.complete();
    }
  }
}
