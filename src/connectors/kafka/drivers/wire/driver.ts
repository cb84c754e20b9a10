import type { KafkaDriver } from "../../driver.ts";
import { loadedLater } from "../loaded-later.ts";
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
    connect: (settings, context) =>
      loadedLater(async () => {
        const { WireClient } = await import("./client.ts");
        return new WireClient(settings, context, protocol);
      }),
  };
}
