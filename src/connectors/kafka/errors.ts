import { MillraceError } from "../../errors.ts";
import { DriverError } from "./driver.ts";

/** An error at start that another attempt will not mend, or undefined where one might. */
export function startError(error: unknown, address: string): MillraceError | undefined {
  if (error instanceof MillraceError) return error;
  if (!(error instanceof DriverError)) return undefined;
  switch (error.code) {
    case "access":
      return new MillraceError(
        "access-refused",
        `the Kafka cluster at ${address} refuses access: ${error.message}`,
        {
          remedy: "check the user name, password and permissions in the topology's kafka({ sasl })",
          cause: error,
        },
      );
    case "refused":
      return new MillraceError(
        "option-invalid",
        `the Kafka cluster at ${address} refuses: ${error.message}`,
        {
          remedy: "change the topic's name, partitions or replicationFactor, or create it by other means",
          cause: error,
        },
      );
    case "unsupported":
      return new MillraceError("option-invalid", `the Kafka cluster at ${address}: ${error.message}`, {
        remedy: "use a broker or a driver that supports it",
        cause: error,
      });
    default:
      return undefined;
  }
}

/**
 * The cluster could not give a producer its id. Others' transactional producers say "Timeout expired after 60000ms while
 * awaiting InitProducerId" to it.
 */
export function explained(message: string): string {
  if (!/InitProducerId/i.test(message)) return message;
  return `${message} (no producer id could be had: for transactions the brokers must be as many as transaction.state.log.replication.factor says, 3 unless set)`;
}

export function missingTopic(topic: string, address: string): MillraceError {
  return new MillraceError("target-missing", `topic "${topic}" does not exist on ${address}`, {
    remedy: "create it, or run once with --create",
  });
}
