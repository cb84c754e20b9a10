import type { Context } from "../component/context.ts";
import type { Failure } from "../component/failure.ts";
import type { Flowing } from "../component/operator.ts";
import type { Refusal, SinkSession } from "../component/sink.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { auditEvent } from "./audit-event.ts";
import { ownChunk } from "./dead-letter.ts";

/** Most messages and bytes in one write where no `batch` step decides. */
const gatherCount = 1_000;
const gatherBytes = 2 ** 20;

/** An opened sink and where its audit events go. */
export interface SinkTarget {
  readonly name: string;
  readonly session: SinkSession;
  readonly audit: SinkSession | undefined;
}

export interface SinkStageHooks {
  /** Sends a refused message to the dead letters. */
  refuse(chunk: Chunk, index: number, failure: Failure): void;
  fail(error: Error): void;
}

/**
 * The end of a path: hands batches to the sink session. Messages that come without a `batch` step are gathered
 * per destination: what comes while the previous write is out goes together, and nothing is delayed.
 *
 * With an audit sink, a batch's messages settle only after the event about it is acknowledged too, so that no
 * written batch goes unrecorded.
 */
export class SinkStage {
  readonly #context: Context;
  readonly #target: SinkTarget;
  readonly #hooks: SinkStageHooks;
  readonly #gathering = new Map<Destination, Batch[]>();
  readonly #busy = new Set<Destination>();
  #scheduled = false;
  #writing = 0;
  #written = 0;
  #batches = 0;

  constructor(context: Context, target: SinkTarget, hooks: SinkStageHooks) {
    this.#context = context;
    this.#target = target;
    this.#hooks = hooks;
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
    else if (item instanceof Chunk) this.#gather(item);
    else if (item.kind === "revoke") this.#drop((chunk) => chunk.lane === item.lane);
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
        batch = new Batch(destination, this.#context.clock.now());
        batch.codec = chunk.codec;
        batch.framing = chunk.framing;
        queue.push(batch);
      }
      batch.add(chunk, i);
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#context.clock.defer(() => {
      this.#scheduled = false;
      for (const destination of [...this.#gathering.keys()]) this.#writeNext(destination);
    });
  }

  #writeNext(destination: Destination): void {
    if (this.#busy.has(destination)) return;
    const queue = this.#gathering.get(destination);
    const batch = queue?.shift();
    if (batch === undefined) {
      this.#gathering.delete(destination);
      return;
    }
    this.#busy.add(destination);
    this.#write(batch).then(() => {
      this.#busy.delete(destination);
      this.#writeNext(destination);
    });
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
      this.#written += batch.length - refusals.length;
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
