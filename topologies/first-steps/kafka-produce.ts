// Every line of standard input becomes a message of test-topic under the key "key". The delivery report of each batch
// goes to standard output: the partition, the offsets, and why what failed has failed.
import { env, kafka, key, stdin, stdout, topology } from "millrace";

const cluster = kafka({ brokers: env("KAFKA_BROKERS", "localhost:9092") });

export default topology("kafka-produce", (t) => {
  t.from(stdin())
    .pipe(key(() => "key"))
    // Acknowledged by all replicas in sync; resent with the same sequence number, so that a resend is stored once.
    .to(cluster.sink({ topic: "test-topic", partitions: 3, replicationFactor: 1 }), { audit: stdout() });
});
