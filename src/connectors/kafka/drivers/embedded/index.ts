export { type EmbeddedDriverOptions, embeddedDriver } from "./driver.ts";
export { EmbeddedKafka, type EmbeddedKafkaOptions } from "./embedded-kafka.ts";
