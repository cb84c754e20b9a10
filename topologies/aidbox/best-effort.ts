// Notifications about FHIR resources, best effort: they are in memory only, from standard input to Kafka. What is in
// flight when this ends, or could not be written for as long as deliveryTimeoutMs, is lost and counted. In return
// there is no table to write to and to read.
//
// Whoever sends them here must do it after its transaction is committed (see resources.ts): what was sent for one that
// is rolled back in the end is not called back.
import { batch, compress, decode, kafka, key, stdin, topology, validate } from "millrace";
import { destination } from "./destination.ts";
import { notification } from "./notification.schema.ts";

const settings = destination("kafka-best-effort", "best-effort.destination.json");
const cluster = kafka(settings.connection);

export default topology("aidbox-best-effort", (t) => {
  t.from(stdin(settings.source.credit === undefined ? {} : { credit: settings.source.credit }))
    .pipe(
      decode("json"),
      validate(notification),
      key("/entry/0/resource/notificationEvent/0/focus/reference"),
      batch({ within: "20ms", ...settings.batch }),
      compress(settings.codec),
    )
    .to(cluster.sink(settings.sink));
  t.deadLetters(cluster.sink({ topic: `${settings.sink.topic}.dead` }));
});
