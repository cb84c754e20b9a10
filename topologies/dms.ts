// Changes of balances, as a Kafka service's operators recommend to handle them:
//
// - acknowledge on both sides: a change is written with the acknowledgement of all replicas, and its offset is
//   committed only after that; what is not committed comes again;
// - idempotent on both sides: what is sent again has the same sequence number, and is stored once; what is delivered
//   again is known by its id, after a restart too, since ids are kept on disk;
// - the prefix rule: balances are drawn on in the order in which they were paid into, so a change that fails holds up
//   what is behind it in its partition until it is settled, here by its dead letter. Changes of one partition are then
//   written one by one, those of several partitions together;
// - in batches: the journal needs no such order, and takes whole batches, fetched, compressed and written as one.
//
// To look at the topics without touching these flows, read them under a group of your own:
//   millrace tap topologies/dms.ts --group looking --topic dms.results
import { batch, compress, decode, dedup, env, file, kafka, key, topology, validate } from "millrace";
import { request } from "./dms.schema.ts";

const cluster = kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") });
const state = file({ root: env("STATE_DIR", "state") });

export default topology("dms", (t) => {
  t.from(cluster.source({ topics: ["dms.requests"], group: "dms-worker", commitInterval: "500ms" }))
    .pipe(
      decode("json"),
      validate(request),
      key((r) => r.account),
      dedup({
        id: (r) => r.id,
        capacity: 100_000,
        ttl: "1d",
        store: state.idStore({ path: "dms-requests" }),
      }),
    )
    .to(cluster.sink({ topic: "dms.results" }), { onFailure: "stopAtFirst" });

  t.from(cluster.source({ topics: ["dms.results"], group: "dms-journal" }))
    .pipe(batch({ count: 500, bytes: "1MiB", within: "100ms" }), compress("lz4"))
    .to(cluster.sink({ topic: "dms.journal" }));

  t.deadLetters(cluster.sink({ topic: "dms.dead" }));
});
