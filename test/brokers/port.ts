import { createServer } from "node:net";

/**
 * Below the kernel's ephemeral range (32768 and up on Linux) on purpose: while a killed broker is down, a
 * client that keeps dialling an ephemeral port can be given that very port as its own and connect to itself,
 * and then the broker cannot come back.
 */
const FIRST = 20_000;
const LAST = 32_000;

/**
 * Where ports are claimed: test files run side by side, and a broker takes seconds to open its port, or is down for a
 * while. A claim stands until its process ends.
 */
const CLAIMS = "127.0.0.2";

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
    // Systems without that address have no claims.
    server.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code === "EADDRNOTAVAIL"));
    server.listen({ port, host: CLAIMS, exclusive: true }, () => resolve(true));
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
