// Every line of standard input becomes a message of the queue "hello". The queue is declared first, and survives a
// restart of the broker, as the messages do. A line counts as delivered once RabbitMQ has confirmed it.
import { env, rabbitmq, stdin, topology } from "millrace";

const broker = rabbitmq({
  // Address, port, user, password and vhost: "/" is written as %2f.
  url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"),
  queues: { hello: { durable: true } },
});

export default topology("rabbitmq-produce", (t) => {
  // Through the default exchange, whose routing key is the queue's name.
  t.from(stdin()).to(broker.sink({ queue: "hello" }));
});
