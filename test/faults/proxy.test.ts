/** The proxy against servers of a few lines, frame by frame, and against real brokers with real clients. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { connect } from "amqplib";
import { freshName, needs, ownKafka, sharedRabbitmq } from "../brokers/index.ts";
import { until } from "../brokers/until.ts";
import { quietKafka, readTopic } from "../kafka-log.ts";
import { amqpFrames } from "./amqp-frames.ts";
import { FrameSplitter, type Protocol } from "./frames.ts";
import { kafkaFrames } from "./kafka-frames.ts";
import { Faults, TcpProxy } from "./proxy.ts";

const produce = 0;
const fetch = 1;

function kafkaRequest(api: number, correlation: number, body = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(12);
  head.writeInt32BE(8 + body.length, 0);
  head.writeInt16BE(api, 4);
  head.writeInt32BE(correlation, 8);
  return Buffer.concat([head, body]);
}

function kafkaReply(correlation: number): Buffer {
  const reply = Buffer.alloc(8);
  reply.writeInt32BE(4, 0);
  reply.writeInt32BE(correlation, 4);
  return reply;
}

function amqpMethod(classId: number, methodId: number): Buffer {
  const frame = Buffer.alloc(12);
  frame[0] = 1;
  frame.writeUInt16BE(1, 1);
  frame.writeUInt32BE(4, 3);
  frame.writeUInt16BE(classId, 7);
  frame.writeUInt16BE(methodId, 9);
  frame[11] = 0xce;
  return frame;
}

/** A server that answers each request it knows, behind a proxy; `applied` lists the requests it has seen. */
async function bed(t: TestContext, protocol: Protocol, answer: (request: Buffer) => Buffer | undefined) {
  const applied: Buffer[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    const splitter = new FrameSplitter(protocol().request);
    let frame: Buffer[] = [];
    let length = 0;
    socket.on("data", (portion) => {
      for (const { kind, bytes } of splitter.split(portion)) {
        if (kind !== undefined) {
          frame = [];
          length = protocol().request(bytes)!.length;
        }
        frame.push(bytes);
        const whole = Buffer.concat(frame);
        if (whole.length < length) continue;
        applied.push(whole);
        const reply = answer(whole);
        if (reply !== undefined) socket.write(reply);
      }
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const faults = new Faults();
  const proxy = await TcpProxy.start(protocol, faults, 0, (server.address() as AddressInfo).port);
  t.after(() => proxy.close());
  const open = async () => {
    const socket = dial({ host: "127.0.0.1", port: proxy.port });
    await once(socket, "connect");
    t.after(() => socket.destroy());
    return new Client(socket);
  };
  return { applied, faults, proxy, open };
}

class Client {
  readonly socket: Socket;
  received: Buffer = Buffer.alloc(0);
  closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      this.received = Buffer.concat([this.received, bytes]);
    });
    socket.on("close", () => {
      this.closed = true;
    });
  }
}

const kafkaBed = (t: TestContext) => bed(t, kafkaFrames, (request) => kafkaReply(request.readInt32BE(8)));

test("frames are found in bytes of any portions, and nothing is lost of them", () => {
  const sent = Buffer.concat([
    kafkaRequest(produce, 1, Buffer.alloc(1_000, 1)),
    kafkaRequest(fetch, 2),
    kafkaRequest(99, 3, Buffer.alloc(5, 2)),
  ]);
  for (let size = 1; size <= sent.length; size++) {
    const splitter = new FrameSplitter(kafkaFrames().request);
    const pieces: Buffer[] = [];
    const kinds: string[] = [];
    for (let at = 0; at < sent.length; at += size) {
      for (const { kind, bytes } of splitter.split(sent.subarray(at, at + size))) {
        if (kind !== undefined) kinds.push(kind);
        pieces.push(bytes);
      }
    }
    assert.deepEqual(kinds, ["Produce", "Fetch", "api 99"]);
    assert.deepEqual(Buffer.concat(pieces), sent);
  }
});

