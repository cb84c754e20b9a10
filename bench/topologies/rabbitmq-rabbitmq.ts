// The orders job from quorum queue to quorum queue.
import { decode, dedup, env, rabbitmq, topology, validate } from "millrace";
import { order } from "../../topologies/orders.schema.ts";

const broker = rabbitmq({ url: env("AMQP_URL"), queues: { "orders.dead": { type: "quorum" } } });

export default topology("rabbitmq-rabbitmq", (t) => {
  t.from(broker.source({ queue: env("BENCH_INPUT"), acceptDrops: true }))
    .pipe(decode("json"), validate(order), dedup({ id: (o) => o.id, capacity: 100_000 }))
    .to(broker.sink({ queue: env("BENCH_OUTPUT") }));
  t.deadLetters(broker.sink({ queue: "orders.dead" }));
});
