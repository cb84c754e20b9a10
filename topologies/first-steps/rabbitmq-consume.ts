// What the queue "hello" holds, on standard output. Each message is acknowledged once its line has been written, so a
// crash in between brings it again: acknowledgements alone give at-least-once. What keeps duplicates out is `dedup`.
import { env, rabbitmq, stdout, topology } from "millrace";

const broker = rabbitmq({
  url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"),
  queues: { hello: { durable: true } },
});

export default topology("rabbitmq-consume", (t) => {
  t.from(broker.source({ queue: "hello", consumerTag: "my_consumer" })).to(stdout());
});