test("AMQP's publishes, confirms, deliveries and acks are told apart", () => {
  const kinds = (direction: "request" | "reply", bytes: Buffer) =>
    [...new FrameSplitter(amqpFrames()[direction]).split(bytes)].map(({ kind }) => kind);
  const content = amqpMethod(0, 0);
  content[0] = 2;
  const heartbeat = Buffer.from([8, 0, 0, 0, 0, 0, 0, 0xce]);
  assert.deepEqual(
    kinds(
      "request",
      Buffer.concat([
        Buffer.from("AMQP\x00\x00\x09\x01"),
        amqpMethod(10, 11),
        amqpMethod(60, 40),
        content,
        amqpMethod(60, 80),
        heartbeat,
      ]),
    ),
    ["hello", "method 10.11", "publish", "content", "ack", "heartbeat"],
  );
  assert.deepEqual(kinds("reply", Buffer.concat([amqpMethod(60, 60), content, amqpMethod(60, 80)])), [
    "deliver",
    "content",
    "confirm",
  ]);
});

test("without a fault everything passes, large frames too", async (t) => {
  const { applied, open, proxy } = await kafkaBed(t);
  const client = await open();
  const large = kafkaRequest(produce, 1, Buffer.alloc(3_000_000, 7));
  client.socket.write(large);
  client.socket.write(kafkaRequest(fetch, 2));
  await until("both replies came", () => client.received.length === 16);
  assert.deepEqual(applied[0], large);
  assert.equal(proxy.connections, 1);
  client.socket.end();
  await until("the proxy has let go", () => proxy.connections === 0);
});

test("cut before the request: the broker has what came before, and not the request", async (t) => {
  const { applied, faults, open } = await kafkaBed(t);
  const client = await open();
  const struck = faults.inject({ direction: "request", kind: "Produce", nth: 2, action: "cut" });
  client.socket.write(kafkaRequest(produce, 1));
  client.socket.write(kafkaRequest(fetch, 2));
  await until("it answers", () => client.received.length === 16);
  client.socket.write(Buffer.concat([kafkaRequest(fetch, 3), kafkaRequest(produce, 4)]));
  await struck;
  await until("the client hears of it", () => client.closed);
  await until("the broker has the one before", () => applied.length === 3);
  assert.deepEqual(
    applied.map((request) => request.readInt32BE(8)),
    [1, 2, 3],
  );
});

test("cut before the reply: the broker has applied the request, and the client never hears so", async (t) => {
  const { applied, faults, open } = await kafkaBed(t);
  const [client, other] = [await open(), await open()];
  const struck = faults.inject({ direction: "reply", kind: "Produce", action: "cut" });
  client.socket.write(kafkaRequest(fetch, 1));
  client.socket.write(kafkaRequest(produce, 2));
  await struck;
  await until("the client hears of the end", () => client.closed);
  assert.equal(applied.length, 2);
  assert.deepEqual(client.received, kafkaReply(1));
  other.socket.write(kafkaRequest(produce, 3));
  await until("another connection is as before", () => other.received.length === 8);
});

test("a delay holds a frame and what is behind it, in one direction, and loses nothing", async (t) => {
  const { applied, faults, open } = await kafkaBed(t);
  const client = await open();
  const struck = faults.inject({ direction: "reply", kind: "Fetch", action: { delay: 150 } });
  const start = performance.now();
  client.socket.write(
    Buffer.concat([kafkaRequest(produce, 1), kafkaRequest(fetch, 2), kafkaRequest(fetch, 3)]),
  );
  await struck;
  await until("the requests were not held", () => applied.length === 3);
  await until("the reply in front came", () => client.received.length === 8);
  await until("the replies came", () => client.received.length === 24);
  assert.ok(performance.now() - start >= 149);
  assert.deepEqual(client.received, Buffer.concat([1, 2, 3].map(kafkaReply)));
});

