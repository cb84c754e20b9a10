// A shop's orders: checked, each once, and all of one customer's in order.
import { batch, decode, dedup, env, kafka, key, topology, validate } from "millrace";
import { order } from "./orders.schema.ts";

const cluster = kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") });

export default topology("orders", (t) => {
  t.from(cluster.source({ topics: ["orders"], group: "orders" }))
    .pipe(
      decode("json"),
      validate(order),
      key((o) => o.customer),
      dedup({ id: (o) => o.id, capacity: 100_000 }),
      batch({ count: 1_000, bytes: "1MiB", within: "50ms" }),
    )
    .to(cluster.sink({ topic: "orders.accepted" }));
  t.deadLetters(cluster.sink({ topic: "orders.dead" }));
});
