import { Observable, Subject } from "rxjs";
import { defineOperator } from "../component/define-operator.ts";
import type { Flowing, Operator } from "../component/operator.ts";
import type { OptionsSchema } from "../component/options.ts";
import { MillraceError, messageOf } from "../errors.ts";
import { Chunk, type Message } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";

/** A message on its way through a raw stage: what is emitted must be one of these, so that no outcome is lost. */
export interface StageMessage<T = unknown> extends Message<T> {
  /** The same message with another value. */
  with<B>(value: B): StageMessage<B>;
  /** Gives the message up: it is acknowledged and counted as filtered. */
  drop(): void;
}

type Stage = (messages: Observable<StageMessage<never>>) => Observable<StageMessage<unknown>>;

interface StageOptions {
  /** Turns the stream of messages into another, with any operators of RxJS. */
  readonly through: Stage;
}

const schema: OptionsSchema = {
  type: "object",
  properties: { through: { isFunction: true } },
  required: ["through"],
  additionalProperties: false,
};

export const stageDefinition = defineOperator<StageOptions>({
  type: "stage",
  summary: "Leads messages one by one through any RxJS operators.",
  guarantee:
    "Every message that comes out is one that came in, perhaps with another value; one that neither comes out nor is " +
    "dropped stays in flight, and is seen there. It costs a notification per message and operator, and order is what " +
    "the operators make of it. A flush does not reach into it, so what it keeps back must come out by itself: one " +
    "that waits for more messages than the source's credit waits for ever, and a drain waits with it. Times in it " +
    "are the machine's. An error or an early end of the stream stops the run, and nothing is acknowledged.",
  schema,
  examples: [
    {
      title: "RxJS as it is",
      code: "stage((messages) => messages.pipe(map((m) => m.with(m.value * 2))))",
      operator: () =>
        stage<number, number>(
          (messages) =>
            new Observable((subscriber) =>
              messages.subscribe({
                next: (message) => subscriber.next(message.with(message.value * 2)),
                complete: () => subscriber.complete(),
              }),
            ),
        ),
      given: [{ value: 1 }, { value: 2 }],
      expect: [{ value: 2 }, { value: 4 }],
    },
  ],
  effect: () => ({ takes: "any", leaves: "changed" }),
  rejects: false,
  build:
    ({ through }, context) =>
    (source) =>
      new Observable<Flowing>((subscriber) => {
        const input = new Subject<StageMessage<never>>();
        const inside = new Set<Fate>();
        context.keeps(() => {
          let count = 0;
          for (const { lane } of inside) if (!lane.ended) count++;
          return count;
        });
        let inputOver = false;
        const fail = (text: string, remedy: string, cause?: unknown) =>
          context.fail(new MillraceError("stage-broken", `${context.node}: ${text}`, { remedy, cause }));
        let output: Observable<StageMessage<unknown>>;
        try {
          output = through(input);
        } catch (error) {
          fail(`the stage threw ${messageOf(error)}`, "correct the function given to stage()", error);
          return undefined;
        }
        if (typeof (output as Partial<typeof output> | null | undefined)?.subscribe !== "function") {
          fail(
            "the stage returned no Observable",
            "return the stream it was given, led through operators: stage((messages) => messages.pipe(…))",
          );
          return undefined;
        }
        const stage = output.subscribe({
          next(message) {
            if (!(message instanceof Carried)) {
              fail(
                "the stage emitted something that is no message",
                "emit what you were given, or message.with(value)",
              );
              return;
            }
            const chunk = message.takeChunk();
            if (chunk === "again")
              fail(
                "the stage emitted a message that had left it",
                "let each message go on once, or drop it: one that is to become several goes through a fan-out",
              );
            else if (chunk !== undefined) subscriber.next(chunk);
          },
          error: (error) =>
            fail(
              `the stage failed: ${messageOf(error)}`,
              "catch the error in the stage, message by message",
              error,
            ),
          complete() {
            if (inputOver) subscriber.complete();
            else
              fail(
                "the stage completed before its input did",
                "leave out what ends a stream, such as take() or first(); drop the messages that are not wanted",
              );
          },
        });
        const subscription = source.subscribe({
          next(item) {
            if (!(item instanceof Chunk)) {
              if ("kind" in item && item.kind === "revoke")
                for (const fate of inside) if (fate.lane.ended) inside.delete(fate);
              subscriber.next(item);
              return;
            }
            for (let i = 0; i < item.length; i++) {
              if (item.state[i] === 0) continue;
              item.takeOut(i);
              const fate: Fate = { over: false, lane: item.lane, inside };
              inside.add(fate);
              input.next(new Carried<never>(item, i, item.value(i) as never, fate));
            }
          },
          error: (error) => subscriber.error(error),
          complete() {
            inputOver = true;
            input.complete();
          },
        });
        return () => {
          subscription.unsubscribe();
          stage.unsubscribe();
        };
      }),
});

/**
 * Leads messages through any RxJS operators: the most power, and the least help. Prefer `map`, `filter` and
 * `mapAsync`, which cannot lose an acknowledgement. A topology file's `rxjs` is this package's own, and need not be
 * installed beside it.
 */
export function stage<A, B>(
  through: (messages: Observable<StageMessage<A>>) => Observable<StageMessage<B>>,
): Operator<A, B> {
  return stageDefinition.place<A, B>({ through: through as unknown as Stage });
}

/** Whether a message has left the stage: shared by all that `with` made of it. */
interface Fate {
  over: boolean;
  readonly lane: Lane;
  /** Of all messages that have not left. */
  readonly inside: Set<Fate>;
}

/** False when it has left before. */
function leave(fate: Fate): boolean {
  if (fate.over) return false;
  fate.over = true;
  fate.inside.delete(fate);
  return true;
}

class Carried<T> implements StageMessage<T> {
  readonly value: T;
  readonly #chunk: Chunk;
  readonly #index: number;
  readonly #fate: Fate;

  constructor(chunk: Chunk, index: number, value: T, fate: Fate) {
    this.#chunk = chunk;
    this.#index = index;
    this.value = value;
    this.#fate = fate;
  }

  get key() {
    return this.#chunk.key(this.#index);
  }

  get headers() {
    return this.#chunk.headers(this.#index);
  }

  get timestamp() {
    return this.#chunk.timestamp(this.#index);
  }

  get origin() {
    return { ...this.#chunk.lane.origin, position: this.#chunk.position(this.#index) };
  }

  with<B>(value: B): StageMessage<B> {
    return new Carried(this.#chunk, this.#index, value, this.#fate);
  }

  drop(): void {
    if (!leave(this.#fate)) return;
    this.#chunk.settle(this.#index, Outcome.filtered);
  }

  /** A chunk of this message alone; undefined when its lane has ended; "again" when it has left before, or was dropped. */
  takeChunk(): Chunk | "again" | undefined {
    if (!leave(this.#fate)) return "again";
    if (this.#chunk.lane.ended) return undefined;
    const alone = this.#chunk.single(this.#index);
    alone.values = [this.value];
    alone.changed = true;
    return alone;
  }
}
