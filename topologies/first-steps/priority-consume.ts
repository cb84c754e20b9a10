// Priority queues, the reading side. Only what still waits in the queue can be overtaken: a large prefetch would have
// fetched the others already.
import { env, rabbitmq, stdout, topology } from "millrace";
import { jobs } from "./priority-queue.ts";

const broker = rabbitmq({ url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"), queues: { jobs } });

export default topology("priority-consume", (t) => {
  t.from(broker.source({ queue: "jobs", prefetch: 1 })).to(stdout());
});
