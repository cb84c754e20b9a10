import { type Observable, Subject } from "rxjs";
import type { Failure } from "../component/failure.ts";
import type { Flowing, Operator, OperatorContext, Window } from "../component/operator.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { Lane, type LaneOptions } from "../message/lane.ts";
import { Outcome, type OutcomeName, outcomeNames } from "../message/outcome.ts";
import { type Headers, type PlainRecord, PlainRecords } from "../message/records.ts";
import { type TestContext, testContext } from "./context.ts";

export interface BedOptions {
  readonly seed?: number;
  /** Default: a fresh one with chance from `seed`. */
  readonly context?: TestContext;
  readonly destinationOf?: (chunk: Chunk, index: number) => Destination;
  readonly lane?: Partial<LaneOptions>;
}

/** A message given to an operator under test; what is left out is null, empty or now. */
export type GivenMessage = Partial<Omit<PlainRecord, "position" | "value">> & {
  readonly value: Buffer | string | null;
};

/**
 * One operator on the bench, or several in a row: chunks go in, what comes out is kept, every message's outcome and every rejection
 * is known, and time is virtual. Several lanes may be open at once.
 */
export class OperatorBed {
  readonly context: TestContext & OperatorContext;
  readonly output: Flowing[] = [];
  readonly rejected: { readonly lane: Lane; readonly position: number; readonly failure: Failure }[] = [];
  readonly failures: Error[] = [];
  /** Outcome by "lane:position". */
  readonly outcomes = new Map<string, OutcomeName>();
  readonly windows = new Set<Window>();
  held = 0;
  waiting = 0;
  busy = 0;
  /** What the operator says its author's code keeps. */
  kept: () => number = () => 0;
  completed = false;
  readonly #input = new Subject<Flowing>();
  readonly #lanes = new Map<string, { lane: Lane; next: number }>();
  readonly #options: BedOptions;

