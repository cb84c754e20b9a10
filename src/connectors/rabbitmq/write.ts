import type { Failure } from "../../component/failure.ts";
import type { Refusal } from "../../component/sink.ts";
import type { Batch } from "../../message/batch.ts";
import { Outcome } from "../../message/outcome.ts";
import type { Headers } from "../../message/records.ts";
import type { Route } from "./routes.ts";

/** What is published for a batch: a payload for each message, or one for all of them. */
export interface Payloads {
  readonly payloads: readonly (Buffer | null)[];
  /** Of each payload. */
  readonly headers: readonly Headers[];
  /** One payload stands for the whole batch. */
  readonly framed: boolean;
}

/**
 * One call of `write`: a batch on its way, payload by payload. Each payload is sent, perhaps again and again,
 * and in the end delivered or refused, once.
 */
export class Write {
  readonly route: Route;
  /** Never rejects by itself: see {@link abandon}. */
  readonly done: Promise<readonly Refusal[]>;
  /** To be sent again before anything further, ascending. */
  readonly again: number[] = [];
  /** False while it is being compressed: nothing after it may be sent either. */
  ready = true;
  readonly #batch: Batch;
  readonly #refusals: Refusal[] = [];
  #encoded: Payloads | undefined;
  #next = 0;
  #open: number;
  #resolve!: (refusals: readonly Refusal[]) => void;
  #reject!: (reason: unknown) => void;

  constructor(route: Route, batch: Batch) {
    this.route = route;
    this.#batch = batch;
    this.#open = batch.length;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  encoded(payloads: Payloads): void {
    this.#encoded = payloads;
    this.#open = payloads.payloads.length;
    this.ready = true;
  }

  /** The payload to be sent next, or −1. */
  take(): number {
    if (this.again.length > 0) return this.again.shift()!;
    const count = this.#encoded?.payloads.length ?? this.#batch.length;
    return this.#next < count ? this.#next++ : -1;
  }

  payload(unit: number): Buffer | null {
    return this.#encoded === undefined ? this.#batch.payload(unit) : this.#encoded.payloads[unit]!;
  }

  headers(unit: number): Headers {
    return this.#encoded === undefined ? this.#batch.headers(unit) : this.#encoded.headers[unit]!;
  }

  /** A frame has no key: it stands for messages of many. */
  key(unit: number): Buffer | null {
    return this.#encoded?.framed === true ? null : this.#batch.key(unit);
  }

  timestamp(unit: number): number {
    return this.#batch.timestamp(unit);
  }

  delivered(unit: number): boolean {
    if (this.#encoded?.framed === true) this.#batch.settleAll(Outcome.delivered);
    else this.#batch.settle(unit, Outcome.delivered);
    return this.#finish();
  }

  refused(unit: number, failure: Failure): boolean {
    if (this.#encoded?.framed === true) {
      for (let entry = 0; entry < this.#batch.length; entry++) this.#refusals.push({ entry, failure });
    } else this.#refusals.push({ entry: unit, failure });
    return this.#finish();
  }

  /** Gives up on what is not delivered: its messages stay unsettled. */
  abandon(reason: unknown): void {
    this.#reject(reason);
  }

  /** True when this was the last. */
  #finish(): boolean {
    if (--this.#open > 0) return false;
    this.#resolve(this.#refusals);
    return true;
  }
}
