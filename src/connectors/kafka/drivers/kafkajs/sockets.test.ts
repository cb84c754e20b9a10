import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type AddressInfo } from "node:net";
import { test } from "node:test";
import { systemClock } from "../../../../component/system.ts";
import { testContext } from "../../../../testing/context.ts";
import { kafkaSettings } from "../../options.ts";
import { kafkaJsDriver } from "./driver.ts";
import { openSocket, seedBroker } from "./sockets.ts";

const [skip, address] = await (async () => {
  const server = net.createServer().listen(0, "::1");
  try {
    await once(server, "listening");
    server.close();
    return [false, "::1"] as const;
  } catch {
    return ["needs IPv6", ""] as const;
  }
})();

test("an IPv6 address reaches the broker through kafkajs", { skip }, async (t) => {
  const server = net.createServer((socket) => void socket.destroy()).listen(0, address);
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const connected = once(server, "connection");
  const context = { ...testContext(), clock: systemClock };
  const client = kafkaJsDriver.connect(kafkaSettings({ brokers: `[::1]:${port}` }), context);
  const asked = client.offsets("t").then(
    () => "answered",
    () => "failed",
  );
  await Promise.race([connected, asked.then((how) => assert.fail(`${how}, and nobody connected`))]);
  await client.close(systemClock.now() + 1_000);
  await asked;
});

test("only an IPv6 address is given in another form", () => {
  assert.deepEqual(["a:1", "127.0.0.1:2", "[fe80::1]:3"].map(seedBroker), [
    "a:1",
    "127.0.0.1:2",
    "[fe80//1]:3",
  ]);
});

test("a broker that names itself by an IPv6 address is connected to as it is", { skip }, async (t) => {
  const server = net.createServer().listen(0, address);
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = await new Promise<net.Socket>((resolve, reject) => {
    const opened = openSocket({
      host: "::1",
      port,
      ssl: undefined as never,
      onConnect: () => resolve(opened),
    });
    opened.on("error", reject);
  });
  socket.destroy();
});
