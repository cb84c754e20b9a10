// Priority queues, the writing side: an urgent job overtakes the others that wait in "jobs".
import { decode, env, headers, rabbitmq, stdin, topology, validate } from "millrace";
import { jobs } from "./priority-queue.ts";

const job = {
  type: "object",
  required: ["name", "urgent"],
  properties: { name: { type: "string" }, urgent: { type: "boolean" } },
} as const;

const broker = rabbitmq({
  url: env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f"),
  queues: { jobs, "jobs.dead": {} },
});

export default topology("priority-produce", (t) => {
  t.from(stdin())
    .pipe(decode("json"), validate(job), headers({ "amqp-priority": (j) => (j.urgent ? 5 : 0) }))
    .to(broker.sink({ queue: "jobs" }));
  t.deadLetters(broker.sink({ queue: "jobs.dead" }));
});
