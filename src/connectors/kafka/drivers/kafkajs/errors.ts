import { messageOf } from "../../../../errors.ts";
import { DriverError, type DriverErrorCode, type NewTopic } from "../../driver.ts";

/** Protocol error names of Kafka as kafkajs passes them on; whatever is not listed may be tried again. */
const codes: Readonly<Record<string, DriverErrorCode>> = {
  ILLEGAL_GENERATION: "fenced",
  UNKNOWN_MEMBER_ID: "fenced",
  REBALANCE_IN_PROGRESS: "fenced",
  FENCED_INSTANCE_ID: "fenced",
  UNKNOWN_TOPIC_OR_PARTITION: "unknown-topic",
  TOPIC_AUTHORIZATION_FAILED: "access",
  GROUP_AUTHORIZATION_FAILED: "access",
  CLUSTER_AUTHORIZATION_FAILED: "access",
  SASL_AUTHENTICATION_FAILED: "access",
  ILLEGAL_SASL_STATE: "access",
  UNSUPPORTED_SASL_MECHANISM: "access",
  MESSAGE_TOO_LARGE: "too-large",
  RECORD_LIST_TOO_LARGE: "too-large",
  CORRUPT_MESSAGE: "retry",
  INVALID_RECORD: "invalid",
  INVALID_TIMESTAMP: "invalid",
  INVALID_TOPIC_EXCEPTION: "refused",
  INVALID_PARTITIONS: "refused",
  INVALID_REPLICATION_FACTOR: "refused",
  INVALID_REPLICA_ASSIGNMENT: "refused",
  INVALID_CONFIG: "refused",
  POLICY_VIOLATION: "refused",
  UNSUPPORTED_VERSION: "unsupported",
  UNSUPPORTED_FOR_MESSAGE_FORMAT: "unsupported",
  UNSUPPORTED_COMPRESSION_TYPE: "unsupported",
};

interface KafkaJsError {
  readonly name?: unknown;
  readonly type?: unknown;
  readonly cause?: unknown;
  readonly originalError?: unknown;
}

/** What an error of kafkajs means. Its wrappers ("number of retries exceeded") are looked through. */
export function driverError(error: unknown): DriverError {
  if (error instanceof DriverError) return error;
  const seen = new Set<unknown>();
  for (let current: unknown = error; current instanceof Error && !seen.has(current); ) {
    seen.add(current);
    const { name, type, cause, originalError } = current as KafkaJsError;
    const code = typeof type === "string" ? codes[type] : undefined;
    if (code !== undefined) return new DriverError(code, messageOf(current), error);
    if (name === "KafkaJSSASLAuthenticationError")
      return new DriverError("access", messageOf(current), error);
    if (name === "KafkaJSNotImplemented" || name === "MillraceError") {
      return new DriverError("unsupported", messageOf(current), error);
    }
    current = cause ?? originalError;
  }
  return new DriverError("retry", messageOf(error), error);
}

/** Why topics could not be created. kafkajs has one error for all, which by itself gives no reason. */
export function creationError(error: unknown, asked: readonly NewTopic[]): DriverError {
  const { errors } = error as { readonly errors?: readonly { readonly topic?: string }[] };
  const told = (errors ?? []).map((one) => ({ text: described(asked, one.topic), error: driverError(one) }));
  // One that exists by now is no failure: others are why the whole request failed.
  const failed = told.filter(({ error: { cause } }) => !existsAlready(cause));
  if (failed.length === 0) return driverError(error);
  const { code } = (failed.find((one) => one.error.code !== "retry") ?? failed[0]!).error;
  const reasons = failed.map(({ text, error: { message } }) => `${text}: ${message}`);
  return new DriverError(code, `cannot create ${reasons.join("; ")}`, error);
}

function described(asked: readonly NewTopic[], name: string | undefined): string {
  const { partitions = -1, replicationFactor = -1 } = asked.find(({ topic }) => topic === name) ?? {};
  const settings = [
    ...(partitions > 0 ? [`${partitions} partitions`] : []),
    ...(replicationFactor > 0 ? [`${replicationFactor} replicas`] : []),
  ];
  return `topic "${name}"${settings.length === 0 ? "" : ` with ${settings.join(" and ")}`}`;
}

function existsAlready(error: unknown): boolean {
  return (error as KafkaJsError | undefined)?.type === "TOPIC_ALREADY_EXISTS";
}

/** Whether a request was sent and its answer did not come in time. */
export function isTimeout(error: unknown): boolean {
  const seen = new Set<unknown>();
  for (let current: unknown = error; current instanceof Error && !seen.has(current); ) {
    seen.add(current);
    const { name, cause, originalError } = current as KafkaJsError;
    if (name === "KafkaJSRequestTimeoutError") return true;
    current = cause ?? originalError;
  }
  return false;
}
