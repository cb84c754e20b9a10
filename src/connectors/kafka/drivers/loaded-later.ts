import { DriverError, type KafkaClient } from "../driver.ts";

/** A client whose library is loaded at the first call: that takes a part of a second, and most commands never connect. */
export function loadedLater(load: () => Promise<KafkaClient>): KafkaClient {
  let client: Promise<KafkaClient> | undefined;
  let closed = false;
  const loaded = (): Promise<KafkaClient> => {
    if (client === undefined && closed) {
      return Promise.reject(new DriverError("retry", "the client is closed"));
    }
    client ??= load();
    return client;
  };
  return {
    describe: async (topics) => (await loaded()).describe(topics),
    create: async (topics) => (await loaded()).create(topics),
    offsets: async (topic) => (await loaded()).offsets(topic),
    committed: async (group, topic) => (await loaded()).committed(group, topic),
    subscribe: async (options, listener) => (await loaded()).subscribe(options, listener),
    producer: async () => (await loaded()).producer(),
    async close(deadline) {
      closed = true;
      await (await client)?.close(deadline);
    },
  };
}
