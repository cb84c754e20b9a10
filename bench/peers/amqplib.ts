// The orders job from queue to queue as one would write it by hand on amqplib: a message is acknowledged when its copy
// has been confirmed. Publishing and consuming have a connection each, as an alarm stops the one that publishes.
import { type ConsumeMessage, connect } from "amqplib";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const input = told("BENCH_INPUT");
const output = told("BENCH_OUTPUT");
const [consuming, publishing] = await Promise.all([connect(told("AMQP_URL")), connect(told("AMQP_URL"))]);
const source = await consuming.createChannel();
const sink = await publishing.createConfirmChannel();
const seen = recentIds();
/** Ids on their way out, with the duplicates that wait for them. */
const leaving = new Map<string, ConsumeMessage[]>();

await source.prefetch(1_000);
const { consumerTag } = await source.consume(input, (message) => {
  if (message === null) fail(new Error("the queue is gone"));
  const { id } = checkedOrder(message.content);
  if (seen.has(id)) {
    source.ack(message);
    return;
  }
  const twins = leaving.get(id);
  if (twins !== undefined) {
    twins.push(message);
    return;
  }
  const copies = [message];
  leaving.set(id, copies);
  sink.sendToQueue(output, message.content, { persistent: true, mandatory: true }, (error) => {
    if (error) fail(error);
    leaving.delete(id);
    seen.set(id, true);
    for (const copy of copies) source.ack(copy);
  });
});

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

sink.on("return", () => fail(new Error("a message had no queue to go to")));

process.on("SIGTERM", async () => {
  await source.cancel(consumerTag);
  await sink.waitForConfirms();
  // Answered once every acknowledgement before it was taken.
  await source.checkQueue(input);
  await source.close();
  await consuming.close();
  await publishing.close();
  process.exit(0);
});
