import { protocolErrorsCodesById } from "@platformatic/kafka";
import { messageOf } from "../../../../errors.ts";
import { DriverError, type DriverErrorCode } from "../../driver.ts";

/** What Kafka's protocol errors mean to us. Whatever is not listed may be tried again. */
const meanings: Readonly<Record<string, DriverErrorCode>> = {
  ILLEGAL_GENERATION: "fenced",
  UNKNOWN_MEMBER_ID: "fenced",
  REBALANCE_IN_PROGRESS: "fenced",
  FENCED_INSTANCE_ID: "fenced",
  FENCED_MEMBER_EPOCH: "fenced",
  STALE_MEMBER_EPOCH: "fenced",
  UNKNOWN_TOPIC_OR_PARTITION: "unknown-topic",
  UNKNOWN_TOPIC_ID: "unknown-topic",
  INVALID_TOPIC_EXCEPTION: "unknown-topic",
  TOPIC_AUTHORIZATION_FAILED: "access",
  GROUP_AUTHORIZATION_FAILED: "access",
  CLUSTER_AUTHORIZATION_FAILED: "access",
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "access",
  DELEGATION_TOKEN_AUTHORIZATION_FAILED: "access",
  SASL_AUTHENTICATION_FAILED: "access",
  ILLEGAL_SASL_STATE: "access",
  UNSUPPORTED_SASL_MECHANISM: "access",
  SECURITY_DISABLED: "access",
  MESSAGE_TOO_LARGE: "too-large",
  RECORD_LIST_TOO_LARGE: "too-large",
  INVALID_RECORD: "invalid",
  INVALID_TIMESTAMP: "invalid",
  UNSUPPORTED_VERSION: "unsupported",
  UNSUPPORTED_FOR_MESSAGE_FORMAT: "unsupported",
  UNSUPPORTED_COMPRESSION_TYPE: "unsupported",
  UNSUPPORTED_ASSIGNOR: "unsupported",
  INVALID_SESSION_TIMEOUT: "unsupported",
  INVALID_GROUP_ID: "unsupported",
};

/** Kafka's name of a protocol error code, also of one that is newer than this list. */
export function errorName(code: number): string {
  return protocolErrorsCodesById[code] ?? `error ${code}`;
}

/** A refusal with Kafka's number for it. */
class ProtocolRefusal extends Error {
  readonly apiCode: number;

  constructor(code: number) {
    super(errorName(code));
    this.name = "ProtocolRefusal";
    this.apiCode = code;
  }
}

/** The error of one partition or resource in a response, or undefined for code 0. */
export function protocolError(code: number, about: string, detail?: string | null): DriverError | undefined {
  if (code === 0) return undefined;
  const name = errorName(code);
  const text = `${about}: ${detail ? `${detail} (${name})` : name}`;
  return new DriverError(meanings[name] ?? "retry", text, new ProtocolRefusal(code));
}

interface LibraryError {
  readonly code?: unknown;
  readonly apiId?: unknown;
  readonly apiCode?: unknown;
  readonly serverErrorMessage?: unknown;
  readonly errors?: unknown;
  readonly cause?: unknown;
}

/**
 * What any thrown thing means; total. The first protocol error in it or its causes decides, else its innermost
 * cause: a login that failed because the connection was lost says nothing of the password.
 */
export function driverError(error: unknown, about?: string): DriverError {
  if (error instanceof DriverError) return error;
  const prefix = about === undefined ? "" : `${about}: `;
  const seen = new Set<unknown>();
  const open: unknown[] = [error];
  let innermost: Error | undefined;
  for (let current = open.shift(); current !== undefined; current = open.shift()) {
    if (!(current instanceof Error) || seen.has(current)) continue;
    seen.add(current);
    if (current instanceof DriverError)
      return new DriverError(current.code, `${prefix}${current.message}`, error);
    const { apiId, serverErrorMessage, errors, cause } = current as LibraryError;
    if (typeof apiId === "string") {
      const text =
        typeof serverErrorMessage === "string" && serverErrorMessage !== ""
          ? `${serverErrorMessage} (${apiId})`
          : apiId;
      return new DriverError(meanings[apiId] ?? "retry", `${prefix}${text}`, error);
    }
    innermost = current;
    if (Array.isArray(errors)) open.push(...errors);
    if (cause !== undefined) open.push(cause);
  }
  const refused = (innermost as LibraryError | undefined)?.code === "PLT_KFK_AUTHENTICATION";
  return new DriverError(refused ? "access" : "retry", `${prefix}${messageOf(innermost ?? error)}`, error);
}

/** The number of the first protocol error in a thrown thing: what a protocol's state machine goes by. */
export function protocolCode(error: unknown): number | undefined {
  const cause = error instanceof DriverError ? error.cause : error;
  if (!(cause instanceof Error)) return undefined;
  const { errors } = cause as LibraryError;
  const first = Array.isArray(errors) ? (errors[0] as LibraryError | undefined) : (cause as LibraryError);
  return typeof first?.apiCode === "number" ? first.apiCode : undefined;
}

/** Protocol error codes that decide what happens next. */
export const ErrorCode = {
  offsetOutOfRange: 1,
  corruptMessage: 2,
  unknownTopicOrPartition: 3,
  leaderNotAvailable: 5,
  notLeader: 6,
  coordinatorLoading: 14,
  coordinatorNotAvailable: 15,
  notCoordinator: 16,
  illegalGeneration: 22,
  inconsistentGroupProtocol: 23,
  unknownMember: 25,
  rebalanceInProgress: 27,
  unsupportedVersion: 35,
  topicExists: 36,
  outOfOrderSequence: 45,
  duplicateSequence: 46,
  invalidProducerEpoch: 47,
  invalidProducerIdMapping: 49,
  unknownProducer: 59,
  groupNotFound: 69,
  memberIdRequired: 79,
  fencedMemberEpoch: 110,
} as const;
