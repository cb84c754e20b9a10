import type { Clock, Time } from "../../../../component/context.ts";
import { DriverError } from "../../driver.ts";
import type { Faults } from "./faults.ts";

/** What a request asks of the broker. */
export type Api = "metadata" | "produce" | "fetch" | "join" | "heartbeat" | "leave" | "commit" | "committed";

/** How the broker answers one request: once, now or on a later turn. */
export interface Answer<T> {
  result(result: T): void;
  fail(error: DriverError): void;
}

/**
 * One connection between a client and the embedded cluster. A request arrives on a later turn of the event loop
 * and its answer on a later one still, in the order of sending, and either may be lost.
 */
export class Connection {
  /** The node that opened it, for faults that pick one client. */
  readonly client: string;
  readonly #clock: Clock;
  readonly #faults: Faults;
  #downUntil: Time;
  #killed = false;
  #closed = false;
  #lastArrival: Time = Number.NEGATIVE_INFINITY;
  #lastAnswer: Time = Number.NEGATIVE_INFINITY;
  /** Requests without an answer yet; each entry gives its request up. */
  readonly #open = new Set<(error: DriverError) => void>();

  constructor(client: string, clock: Clock, faults: Faults) {
    this.client = client;
    this.#clock = clock;
    this.#faults = faults;
    this.#downUntil = faults.downUntil;
  }

  /** Breaks the connection: what is under way is of unknown outcome. It cannot be made again before `until`. */
  cut(until: Time): void {
    this.#downUntil = Math.max(this.#downUntil, until);
    for (const giveUp of [...this.#open]) giveUp(new DriverError("retry", "the connection was lost"));
  }

  /** Gives up what is under way; later requests fail. */
  close(): void {
    this.#closed = true;
    for (const giveUp of [...this.#open]) giveUp(new DriverError("retry", "the client was closed"));
  }

  /** Nothing arrives or is answered ever again: the client's process is gone. */
  kill(): void {
    this.#killed = true;
    this.#open.clear();
  }

  /** Sends a request. `apply` runs at the broker, on arrival; `done` gets its answer, or why there is none. */
  call<T>(api: Api, apply: (answer: Answer<T>) => void, done: Answer<T>): void {
    if (this.#killed) return;
    const giveUp = (error: DriverError) => {
      this.#open.delete(giveUp);
      this.#clock.defer(() => {
        if (!this.#killed) done.fail(error);
      });
    };
    if (this.#closed) {
      giveUp(new DriverError("retry", "the client was closed"));
      return;
    }
    this.#open.add(giveUp);
    this.#lastArrival = this.#carry(this.#lastArrival, () => {
      if (!this.#open.has(giveUp)) return;
      if (this.#clock.now() < this.#downUntil) return giveUp(new DriverError("retry", "no connection"));
      if (this.#faults.ignores(api, this)) return;
      const fate = this.#faults.fateOf(api);
      if (fate === "dropRequest") return giveUp(new DriverError("retry", `the ${api} request was lost`));
      let answered = false;
      const respond = (run: () => void) => {
        if (answered) return;
        answered = true;
        this.#lastAnswer = this.#carry(this.#lastAnswer, () => {
          if (!this.#open.has(giveUp)) return;
          if (fate === "dropResponse") return giveUp(new DriverError("retry", `the ${api} answer was lost`));
          this.#open.delete(giveUp);
          run();
        });
      };
      const answer: Answer<T> = {
        result: (result) => respond(() => done.result(result)),
        fail: (error) => respond(() => done.fail(error)),
      };
      if (fate instanceof DriverError) return answer.fail(fate);
      try {
        apply(answer);
      } catch (error) {
        if (!(error instanceof DriverError)) throw error;
        answer.fail(error);
      }
    });
  }

  /** Sends a request that the broker answers at once. */
  ask<T>(api: Api, apply: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.call<T>(api, (answer) => answer.result(apply()), { result: resolve, fail: reject });
    });
  }

  /** Runs on a later turn, or after the network's delay, and never before what was carried earlier. */
  #carry(last: Time, run: () => void): Time {
    const now = this.#clock.now();
    const at = Math.max(now + this.#faults.latency, last);
    if (at > now) this.#clock.after(at - now, run);
    else this.#clock.defer(run);
    return at;
  }
}
