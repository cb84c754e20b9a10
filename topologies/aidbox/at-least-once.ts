// Notifications about FHIR resources, at least once: whoever changes a resource writes its notification to the table
// "outbox" in the same transaction (see resources.ts). So there is one for each change that was committed, and none
// for one that was rolled back. It costs a row written and deleted for each message; the topology beside this one
// saves that, and may lose messages.
//
// The system this is made after sends with a transactional producer. No driver here has one, and it would not help:
// the database and Kafka share no transaction, so a message may come twice either way, after a crash between its
// write and its row's deletion. Readers tell it by the header millrace-outbox-id.
import { batch, compress, decode, env, kafka, key, secret, sql, topology, validate } from "millrace";
import { destination } from "./destination.ts";
import { notification } from "./notification.schema.ts";

const settings = destination("kafka-at-least-once", "at-least-once.destination.json");
const cluster = kafka(settings.connection);
const database = sql({
  url: env("DATABASE_URL", "postgres://aidbox@127.0.0.1:5432/aidbox"),
  ...(process.env.DATABASE_PASSWORD ? { password: secret(env("DATABASE_PASSWORD")) } : {}),
});

export default topology("aidbox-at-least-once", (t) => {
  t.from(database.source({ table: "outbox", ...settings.source }))
    .pipe(
      decode("json"),
      // In time proportional to the text, whatever the text: FHIR's pattern for base64 takes others hours.
      validate(notification),
      key("/entry/0/resource/notificationEvent/0/focus/reference"),
      batch({ within: "20ms", ...settings.batch }),
      compress(settings.codec),
    )
    .to(cluster.sink(settings.sink));
  t.deadLetters(cluster.sink({ topic: `${settings.sink.topic}.dead` }));
});
