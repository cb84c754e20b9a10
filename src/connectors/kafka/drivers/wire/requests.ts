import {
  type API,
  consumerGroupHeartbeatV1,
  createTopicsV7,
  describeConfigsV4,
  findCoordinatorV4,
  heartbeatV4,
  initProducerIdV4,
  initProducerIdV5,
  joinGroupV9,
  leaveGroupV5,
  listOffsetsV7,
  listOffsetsV8,
  listOffsetsV9,
  metadataV12,
  offsetFetchV8,
  offsetFetchV9,
  syncGroupV5,
} from "@platformatic/kafka";
import { DriverError } from "../../driver.ts";

/** A request that we write and read ourselves, in a range of versions. */
export interface OwnRequest {
  readonly name: string;
  readonly key: number;
  readonly oldest: number;
  readonly newest: number;
}

/** A request of the library in several versions, the newest first. */
export interface LibraryRequest<A extends unknown[], R> {
  readonly name: string;
  readonly versions: readonly API<A, R>[];
}

/** Topics are named by id since version 13; an id tells a topic from one that was made anew under its name. */
export const fetchRequest: OwnRequest = { name: "Fetch", key: 1, oldest: 13, newest: 17 };
/** Version 12 is for transactions alone, and from 13 on topics are named by id. */
export const produceRequest: OwnRequest = { name: "Produce", key: 0, oldest: 9, newest: 11 };

/** Topics are named by id since version 10. */
export const commitRequest: OwnRequest = { name: "OffsetCommit", key: 8, oldest: 8, newest: 10 };

export const metadataRequest = request("Metadata", [metadataV12.api]);
export const listOffsetsRequest = request("ListOffsets", [
  listOffsetsV9.api,
  listOffsetsV8.api,
  listOffsetsV7.api,
]);
export const describeConfigsRequest = request("DescribeConfigs", [describeConfigsV4.api]);
export const createTopicsRequest = request("CreateTopics", [createTopicsV7.api]);
export const findCoordinatorRequest = request("FindCoordinator", [findCoordinatorV4.api]);
export const offsetFetchRequest = request("OffsetFetch", [offsetFetchV9.api, offsetFetchV8.api]);
export const joinGroupRequest = request("JoinGroup", [joinGroupV9.api]);
export const syncGroupRequest = request("SyncGroup", [syncGroupV5.api]);
export const heartbeatRequest = request("Heartbeat", [heartbeatV4.api]);
export const leaveGroupRequest = request("LeaveGroup", [leaveGroupV5.api]);
export const initProducerIdRequest = request("InitProducerId", [initProducerIdV5.api, initProducerIdV4.api]);
/** Brokers before 4.0 have none, and later ones may be told to do without. */
export const groupHeartbeatRequest = request("ConsumerGroupHeartbeat", [consumerGroupHeartbeatV1.api]);

/** What a broker must understand for the driver to work at all. */
const required: readonly (OwnRequest | LibraryRequest<never[], unknown>)[] = [
  fetchRequest,
  produceRequest,
  metadataRequest,
  listOffsetsRequest,
  findCoordinatorRequest,
  offsetFetchRequest,
  commitRequest,
  joinGroupRequest,
  syncGroupRequest,
  heartbeatRequest,
  leaveGroupRequest,
  initProducerIdRequest,
] as readonly (OwnRequest | LibraryRequest<never[], unknown>)[];

export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

/** The versions of each request that one broker understands, by request key. */
export type BrokerVersions = ReadonlyMap<number, VersionRange>;

/** Refuses a broker that lacks something. */
export function checkVersions(versions: BrokerVersions, broker: string): void {
  for (const one of required) {
    if ("versions" in one) chooseApi(one, versions, broker);
    else chooseVersion(one, versions, broker);
  }
}

/** The newest version that we and the broker have in common. */
export function chooseVersion(request: OwnRequest, versions: BrokerVersions, broker: string): number {
  const range = versions.get(request.key);
  const version = Math.min(request.newest, range?.max ?? -1);
  if (range === undefined || version < request.oldest || version < range.min) {
    throw unsupported(request.name, [request.oldest, request.newest], range, broker);
  }
  return version;
}

export function chooseApi<A extends unknown[], R>(
  request: LibraryRequest<A, R>,
  versions: BrokerVersions,
  broker: string,
): API<A, R> {
  const range = versions.get(request.versions[0]!.key);
  const found = request.versions.find(
    ({ version }) => range !== undefined && version >= range.min && version <= range.max,
  );
  if (found === undefined) {
    const own = request.versions.map(({ version }) => version);
    throw unsupported(request.name, [Math.min(...own), Math.max(...own)], range, broker);
  }
  return found;
}

export function understands(request: LibraryRequest<never, unknown>, versions: BrokerVersions): boolean {
  const range = versions.get(request.versions[0]!.key);
  return (
    range !== undefined &&
    request.versions.some(({ version }) => version >= range.min && version <= range.max)
  );
}

function unsupported(
  name: string,
  own: readonly [number, number],
  range: VersionRange | undefined,
  broker: string,
): DriverError {
  const theirs = range === undefined ? "none" : `versions ${range.min} to ${range.max}`;
  const ours = own[0] === own[1] ? `version ${own[0]}` : `versions ${own[0]} to ${own[1]}`;
  return new DriverError(
    "unsupported",
    `broker ${broker} understands ${theirs} of ${name} requests, and the driver "wire" writes ${ours}: ${needed}`,
  );
}

const needed = 'it needs Kafka 3.2 or newer, kafka({ driver: "kafkajs" }) does with older ones';

/** For a broker that does not even understand the question what it understands. */
export function tooOld(broker: string): DriverError {
  return new DriverError(
    "unsupported",
    `broker ${broker} understands only requests of old, and nothing that the driver "wire" writes: ${needed}`,
  );
}

function request<A extends unknown[], R>(name: string, versions: readonly API<A, R>[]): LibraryRequest<A, R> {
  return { name, versions };
}
