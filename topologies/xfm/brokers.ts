// The two brokers of XFM and what is declared on them. Whoever publishes source messages reaches the gateway only;
// workers talk to each other on the messaging broker. They are two RabbitMQ instances, each with watermarks of its
// own: an alarm stops publishing to a whole instance, whatever the vhost. On one instance a pile of source messages
// would stop the workers, who acknowledge a source message only after they have published what they made of it, so
// the pile could never go (`watermark deadlock` in the log and in /status). On two, the gateway's alarm keeps sources
// from publishing and the ingesters go on. What keeps the messaging broker from its own alarm is the ingesters' gate.
import { env, rabbitmq } from "millrace";

export const gateway = rabbitmq({
  url: env("GATEWAY_URL", "amqp://127.0.0.1:5672/gateway"),
  exchanges: { ingress: { type: "direct" } },
  queues: { "ingress-cdar2": { type: "classic" }, "ingress-fhir": { type: "classic" } },
  bindings: [
    { exchange: "ingress", key: "cdar2", queue: "ingress-cdar2" },
    { exchange: "ingress", key: "fhir", queue: "ingress-fhir" },
  ],
});

export const messaging = rabbitmq({
  url: env("MESSAGING_URL", "amqp://127.0.0.1:5673/messaging"),
  exchanges: { transform: { type: "direct" }, load: { type: "direct" }, error: { type: "direct" } },
  queues: {
    "transform-rim": { type: "classic" },
    "load-sql": { type: "classic" },
    "pond-seq": { type: "classic" },
    error: { type: "classic" },
    "dead-letter": { type: "classic" },
  },
  bindings: [
    { exchange: "transform", key: "hl7v3", queue: "transform-rim" },
    { exchange: "load", key: "sql", queue: "load-sql" },
    { exchange: "error", key: "business", queue: "error" },
    { exchange: "error", key: "application", queue: "dead-letter" },
  ],
});

/** Largest document, in any of its forms. A larger one is a business error of the step that meets it. */
export const largestDocument = "8MiB";

/**
 * Where each worker sends what it rejects: the source message as it came, with the reason in headers. The class in
 * these headers is the routing key: a message at fault goes to the queue `error`; one that our own code fails on
 * goes to `dead-letter`, and is logged. Both wait there for people, and the source message is acknowledged when the
 * broker has the copy.
 */
export const errors = messaging.sink({
  exchange: "error",
  key: ({ headers }) => String(headers.findLast(([name]) => name === "millrace-error-class")?.[1]),
});
