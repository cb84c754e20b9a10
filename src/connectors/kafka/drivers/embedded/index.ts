export { embeddedDriver } from "./driver.ts";
export { EmbeddedKafka } from "./embedded-kafka.ts";
