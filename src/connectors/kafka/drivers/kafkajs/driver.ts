import type { KafkaDriver } from "../../driver.ts";
import { loadedLater } from "../loaded-later.ts";

/**
 * kafkajs 2.2. It cannot hold a rebalance, and its producer is used without its retries, one attempt a call:
 * its own retry loses acknowledged messages when leaders move, and reuses idempotent sequences.
 */
export const kafkaJsDriver: KafkaDriver = {
  name: "kafkajs",
  holdsRebalance: false,
  connect: (settings, context) =>
    loadedLater(async () => {
      const { KafkaJsClient } = await import("./client.ts");
      return new KafkaJsClient(settings, context);
    }),
};
