import type { KafkaClient, KafkaDriver } from "../../driver.ts";
import type { MembershipProtocol } from "./subscription.ts";

/**
 * Kafka's protocol spoken by ourselves, over connections of @platformatic/kafka: record batches are written and
 * read in place, and a rebalance waits until what is given up has been drained. It needs Kafka 3.2 or newer.
 */
export const wireDriver: KafkaDriver = wireDriverWith("incremental");

/** A driver that rebalances by this protocol; `incremental` falls back to `classic` where it must. */
export function wireDriverWith(protocol: MembershipProtocol): KafkaDriver {
  return {
    name: "wire",
    holdsRebalance: true,
    connect(settings, context) {
      // The library takes a third of a second to load, and most commands never connect.
      let client: Promise<KafkaClient> | undefined;
      const loaded = (): Promise<KafkaClient> => {
        client ??= import("./client.ts").then(
          ({ WireClient }) => new WireClient(settings, context, protocol),
        );
        return client;
      };
      return {
        describe: async (topics) => (await loaded()).describe(topics),
        create: async (topics) => (await loaded()).create(topics),
        offsets: async (topic) => (await loaded()).offsets(topic),
        committed: async (group, topic) => (await loaded()).committed(group, topic),
        subscribe: async (options, listener) => (await loaded()).subscribe(options, listener),
        producer: async () => (await loaded()).producer(),
        close: async (deadline) => (await client)?.close(deadline),
      };
    },
  };
}
