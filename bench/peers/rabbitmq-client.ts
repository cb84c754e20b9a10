// The orders job from queue to queue as one would write it by hand on rabbitmq-client: its consumer acknowledges a
// message when the handler's promise resolves, which is when the copy has been confirmed.
import { Connection } from "rabbitmq-client";
import { checkedOrder, recentIds, told } from "./order-check.ts";

const output = told("BENCH_OUTPUT");
const consuming = new Connection(told("AMQP_URL"));
const publishing = new Connection(told("AMQP_URL"));
const seen = recentIds();
/** Ids on their way out: a duplicate waits for its twin. */
const leaving = new Map<string, Promise<void>>();

const publisher = publishing.createPublisher({ confirm: true });
const consumer = consuming.createConsumer(
  { queue: told("BENCH_INPUT"), queueOptions: { passive: true }, qos: { prefetchCount: 1_000 } },
  async (message) => {
    const body = message.body as Buffer;
    const { id } = checkedOrder(body);
    if (seen.has(id)) return;
    const twin = leaving.get(id);
    if (twin !== undefined) {
      await twin;
      return;
    }
    const sent = publisher.send({ routingKey: output, durable: true, mandatory: true }, body);
    leaving.set(id, sent);
    await sent;
    leaving.delete(id);
    seen.set(id, true);
  },
);

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

consumer.on("error", fail);
consuming.on("error", fail);
publishing.on("error", fail);
publisher.on("basic.return", () => fail(new Error("a message had no queue to go to")));

process.on("SIGTERM", async () => {
  await consumer.close();
  await publisher.close();
  await consuming.close();
  await publishing.close();
  process.exit(0);
});
