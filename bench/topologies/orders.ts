// The orders job on Kafka, with names, codec and window from the environment.
import { batch, compress, decode, dedup, env, kafka, key, topology, validate } from "millrace";
import { order } from "../../topologies/orders.schema.ts";

const cluster = kafka({
  brokers: env("KAFKA_BROKERS"),
  driver: env("BENCH_KAFKA_DRIVER", "wire") as "wire" | "kafkajs",
});

export default topology("orders", (t) => {
  t.from(cluster.source({ topics: [env("BENCH_INPUT")], group: env("BENCH_GROUP") }))
    .pipe(
      decode("json"),
      validate(order),
      key((o) => o.customer),
      dedup({ id: (o) => o.id, capacity: 100_000 }),
      batch({ count: 1_000, bytes: "1MiB", within: env("BENCH_WITHIN", "50ms") }),
      compress(env("BENCH_CODEC", "none") as "none" | "lz4" | "zstd"),
    )
    .to(cluster.sink({ topic: env("BENCH_OUTPUT") }));
  t.deadLetters(cluster.sink({ topic: env("BENCH_DEAD") }));
});
