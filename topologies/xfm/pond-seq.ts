import { connect } from "amqplib";
import type { Range } from "./range.ts";

/** Puts ranges into the queue `pond-seq`, and resolves when the broker has stored them. */
export async function publishRanges(url: string, ranges: readonly Range[]): Promise<void> {
  const connection = await connect(url);
  try {
    const channel = await connection.createConfirmChannel();
    // As brokers.ts declares it.
    await channel.assertQueue("pond-seq", { durable: true, arguments: { "x-queue-type": "classic" } });
    for (const { first, last } of ranges) {
      channel.sendToQueue("pond-seq", Buffer.from(JSON.stringify({ first, last })), { persistent: true });
    }
    await channel.waitForConfirms();
    await channel.close();
  } finally {
    await connection.close();
  }
}
