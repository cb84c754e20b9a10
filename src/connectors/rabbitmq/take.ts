import { pause } from "../../component/backoff.ts";
import type { Context } from "../../component/context.ts";
import { MillraceError } from "../../errors.ts";
import { type AmqpConnection, AmqpError, type Delivery } from "./driver.ts";

/** An empty queue is believed after so long without a delivery: one that is under way may not be counted any more, ms. */
const patience = 500;
const tick = 10;

/**
 * Takes one message off a queue, by a consumer that lives for it alone. Undefined when the queue is empty.
 *
 * `use` runs while the message is unacknowledged, and only after it comes the acknowledgement; this resolves once
 * the broker has taken that. If `use` rejects, or the connection breaks anywhere on the way, the message goes back
 * to its queue, and the caller cannot know whether it did: what `use` notes down must bear a second owner.
 */
export async function takeOne<T>(
  context: Context,
  connection: AmqpConnection,
  queue: string,
  use: (content: Buffer) => Promise<T>,
): Promise<T | undefined> {
  const { clock } = context;
  let delivery: Delivery | undefined;
  let fault: AmqpError | undefined;
  const channel = await connection.openChannel({
    closed: (error) => {
      fault = error ?? new AmqpError("the channel is closed");
    },
    delivered: (given) => {
      delivery ??= given;
    },
    cancelled: () => {
      fault ??= new AmqpError(`the broker cancelled the consumer of queue "${queue}"`);
    },
  });
  try {
    // One, so that no other is given out when this one is acknowledged and the consumer not yet gone.
    await channel.prefetch(1);
    const consumer = await channel.consume(queue, { consumerTag: undefined, exclusive: false });
    for (let emptySince = clock.now(); delivery === undefined; await pause(context, tick)) {
      if (fault !== undefined) throw fault;
      const { messageCount } = await channel.checkQueue(queue);
      if (delivery !== undefined) break;
      if (messageCount > 0) emptySince = clock.now();
      else if (clock.now() - emptySince >= patience) return undefined;
    }
    await channel.cancel(consumer);
    const result = await use(delivery.content);
    if (fault !== undefined) throw fault;
    channel.ack(delivery.fields.deliveryTag, false);
    // It is answered after the acknowledgement was taken, and not at all if the channel has gone.
    await channel.prefetch(1);
    return result;
  } catch (error) {
    if (!(error instanceof AmqpError) || error.replyCode !== undefined) throw error;
    throw new MillraceError("connection-lost", `queue "${queue}": ${error.message}`, { cause: error });
  } finally {
    await channel.close();
  }
}
