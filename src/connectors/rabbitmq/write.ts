import type { Failure } from "../../component/failure.ts";
import type { EncodedPayload } from "../../component/payloads.ts";
import type { Refusal } from "../../component/sink.ts";
import { Batch } from "../../message/batch.ts";
import { Outcome } from "../../message/outcome.ts";
import type { Headers } from "../../message/records.ts";
import type { Route } from "./routes.ts";

/**
 * One call of `write`: a batch on its way, unit by unit. A unit is what one publish carries: a message, or a
 * frame of several. Each is sent, perhaps again and again, and in the end delivered or refused, once.
 */
export class Write {
  readonly route: Route;
  readonly batch: Batch;
  readonly done: Promise<readonly Refusal[]>;
  /** False while it is being compressed: nothing after it may be sent either. */
  ready = true;
  readonly #refusals: Refusal[] = [];
  /** Undefined while every unit is a message as it is. */
  #encoded: EncodedPayload[] | undefined;
  /** Units to be sent before any further one, in the order of their messages. */
  readonly #again: number[] = [];
  #next = 0;
  #last: number;
  #open: number;
  #resolve!: (refusals: readonly Refusal[]) => void;
  #reject!: (reason: unknown) => void;

  constructor(route: Route, batch: Batch) {
    this.route = route;
    this.batch = batch;
    this.#last = batch.length;
    this.#open = batch.length;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** The units are these, in the order of their messages. */
  setEncoded(payloads: readonly EncodedPayload[]): void {
    this.#encoded = [...payloads];
    this.#last = payloads.length;
    this.#open = payloads.length;
  }

  /** The two halves of a frame, as batches to be encoded; undefined for a single message. */
  halvesOf(unit: number): readonly [Batch, Batch] | undefined {
    const { from, to } = this.#range(unit);
    if (to - from < 2) return undefined;
    const middle = (from + to) >> 1;
    return [this.#part(from, middle), this.#part(middle, to)];
  }

  /** Sends these instead of the frame: each is numbered from the frame's first message. */
  replace(unit: number, payloads: readonly EncodedPayload[]): void {
    const { from } = this.#range(unit);
    for (const payload of payloads) {
      this.#encoded!.push({ ...payload, from: payload.from + from, to: payload.to + from });
      this.sendAgain(this.#encoded!.length - 1);
    }
    this.#open += payloads.length - 1;
  }

  /** The unit to be sent next, or −1. */
  take(): number {
    if (this.#again.length > 0) return this.#again.shift()!;
    return this.#next < this.#last ? this.#next++ : -1;
  }

  sendAgain(unit: number): void {
    const last = this.#again.at(-1);
    this.#again.push(unit);
    if (last !== undefined && this.#range(last).from > this.#range(unit).from) {
      this.#again.sort((a, b) => this.#range(a).from - this.#range(b).from);
    }
  }

  payload(unit: number): Buffer | null {
    return this.#encoded === undefined ? this.batch.payload(unit) : this.#encoded[unit]!.payload;
  }

  headers(unit: number): Headers {
    return this.#encoded === undefined ? this.batch.headers(unit) : this.#encoded[unit]!.headers;
  }

  key(unit: number): Buffer | null {
    return this.#encoded === undefined ? this.batch.key(unit) : this.#encoded[unit]!.key;
  }

  timestamp(unit: number): number {
    return this.#encoded === undefined ? this.batch.timestamp(unit) : this.#encoded[unit]!.timestamp;
  }

  /** True when this was the last that was open. */
  delivered(unit: number): boolean {
    if (this.#encoded === undefined) this.batch.settle(unit, Outcome.delivered);
    else {
      const { from, to } = this.#encoded[unit]!;
      for (let entry = from; entry < to; entry++) this.batch.settle(entry, Outcome.delivered);
    }
    return this.#finish();
  }

  /** True when this was the last that was open. */
  refused(unit: number, failure: Failure): boolean {
    const { from, to } = this.#range(unit);
    for (let entry = from; entry < to; entry++) this.#refusals.push({ entry, failure });
    return this.#finish();
  }

  /** Gives up on what is not delivered: its messages stay unsettled. */
  abandon(reason: unknown): void {
    this.#reject(reason);
  }

  #range(unit: number): { readonly from: number; readonly to: number } {
    return this.#encoded === undefined ? { from: unit, to: unit + 1 } : this.#encoded[unit]!;
  }

  #part(from: number, to: number): Batch {
    const part = new Batch(this.batch.destination, this.batch.openedAt);
    part.codec = this.batch.codec;
    part.framing = this.batch.framing;
    for (let entry = from; entry < to; entry++) part.add(this.batch.chunk(entry), this.batch.index(entry));
    return part;
  }

  #finish(): boolean {
    if (--this.#open > 0) return false;
    this.#resolve(this.#refusals);
    return true;
  }
}
