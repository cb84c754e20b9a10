import type { Clock } from "../component/context.ts";
import type { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";

interface Entry {
  readonly chunk: Chunk;
  readonly index: number;
}

/** What is at the gate of one lane. */
interface Queue {
  /** By position: the parts of one message in the order they came. */
  readonly entries: Map<number, Entry[]>;
  /** How many there are in all. */
  count: number;
  /** One of them is on its way through. */
  open: boolean;
}

export interface LaneGateHooks {
  /** Writes a message; resolves when it is settled, or has gone to the dead letters. Never rejects. */
  write(chunk: Chunk, index: number): Promise<void>;
  /** As in the operator's context. */
  waiting(lane: Lane, count: number): void;
}

/**
 * Lets the messages of a lane through to a sink one at a time, each when all before it in its lane are settled: when
 * the checkpoint stands at it. So after one that fails nothing is written, and what may be acknowledged upstream is
 * all that comes before it, until its dead letter is acknowledged, or the run ends.
 *
 * What is at the gate waits for others' outcomes, and is counted so. Nothing waits for itself that way: the compiler
 * sees to it that messages come to a dedup by one way and in their lane's order, so that a twin waits for one that came
 * there before it, as a message at the gate does.
 */
export class LaneGate {
  readonly #clock: Clock;
  readonly #hooks: LaneGateHooks;
  readonly #queues = new Map<Lane, Queue>();

  constructor(clock: Clock, hooks: LaneGateHooks) {
    this.#clock = clock;
    this.#hooks = hooks;
  }

  /** Takes a message out of its chunk. Its write may begin at once, so this is not for use inside of a settlement. */
  add(chunk: Chunk, index: number): void {
    const { lane } = chunk;
    chunk.takeOut(index);
    if (lane.ended) return;
    const queue = this.#queues.get(lane) ?? this.#open(lane);
    const position = chunk.position(index);
    const parts = queue.entries.get(position);
    if (parts === undefined) queue.entries.set(position, [{ chunk, index }]);
    else parts.push({ chunk, index });
    queue.count++;
    this.#hooks.waiting(lane, 1);
    this.#next(lane, queue)?.();
  }

  /** The lane has ended: what is at its gate is `returned` already. */
  drop(lane: Lane): void {
    const queue = this.#queues.get(lane);
    if (queue === undefined) return;
    this.#queues.delete(lane);
    lane.onHead = undefined;
    if (queue.count > 0) this.#hooks.waiting(lane, -queue.count);
  }

  #open(lane: Lane): Queue {
    const queue: Queue = { entries: new Map(), count: 0, open: false };
    this.#queues.set(lane, queue);
    // In the middle of a settlement: what comes through no longer waits, and goes on a later turn.
    lane.onHead = () => {
      const go = this.#next(lane, queue);
      if (go !== undefined) this.#clock.defer(go);
    };
    return queue;
  }

  /** Takes the message that may go now from the queue; undefined when none may. */
  #next(lane: Lane, queue: Queue): (() => void) | undefined {
    if (queue.open || lane.ended) return undefined;
    const parts = queue.entries.get(lane.checkpoint);
    if (parts === undefined) return undefined;
    const { chunk, index } = parts.shift()!;
    if (parts.length === 0) queue.entries.delete(lane.checkpoint);
    queue.open = true;
    queue.count--;
    this.#hooks.waiting(lane, -1);
    return () => {
      this.#hooks.write(chunk, index).then(() => {
        queue.open = false;
        this.#next(lane, queue)?.();
      });
    };
  }
}
