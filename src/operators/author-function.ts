import type { OperatorContext } from "../component/operator.ts";
import { classify, MillraceError, messageOf } from "../errors.ts";
import type { Chunk, Message } from "../message/chunk.ts";

/** An author's function of one message: of its value, and of the rest of it where the function asks for that. */
export type OfMessage<T, R> = (value: T, message: Message<T>) => R;

/** The function, to be called by index. A {@link Message} is made only for one that has a second parameter. */
export function byIndex<T, R>(of: OfMessage<T, R>): (chunk: Chunk, index: number) => R {
  if (of.length === 1) {
    const ofValue = of as (value: T) => R;
    return (chunk, index) => ofValue(chunk.value(index) as T);
  }
  return (chunk, index) => of(chunk.value(index) as T, chunk.message(index) as Message<T>);
}

/** An author's error text goes into a dead letter's header: long ones are cut. */
const longestText = 400;

/**
 * What happens when an author's function throws on message `index`. The message is rejected as `author-error`,
 * or under the code of a {@link MillraceError} that blames the message itself. Where the process is unwell the
 * run stops instead, and the message stays unacknowledged.
 *
 * @param what names the function: "the predicate of filter".
 */
export function rejectThrown(
  context: OperatorContext,
  chunk: Chunk,
  index: number,
  what: string,
  error: unknown,
): void {
  if (classify(error, "author") === "system") {
    chunk.takeOut(index);
    context.fail(error instanceof Error ? error : new MillraceError("internal", messageOf(error)));
    return;
  }
  const text = textOfThrown(error);
  if (error instanceof MillraceError && error.class === "business") {
    context.reject(chunk, index, { class: "business", code: error.code, message: text });
    return;
  }
  context.reject(chunk, index, {
    class: "application",
    code: "author-error",
    message: `${what} threw ${text}`,
  });
}

/** The name and message of a thrown thing, on one line. */
function textOfThrown(error: unknown): string {
  const name = error instanceof Error && !(error instanceof MillraceError) ? `${error.name}: ` : "";
  const text = `${name}${messageOf(error)}`.replaceAll(/\s+/g, " ");
  return text.length > longestText ? `${text.slice(0, longestText)}…` : text;
}

/** Rejects message `index` because a function that must answer at once returned a promise. */
export function rejectPromise(
  context: OperatorContext,
  chunk: Chunk,
  index: number,
  what: string,
  advice: string,
  promise: PromiseLike<unknown>,
): void {
  disown(promise);
  context.reject(chunk, index, {
    class: "application",
    code: "author-error",
    message: `${what} returned a promise: ${advice}`,
  });
}

/** Keeps the rejection of a promise that nobody awaits from ending the process. Harmless with anything else. */
export function disown(value: unknown): void {
  if (isPromise(value)) value.then(undefined, () => {});
}

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"
  );
}
