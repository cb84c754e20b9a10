// Batching: up to 100 greetings, or what came within 200 ms, go to Kafka as one record batch, compressed as one. A
// longer window means fewer and larger requests, and a message that waits for up to 200 ms: throughput against latency.
// Nothing is acknowledged to RabbitMQ before its batch is stored.
import { batch, compress, env, kafka, key, rabbitmq, stdout, topology } from "millrace";

const broker = rabbitmq({
  url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"),
  queues: { hello: { durable: true } },
});
const cluster = kafka({ brokers: env("KAFKA_BROKERS", "localhost:9092") });

export default topology("batch", (t) => {
  t.from(broker.source({ queue: "hello" }))
    .pipe(
      key(() => "key"),
      batch({ count: 100, within: "200ms" }),
      compress("snappy"),
    )
    .to(cluster.sink({ topic: "test-topic", partitions: 3, replicationFactor: 1 }), { audit: stdout() });
  t.deadLetters(cluster.sink({ topic: "test-topic.dead", partitions: 1, replicationFactor: 1 }));
});
