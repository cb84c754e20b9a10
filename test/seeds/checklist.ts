/**
 * What five systems that Millrace was made for ask of it, line by line. A line is shown by every test whose title
 * begins with its number, as in "seed 003.4: …"; a title may name several: "seed 000.5, 000.6: …".
 */
export const seeds = {
  "000": {
    title: "DICOM publisher on Kafka",
    lines: [
      "main, log, state and image messages go to four topics of their own",
      "brokers and the producer's buffering, batching, linger and codec settings are configuration",
      "message time-out 30 s, five retries, 1 s between them, and 10 s for a place in the queue can be said",
      "JSON in snappy, without blocking, over lasting connections that come back; one message or many",
      "a store message's key is its trace id",
      "a state message's key is the lower-hex MD5 of tenant, patient, study and series, joined by _",
      "an image message's key is the lower-hex MD5 of tenant, patient, study, series and SOP, joined by _",
      "a batch tells how many messages succeeded and failed; what cannot be serialised is not sent",
      "an audit topic; logs name counts and topic; batching is tunable; many consumers share the work",
      "its defects are not copied: equal keys in a batch, flush per message, two names of one setting, ambiguous keys, results thrown away",
      "the publisher as an example and a benchmark: two states with one key in one batch both arrive, in order",
    ],
  },
  "001": {
    title: "First steps with RabbitMQ and Kafka",
    lines: [
      "RabbitMQ: AMQP_ADDR with its default and vhost %2f, a declared queue behind the default exchange, awaited confirms, a consumer tag, an ack per delivery",
      "Kafka: test-topic and test-group on localhost:9092, key and payload, a delivery report with partition and offset",
      "connection, queue or topic, and consumer are configured in groups",
      "partitions, consumers that share the load, durable messages, replication, acknowledgements",
      "five practices: idempotence, retries, monitoring, encryption and login, throughput against latency",
      "message filtering, batching and priority queues",
      "acknowledgements alone give at-least-once, and the documentation does not say that they avoid duplicates",
    ],
  },
  "002": {
    title: "Topic destination for FHIR resources",
    lines: [
      "best effort in memory, and at least once through the database transaction of the resource, with their costs",
      "best effort sends only what its transaction has committed",
      "transactional producers, and the InitProducerId time-out explained by the broker's replication factor",
      "all parameters by name, JAAS strings and callback classes included",
      "the value types of $status, and at most five errors, the newest",
      "$status of best effort",
      "$status of at least once",
      "$status as FHIR Parameters, and the destination's resource as configuration",
    ],
  },
  "003": {
    title: "Kafka practice: acknowledge, batch, inspect",
    lines: [
      "the producer sends again what was not acknowledged; success means stored",
      "messages are consumed in order, their outcome is committed, and what is not committed comes again",
      "neither a repeated send nor a repeated delivery has an effect of its own",
      "batches on both sides; after a failure the rest is not consumed and what precedes it is committed",
      "another consumer group looks at the flow without touching it",
    ],
  },
  "004": {
    title: "XFM: two RabbitMQ instances into a data lake",
    lines: [
      "gateway and messaging are vhosts of two instances",
      "the direct exchange ingress with the keys cdar2 and fhir, and a queue for each",
      "ingester, transformer and loader with their exchanges, keys and queues; the loader writes micro-batches",
      "upstream is acknowledged only after downstream has acknowledged",
      "identifier sequences in the queue pond-seq: filled once, taken by a loader's first run, the rest returned",
      "the ingester stops at a queue's depth; the deadlock of one instance at its watermark is shown and named",
      "business errors: the source message and error headers to the error exchange, acknowledged after that",
      "application errors: no start with wrong configuration; at run time the dead-letter queue, never requeued",
      "system errors: the process ends, and the broker gives the messages out again",
      "network errors: logged, and tried again until the connection is back",
      "at least once: a crash between forwarding and acknowledging can repeat a message and never loses one",
    ],
  },
} as const;

/** The numbers of all lines: "000.1" … */
export const lineNumbers: readonly string[] = Object.entries(seeds).flatMap(([seed, { lines }]) =>
  lines.map((_, i) => `${seed}.${i + 1}`),
);

/** The line numbers that a test's title names. */
export function linesNamedBy(title: string): string[] {
  const numbers = /^seeds? (\d{3}\.\d+(?:, \d{3}\.\d+)*):/.exec(title)?.[1];
  return numbers === undefined ? [] : numbers.split(", ");
}
