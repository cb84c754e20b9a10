import { MillraceError } from "../../errors.ts";
import { AmqpError, ReplyCode } from "./driver.ts";

/**
 * The error as one that no further attempt mends unless somebody changes something (class application), or
 * undefined where time alone may mend it (class network).
 */
export function lastingError(error: unknown, address: string): MillraceError | undefined {
  if (error instanceof MillraceError) return error.class === "network" ? undefined : error;
  if (!(error instanceof AmqpError)) return undefined;
  switch (error.replyCode) {
    case ReplyCode.accessRefused:
      // Another consumer has the queue for itself: after a lost connection this may be we ourselves.
      if (isInUse(error)) return undefined;
      return new MillraceError("access-refused", `RabbitMQ at ${address} refuses access: ${error.message}`, {
        remedy: "check user, password and permissions",
        cause: error,
      });
    case ReplyCode.notAllowed:
      return new MillraceError("access-refused", `RabbitMQ at ${address} refuses access: ${error.message}`, {
        remedy: "check the vhost in the url, and the user's permissions there",
        cause: error,
      });
    default:
      return undefined;
  }
}

export function isInUse(error: unknown): boolean {
  return error instanceof AmqpError && /in exclusive use|exclusive access/.test(error.message);
}

export function isMissing(error: unknown): boolean {
  return error instanceof AmqpError && error.replyCode === ReplyCode.notFound;
}

export function isMismatch(error: unknown): boolean {
  return error instanceof AmqpError && error.replyCode === ReplyCode.preconditionFailed;
}

export const missingRemedy =
  "declare it in rabbitmq({ queues, exchanges }), or create it: millrace run --create …";

export function missingTarget(kind: "queue" | "exchange", name: string, address: string): MillraceError {
  return new MillraceError("target-missing", `${kind} "${name}" does not exist on ${address}`, {
    remedy: missingRemedy,
  });
}

/**
 * What differs, from the broker's own words: "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'jobs'
 * in vhost '/': received 'false' but current is 'true'".
 */
export function differenceOf(error: AmqpError): string {
  const told = /inequivalent arg '([^']*)'.*received (.*) but current is (.*)$/s.exec(error.message);
  if (told === null) return error.message;
  const [, argument, received, current] = told;
  return `"${argument}" is declared as ${plain(received!)} and is ${plain(current!)} on the broker`;
}

/** An argument that a queue has and its declaration has not, from the same words: "received none but current is …". */
export function missingSetting(
  error: AmqpError,
): { readonly name: string; readonly value: string | number } | undefined {
  const told =
    /inequivalent arg '([^']*)'.*received none but current is the value '([^']*)'(?: of type '([^']*)')?/s.exec(
      error.message,
    );
  if (told === null) return undefined;
  const [, name, value, type] = told;
  return { name: name!, value: type === "longstr" || Number.isNaN(Number(value)) ? value! : Number(value) };
}

/** RabbitMQ's "none" or "the value '4' of type 'signedint'". */
function plain(value: string): string {
  if (value.startsWith("none")) return "not set";
  return /^(?:the value )?'([^']*)'/.exec(value)?.[1] ?? value;
}
