// The orders job from a quorum queue to a Kafka topic.
import { decode, dedup, env, kafka, key, rabbitmq, topology, validate } from "millrace";
import { order } from "../../topologies/orders.schema.ts";

const broker = rabbitmq({ url: env("AMQP_URL") });
const cluster = kafka({
  brokers: env("KAFKA_BROKERS"),
  driver: env("BENCH_KAFKA_DRIVER", "wire") as "wire" | "kafkajs",
});

export default topology("rabbitmq-kafka", (t) => {
  t.from(broker.source({ queue: env("BENCH_INPUT"), acceptDrops: true, prefetch: 3_000 }))
    .pipe(
      decode("json"),
      validate(order),
      key((o) => o.customer),
      dedup({ id: (o) => o.id, capacity: 100_000 }),
    )
    .to(cluster.sink({ topic: env("BENCH_OUTPUT") }));
  t.deadLetters(cluster.sink({ topic: env("BENCH_DEAD") }));
});
