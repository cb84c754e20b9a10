import type { AmqpDriver } from "../../driver.ts";
import type { EmbeddedRabbitmq } from "./broker.ts";

/** AMQP to an in-process broker: no bytes, no sockets. */
export function embeddedDriver(broker: EmbeddedRabbitmq): AmqpDriver {
  return {
    name: "embedded",
    connect: (_broker, role, _context, events) => broker.connect(role, events),
  };
}
