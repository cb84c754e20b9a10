// DICOM metadata from RabbitMQ to Kafka: storage messages, series states and image attributes, each to its own
// topic, with an audit event for every written batch. A message without a study UID belongs to no study: all of
// them would share one key, so they go to dicom.dead with the reason.
//
// Keys are those of systems that already read these topics: the trace id, and the lower-hex MD5 of the ids
// joined by "_". That join is ambiguous ("a_b" and "c" make what "a" and "b_c" make); a new system should leave
// `join` out and get keys that cannot collide.
//
// The publisher that this takes the place of is configured by a producer's settings; they are given here under the names
// that it has for them. Two of those are one setting (linger_ms, queue_buffering_max_ms): different values are
// refused. Its time-out and its number of retries end nothing here: what is in the queue is sent until it is stored.
import {
  batch,
  compress,
  decode,
  env,
  kafka,
  key,
  producerSettings,
  rabbitmq,
  reject,
  topology,
  validate,
} from "millrace";
import { imageMeta, stateMeta, storeMeta } from "./dicom.schema.ts";

const hospital = rabbitmq({
  url: env("AMQP_URL", "amqp://127.0.0.1:5672/%2f"),
  queues: {
    "dicom-store": { type: "classic" },
    "dicom-state": { type: "classic" },
    "dicom-image": { type: "classic" },
  },
});
const producer = producerSettings({
  topic: "storage_queue",
  brokers: env("KAFKA_BROKERS", "127.0.0.1:9092"),
  queue_buffering_max_messages: env("QUEUE_BUFFERING_MAX_MESSAGES", "1000"),
  queue_buffering_max_kbytes: env("QUEUE_BUFFERING_MAX_KBYTES", "65536"),
  queue_buffering_max_ms: env("QUEUE_BUFFERING_MAX_MS", env("LINGER_MS", "100")),
  linger_ms: env("LINGER_MS", env("QUEUE_BUFFERING_MAX_MS", "100")),
  batch_num_messages: env("BATCH_NUM_MESSAGES", "500"),
  compression_codec: env("COMPRESSION_CODEC", "snappy"),
  "message.timeout.ms": 30_000,
  retries: 5,
  "retry.backoff.ms": 1_000,
});
const cluster = kafka(producer.connection);
const { credit = 1_000, creditBytes = "16MiB" } = producer.source;
// A producer's buffer may be larger than what a RabbitMQ consumer can be given at once.
const queue = { prefetch: Math.min(credit, 65_535), creditBytes };
const audit = cluster.sink({ topic: "log_queue" });
const window = { ...producer.batch, bytes: "1MiB" } as const;

export default topology("dicom", (t) => {
  t.from(hospital.source({ queue: "dicom-store", ...queue }))
    .pipe(
      decode("json"),
      validate(storeMeta),
      reject((m) => m.study_uid === "", "the study UID is empty"),
      key((m) => m.trace_id),
      batch(window),
      compress(producer.codec),
    )
    .to(cluster.sink(producer.sink), { audit });

  t.from(hospital.source({ queue: "dicom-state", ...queue }))
    .pipe(
      decode("json"),
      validate(stateMeta),
      reject((m) => m.study_uid === "", "the study UID is empty"),
      key({ digest: "md5", join: "_", of: (m) => [m.tenant_id, m.patient_id, m.study_uid, m.series_uid] }),
      batch(window),
      compress(producer.codec),
    )
    .to(cluster.sink({ ...producer.sink, topic: "dicom_state_queue" }), { audit });

  t.from(hospital.source({ queue: "dicom-image", ...queue }))
    .pipe(
      decode("json"),
      validate(imageMeta),
      reject((m) => m.study_uid === "", "the study UID is empty"),
      key({
        digest: "md5",
        join: "_",
        of: (m) => [m.tenant_id, m.patient_id, m.study_uid, m.series_uid, m.sop_uid],
      }),
      batch(window),
      compress(producer.codec),
    )
    .to(cluster.sink({ ...producer.sink, topic: "dicom_image_queue" }), { audit });

  t.deadLetters(cluster.sink({ topic: "dicom.dead" }));
});
