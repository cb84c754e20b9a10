import { inspect } from "node:util";

const hidden = "***";

/**
 * Text that must not be printed: a password, a token. Logs, errors, JSON, drawings and `console.log` show
 * `***`; only a driver asks for the text itself.
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text itself. Hand it to a client library and to nothing else. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return hidden;
  }

  toJSON(): string {
    return hidden;
  }

  [inspect.custom](): string {
    return hidden;
  }
}

/**
 * Marks text as a secret.
 *
 * @example kafka({ brokers, sasl: { mechanism: "scram-sha-512", username: "etl", password: secret(env("KAFKA_PASSWORD")) } })
 */
export function secret(text: string): Secret {
  return new Secret(text);
}

/** The text of an option that may be given plainly or as a secret. */
export function reveal(text: string | Secret): string {
  return text instanceof Secret ? text.reveal() : text;
}
