import { isIPv6 } from "node:net";
import { isUnset } from "../../component/environment.ts";
import type { OptionProblem } from "../../component/options.ts";

/** A broker's address. */
export interface Address {
  /** A name or an IP address; of an IPv6 address without its brackets. */
  readonly host: string;
  readonly port: number;
}

/** "host:port", or "[::1]:9092" for an IPv6 address; undefined for anything else. */
export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[(?<ipv6>[^\]]+)\]|(?<name>[\p{L}\p{N}._-]+)):(?<port>\d{1,5})$/u.exec(text);
  const { ipv6, name, port } = match?.groups ?? {};
  if (ipv6 !== undefined && !isIPv6(ipv6)) return undefined;
  const host = ipv6 ?? name;
  if (host === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return { host, port: Number(port) };
}

/** What is wrong with the addresses of a cluster. */
export function addressProblems(brokers: readonly string[]): OptionProblem[] {
  if (brokers.length === 0) {
    return [
      { code: "option-invalid", message: 'kafka: "brokers" names no address', remedy: 'give "host:9092"' },
    ];
  }
  return brokers
    .filter((broker) => !isUnset(broker) && parseAddress(broker) === undefined)
    .map((broker) => ({
      code: "option-invalid",
      message: `kafka: "brokers": "${withoutCredentials(broker)}" is not an address`,
      remedy: remedyFor(broker),
    }));
}

/** Some give a URL, with a password in it. */
function withoutCredentials(broker: string): string {
  return broker.replace(/[^/]*@/, "***@");
}

function remedyFor(broker: string): string {
  if (/^[a-z+]+:\/\//i.test(broker)) return 'give the address alone, without a protocol: "host:9092"';
  if (/[;\s]/.test(broker)) return 'separate addresses with commas: "host-1:9092,host-2:9092"';
  if (isIPv6(broker) || isIPv6(broker.replace(/:\d+$/, "")))
    return 'put the IPv6 address in brackets: "[::1]:9092"';
  if (/^[^:]+$/.test(broker)) return `add the port: "${broker}:9092"`;
  return 'give "host:port", with a port from 1 to 65535';
}
