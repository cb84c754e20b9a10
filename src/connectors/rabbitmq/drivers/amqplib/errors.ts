import { messageOf } from "../../../../errors.ts";
import { AmqpError, ReplyCode } from "../../driver.ts";
import type { Broker } from "../../options.ts";

/** An error of amqplib's in the words of the port. The broker's own text is what people need. */
export function amqpError(error: unknown): AmqpError {
  if (error instanceof AmqpError) return error;
  const text = messageOf(error);
  // amqplib: `Operation failed: QueueDeclare; 404 (NOT-FOUND) with message "NOT_FOUND - no queue 'x' in vhost '/'"`
  const told = /(\d{3}) \([A-Z-]+\) with message "(.*)"/s.exec(text);
  if (told !== null) return new AmqpError(told[2]!, { replyCode: Number(told[1]), cause: error });
  const { code } = (error ?? {}) as { code?: unknown };
  return new AmqpError(text, { ...(typeof code === "number" ? { replyCode: code } : {}), cause: error });
}

/** What a failed connect means. */
export function connectError(error: unknown, broker: Broker): AmqpError {
  const text = messageOf(error);
  // The broker's reasons for not opening a vhost are not handed on by amqplib.
  if (/Expected ConnectionOpenOk; got <ConnectionClose/.test(text)) {
    return new AmqpError(
      `the vhost "${broker.vhost}" does not exist, or this user may not use it, or a limit is reached`,
      { replyCode: ReplyCode.notAllowed },
    );
  }
  if (/SASL mechanism \w+ is not provided/.test(text)) {
    return new AmqpError(text, { replyCode: ReplyCode.accessRefused, cause: error });
  }
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code === "string" && certificateFaults.test(code)) {
    return new AmqpError(`the broker's certificate is not accepted: ${text}`, {
      replyCode: ReplyCode.accessRefused,
      cause: error,
    });
  }
  return amqpError(error);
}

/** Codes of Node's and OpenSSL's that no further attempt will mend. */
const certificateFaults =
  /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET_ISSUER)|ERR_SSL_TLSV13_ALERT_CERTIFICATE|ENOENT)/;