  constructor(
    operators: Operator<never, unknown> | readonly Operator<never, unknown>[],
    options: BedOptions = {},
  ) {
    this.#options = options;
    const base = options.context ?? testContext(options.seed);
    this.context = {
      ...base,
      reject: (chunk, index, failure) => {
        this.rejected.push({ lane: chunk.lane, position: chunk.position(index), failure });
        chunk.settle(index, Outcome.deadLettered);
      },
      held: (_lane, count) => {
        this.held += count;
      },
      waiting: (_lane, count) => {
        this.waiting += count;
      },
      opened: (window) => this.windows.add(window),
      closed: (window) => this.windows.delete(window),
      destinationOf: options.destinationOf,
      bytesOnly: false,
      busy: () => {
        this.busy++;
        return () => {
          this.busy--;
        };
      },
      keeps: (count) => {
        this.kept = count;
      },
      fail: (error) => this.failures.push(error),
    };
    const row = [operators].flat() as readonly Operator<never, unknown>[];
    row
      .reduce<Observable<Flowing>>((stream, operator) => operator.build(this.context)(stream), this.#input)
      .subscribe({
        next: (item) => this.output.push(item),
        error: (error) => this.failures.push(error),
        complete: () => {
          this.completed = true;
        },
      });
  }

  /** The lane of that name, opened at first use. */
  lane(name = "t"): Lane {
    let entry = this.#lanes.get(name);
    if (entry === undefined || entry.lane.ended) {
      const lane: Lane = new Lane({
        origin: { source: "bed", target: name },
        epoch: 1,
        ack: "cumulative",
        ...this.#options.lane,
        ledger: {
          taken: () => {},
          settled: () => {},
          branched: () => {},
        },
      });
      const settle = lane.settle.bind(lane);
      const positions = entry?.next ?? 0;
      lane.settle = (sequence, outcome) => {
        if (!lane.ended) {
          const id = `${name}:${positions + sequence}`;
          if (!this.outcomes.has(id)) this.outcomes.set(id, outcomeNames[outcome] as OutcomeName);
        }
        settle(sequence, outcome);
      };
      entry = { lane, next: positions };
      this.#lanes.set(name, entry);
    }
    return entry.lane;
  }

  /** Sends messages in as one chunk of a lane; returns the chunk. */
  send(messages: readonly GivenMessage[], laneName = "t"): Chunk {
    const lane = this.lane(laneName);
    const entry = this.#lanes.get(laneName)!;
    const records = new PlainRecords(
      messages.map((message, i) => ({
        key: message.key ?? null,
        value: typeof message.value === "string" ? Buffer.from(message.value) : message.value,
        headers: message.headers ?? [],
        timestamp: message.timestamp ?? this.context.clock.wall(),
        position: entry.next + i,
      })),
    );
    entry.next += messages.length;
    const chunk = new Chunk(lane, lane, lane.take(records, 0, messages.length), messages.length, records, 0);
    this.#input.next(chunk);
    return chunk;
  }

  /** Sends JSON values in as decoded messages: the column `decode` would have made. */
  sendValues(
    values: readonly unknown[],
    laneName = "t",
    keys: readonly (string | null | undefined)[] = [],
  ): Chunk {
    const lane = this.lane(laneName);
    const entry = this.#lanes.get(laneName)!;
    const records = new PlainRecords(
      values.map((value, i) => ({
        key: keys[i] === undefined || keys[i] === null ? null : Buffer.from(keys[i]),
        value: jsonBytes(value),
        headers: [],
        timestamp: this.context.clock.wall(),
        position: entry.next + i,
      })),
    );
    entry.next += values.length;
    const chunk = new Chunk(lane, lane, lane.take(records, 0, values.length), values.length, records, 0);
    chunk.values = [...values];
    this.#input.next(chunk);
    return chunk;
  }

  flush(): void {
    this.#input.next({ kind: "flush", cut: 0 });
  }

  /** Ends the lane's epoch and tells the operator. */
  revoke(laneName = "t"): void {
    const lane = this.lane(laneName);
    lane.end();
    this.#input.next({ kind: "revoke", lane });
  }

  complete(): void {
    this.#input.complete();
  }

  /** Messages that came out and still travel, in order: chunk messages and batch entries alike. */
  emitted(): {
    lane: string;
    position: number;
    key: string | null;
    value: unknown;
    payload: string | null;
    headers: Headers;
  }[] {
    const messages: ReturnType<OperatorBed["emitted"]> = [];
    const push = (chunk: Chunk, index: number) => {
      messages.push({
        lane: chunk.lane.origin.target,
        position: chunk.position(index),
        key: chunk.key(index)?.toString() ?? null,
        value: chunk.value(index),
        payload: chunk.payload(index)?.toString() ?? null,
        headers: chunk.headers(index),
      });
    };
    for (const item of this.output) {
      if (item instanceof Chunk) {
        for (let i = 0; i < item.length; i++) if (item.state[i] === 1) push(item, i);
      } else if (item instanceof Batch) {
        for (let entry = 0; entry < item.length; entry++) push(item.chunk(entry), item.index(entry));
      }
    }
    return messages;
  }

  /** Settles everything that came out and still travels, as a sink would; returns how many. */
  deliver(outcome: Outcome = Outcome.delivered): number {
    let count = 0;
    for (const item of this.output.splice(0)) {
      if (item instanceof Chunk) {
        for (let i = 0; i < item.length; i++) {
          if (item.state[i] === 0) continue;
          item.settle(i, outcome);
          count++;
        }
      } else if (item instanceof Batch) {
        count += item.length;
        item.settleAll(outcome);
      }
    }
    return count;
  }
}

/** What a sender would have sent for the value; no bytes where JSON has no form for it. */
function jsonBytes(value: unknown): Buffer | null {
  try {
    return Buffer.from(JSON.stringify(value) ?? "null");
  } catch {
    return null;
  }
}
