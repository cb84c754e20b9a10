import { Backoff } from "../component/backoff.ts";
import type { OperatorContext } from "../component/operator.ts";
import { classify, MillraceError, messageOf } from "../errors.ts";
import type { Chunk, Message } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { rejectThrown } from "./author-function.ts";

/** What an asynchronous function is given beside the value. */
export interface Call<A = unknown> {
  readonly message: Message<A>;
  /** Aborted when the time is up, when the message's lane is revoked, and when the run ends. */
  readonly signal: AbortSignal;
}

/** An author's asynchronous function of one message. */
export type AsyncOfMessage = (value: never, call: Call<never>) => unknown;

interface AuthorCallOptions {
  readonly to: AsyncOfMessage;
  /** Longest time for one attempt, ms. */
  readonly timeout: number;
  /** Attempts in all; trouble of class network uses up none. */
  readonly attempts: number;
  /** Upper bound of the first wait between attempts, ms. */
  readonly initial: number;
  /** Upper bound of any wait, ms. */
  readonly max: number;
}

/** Makes the calls of `mapAsync`, one message each with all its attempts. In what order is for others to say. */
export class AuthorCalls {
  readonly #options: AuthorCallOptions;
  readonly #context: OperatorContext;
  /** What gives up a call, with the lane of its message. */
  readonly #calls = new Map<AbortController, Lane>();
  /** Calls that wait because the other side is away. */
  #away = 0;

  constructor(options: AuthorCallOptions, context: OperatorContext) {
    this.#options = options;
    this.#context = context;
  }

  /**
   * Calls the function for message `index`, as often as it takes: sets the value or rejects the message. Does
   * neither when the call is given up. Never rejects itself. The chunk must have a column of values.
   */
  async make(chunk: Chunk, index: number): Promise<void> {
    const over = this.#context.busy();
    const call = new AbortController();
    this.#calls.set(call, chunk.lane);
    const { attempts } = this.#options;
    let backoff: Backoff | undefined;
    let away = false;
    for (let attempt = 1; ; attempt++) {
      try {
        const value = await this.#attempt(chunk, index, call.signal);
        if (value instanceof MillraceError) throw value;
        (chunk.values as unknown[])[index] = value;
        break;
      } catch (error) {
        if (call.signal.aborted || chunk.lane.ended) break;
        const network = classify(error, "author") === "network";
        if (network) {
          // Other people's trouble does not use up a message's attempts.
          attempt--;
          if (!away && this.#away++ === 0) {
            this.#context.logger.warn({ error: messageOf(error) }, "mapAsync waits for another system");
          }
          away = true;
        }
        if (!network && (attempt >= attempts || isFinal(error))) {
          this.#refuse(chunk, index, error);
          break;
        }
        this.#context.meter.count("author_retries_total");
        backoff ??= this.#backoff(call.signal);
        const goesOn = await backoff.wait().then(
          () => true,
          () => false,
        );
        if (!goesOn) break;
      }
    }
    if (away && --this.#away === 0) this.#context.logger.info({}, "mapAsync waits no longer");
    this.#calls.delete(call);
    over();
  }

  /** Gives up the calls for the lane's messages. */
  giveUp(lane: Lane): void {
    for (const [call, of] of this.#calls) if (of === lane) call.abort();
  }

  giveUpAll(): void {
    for (const call of this.#calls.keys()) call.abort();
  }

  #backoff(signal: AbortSignal): Backoff {
    const { initial, max } = this.#options;
    return new Backoff(
      { clock: this.#context.clock, random: this.#context.random, signal },
      { initial, max },
    );
  }

  #refuse(chunk: Chunk, index: number, error: unknown): void {
    if (error !== timedOut) {
      rejectThrown(this.#context, chunk, index, "the function of mapAsync", error);
      return;
    }
    this.#context.reject(chunk, index, {
      class: "application",
      code: "author-timeout",
      message: `the function of mapAsync took longer than ${this.#options.timeout} ms`,
    });
  }

  /** Calls the function once. Rejects when it does, when the time is up, and when the call is given up. */
  #attempt(chunk: Chunk, index: number, givenUp: AbortSignal): Promise<unknown> {
    const { to, timeout } = this.#options;
    const abort = new AbortController();
    return new Promise((resolve, reject) => {
      const end = (reason: unknown) => {
        timer.cancel();
        givenUp.removeEventListener("abort", giveUp);
        reject(reason);
        abort.abort(reason);
      };
      const giveUp = () => end(givenUp.reason);
      const timer = this.#context.clock.after(timeout, () => end(timedOut));
      givenUp.addEventListener("abort", giveUp, { once: true });
      const message = chunk.message(index) as Message<never>;
      // An async arrow, so that a function that throws before its first await fails like any other.
      (async () => to(message.value, { message, signal: abort.signal }))()
        .then(resolve, reject)
        .finally(() => {
          timer.cancel();
          givenUp.removeEventListener("abort", giveUp);
        });
    });
  }
}

const timedOut = new Error("the time is up");

/** Another attempt would change nothing: the message's own fault, or the process is unwell. */
function isFinal(error: unknown): boolean {
  const kind = classify(error, "author");
  return kind === "business" || kind === "system";
}
