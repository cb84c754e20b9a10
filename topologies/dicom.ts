// DICOM metadata from RabbitMQ to Kafka: storage messages, series states and image attributes, each to its own
// topic, with an audit event for every written batch. A message without a study UID belongs to no study: all of
// them would share one key, so they go to dicom.dead with the reason.
//
// Keys are those of systems that already read these topics: the trace id, and the lower-hex MD5 of the ids
// joined by "_". That join is ambiguous ("a_b" and "c" make what "a" and "b_c" make); a new system should leave
// `join` out and get keys that cannot collide.
import { batch, compress, decode, env, kafka, key, rabbitmq, reject, topology, validate } from "millrace";
import { imageMeta, stateMeta, storeMeta } from "./dicom.schema.ts";

const hospital = rabbitmq({
  url: env("AMQP_URL", "amqp://127.0.0.1:5672/%2f"),
  queues: {
    "dicom-store": { type: "classic" },
    "dicom-state": { type: "classic" },
    "dicom-image": { type: "classic" },
  },
});
const cluster = kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") });
const audit = cluster.sink({ topic: "log_queue" });
const window = { count: 500, bytes: "1MiB", within: "100ms" } as const;

export default topology("dicom", (t) => {
  t.from(hospital.source({ queue: "dicom-store", prefetch: 1_000 }))
    .pipe(
      decode("json"),
      validate(storeMeta),
      reject((m) => m.study_uid === "", "the study UID is empty"),
      key((m) => m.trace_id),
      batch(window),
      compress("snappy"),
    )
    .to(cluster.sink({ topic: "storage_queue" }), { audit });

  t.from(hospital.source({ queue: "dicom-state", prefetch: 1_000 }))
    .pipe(
      decode("json"),
      validate(stateMeta),
      reject((m) => m.study_uid === "", "the study UID is empty"),
      key({ digest: "md5", join: "_", of: (m) => [m.tenant_id, m.patient_id, m.study_uid, m.series_uid] }),
      batch(window),
      compress("snappy"),
    )
    .to(cluster.sink({ topic: "dicom_state_queue" }), { audit });

  t.from(hospital.source({ queue: "dicom-image", prefetch: 1_000 }))
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
      compress("snappy"),
    )
    .to(cluster.sink({ topic: "dicom_image_queue" }), { audit });

  t.deadLetters(cluster.sink({ topic: "dicom.dead" }));
});
