import { Backoff } from "../../component/backoff.ts";
import type { Context } from "../../component/context.ts";
import { messageOf } from "../../errors.ts";
import type { KafkaClient } from "./driver.ts";
import { explained, startError } from "./errors.ts";

/** How long a client that could not start may take to close, ms. */
const giveUpWithin = 1_000;

/**
 * Opens a source or a sink of the client, again and again while its cluster is away. Refused access is given three
 * tries; what no further attempt mends is thrown at once. Whoever is not opened leaves no connection behind.
 *
 * @param what "kafka source" or "kafka sink", for the log.
 */
export async function openPersistently<T>(
  context: Context,
  client: KafkaClient,
  address: string,
  what: string,
  open: () => Promise<T>,
): Promise<T> {
  const backoff = new Backoff(context, { initial: 200, max: 5_000 });
  try {
    for (let refusals = 0; ; ) {
      try {
        return await open();
      } catch (error) {
        const final = startError(error, address);
        if (final !== undefined && (final.code !== "access-refused" || ++refusals >= 3)) throw final;
        context.logger.warn(
          { node: context.node, address, error: explained(messageOf(error)) },
          `${what} cannot start yet`,
        );
        context.meter.count("connect_failures_total");
        await backoff.wait();
      }
    }
  } catch (given) {
    await client.close(context.clock.now() + giveUpWithin);
    throw given;
  }
}
