import { createServer } from "node:net";

/**
 * Below the kernel's ephemeral range (32768 and up on Linux) on purpose: while a killed broker is down, a
 * client that keeps dialling an ephemeral port can be given that very port as its own and connect to itself,
 * and then the broker cannot come back.
 */
const FIRST = 20_000;
const LAST = 26_000;

/**
 * Test files run side by side, and a broker takes seconds to open its port, or is down for a while. So a port is
 * claimed by listening that much higher, which ends with the process. Not on the port itself: RabbitMQ refuses one that
 * is taken at any address.
 */
const CLAIM = 6_000;

/** A loopback TCP port on which nothing listens now, and which no other call is given while this process runs. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST));
    if ((await claim(port)) && (await isFree(port))) return port;
  }
  throw new Error(`no free loopback port between ${FIRST} and ${LAST}`);
}

function claim(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => resolve(false));
    server.listen({ port: port + CLAIM, host: "127.0.0.1", exclusive: true }, () => resolve(true));
    server.unref();
  });
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
