import { connect, isIP } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ISocketFactory } from "kafkajs";
import { parseAddress } from "../../addresses.ts";

const keepAliveAfter = 60_000;

/**
 * An address for kafkajs, which cuts it at its first colon: an IPv6 address goes through it with slashes in place
 * of colons, as in "[//1]:9092", and {@link openSocket} puts them back.
 */
export function seedBroker(broker: string): string {
  const address = parseAddress(broker);
  if (address === undefined || !address.host.includes(":")) return broker;
  return `[${address.host.replaceAll(":", "/")}]:${address.port}`;
}

/** Opens a connection for kafkajs, as its own factory would but for the hosts of {@link seedBroker}. */
export const openSocket: ISocketFactory = ({ host: given, port, ssl, onConnect }) => {
  const host = given.startsWith("[") ? given.slice(1, -1).replaceAll("/", ":") : given;
  // `ssl` is undefined without TLS, whatever the type says. A certificate is for a name, never for an IP address.
  const socket = ssl
    ? connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}), ...ssl }, onConnect)
    : connect({ host, port }, onConnect);
  socket.setKeepAlive(true, keepAliveAfter);
  return socket;
};
