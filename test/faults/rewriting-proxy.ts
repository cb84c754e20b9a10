import { once } from "node:events";
import { createServer, connect as dial, type Socket } from "node:net";
import type { TestContext } from "node:test";
import type { Door } from "../brokers/kafka.ts";
import { FrameSplitter } from "./frames.ts";
import { kafkaFrames } from "./kafka-frames.ts";

/** A broker's reply as its client shall see it; `frame` has the length at its beginning. */
export type Rewrite = (kind: string, frame: Buffer) => Buffer;

/** Stands in a broker's door and changes what the broker says, reply by reply. Returns the address to go to. */
export async function rewriteReplies(t: TestContext, door: Door, rewrite: Rewrite): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const broker = dial({ host: "127.0.0.1", port: door.listens });
    const { request, reply } = kafkaFrames();
    const requests = new FrameSplitter(request);
    const replies = new FrameSplitter(reply);
    for (const [socket, other] of [
      [client, broker],
      [broker, client],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroySoon();
      });
    }
    client.on("data", (portion) => {
      for (const { bytes } of requests.split(portion)) broker.write(bytes);
    });
    let kind = "";
    let pieces: Buffer[] = [];
    let missing = 0;
    broker.on("data", (portion) => {
      for (const piece of replies.split(portion)) {
        if (piece.kind !== undefined) {
          kind = piece.kind;
          pieces = [];
          missing = 4 + piece.bytes.readInt32BE(0);
        }
        pieces.push(piece.bytes);
        missing -= piece.bytes.length;
        if (missing === 0) client.write(rewrite(kind, Buffer.concat(pieces)));
      }
    });
  });
  server.listen(door.advertised, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `127.0.0.1:${door.advertised}`;
}
