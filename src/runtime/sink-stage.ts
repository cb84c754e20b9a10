import type { Context } from "../component/context.ts";
import type { Failure } from "../component/failure.ts";
import type { Flowing } from "../component/operator.ts";
import type { Refusal, SinkSession } from "../component/sink.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { auditEvent } from "./audit-event.ts";
import { ownChunk } from "./dead-letter.ts";
import { LaneGate } from "./lane-gate.ts";

/** Most messages and bytes in one write where no `batch` step decides. */
const gatherCount = 1_000;
const gatherBytes = 2 ** 20;

/** An opened sink and where its audit events go. */
export interface SinkTarget {
  readonly name: string;
  readonly session: SinkSession;
  readonly audit: SinkSession | undefined;
  /** After a message that fails nothing of its lane is written before it is settled. */
  readonly stopAtFirst: boolean;
}

export interface SinkStageHooks {
  /** Sends a refused message to the dead letters. */
  refuse(chunk: Chunk, index: number, failure: Failure): void;
  fail(error: Error): void;
  /** As in the operator's context. */
  waiting(lane: Lane, count: number): void;
}

/**
 * The end of a path: hands batches to the sink session. Messages that come without a `batch` step are gathered
 * per destination: what comes while as much is out as may overlap goes together, and nothing is delayed.
 *
 * With `stopAtFirst` they go one by one, as the {@link LaneGate} lets them.
 *
 * With an audit sink, a batch's messages settle only after the event about it is acknowledged too, so that no
 * written batch goes unrecorded.
 */
export class SinkStage {
  readonly #context: Context;
  readonly #target: SinkTarget;
  readonly #hooks: SinkStageHooks;
  readonly #gathering = new Map<Destination, Batch[]>();
  /** Messages gathered, written and not yet done with; no entry for none. */
  readonly #out = new Map<Destination, number>();
  readonly #overlap: number;
  readonly #gate: LaneGate | undefined;
  #scheduled = false;
  #writing = 0;
  #written = 0;
  #batches = 0;

  constructor(context: Context, target: SinkTarget, hooks: SinkStageHooks) {
    this.#context = context;
    this.#target = target;
    this.#hooks = hooks;
    // An event is written for every write: fewer, larger ones are wanted then.
    this.#overlap = target.audit === undefined ? (target.session.overlap ?? 0) : 0;
    if (target.stopAtFirst) {
      this.#gate = new LaneGate(context.clock, {
        write: (chunk, index) => this.#writeOne(chunk, index),
        waiting: (lane, count) => hooks.waiting(lane, count),
      });
    }
  }

  /** Batches under way. */
  get writing(): number {
    return this.#writing;
  }

  /** Messages acknowledged. */
  get written(): number {
    return this.#written;
  }

  get batches(): number {
    return this.#batches;
  }

  next(item: Flowing): void {
    if (item instanceof Batch) this.#write(item);
    else if (item instanceof Chunk) {
      if (this.#gate === undefined) this.#gather(item);
      else for (let i = 0; i < item.length; i++) if (item.state[i] !== 0) this.#gate.add(item, i);
    } else if (item.kind === "revoke") {
      this.#gate?.drop(item.lane);
      this.#drop((chunk) => chunk.lane === item.lane);
    }
  }

  #writeOne(chunk: Chunk, index: number): Promise<void> {
    const batch = this.#batchFor(this.#target.session.destinationOf(chunk, index), chunk);
    batch.add(chunk, index);
    return this.#write(batch);
  }

  #batchFor(destination: Destination, { codec, framing }: Chunk): Batch {
    const batch = new Batch(destination, this.#context.clock.now());
    batch.codec = codec;
    batch.framing = framing;
    return batch;
  }

  #gather(chunk: Chunk): void {
    const { session } = this.#target;
    for (let i = 0; i < chunk.length; i++) {
      if (chunk.state[i] === 0) continue;
      const destination = session.destinationOf(chunk, i);
      let queue = this.#gathering.get(destination);
      if (queue === undefined) {
        queue = [];
        this.#gathering.set(destination, queue);
      }
      let batch = queue.at(-1);
      if (
        batch === undefined ||
        batch.length >= gatherCount ||
        batch.bytes + chunk.payloadSize(i) > gatherBytes ||
        batch.codec !== chunk.codec ||
        batch.framing !== chunk.framing
      ) {
        batch = this.#batchFor(destination, chunk);
        queue.push(batch);
      }
      batch.add(chunk, i);
      if (session.bytesOnly === true) chunk.forgetValue(i);
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#context.clock.defer(() => {
      this.#scheduled = false;
      for (const destination of [...this.#gathering.keys()]) this.#writeGathered(destination);
    });
  }

  #writeGathered(destination: Destination): void {
    const queue = this.#gathering.get(destination);
    if (queue === undefined) return;
    while (queue.length > 0) {
      const out = this.#out.get(destination) ?? 0;
      if (out > 0 && out >= this.#overlap) return;
      const batch = queue.shift()!;
      const { length } = batch;
      this.#out.set(destination, out + length);
      this.#write(batch).then(() => {
        const left = this.#out.get(destination)! - length;
        if (left > 0) this.#out.set(destination, left);
        else this.#out.delete(destination);
        this.#writeGathered(destination);
      });
    }
    this.#gathering.delete(destination);
  }

  async #write(batch: Batch): Promise<void> {
    const { session, audit } = this.#target;
    batch.drop((chunk) => chunk.lane.ended);
    if (batch.length === 0) return;
    this.#writing++;
    if (audit !== undefined) batch.defer();
    try {
      const refusals = await session.write(batch);
      this.#batches++;
      this.#written += batch.length - refusals.length - batch.lost;
      if (audit !== undefined) {
        await this.#report(audit, batch, refusals);
        batch.release();
      }
      for (const { entry, failure } of refusals)
        this.#hooks.refuse(batch.chunk(entry), batch.index(entry), failure);
    } catch (error) {
      this.#hooks.fail(error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.#writing--;
    }
  }

  async #report(audit: SinkSession, batch: Batch, refused: readonly Refusal[]): Promise<void> {
    const now = this.#context.clock.wall();
    const event = auditEvent(this.#target.name, batch, refused, now);
    const chunk = ownChunk("audit", [
      { position: 0, key: null, value: Buffer.from(JSON.stringify(event)), headers: [], timestamp: now },
    ]);
    const report = new Batch(audit.destinationOf(chunk, 0), this.#context.clock.now());
    report.add(chunk, 0);
    const refusals = await audit.write(report);
    if (refusals.length > 0) throw new Error(`the audit event is refused: ${refusals[0]!.failure.message}`);
  }

  #drop(gone: (chunk: Chunk) => boolean): void {
    for (const queue of this.#gathering.values()) for (const batch of queue) batch.drop(gone);
  }
}
