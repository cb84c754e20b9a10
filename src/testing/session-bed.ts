import type { Context } from "../component/context.ts";
import type { Refusal, SinkSession } from "../component/sink.ts";
import type { CreditOptions, SourceContext } from "../component/source.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Control } from "../message/control.ts";
import { Lane } from "../message/lane.ts";
import { Outcome, type OutcomeName, outcomeNames } from "../message/outcome.ts";
import { type PlainRecord, PlainRecords } from "../message/records.ts";
import { LaneIntake } from "../runtime/intake.ts";
import type { GivenMessage } from "./operator-bed.ts";

/** A message that a source under test has handed on, until it is settled. */
export interface Received {
  readonly chunk: Chunk;
  readonly index: number;
  readonly payload: string | null;
}

/**
 * A source session on the bench: behind it is the runtime's own intake, and in place of a pipeline a list of
 * what arrived, to be settled in any order.
 */
export class SourceBed {
  readonly context: SourceContext;
  readonly intake: LaneIntake;
  /** Arrived and not settled by the bed, in order; messages of ended lanes stay in it. */
  readonly open: Received[] = [];
  /** Everything that ever arrived. */
  readonly payloads: (string | null)[] = [];
  readonly controls: Control[] = [];
  failure: unknown;
  /** What the source is told of the sinks below it. */
  trouble: string | undefined;

  constructor(context: Context, credit: CreditOptions) {
    this.intake = new LaneIntake("source", credit, context.clock, () => {});
    this.context = { ...context, intake: this.intake, downstream: () => this.trouble };
    this.intake.stream.subscribe({
      next: (item) => {
        if (!(item instanceof Chunk)) {
          this.controls.push(item);
          return;
        }
        for (let index = 0; index < item.length; index++) {
          const payload = item.payload(index)?.toString() ?? null;
          this.open.push({ chunk: item, index, payload });
          this.payloads.push(payload);
        }
      },
      error: (error) => {
        this.failure = error;
      },
    });
  }

  /** Settles `count` of the open messages from place `from`; returns their payloads. */
  settle(
    from = 0,
    count = Number.POSITIVE_INFINITY,
    outcome: Outcome = Outcome.delivered,
  ): (string | null)[] {
    return this.open.splice(from, count).map(({ chunk, index, payload }) => {
      chunk.settle(index, outcome);
      return payload;
    });
  }

  /** Passes over what an ended lane left: it is returned and will come again. */
  forgetEnded(): void {
    const alive = this.open.filter(({ chunk }) => !chunk.lane.ended);
    this.open.splice(0, this.open.length, ...alive);
  }
}

/** What became of one batch given to a sink under test. */
export interface Written {
  /** By entry: an outcome, or "inFlight". */
  readonly outcomes: (OutcomeName | "inFlight")[];
  refusals: readonly Refusal[] | undefined;
  failure: unknown;
  readonly done: Promise<void>;
}

/** A sink session on the bench: messages are given to it in batches, and every outcome is known. */
export class SinkBed {
  readonly session: SinkSession;
  readonly #context: Context;

  constructor(context: Context, session: SinkSession) {
    this.#context = context;
    this.session = session;
  }

  /** Writes messages as one batch for each destination they have, in the order of the first message of each. */
  write(messages: readonly GivenMessage[], prepare: (batch: Batch) => void = () => {}): Written[] {
    const batches = new Map<Destination, { batch: Batch; written: Written }>();
    const chunk = chunkOf(messages, this.#context.clock.wall(), (index, outcome) => {
      for (const { batch, written } of batches.values()) {
        for (let entry = 0; entry < batch.length; entry++) {
          if (batch.index(entry) === index) written.outcomes[entry] = outcomeNames[outcome] as OutcomeName;
        }
      }
    });
    for (let index = 0; index < chunk.length; index++) {
      const destination = this.session.destinationOf(chunk, index);
      let entry = batches.get(destination);
      if (entry === undefined) {
        const batch = new Batch(destination, this.#context.clock.now());
        entry = {
          batch,
          written: { outcomes: [], refusals: undefined, failure: undefined, done: Promise.resolve() },
        };
        batches.set(destination, entry);
      }
      entry.batch.add(chunk, index);
      entry.written.outcomes.push("inFlight");
    }
    return [...batches.values()].map(({ batch, written }) => {
      prepare(batch);
      const done = this.session.write(batch).then(
        (refusals) => {
          written.refusals = refusals;
        },
        (error) => {
          written.failure = error;
        },
      );
      return Object.assign(written, { done });
    });
  }
}

function chunkOf(
  messages: readonly GivenMessage[],
  now: number,
  settled: (index: number, outcome: Outcome) => void,
): Chunk {
  const lane = new Lane({
    origin: { source: "bench", target: "bench" },
    epoch: 1,
    ack: "cumulative",
    ledger: { taken() {}, settled() {}, branched() {} },
  });
  const records = new PlainRecords(
    messages.map(
      (message, position): PlainRecord => ({
        position,
        key: message.key ?? null,
        value: typeof message.value === "string" ? Buffer.from(message.value) : message.value,
        headers: message.headers ?? [],
        timestamp: message.timestamp ?? now,
      }),
    ),
  );
  const first = lane.take(records, 0, records.length);
  return new Chunk(lane, { settle: settled }, first, records.length, records, 0);
}
