import { Backoff } from "../component/backoff.ts";
import type { Connection, Requirement, Unmet } from "../component/connection.ts";
import type { Context } from "../component/context.ts";
import { MillraceError, messageOf } from "../errors.ts";
import type { Plan } from "../topology/plan.ts";

/** Wrong credentials are tried again so often: a broker may learn of an account a moment late. */
const accessAttempts = 3;

export interface MeetOptions {
  /** Creates what is missing; what is embedded is always created. */
  readonly create: boolean;
  /** Waits for a broker that is away instead of giving up at once. */
  readonly wait: boolean;
  /** The context of a connection. */
  contextFor(connection: Connection): Context;
  /** Told before each further attempt why it is needed. */
  onWait?(reason: string): void;
}

/** Sees to it that all a plan needs is there; returns what is not. Rejects when a broker refuses or cannot be asked. */
export async function meetRequirements(
  plans: readonly Pick<Plan, "connections">[],
  options: MeetOptions,
): Promise<readonly Unmet[]> {
  const unmet: Unmet[] = [];
  for (const { connection, requirements } of plans.flatMap((plan) => plan.connections)) {
    unmet.push(...(await meet(connection, requirements, options)));
  }
  return unmet;
}

async function meet(
  connection: Connection,
  requirements: readonly Requirement[],
  { create, wait, contextFor, onWait }: MeetOptions,
): Promise<readonly Unmet[]> {
  const context = contextFor(connection);
  const { logger } = context;
  const backoff = new Backoff(context, { initial: 500, max: 10_000 });
  for (;;) {
    try {
      if (create || connection.embedded(context) !== undefined) {
        for (const { kind, name } of await connection.create(context, requirements)) {
          if (create) logger.info({ node: context.node }, `created ${kind} ${name}`);
        }
      }
      return await connection.verify(context, requirements);
    } catch (error) {
      const failure = error instanceof MillraceError ? error : undefined;
      const again =
        failure === undefined || failure.class === "network"
          ? wait
          : failure.code === "access-refused" && backoff.attempts + 1 < accessAttempts;
      if (!again || context.signal.aborted) throw error;
      const reason = tellFailure(connection, error);
      onWait?.(reason);
      logger.warn({ node: context.node, attempt: backoff.attempts + 1, code: failure?.code }, reason);
      await backoff.wait();
    }
  }
}

/** Whether `--create` would help: what is there otherwise than declared, and files, it leaves alone. */
export function isCreatable({ requirement, code = "target-missing" }: Unmet): boolean {
  return code === "target-missing" && requirement.kind !== "file";
}

/** Errors of ours name the broker themselves. */
export function tellFailure(connection: Connection, error: unknown): string {
  const message = messageOf(error);
  if (error instanceof MillraceError) return message;
  return `${connection.connector} at ${connection.address} cannot be asked: ${message}`;
}
