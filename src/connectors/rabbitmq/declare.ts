import type { Requirement, Unmet } from "../../component/connection.ts";
import { MillraceError } from "../../errors.ts";
import type {
  AmqpChannel,
  AmqpConnection,
  AmqpError,
  ExchangeSettings,
  FieldValue,
  QueueSettings,
} from "./driver.ts";
import {
  differenceOf,
  isMismatch,
  isMissing,
  lastingError,
  missingRemedy,
  missingSetting,
  missingTarget,
} from "./errors.ts";
import type { Declarations } from "./options.ts";

/** What a missing queue is made as where nothing declares it: durable, and else as the vhost has it (classic). */
const defaultQueue: QueueSettings = { durable: true, arguments: {} };
const defaultExchange: ExchangeSettings = { type: "direct", durable: true, arguments: {} };

/**
 * Questions and orders to a broker that may fail without harm: whatever fails closes its channel, and the next
 * one gets a new channel.
 */
export class Administration {
  readonly #connection: AmqpConnection;
  #channel: AmqpChannel | undefined;

  constructor(connection: AmqpConnection) {
    this.#connection = connection;
  }

  async ask<T>(question: (channel: AmqpChannel) => Promise<T>): Promise<T> {
    // One that the broker has closed answers nothing: the next question gets a new one.
    this.#channel ??= await this.#connection.openChannel({ closed: () => {} });
    const channel = this.#channel;
    try {
      return await question(channel);
    } catch (error) {
      if (this.#channel === channel) this.#channel = undefined;
      throw error;
    }
  }

  async close(): Promise<void> {
    const channel = this.#channel;
    this.#channel = undefined;
    await channel?.close();
  }
}

/** Opens an administration, uses it, closes it. */
export async function administer<T>(
  connection: AmqpConnection,
  use: (administration: Administration) => Promise<T>,
): Promise<T> {
  const administration = new Administration(connection);
  try {
    return await use(administration);
  } finally {
    await administration.close();
  }
}

/**
 * Creates what is declared, where it is not there. Exchanges come first, since queues name them as dead-letter
 * exchanges, then queues, then bindings. Throws one {@link MillraceError} that names everything that differs
 * from its declaration or is missing, or whatever else went wrong.
 */
export async function declareAll(
  administration: Administration,
  { exchanges, queues, bindings }: Declarations,
  address: string,
): Promise<void> {
  const faults: MillraceError[] = [];
  const attempt = async (step: () => Promise<void>) => {
    try {
      await step();
    } catch (error) {
      const lasting = lastingError(error, address);
      if (lasting === undefined) throw error;
      faults.push(lasting);
    }
  };
  for (const [name, settings] of exchanges) {
    await attempt(() => declareExchange(administration, name, settings, address));
  }
  for (const [name, settings] of queues)
    await attempt(() => declareQueue(administration, name, settings, address));
  for (const { queue, exchange, key, arguments: table } of bindings) {
    await attempt(async () => {
      try {
        await administration.ask((channel) => channel.bindQueue(queue, exchange, key, table));
      } catch (error) {
        if (!isMissing(error)) throw error;
        const kind = /no exchange/.test((error as AmqpError).message) ? "exchange" : "queue";
        throw missingTarget(kind, kind === "queue" ? queue : exchange, address);
      }
    });
  }
  const [first] = faults;
  if (first === undefined) return;
  if (faults.length === 1) throw first;
  throw new MillraceError(first.code, faults.map((fault) => fault.message).join("; "), {
    ...(first.remedy === undefined ? {} : { remedy: first.remedy }),
  });
}

async function declareExchange(
  administration: Administration,
  name: string,
  settings: ExchangeSettings,
  address: string,
): Promise<void> {
  try {
    await administration.ask((channel) => channel.assertExchange(name, settings));
  } catch (error) {
    throw mismatch(error, "exchange", name, address);
  }
}

async function declareQueue(
  administration: Administration,
  name: string,
  settings: QueueSettings,
  address: string,
): Promise<void> {
  try {
    await administration.ask((channel) => channel.assertQueue(name, settings));
  } catch (error) {
    throw mismatch(error, "queue", name, address);
  }
}

/** No queue has more settings that could be told one by one. */
const mostSettings = 20;

/**
 * Whether a queue that is there is a stream. No answer tells its type; but declared again it must be as it is, and is
 * refused for what differs, one setting after another. False where this user may not declare, and it cannot be told.
 */
export async function isStream(administration: Administration, name: string): Promise<boolean> {
  const settings: Record<string, FieldValue> = { "x-queue-type": "stream" };
  for (let i = 0; i < mostSettings; i++) {
    try {
      await administration.ask((channel) =>
        channel.assertQueue(name, { durable: true, arguments: { ...settings } }),
      );
      return true;
    } catch (error) {
      const setting = isMismatch(error) ? missingSetting(error as AmqpError) : undefined;
      if (setting === undefined || setting.name in settings) return false;
      settings[setting.name] = setting.value;
    }
  }
  return false;
}

function mismatch(error: unknown, kind: string, name: string, address: string): unknown {
  if (!isMismatch(error)) return error;
  return new MillraceError(
    "target-mismatch",
    `${kind} "${name}" on ${address} is not as declared: ${differenceOf(error as AmqpError)}`,
    { remedy: `declare it as it is, or delete it on the broker`, cause: error },
  );
}

/** Which of the requirements the broker does not meet. What is declared may be missing: it is made at the start. */
export async function unmetRequirements(
  administration: Administration,
  declarations: Declarations,
  requirements: readonly Requirement[],
  address: string,
): Promise<readonly Unmet[]> {
  const unmet: Unmet[] = [];
  for (const requirement of requirements) {
    const { kind, name } = requirement;
    const problem = (error: MillraceError) =>
      unmet.push({
        requirement,
        problem: error.message,
        remedy: error.remedy ?? missingRemedy,
        code: error.code,
      });
    try {
      if (kind === "queue") {
        const declared = declarations.queues.get(name);
        if (!(await hasQueue(administration, name))) {
          if (declared === undefined) problem(missingTarget("queue", name, address));
        } else if (declared !== undefined) await declareQueue(administration, name, declared, address);
      } else if (kind === "exchange") {
        const declared = declarations.exchanges.get(name);
        if (!(await hasExchange(administration, name))) {
          if (declared === undefined) problem(missingTarget("exchange", name, address));
        } else if (declared !== undefined) await declareExchange(administration, name, declared, address);
      }
    } catch (error) {
      const lasting = lastingError(error, address);
      if (lasting === undefined) throw error;
      problem(lasting);
    }
  }
  return unmet;
}

/** Creates what is missing, as declared or by default; returns what it made. */
export async function createMissing(
  administration: Administration,
  declarations: Declarations,
  requirements: readonly Requirement[],
  address: string,
): Promise<readonly Requirement[]> {
  const made: Requirement[] = [];
  for (const requirement of requirements) {
    const { kind, name } = requirement;
    if (kind === "queue" && !(await hasQueue(administration, name))) {
      await declareQueue(administration, name, declarations.queues.get(name) ?? defaultQueue, address);
      made.push(requirement);
    } else if (kind === "exchange" && !(await hasExchange(administration, name))) {
      await declareExchange(
        administration,
        name,
        declarations.exchanges.get(name) ?? defaultExchange,
        address,
      );
      made.push(requirement);
    }
  }
  await declareAll(administration, declarations, address);
  return made;
}

export function hasQueue(administration: Administration, name: string): Promise<boolean> {
  return exists(administration.ask((channel) => channel.checkQueue(name)));
}

/** The default exchange, "", is always there and may not be asked for. */
export function hasExchange(administration: Administration, name: string): Promise<boolean> {
  return name === ""
    ? Promise.resolve(true)
    : exists(administration.ask((channel) => channel.checkExchange(name)));
}

async function exists(answer: Promise<unknown>): Promise<boolean> {
  try {
    await answer;
    return true;
  } catch (error) {
    // A queue that another connection declared exclusive is there, and locked.
    if (isMissing(error)) return false;
    throw error;
  }
}
