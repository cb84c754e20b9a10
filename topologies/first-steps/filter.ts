// Message filtering: of the greetings in "hello" those that greet someone go on to Kafka; the others are acknowledged
// and counted as filtered.
import { decode, env, filter, kafka, rabbitmq, topology } from "millrace";

const broker = rabbitmq({
  url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"),
  queues: { hello: { durable: true } },
});
const cluster = kafka({ brokers: env("KAFKA_BROKERS", "localhost:9092") });

export default topology("filter", (t) => {
  t.from(broker.source({ queue: "hello" }))
    .pipe(
      decode("text"),
      filter((greeting) => greeting.includes(", ")),
    )
    .to(cluster.sink({ topic: "test-topic", partitions: 3, replicationFactor: 1 }));
  t.deadLetters(cluster.sink({ topic: "test-topic.dead", partitions: 1, replicationFactor: 1 }));
});
