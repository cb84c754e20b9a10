// What test-topic holds, on standard output. Members of one group share the partitions: start this twice and each
// process reads a part. At the end of a partition it waits for more.
import { env, kafka, stdout, topology } from "millrace";

const cluster = kafka({ brokers: env("KAFKA_BROKERS", "localhost:9092") });

export default topology("kafka-consume", (t) => {
  // Offsets are committed once everything before them is written.
  t.from(cluster.source({ topics: ["test-topic"], group: "test-group" })).to(stdout());
});
