// From topic to topic, nothing looked at.
import { env, kafka, topology } from "millrace";

const cluster = kafka({
  brokers: env("KAFKA_BROKERS"),
  driver: env("BENCH_KAFKA_DRIVER", "wire") as "wire" | "kafkajs",
});

export default topology("relay", (t) => {
  t.from(cluster.source({ topics: [env("BENCH_INPUT")], group: env("BENCH_GROUP") })).to(
    cluster.sink({ topic: env("BENCH_OUTPUT") }),
  );
  t.deadLetters(cluster.sink({ topic: env("BENCH_DEAD") }));
});
