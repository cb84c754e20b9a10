// Every version of every earthquake, once. The feed is polled hourly and lists the whole last day each time, so
// a quake comes back about twelve times; a new `updated` makes it a new version. The polls have no key and a
// quake's returns land on any partition, so one dedup cache serves the whole topology.
import { batch, compress, decode, dedup, env, kafka, key, topology, validate } from "millrace";
import { quake } from "./quakes.schema.ts";

const cluster = kafka({ brokers: env("KAFKA_BROKERS", "127.0.0.1:9092") });

export default topology("quakes", (t) => {
  t.from(cluster.source({ topics: ["quakes.polls"], group: "quakes" }))
    .pipe(
      decode("json"),
      validate(quake),
      key((q) => q.id),
      dedup({ id: (q) => `${q.id} ${q.updated}`, scope: "topology", capacity: 100_000 }),
      batch({ count: 500, bytes: "1MiB", within: "50ms" }),
      compress("zstd"),
    )
    .to(cluster.sink({ topic: "quakes.versions" }));
  t.deadLetters(cluster.sink({ topic: "quakes.dead" }));
});