test("a black hole swallows one direction and keeps the connection open", async (t) => {
  const { applied, faults, open } = await kafkaBed(t);
  const client = await open();
  const struck = faults.inject({ direction: "request", kind: "Produce", action: "black hole" });
  client.socket.write(kafkaRequest(fetch, 1));
  await until("it answers", () => client.received.length === 8);
  client.socket.write(kafkaRequest(produce, 2));
  client.socket.write(kafkaRequest(fetch, 3));
  await struck;
  const other = await open();
  other.socket.write(kafkaRequest(fetch, 4));
  await until("another connection answers", () => other.received.length === 8);
  assert.equal(applied.length, 2);
  assert.equal(client.closed, false);
});

test("every connection can be cut at once, and a fault be forgotten", async (t) => {
  const { faults, open, proxy } = await kafkaBed(t);
  const clients = [await open(), await open()];
  await until("both are through", () => proxy.connections === 2);
  faults.inject({ direction: "request", action: "cut" });
  faults.disarm();
  clients[0]!.socket.write(kafkaRequest(fetch, 1));
  await until("it answers", () => clients[0]!.received.length === 8);
  proxy.cutAll();
  await until("both hear of it", () => clients.every(({ closed }) => closed));
});

test("all that a Kafka client does goes through the proxies, and a lost reply leaves its record in the log", {
  ...needs("own kafka"),
  timeout: 120_000,
}, async (t) => {
  const kafka = await ownKafka(t, { brokers: 3, proxied: true });
  const faults = new Faults();
  const proxies = await Promise.all(
    kafka.doors.map(({ advertised, listens }) => TcpProxy.start(kafkaFrames, faults, advertised, listens)),
  );
  t.after(() => Promise.all(proxies.map((proxy) => proxy.close())));
  const topic = await kafka.createTopic("through", { partitions: 3, replication: 3 });
  const client = quietKafka(proxies.map(({ port }) => `127.0.0.1:${port}`).join(","));
  const admin = client.admin();
  await admin.connect();
  const { brokers } = await admin.describeCluster();
  await admin.disconnect();
  assert.deepEqual(brokers.map(({ port }) => port).toSorted(), proxies.map(({ port }) => port).toSorted());

  const producer = client.producer({ retry: { retries: 0 } });
  await producer.connect();
  await producer.send({ topic, messages: [{ value: "heard of", partition: 0 }] });
  const lost = faults.inject({ direction: "reply", kind: "Produce", action: "cut" });
  await assert.rejects(producer.send({ topic, messages: [{ value: "unheard of", partition: 1 }] }));
  await lost;
  const never = faults.inject({ direction: "request", kind: "Produce", action: "cut" });
  await assert.rejects(producer.send({ topic, messages: [{ value: "never", partition: 2 }] }));
  await never;
  await producer.disconnect();
  const values = (await readTopic(kafka.bootstrap, topic)).map(({ value }) => value);
  assert.deepEqual(values.toSorted(), ["heard of", "unheard of"]);
});

test("a publish whose confirm is cut is in RabbitMQ's queue, one that is cut itself is not", {
  ...needs("rabbitmq"),
  timeout: 180_000,
}, async (t) => {
  const url = new URL((await sharedRabbitmq()).url);
  const faults = new Faults();
  const proxy = await TcpProxy.start(amqpFrames, faults, 0, Number(url.port || 5672));
  t.after(() => proxy.close());
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  const queue = freshName("through");
  for (const [text, direction, kind] of [
    ["unheard of", "reply", "confirm"],
    ["never", "request", "publish"],
  ] as const) {
    const connection = await connect(url.href);
    connection.on("error", () => {});
    const closed = new Promise((resolve) => connection.once("close", resolve));
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => {});
    await channel.assertQueue(queue, { durable: true });
    const struck = faults.inject({ direction, kind, action: "cut" });
    channel.sendToQueue(queue, Buffer.from(text));
    await Promise.all([struck, closed]);
  }
  const connection = await connect(url.href);
  const channel = await connection.createChannel();
  const message = await channel.get(queue, { noAck: true });
  assert.equal(message !== false && message.content.toString(), "unheard of");
  assert.equal(await channel.get(queue, { noAck: true }), false);
  await channel.deleteQueue(queue);
  await connection.close();
});
